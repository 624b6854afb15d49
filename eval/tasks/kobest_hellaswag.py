"""KoBEST HellaSwag: which of four sentences goes on from the text?

The published tables give the F1 of the length-normalised prediction, so that one is the main one.
"""

from eval.fields import integer, text
from eval.task import Field, Prompt, Source, Task

ORIGINAL = Prompt(
    context=lambda row: f"문장: {row['context']}",
    choices=lambda row: tuple(row[f"ending_{i}"] for i in range(1, 5)),
)

TASK = Task(
    name="kobest_hellaswag",
    title="HellaSwag",
    version=1,
    source=Source(
        fields=(
            Field("context", text),
            *(Field(f"ending_{i}", text, column=f"choice{i}") for i in range(1, 5)),
            Field("label", integer(0, 3)),
        ),
        words=("HellaSwag",),
        hub="skt/kobest_v1",
        config="hellaswag",
    ),
    prompts={"original": ORIGINAL, "modified": ORIGINAL},
    gold=lambda row: row["label"],
    metrics=("macro_f1_norm", "macro_f1", "acc_norm", "acc"),
)
