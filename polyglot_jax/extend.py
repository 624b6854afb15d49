"""Adds tokens to a byte-level BPE tokenizer and rows to the model that knows it.

    python -m polyglot_jax.extend --tokenizer=tokenizer.json --new_tokens=FILE --output=longer.json

extends a tokenizer that no model knows yet; `polyglot_jax.convert` does both at once.

The one idea: new merges come after all old ones, so a text is first cut as before and then some
neighbours are joined. So old ids keep their meaning, every new token is a row of old ones, and the
mean of their embeddings is the natural start of its own. A word that needs more than one join needs
the steps in between as tokens too; those are added with it.
"""

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from absl import flags
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from tokenizers import Tokenizer, pre_tokenizers

from polyglot_jax import cli, files
from polyglot_jax.data.documents import check_lossless, token_table, tokenizer_for_documents

ROWS = 128  # the rows of a model's vocabulary are a multiple of this, as GPT-NeoX pads them


@dataclass(frozen=True)
class Extension:
    """A tokenizer with more tokens, and the old ids that each new one is made of."""

    tokenizer_json: bytes
    first_id: int  # of the new tokens; they have consecutive ids
    pieces: tuple[tuple[int, ...], ...]  # by new token
    words: int  # of the new tokens those that were asked for as words
    steps: int  # those that had to be added on the way to a word
    special_tokens: tuple[str, ...]
    known: int  # words that were a token before
    unusable: int  # tokens of the other tokenizer that no text gives here

    @property
    def num_tokens(self) -> int:
        return self.first_id + len(self.pieces)

    def summary(self) -> str:
        """Returns one sentence on what was added, and what was not."""
        text = (
            f"{len(self.pieces):,} new tokens from id {self.first_id:,} on: {self.words:,} words, "
            f"{self.steps:,} steps on the way to them, {len(self.special_tokens):,} special tokens"
        )
        left_out = {"known before": self.known, "never given by a text": self.unusable}
        listed = ", ".join(f"{n:,} {why}" for why, n in left_out.items() if n)
        return f"{text}; left out {listed}" if listed else text


def read_words(path: epath.PathLike) -> list[str]:
    """Returns the words to add: the lines of a text file, or the tokens of a `*.json` tokenizer.

    A line is taken as it stands: a word after a blank is another token than the same word without.
    Of another tokenizer come the learnt tokens that are whole characters, in its own order.

    Raises:
      ValueError: the file is not UTF-8, has no words, or is no byte-level tokenizer.
      OSError: it cannot be read.
    """
    path = epath.Path(path)
    data = path.read_bytes()
    if path.suffix == ".json":
        try:
            other = Tokenizer.from_str(data.decode())
        except Exception as error:  # tokenizers raises bare Exception
            raise ValueError(f"{path}: not a tokenizer.json ({error!r})") from None
        added, table = other.get_added_tokens_decoder(), token_table(other, str(path))
        texts = [t.decode(errors="replace") for i, t in enumerate(table) if i not in added]
        words = [text for text in texts if "\ufffd" not in text]
    else:
        try:
            # utf-8-sig: a word after the mark that some editors write would be another one.
            words = [line.removesuffix("\r") for line in data.decode("utf-8-sig").split("\n")]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 at byte {error.start + 1}") from None
    words = [word for word in dict.fromkeys(words) if word]
    if not words:
        raise ValueError(f"{path} holds no words")
    return words


def extend_tokenizer(
    tokenizer_json: bytes,
    where: str,
    words: Sequence[str] = (),
    special_tokens: Sequence[str] = (),
    *,
    skip_unusable: bool = False,
    most_ids: int | None = None,
) -> Extension:
    """Returns a tokenizer that has the words and special tokens too, after its old ids.

    Args:
      where: the name of the tokenizer in errors.
      words: joined by merges from what they were cut into before.
      special_tokens: found whole in any text, before anything else, as those of chat roles.
      skip_unusable: count words that the pre-tokenizer cuts, instead of refusing them.
      most_ids: of the result; the words end before the first that does not fit. None: no limit.
    Raises:
      ValueError: not a lossless byte-level BPE; a word that the pre-tokenizer cuts, since no text
        would give it; a special token that is there already; nothing to add.
    """
    check_lossless(tokenizer_json, where)
    old = tokenizer_for_documents(tokenizer_json, where)
    values = json.loads(tokenizer_json)
    model = values["model"]
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"{where}: its model is {model['type']}; only byte-level BPE is extended")
    vocab: dict[str, int] = model["vocab"]
    # As tokenizers reads a file, an added token outside the vocabulary gets a number by its size,
    # which would now be another.
    added = {token["content"]: token["id"] for token in values["added_tokens"]}
    vocab |= added
    for special in special_tokens:
        if not re.fullmatch(r"[<\[]\S*\w\S*[>\]]", special):  # a word would be one in any text
            raise ValueError(f"special token {special!r} must look like <|user|> or [INST]")
    taken = [token for token in special_tokens if token in vocab or token in words]
    if taken or len(set(special_tokens)) < len(special_tokens):
        named = taken[0] if taken else ", ".join(special_tokens)
        raise ValueError(f"{where}: special token {named!r} is there already or named twice")

    first = max(vocab.values()) + 1
    room = math.inf if most_ids is None else most_ids - first - len(special_tokens)
    if room < 0:
        raise ValueError(f"{where}: {most_ids} ids are too few; {first} are there already")
    merger = _Merger(old, frozenset(vocab))
    known = unusable = 0
    wanted = set()
    for word in words:
        token = _as_one_piece(old, word)
        if token is None:
            if not skip_unusable:
                raise ValueError(
                    f"{where}: {word!r} can be no token, since its pre-tokenizer cuts it; "
                    "give its parts, or a special token"
                )
            unusable += 1
        elif token in vocab or word in added:
            known += 1
        elif len(merger.tokens) + merger.missing(token) > room:
            break
        else:
            wanted.add(token)
            merger.learn(token)
    if not wanted and not special_tokens:
        raise ValueError(
            f"{where}: nothing to add; {known} words are tokens already and {unusable} can be none"
            + (f", and the next does not fit {most_ids} ids" if room < math.inf else "")
        )
    new = list(merger.tokens)
    vocab |= {token: first + i for i, token in enumerate([*new, *special_tokens])}
    old_style = bool(model["merges"]) and isinstance(model["merges"][0], str)
    model["merges"] += [" ".join(pair) if old_style else list(pair) for pair in merger.merges]
    values["added_tokens"] += [_added(vocab[token], token) for token in special_tokens]
    pieces = [[piece.id for piece in old.model.tokenize(token)] for token in new]
    pieces += [old.encode(token, add_special_tokens=False).ids for token in special_tokens]
    return Extension(
        tokenizer_json=(json.dumps(values, ensure_ascii=False, indent=2) + "\n").encode(),
        first_id=first,
        pieces=tuple(map(tuple, pieces)),
        words=len(wanted),
        steps=len(set(new) - wanted),
        special_tokens=tuple(special_tokens),
        known=known,
        unusable=unusable,
    )


def _as_one_piece(tokenizer: Tokenizer, word: str) -> str | None:
    """Returns a word in the alphabet of bytes; None if it is cut before merges see it."""
    pieces = tokenizer.pre_tokenizer.pre_tokenize_str(word)
    if len(pieces) != 1:
        return None
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelt = whole.pre_tokenize_str(word)[0][0]
    return spelt if pieces[0][0] == spelt else None


def _added(i: int, token: str) -> dict[str, Any]:
    off = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": token, **off, "special": True}


class _Merger:
    """Learns merges that follow those of a tokenizer, and knows what they make of a word."""

    def __init__(self, old: Tokenizer, old_tokens: frozenset[str]) -> None:
        self.tokens: dict[str, None] = {}  # new ones, in order
        self.merges: dict[tuple[str, str], int] = {}
        self._old, self._old_tokens = old, old_tokens

    def learn(self, token: str) -> None:
        """Adds the merges, and the tokens on the way, by which `token` becomes one token.

        Merges learnt later never undo that: they apply only where no earlier one does.
        """
        while len(pieces := self._cut(token)) > 1:
            # A merge that gives an old token, which the old ones could not, would set those off.
            pairs = itertools.pairwise(pieces)
            pair = next((p for p in pairs if "".join(p) not in self._old_tokens), None)
            if pair is None:
                raise ValueError(f"{token!r} can be no token: parts of it are, but never formed")
            self.merges[pair] = len(self.merges)
            self.tokens["".join(pair)] = None

    def missing(self, token: str) -> int:
        """Returns how many tokens `learn` would add, at most."""
        return len(self._cut(token)) - 1

    def _cut(self, token: str) -> list[str]:
        # No old merge joins a new token, so the old ones are done before the first new one.
        pieces = [piece.value for piece in self._old.model.tokenize(token)]
        while True:
            pairs = list(itertools.pairwise(pieces))
            ranked = [(self.merges[pair], i) for i, pair in enumerate(pairs) if pair in self.merges]
            if not ranked:
                return pieces
            _, i = min(ranked)
            pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]


def padded(num_tokens: int, old_rows: int) -> int:
    """Returns the rows of the extended model: padding is used first, then it grows by ROWS."""
    return -(-max(num_tokens, old_rows) // ROWS) * ROWS


def extend_params(params: Mapping[str, Any], extension: Extension) -> Any:
    """Returns the parameters (numpy) of `models.neox` with rows for the new tokens.

    A new token's row, in the embedding and in the head, is the mean of those of its pieces. Rows
    that remain padding are the mean of the old padding, which training has pushed down; of all
    rows, where there was no padding.
    """
    flat = flatten_dict(params, sep="/")
    flat["embed_in"] = _extend_rows(flat["embed_in"], extension)
    kernel_DV = flat["embed_out/kernel"]
    flat["embed_out/kernel"] = np.ascontiguousarray(_extend_rows(kernel_DV.T, extension).T)
    return unflatten_dict(flat, sep="/")


def _extend_rows(old_VD: np.ndarray, extension: Extension) -> np.ndarray:
    first, end = extension.first_id, extension.num_tokens
    padding = old_VD[first:] if len(old_VD) > first else old_VD
    new_VD = np.empty((padded(end, len(old_VD)), old_VD.shape[1]), old_VD.dtype)
    new_VD[: len(old_VD)] = old_VD
    new_VD[len(old_VD) :] = padding.mean(0, dtype=np.float64)
    for i, pieces in enumerate(extension.pieces, first):
        new_VD[i] = old_VD[list(pieces)].mean(0, dtype=np.float64)
    return new_VD


def main() -> None:
    values = flags.FLAGS
    tokenizer, output = epath.Path(values.tokenizer), epath.Path(values.output)
    if not (values.new_tokens or values.special_token):
        raise ValueError("give --new_tokens or --special_token: there is nothing to add")
    if output.is_dir():
        raise ValueError(f"--output={output} is a directory; name the tokenizer.json to write")
    extension = extend_tokenizer(
        tokenizer.read_bytes(),
        str(tokenizer),
        read_words(values.new_tokens) if values.new_tokens else (),
        values.special_token,
        skip_unusable=(values.new_tokens or "").endswith(".json"),
        most_ids=values.vocab_size,
    )
    files.write(output, extension.tokenizer_json)
    print(f"{output}: {extension.summary()}")


if __name__ == "__main__":
    flags.DEFINE_string("tokenizer", None, "The tokenizer.json to extend.")
    flags.DEFINE_string(
        "new_tokens", None, "Words to add, one a line; or a tokenizer.json whose tokens are added."
    )
    flags.DEFINE_multi_string(
        "special_token", [], "A special token to add, such as <|user|>. May be repeated."
    )
    flags.DEFINE_integer("vocab_size", None, "Most ids of the result; no limit if not given.")
    flags.DEFINE_string("output", None, "The tokenizer.json to write.")
    flags.mark_flags_as_required(["tokenizer", "output"])
    cli.run(main)
