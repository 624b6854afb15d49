"""What the encoder makes token ids of: the texts of document files, and a tokenizer fit for them.

Nothing is repaired or passed over here: a document that is not text is an error that names file
and line, because a corpus that silently lost documents cannot be told from a whole one.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath
from tokenizers import Tokenizer

from polyglot_jax.corpus import readers
from polyglot_jax.tokens import END_OF_TEXT, PLACEHOLDERS


def read_texts(path: epath.Path) -> Iterator[bytes]:
    """Yields the `text` of each document as UTF-8, in the order of the file.

    Raises:
      ValueError: the file is damaged, or a line (row) holds no text; both are counted from 1.
    """
    for item in readers.read(path):
        if isinstance(item, readers.Reject):
            where = f"{item.file}, line {item.row}" if item.row else item.file  # 0: all of it
            raise ValueError(f"{where}: {item.reason}")
        yield item.text.encode()


def tokenizer_for_documents(tokenizer_json: bytes, where: str) -> Tokenizer:
    """Returns the tokenizer that turns documents into ids: no text becomes a special token.

    The placeholders of personal data are the exception. They are made ordinary added tokens, which
    are still found in text when `encode_special_tokens` turns that off for the special ones.

    Raises:
      ValueError: not a tokenizer, or one without the separator; the line starts with `where`.
    """
    try:
        values = json.loads(tokenizer_json)
        for token in values["added_tokens"]:
            if token["content"] in (END_OF_TEXT, *PLACEHOLDERS):
                token["special"] = token["content"] == END_OF_TEXT
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{where}: not a tokenizer.json ({error!r})") from None
    tokenizer = _tokenizer(json.dumps(values), where)
    if not any(token["content"] == END_OF_TEXT for token in values["added_tokens"]):
        raise ValueError(f"{where}: has no {END_OF_TEXT}, which must end every document")
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _tokenizer(text: str, where: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # of that very class
        raise ValueError(f"{where}: not a tokenizer.json ({error!r})") from None


def token_table(tokenizer: Tokenizer, where: str) -> tuple[bytes, ...]:
    """Returns the bytes of text behind each id: of an added token its name, of no token nothing.

    Raises:
      ValueError: the tokenizer is not byte-level; the line starts with `where`.
    """
    alphabet = _byte_alphabet()
    added = tokenizer.get_added_tokens_decoder()
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    table = [b""] * (max(vocab.values()) + 1)
    for token, i in vocab.items():
        if i in added:
            table[i] = token.encode()
        elif alphabet.keys() >= set(token):
            table[i] = bytes(alphabet[char] for char in token)
        else:
            raise ValueError(f"{where}: token {token!r} is not of a byte-level tokenizer")
    return tuple(table)


def check_lossless(tokenizer_json: bytes, where: str) -> None:
    """Checks that a byte-level tokenizer is made to keep every byte of a text.

    A Split that removes a rare character, as the published tokenizer's, passes: the encoder counts
    the documents that lose something by it.

    Raises:
      ValueError: it normalizes, adds a space, has no token for some byte, or drops common text.
    """
    tokenizer = tokenizer_for_documents(tokenizer_json, where)
    values = json.loads(tokenizer_json)
    missing = _byte_alphabet().keys() - tokenizer.get_vocab(with_added_tokens=False).keys()
    ids = tokenizer.encode(_COMMON, add_special_tokens=False).ids
    table = token_table(tokenizer, where)
    back = b"".join(table[i] for i in ids).decode(errors="replace")
    for problem, wrong in {
        "it has a normalizer": values.get("normalizer") is not None,
        "its pre_tokenizer has add_prefix_space": _adds_space(values.get("pre_tokenizer")),
        f"it has no token for {len(missing)} of the 256 bytes": bool(missing),
        f"{_COMMON!r} comes back as {back!r}": back != _COMMON,
    }.items():
        if wrong:
            raise ValueError(
                f"{where}: would change the text of documents ({problem}); "
                "use a lossless byte-level tokenizer, such as tokenizer.train writes"
            )


_COMMON = "Aa 가나, \u1100\u1161  3.5\n\n\t끝 😀"


def _adds_space(pre_tokenizer: Any) -> bool:
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}])
    return any(step.get("add_prefix_space") for step in steps)


def token_bytes(tokenizer_json: bytes, where: str) -> np.ndarray:
    """Returns uint16[vocab_size], the UTF-8 bytes of text behind each id.

    They are 0 for special tokens, and for placeholders however the file marks them: a mask is no
    text of a document's author.

    Raises:
      ValueError: as `token_table`.
    """
    tokenizer = _tokenizer(tokenizer_json.decode(), where)
    sizes = np.array([len(text) for text in token_table(tokenizer, where)], np.uint16)
    for i, token in tokenizer.get_added_tokens_decoder().items():
        if token.special or token.content in PLACEHOLDERS:
            sizes[i] = 0
    return sizes


def _byte_alphabet() -> dict[str, int]:
    """Returns the byte that each character of a byte-level vocabulary stands for.

    GPT-2's table: printable Latin-1 characters are themselves, the other bytes follow from U+0100.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    others = [byte for byte in range(256) if byte not in printable]
    shifted = {chr(256 + i): byte for i, byte in enumerate(others)}
    return {chr(byte): byte for byte in printable} | shifted
