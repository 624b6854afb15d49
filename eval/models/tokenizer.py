"""Text to ids and back for every backend: the fast tokenizer of a model, without special tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import tokenizers


@dataclass(frozen=True)
class PlainTokenizer:
    """A fast tokenizer that adds no special token and reads none from the text."""

    fast: tokenizers.Tokenizer

    def __post_init__(self) -> None:
        self.fast.encode_special_tokens = True
        self.fast.no_truncation()
        self.fast.no_padding()

    def encode(self, text: str) -> list[int]:
        return self.fast.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text; special tokens show as their names."""
        return self.fast.decode(list(ids), skip_special_tokens=False)


def check_prompts(prompts: Sequence[tuple[int, ...]], room: int, max_new_tokens: int) -> None:
    """Raises ValueError as `eval.request.Model.generate` says."""
    if room < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} leaves no room for a prompt")
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {number} is empty; begin it with the end-of-text token")
