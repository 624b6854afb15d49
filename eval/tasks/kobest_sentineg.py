"""KoBEST SentiNeg: is the review, often with a negation, good or bad?"""

from eval.fields import integer, text
from eval.task import Field, Prompt, Row, Source, Task


def _labels(row: Row) -> tuple[str, ...]:
    return "부정", "긍정"


ORIGINAL = Prompt(
    context=lambda row: f"문장: {row['sentence']} 긍부정:",
    choices=_labels,
)
MODIFIED = Prompt(
    context=lambda row: (
        f"다음 문장에서 느껴지는 감정을 답하시오.\n\n문장: {row['sentence']}\n정답:"
    ),
    choices=_labels,
)

TASK = Task(
    name="kobest_sentineg",
    title="SentiNeg",
    version=1,
    source=Source(
        fields=(
            Field("sentence", text, column="Text"),
            Field("label", integer(0, 1), column="Label"),
        ),
        words=("SentiNeg",),
        hub="skt/kobest_v1",
        config="sentineg",
    ),
    prompts={"original": ORIGINAL, "modified": MODIFIED},
    gold=lambda row: row["label"],
    labels=("부정", "긍정"),
    metrics=("macro_f1", "acc"),
)
