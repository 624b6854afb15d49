"""Minimal pairs: which of two sentences is the more probable, the acceptable one or the other?

For any files in the schema of BLiMP (Warstadt et al., arXiv 1912.00582): JSON lines with
`sentence_good`, `sentence_bad` and the phenomenon (`phenomenon`, or BLiMP's `linguistics_term`).
The whole sentence is scored, its first token after the end of a text.
"""

from eval.fields import text
from eval.task import Field, Prompt, Row, Source, Task


def _sentences(row: Row) -> tuple[str, ...]:
    return row["sentence_good"], row["sentence_bad"]


def _no_context(row: Row) -> str:
    return ""


TASK = Task(
    name="minimal_pairs",
    title="Minimal pairs",
    version=1,
    source=Source(
        fields=(
            Field("sentence_good", text),
            Field("sentence_bad", text),
            Field("phenomenon", text, column="linguistics_term"),
        ),
        words=("minimal_pairs", "blimp"),
        splits={"test": ("*",)},
    ),
    prompts={
        "original": Prompt(_no_context, _sentences, delimiter=""),
        "original/lm-eval": Prompt(_no_context, _sentences),
    },
    gold=lambda row: 0,
    extra=lambda row: {"phenomenon": row["phenomenon"]},
    metrics=("acc", "acc_norm", "acc_by_group", "acc_norm_by_group"),
)
