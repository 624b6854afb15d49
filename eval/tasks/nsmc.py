"""Naver sentiment movie corpus: is a review good or bad? By log-likelihood and by generation.

Polyglot-Ko was trained on text with NSMC in it, so its numbers are not clean. Prompts: "original"
is that of the `polyglot` branch of lm-evaluation-harness; the "koalpaca" ones are those of
KoAlpaca's few-shot notebook, "kcc" that of a KCC 2023 paper on instruction tuning.
"""

from eval.fields import any_text, integer
from eval.task import Field, Prompt, Question, Row, Source, Task

LABELS = ("부정", "긍정")


def _labels(row: Row) -> tuple[str, ...]:
    return LABELS


PROMPTS = {
    "koalpaca-1": Prompt(lambda row: f"문장: {row['document']}\n감정:", _labels),
    "koalpaca-2": Prompt(
        lambda row: f"다음 문장은 긍정일까요 부정일까요?\n{row['document']}\n정답:", _labels
    ),
    "kcc": Prompt(lambda row: f"문장의 긍정, 부정을 분류하세요. {row['document']} 정답:", _labels),
}
ORIGINAL = Prompt(
    context=lambda row: row["document"],
    choices=lambda row: tuple(f"({label})" for label in LABELS),
)
SOURCE = Source(
    # A few reviews of the release are empty.
    fields=(Field("document", any_text), Field("label", integer(0, 1))),
    words=("nsmc", "ratings"),
    hub="e9t/nsmc",
)


def judge(question: Question, completion: str) -> int | None:
    """Returns the label that the first line is, brackets and a full stop aside."""
    line = completion.strip().partition("\n")[0].strip(" ().")
    return question.options.index(line) if line in question.options else None


CHOICE = Task(
    name="nsmc",
    title="NSMC",
    version=1,
    source=SOURCE,
    prompts={"original": ORIGINAL, **PROMPTS},
    gold=lambda row: row["label"],
    labels=LABELS,
    metrics=("acc", "macro_f1", "histogram"),
)
GENERATE = Task(
    name="nsmc_generate",
    title="NSMC, generated",
    version=1,
    source=SOURCE,
    prompts={"original": PROMPTS["koalpaca-1"], **PROMPTS},
    kind="generate",
    gold=lambda row: row["label"],
    labels=LABELS,
    metrics=("acc", "macro_f1", "invalid_rate", "histogram"),
    judge=judge,
    stop=("\n",),
    max_new_tokens=8,
)
