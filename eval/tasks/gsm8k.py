"""Word problems solved step by step: the number at the end of the solution counts.

For files of `question` and `answer`, the answer a number (HRM8K, Ko et al., arXiv 2501.02448) or a
solution that ends in `#### number` (GSM8K, Cobbe et al., arXiv 2110.14168). Shots show the
solution where there is one.
"""

import re
from fractions import Fraction

from eval.fields import any_text
from eval.task import Field, Prompt, Question, Row, Source, Task

_NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?"
# Where a solution says that this is the answer; the first rule that finds one counts, and of its
# finds the last.
_ANSWERS = (
    re.compile(r"\\boxed\{\s*\$?\s*(" + _NUMBER + ")"),
    re.compile(r"####\s*\$?(" + _NUMBER + ")"),
    re.compile(r"정답(?:은|:)?\s*:?\s*\$?(" + _NUMBER + ")"),
    re.compile(r"(" + _NUMBER + ")"),
)


def extract(solution: str) -> Fraction | None:
    """Returns the number that a solution arrives at."""
    for pattern in _ANSWERS:
        if found := pattern.findall(solution):
            return _number(found[-1])
    return None


def _number(text: str) -> Fraction | None:
    try:
        return Fraction(text.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return None


def _answer(cell: object) -> str:
    solution = cell if isinstance(cell, str) else str(cell)
    if extract(any_text(solution)) is None:
        raise ValueError("an answer with a number is wanted")
    return solution


def _shown(row: Row) -> str:
    solution, _, number = row["answer"].rpartition("####")
    return f"{solution.strip()}\n정답: {number.strip()}" if solution else f"정답: {number.strip()}"


def judge(question: Question, completion: str) -> int | None:
    """Returns 0 if the completion arrives at the right number, 1 if at another."""
    (right,) = question.options
    said = extract(completion)
    return None if said is None else int(said != extract(right))


TASK = Task(
    name="gsm8k_ko",
    title="GSM8K (HRM8K)",
    version=1,
    source=Source(
        fields=(Field("question", any_text), Field("answer", _answer)),
        words=("GSM8K", "HRM8K"),
        hub="HAERAE-HUB/HRM8K",
        config="GSM8K",
    ),
    prompts={
        "original": Prompt(
            context=lambda row: f"문제: {row['question'].strip()}\n풀이:",
            choices=lambda row: (row["answer"],),
            target=_shown,
        ),
        # That of lm-evaluation-harness's task `hrm8k_gsm8k`, for instruction-tuned models.
        "boxed": Prompt(
            context=lambda row: (
                "주어진 문제를 풀어보세요.\n문제를 푼 후, 최종 답변을 다음과 같은 형식으로 "
                f"작성하세요: $\\boxed{{N}}$.\n\n문제: {row['question'].strip()}\n답변:"
            ),
            choices=lambda row: (row["answer"],),
            target=_shown,
        ),
    },
    kind="generate",
    gold=lambda row: 0,
    metrics=("acc", "invalid_rate"),
    judge=judge,
    stop=("문제:",),
    max_new_tokens=512,
)
