"""Small sources and documents that the tests of this folder are about."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from polyglot_jax.config import DataConfig, DataPhase, SourceConfig
from polyglot_jax.data.encode import encode
from polyglot_jax.data.manifest import Manifest, write_manifest
from polyglot_jax.data.shards import write_shard, write_token_bytes

# ---- sources

T = 4
SHARDS = {"ko": [9, 30, 2, 12], "law": [41], "web": [7, 8, 6]}  # tokens by shard
HELD_OUT = {"ko": [4, 9], "law": [9], "web": [2]}
WINDOWS = {"ko": 13, "law": 10, "web": 5}


def stream_of(name: str, split: str, sizes: list[int]) -> np.ndarray:
    """Returns a source's tokens: unlike anywhere else, a separator (0) at the end of each shard."""
    rng = np.random.default_rng(len(name) + len(split))
    tokens = rng.integers(1, 1000, sum(sizes)).astype(np.uint16)
    tokens[np.cumsum(sizes) - 1] = 0
    return tokens


def write_source(root: Path, name: str, **changes: object) -> SourceConfig:
    write_token_bytes(root / name, np.arange(1000) % 5)
    for split, sizes in {"train": SHARDS[name], "held_out": HELD_OUT[name]}.items():
        tokens = np.split(stream_of(name, split, sizes), np.cumsum(sizes)[:-1])
        shards = [
            write_shard(root / name / split, f"shard-{i}", part, np.array([part.size]), part.size)
            for i, part in enumerate(tokens)
        ]
        manifest = Manifest(
            source=name,
            split=split,
            tokenizer_sha256=hashlib.sha256(b"{}").hexdigest(),
            vocab_size=1000,
            separator_id=0,
            dtype="uint16",
            seed=7,
            held_out_fraction=0.1,
            shards=tuple(shards),
        )
        write_manifest(root / name / split, replace(manifest, **changes))  # type: ignore[arg-type]
    return SourceConfig(path=str(root / name))


def plan(*phases: DataPhase, seq_len: int = T) -> DataConfig:
    return DataConfig(seq_len=seq_len, plan=phases)


# ---- documents

SPECIAL = ["<pad>", "<|endoftext|>", "<|acc|>", "<|tel|>", "<|rrn|>"]


def write_tokenizer(path: Path, special: list[str] = SPECIAL) -> Path:
    """Writes a byte-level tokenizer of 256 bytes, two merges and the special tokens behind them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*alphabet, "he", "hel"])}
    tokenizer = Tokenizer(models.BPE(vocab, [("h", "e"), ("he", "l")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer.save(str(path))
    return path


TEXTS = [
    *[f"문서 {i}: hello\n\n안녕하세요 😀 " + "가나다 " * (i % 13) for i in range(200)],
    "전화 <|tel|> 주민 <|rrn|> 계좌 <|acc|>\n끝",
    "사람이 쓴 <|endoftext|> 와 <pad>",
    "\r\n\u2028 \x00 줄",
]


def write_parquet(path: Path, texts: list) -> None:
    table = pa.table(
        {"text": pa.array(texts, pa.string()), "id": list(map(str, range(len(texts))))}
    )
    pq.write_table(table, path, compression="zstd")


def run(input_path: Path, tokenizer: Path, output: Path, **kwargs: object) -> None:
    settings = {"source": "tiny", "held_out_fraction": 0.1, "shard_tokens": 1500} | kwargs
    encode(str(input_path), str(tokenizer), str(output), **settings)  # type: ignore[arg-type]
