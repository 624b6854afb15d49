"""KoBEST BoolQ: is what is asked true of the paragraph? (Kim et al., arXiv 2204.04541.)"""

from eval.fields import boolean, integer, text
from eval.task import Field, Prompt, Source, Task

# The context's own space and the delimiter make two: the published tables were made so.
ORIGINAL = Prompt(
    context=lambda row: f"{row['paragraph']} 질문: {row['question']} 답변: ",
    choices=lambda row: ("아니오", "예"),
)
MODIFIED = Prompt(
    context=lambda row: (
        "다음 지문을 읽고 질문에 대하여 틀리면 아니 맞으면 예로 답하시오.\n\n"
        f"지문: {row['paragraph']}\n질문: {row['question']}\n정답:"
    ),
    choices=lambda row: ("아니", "예"),
)

TASK = Task(
    name="kobest_boolq",
    title="BoolQ",
    version=1,
    source=Source(
        fields=(
            Field("paragraph", text, column="Text"),
            Field("question", text, column="Question"),
            Field("label", integer(0, 1), column="Answer", parse_column=boolean),
        ),
        words=("BoolQ",),
        hub="skt/kobest_v1",
        config="boolq",
    ),
    prompts={"original": ORIGINAL, "modified": MODIFIED},
    gold=lambda row: row["label"],
    labels=("False", "True"),
    metrics=("macro_f1", "acc"),
)
