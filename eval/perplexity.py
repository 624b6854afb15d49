"""Perplexity and bits per byte of any text, by windows that roll over it as lm-eval's do."""

from collections.abc import Sequence

from eval.request import Answer, Request, Tokenizer
from eval.task import Question


def requests(
    question: Question, tokenizer: Tokenizer, end_of_text: int, max_length: int
) -> list[Request]:
    """Returns the windows of a question of kind "text", each with one choice."""
    raise NotImplementedError


def total(answers: Sequence[Answer]) -> Answer:
    """Returns the answers to a text's windows as one: the log-probability of the text."""
    raise NotImplementedError
