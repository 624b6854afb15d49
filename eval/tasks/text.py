"""Perplexity and bits per byte of any text: .txt files, or JSON lines or Parquet with `text`."""

from eval.fields import text
from eval.task import Field, Prompt, Source, Task

TASK = Task(
    name="text",
    title="Text",
    version=1,
    source=Source(
        fields=(Field("text", text),),
        words=("text", "texts"),
        splits={"test": ("*",)},
        documents=True,
    ),
    prompts={
        "original": Prompt(lambda row: "", lambda row: (row["text"],), delimiter=""),
    },
    kind="text",
    metrics=("perplexity",),
)
