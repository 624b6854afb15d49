"""What an evaluation asks of a model and what it answers: token ids in, log-probabilities out.

Tasks and protocols know text, models know token ids, and these few types are all that passes
between them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Request:
    """Continuations of one context, all ids; any number of choices, none of them empty.

    The context has at least one id: of a text without context, the model's `end_of_text`. One that
    is longer than the model loses its left end, for each choice as if it stood alone: of
    `context + choice` the last `max_length + 1` ids count, the last of which is only predicted.
    """

    context: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]

    def kept(self, choice: int, max_length: int) -> int:
        """Returns the tokens of the context that are left before a choice, by its number."""
        return min(len(self.context), max_length + 1 - len(self.choices[choice]))


@dataclass(frozen=True)
class Answer:
    """A value per choice of a request."""

    log_probs: tuple[float, ...]  # natural log, summed over the choice's tokens
    greedy: tuple[bool, ...]  # each token of the choice is the model's most probable one
    context_kept: tuple[int, ...]  # tokens of the context that were left after truncation


class Tokenizer(Protocol):
    """Text to ids and back; adds no special token and reads none from the text."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class Model(Protocol):
    """A language model to be measured."""

    @property
    def name(self) -> str: ...

    @property
    def content_hash(self) -> str:
        """Of weights, architecture and tokenizer: part of every cache key."""

    @property
    def engine(self) -> str:
        """What computes it and how precisely, as "jax-1 float32": part of every cache key."""

    @property
    def max_length(self) -> int:
        """Positions."""

    @property
    def end_of_text(self) -> int:
        """The token that stands before a text without context."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    def score(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yields (index of the request, its answer) as they are finished, in any order.

        Raises:
          ValueError: a request has an empty context, an empty choice, or a choice of more than
            max_length ids; before anything is computed.
        """

    def generate(
        self, prompts: Sequence[tuple[int, ...]], *, max_new_tokens: int, stop: Sequence[str]
    ) -> Iterator[tuple[int, str]]:
        """Yields (index of the prompt, greedy continuation), in any order.

        A continuation ends before the end of text or the first stop string, or after
        max_new_tokens. A prompt that leaves no room for these loses its left end.

        Raises:
          ValueError: a prompt is empty, or max_new_tokens leaves no room for any prompt.
        """
