"""KoBEST WiC: does a word mean the same in two contexts?"""

from eval.fields import boolean, integer, text
from eval.task import Field, Prompt, Source, Task

ORIGINAL = Prompt(
    context=lambda row: (
        f"문장1: {row['context_1']} 문장2: {row['context_2']} "
        f"두 문장에서 {row['word']}가 같은 뜻으로 쓰였나?"
    ),
    choices=lambda row: ("아니오", "예"),
)
MODIFIED = Prompt(
    context=lambda row: (
        f"다음 두 문장에서 단어 '{row['word']}'가 다른 의미로 쓰였으면 아니, "
        "같은 의미로 쓰였으면 예로 답하시오.\n\n"
        f"문장1: {row['context_1']}\n문장2: {row['context_2']}\n정답:"
    ),
    choices=lambda row: ("아니", "예"),
    shot_delimiter="  ",  # a slip of the branch that the numbers come from: shots have two spaces
)

TASK = Task(
    name="kobest_wic",
    title="WiC",
    version=1,
    source=Source(
        fields=(
            Field("word", text, column="Target"),
            Field("context_1", text, column="SENTENCE1"),
            Field("context_2", text, column="SENTENCE2"),
            Field("label", integer(0, 1), column="ANSWER", parse_column=boolean),
        ),
        words=("WiC",),
        hub="skt/kobest_v1",
        config="wic",
    ),
    prompts={"original": ORIGINAL, "modified": MODIFIED},
    gold=lambda row: row["label"],
    labels=("False", "True"),
    metrics=("macro_f1", "acc"),
)
