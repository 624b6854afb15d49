"""Documents on their way into token shards: Parquet or JSON lines in, UTF-8 texts out.

Nothing is repaired or passed over here: a document that is not text is an error that names file
and line, because a corpus that silently lost documents cannot be told from a whole one.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath
from tokenizers import Tokenizer, pre_tokenizers

from polyglot_jax.data.manifest import SEPARATOR

# The corpus pipeline masks personal data with these; they alone are special in plain text.
PLACEHOLDERS = ("<|acc|>", "<|tel|>", "<|rrn|>")

_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")
_ROWS = 256  # of a Parquet batch: documents of 1 MB must not fill the memory


def list_files(input_path: epath.PathLike) -> list[epath.Path]:
    """Returns the document files of an input: itself, or a directory's Parquet files by name.

    Raises:
      ValueError: there is nothing to read.
    """
    path = epath.Path(input_path)
    if path.is_dir():
        files = sorted(path.glob("*.parquet"), key=lambda file: file.name)
        if not files:
            raise ValueError(f"{path}: no *.parquet in this directory of documents")
        return files
    if not path.exists():
        raise ValueError(f"{path}: no such file or directory of documents")
    if not path.name.endswith(_SUFFIXES):
        raise ValueError(f"{path}: a file of documents ends in one of {', '.join(_SUFFIXES)}")
    return [path]


def read_texts(path: epath.Path) -> Iterator[bytes]:
    """Yields the `text` of each document as valid UTF-8, in the order of the file.

    Raises:
      ValueError: the file is damaged, or a line (row) holds no text; both are counted from 1.
    """
    with path.open("rb") as file:
        try:
            if path.name.endswith(".parquet"):
                yield from _parquet_texts(file, path)
            elif path.name.endswith(".gz"):
                yield from _json_texts(gzip.GzipFile(fileobj=file), path)
            else:
                yield from _json_texts(file, path)
        except (EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowException) as error:
            raise ValueError(f"{path}: damaged or cut off ({error})") from None


def _json_texts(lines: Any, path: epath.Path) -> Iterator[bytes]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{where}: not UTF-8 ({error})") from None
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{where}: not JSON ({error})") from None
        text = row.get("text") if isinstance(row, dict) else None
        if not isinstance(text, str):
            raise ValueError(f'{where}: expected an object with a string "text"')
        try:
            yield text.encode()
        except UnicodeEncodeError as error:  # a lone surrogate, written as "\ud800"
            raise ValueError(f"{where}: not Unicode text ({error})") from None


def _parquet_texts(file: IO[bytes], path: epath.Path) -> Iterator[bytes]:
    table = pq.ParquetFile(file)
    names = table.schema_arrow.names
    kind = table.schema_arrow.field("text").type if "text" in names else None
    if kind not in (pa.string(), pa.large_string()):
        raise ValueError(f'{path}: expected a string column "text", found {", ".join(names)}')
    number = 0
    for batch in table.iter_batches(batch_size=_ROWS, columns=["text"]):
        binary = pa.binary() if kind == pa.string() else pa.large_binary()
        for text in batch.column(0).cast(binary).to_pylist():  # Arrow does not check its UTF-8
            number += 1
            if text is None:
                raise ValueError(f"{path}, row {number}: the text is null")
            try:
                text.decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}, row {number}: not UTF-8 ({error})") from None
            yield text


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
            if token["content"] in (SEPARATOR, *PLACEHOLDERS):
                token["special"] = token["content"] == SEPARATOR
        tokenizer = Tokenizer.from_str(json.dumps(values))
    except Exception as error:  # tokenizers raises bare Exception
        raise ValueError(f"{where}: not a tokenizer.json ({error!r})") from None
    if not any(token["content"] == SEPARATOR for token in values["added_tokens"]):
        raise ValueError(f"{where}: has no {SEPARATOR}, which must end every document")
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def token_bytes(tokenizer_json: bytes, where: str) -> np.ndarray:
    """Returns uint16[vocab_size], the UTF-8 bytes of text behind each id; 0 for special tokens.

    Raises:
      ValueError: the tokenizer is not byte-level, so that bytes cannot be told from its tokens.
    """
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())  # one character stands for one byte
    tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    added = tokenizer.get_added_tokens_decoder()
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    sizes = np.zeros(max(vocab.values()) + 1, np.uint16)
    for token, i in vocab.items():
        if i in added:
            sizes[i] = 0 if added[i].special else len(token.encode())
        elif not alphabet.issuperset(token):
            raise ValueError(f"{where}: token {token!r} is not of a byte-level tokenizer")
        else:
            sizes[i] = len(token)
    return sizes
