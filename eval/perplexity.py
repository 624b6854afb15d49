"""Perplexity and bits per byte of any text, by windows that roll over it as lm-eval's do."""

from collections.abc import Sequence

from eval.request import Answer, Request, Tokenizer
from eval.task import Question


def requests(
    question: Question, tokenizer: Tokenizer, end_of_text: int, max_length: int
) -> list[Request]:
    """Returns the windows of a question of kind "text", each with one choice.

    Every token is predicted once. The first window stands after `end_of_text`; the others see
    what fits of the text before them: a last, short one much, the others one token (as lm-eval's
    `loglikelihood_rolling`). An empty text has no window.
    """
    (text,) = question.choices
    ids = tuple(tokenizer.encode(text))
    windows = []
    for start in range(0, len(ids), max_length):
        end = min(start + max_length, len(ids))
        context = ids[max(0, end - max_length - 1) : start] or (end_of_text,)
        windows.append(Request(context, (ids[start:end],)))
    return windows


def total(answers: Sequence[Answer]) -> Answer:
    """Returns the answers to a text's windows as one: the log-probability of the text."""
    return Answer(
        log_probs=(sum(answer.log_probs[0] for answer in answers),),
        greedy=(all(answer.greedy[0] for answer in answers),),
        context_kept=(min((answer.context_kept[0] for answer in answers), default=0),),
    )
