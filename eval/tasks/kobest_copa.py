"""KoBEST COPA: which of two sentences is the cause or the effect of the first?"""

from eval.fields import integer, one_of, text
from eval.task import Field, Prompt, Row, Source, Task

CONNECTORS = {"원인": "왜냐하면", "결과": "그래서"}


def _alternatives(row: Row) -> tuple[str, ...]:
    return row["alternative_1"], row["alternative_2"]


ORIGINAL = Prompt(
    context=lambda row: f"{row['premise']} {CONNECTORS[row['question']]}",
    choices=_alternatives,
)
# Two spaces before the connector, as lm-eval's task has had them since it was added.
LM_EVAL = Prompt(
    context=lambda row: f"{row['premise']}  {CONNECTORS[row['question']]}",
    choices=_alternatives,
)

TASK = Task(
    name="kobest_copa",
    title="COPA",
    version=1,
    source=Source(
        fields=(
            Field("premise", text, column="sentence"),
            Field("question", one_of(tuple(CONNECTORS))),
            Field("alternative_1", text, column="1"),
            Field("alternative_2", text, column="2"),
            Field("label", integer(0, 1), column="Answer", parse_column=integer(1, 2, minus=1)),
        ),
        words=("COPA",),
        hub="skt/kobest_v1",
        config="copa",
    ),
    prompts={"original": ORIGINAL, "original/lm-eval": LM_EVAL, "modified": ORIGINAL},
    gold=lambda row: row["label"],
    metrics=("macro_f1", "acc"),
)
