"""Text to token ids and back, piece by piece, for a byte-level tokenizer.

One token may end in the middle of a Hangul syllable, which is three bytes. So tokens become bytes
first, and bytes become text only when whole characters are there.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from etils import epath
from tokenizers import Tokenizer

from polyglot_jax.data.documents import token_table, tokenizer_for_documents
from polyglot_jax.tokens import END_OF_TEXT


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, and the bytes of each of its tokens."""

    tokenizer: Tokenizer
    token_bytes: tuple[bytes, ...]  # by id; a special token is its name
    end_of_text: int  # separates documents in training, so a text ends with it

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a prompt, the same as those of a training document.

        The empty prompt is `<|endoftext|>`: what follows it in training is a new document.
        """
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids or [self.end_of_text]


def load_vocabulary(path: epath.PathLike) -> Vocabulary:
    """Reads a tokenizer.json. Raises ValueError as `make_vocabulary`, and OSError."""
    return make_vocabulary(epath.Path(path).read_bytes(), str(path))


def make_vocabulary(tokenizer_json: bytes, where: str) -> Vocabulary:
    """Returns the vocabulary of the text of a tokenizer.json.

    Raises:
      ValueError: no tokenizer, not a byte-level one, or without `<|endoftext|>`; the line starts
        with `where`.
    """
    tokenizer = tokenizer_for_documents(tokenizer_json, where)
    table = token_table(tokenizer, where)
    return Vocabulary(tokenizer, table, tokenizer.get_vocab()[END_OF_TEXT])


class TextStream:
    """Tokens of one row in, its text out, each piece as soon as it is certain.

    Held back are bytes that do not make a whole character yet, and text that may turn out to be
    the beginning of a stop string. Joined, the pieces do not depend on how the text was cut into
    tokens. Bytes that can never be UTF-8 become U+FFFD; an unfinished character at the end is
    dropped.
    """

    def __init__(self, vocabulary: Vocabulary, stop: Sequence[str] = ()) -> None:
        self.done = False  # after `<|endoftext|>`, a stop string, or the last token
        self._vocabulary = vocabulary
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def push(self, token: int, *, last: bool = False) -> str:
        """Returns the text that has become certain; nothing once the row is done.

        Args:
          last: no token follows, so nothing is held back.
        """
        if self.done:
            return ""
        text = self._held
        if token != self._vocabulary.end_of_text:
            text += self._decoder.decode(self._vocabulary.token_bytes[token])
        cut = _first_stop(text, self._stop)
        self.done = last or cut is not None or token == self._vocabulary.end_of_text
        if cut is None:
            cut = len(text) if self.done else _certain(text, self._stop)
        self._held = text[cut:]
        return text[:cut]


def _first_stop(text: str, stop: Sequence[str]) -> int | None:
    """Returns where the stop string that is complete first begins."""
    found = [(i + len(s), i) for s in stop if (i := text.find(s)) >= 0]
    return min(found)[1] if found else None


def _certain(text: str, stop: Sequence[str]) -> int:
    """Returns how much of the text cannot be the beginning of a stop string."""
    beginnings = [n for s in stop for n in range(1, len(s)) if text.endswith(s[:n])]
    return len(text) - max(beginnings, default=0)
