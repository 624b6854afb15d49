"""The shard format: round trips, what a stranger may write, and every kind of damage."""

import dataclasses
import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts
from etils import epath

from polyglot_jax.data import shards
from polyglot_jax.data.manifest import Manifest, dtype_for, read_manifest, write_manifest
from polyglot_jax.data.shards import (
    open_split,
    read_token_bytes,
    verify,
    write_shard,
    write_token_bytes,
)

SEPARATOR = 2


def documents(sizes: list[int], vocab_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tokens and ends of random documents of the given sizes, separator included."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, vocab_size, sum(sizes)).astype(dtype_for(vocab_size))
    ends = np.cumsum(sizes)
    tokens[ends - 1] = SEPARATOR
    return tokens, ends


def write_source(root: Path, shard_sizes: list[list[int]], vocab_size: int = 300) -> np.ndarray:
    """Writes a whole source directory and returns the tokens of its train stream."""
    root.mkdir()
    (root / "tokenizer.json").write_text("{}")
    write_token_bytes(root, np.arange(vocab_size) % 7)
    stream = []
    for split in ("held_out", "train"):
        shards = []
        for i, sizes in enumerate(shard_sizes):
            tokens, ends = documents(sizes, vocab_size, seed=i)
            shards.append(
                write_shard(root / split, f"shard-{i:05d}", tokens, ends, 3 * len(tokens))
            )
            stream.append(tokens)
        write_manifest(
            root / split,
            Manifest(
                source="tiny",
                split=split,
                tokenizer_sha256=hashlib.sha256(b"{}").hexdigest(),
                vocab_size=vocab_size,
                separator_id=SEPARATOR,
                dtype=dtype_for(vocab_size),
                seed=7,
                held_out_fraction=0.1,
                shards=tuple(shards),
            ),
        )
    return np.concatenate(stream[len(shard_sizes) :])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_source(tmp_path / "tiny", [[5, 2, 9], [4], [1, 1, 30]])
    return tmp_path / "tiny"


@pytest.mark.parametrize("vocab_size", [300, 65_536, 65_537])
def test_round_trip(tmp_path: Path, vocab_size: int) -> None:
    stream = write_source(tmp_path / "tiny", [[70_000, 3], [5], [66_000]], vocab_size)
    store = open_split(tmp_path / "tiny" / "train")
    assert store.num_tokens == stream.size
    (whole,) = store.read([0], [stream.size])
    assert whole.dtype == (np.uint16 if vocab_size <= 65_536 else np.uint32)
    np.testing.assert_array_equal(whole, stream)
    np.testing.assert_array_equal(store.document_ends(), np.flatnonzero(stream == SEPARATOR) + 1)
    np.testing.assert_array_equal(
        read_token_bytes(tmp_path / "tiny", vocab_size), np.arange(vocab_size) % 7
    )
    verify(tmp_path / "tiny")


def test_windows_at_every_place_over_shard_edges(tmp_path: Path) -> None:
    stream = write_source(tmp_path / "tiny", [[5, 2], [1], [3], [2, 6]])
    store = open_split(tmp_path / "tiny" / "train")
    places = [
        (start, length)
        for start in range(stream.size)
        for length in range(1, stream.size - start + 1)
    ]
    windows = store.read(*zip(*places, strict=True))
    for (start, length), window in zip(places, windows, strict=True):
        np.testing.assert_array_equal(window, stream[start : start + length])


def test_manifest_round_trips_and_fingerprints(source: Path) -> None:
    manifest = read_manifest(source / "train")
    assert manifest.tokens == 52
    assert manifest.documents == 7
    assert manifest.bytes == 156
    assert Manifest.from_json(manifest.to_json(), "x") == manifest
    changed = dataclasses.replace(manifest, seed=8)
    assert changed.fingerprint() != manifest.fingerprint()
    assert len(manifest.fingerprint()) == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version 2 is not 1"),
        ({"extra": 1}, "expected the keys"),
        ({"seed": None}, "seed=None"),
        ({"seed": True}, "seed=True"),
        ({"held_out_fraction": 1}, "held_out_fraction=1 is not allowed"),
        ({"held_out_fraction": 1.5}, "held_out_fraction=1.5"),
        ({"tokens": 51}, "totals"),
        ({"dtype": "uint32"}, "dtype 'uint32'"),
        ({"separator_id": 300}, "separator_id"),
        ({"split": "test"}, "split 'test'"),
        ({"tokenizer_sha256": "00"}, "tokenizer_sha256='00'"),
        ({"shards": []}, "at least one"),
        ({"shards": {}}, "at least one"),
        ({"shards": [{}]}, r"shards\[0\]"),
        ({"shards.0.name": "../train/shard-00000"}, "name='../train"),
        ({"shards.0.name": "/etc"}, "name='/etc'"),
        ({"shards.0.name": ".."}, "name='..'"),
        ({"shards.0.name": "shard-00001"}, "named twice"),
        ({"shards.0.documents": 0}, "no document"),
        ({"shards.0.tokens": -5}, "tokens=-5"),
    ],
)
def test_strange_manifests_are_refused(source: Path, change: dict, message: str) -> None:
    path = source / "train" / "manifest.json"
    values = json.loads(path.read_text())
    for key, value in change.items():
        if key.startswith("shards."):
            values["shards"][0][key.split(".")[2]] = value
        else:
            values[key] = value
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message) as error:
        open_split(source / "train")
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_missing_key_is_refused(source: Path) -> None:
    path = source / "train" / "manifest.json"
    values = json.loads(path.read_text())
    del values["seed"]
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="expected the keys"):
        read_manifest(source / "train")


def test_manifest_missing_empty_or_cut_off(source: Path, tmp_path: Path) -> None:
    path = source / "train" / "manifest.json"
    text = path.read_bytes()
    for damaged in (b"", text[:-9], b"\xff" + text, b"[]"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"train/manifest\.json: .*encode again"):
            open_split(source / "train")
    path.unlink()
    for split in (source / "train", tmp_path / "nowhere" / "train"):
        with pytest.raises(ValueError, match=r"manifest\.json is missing.*encode --output"):
            open_split(split)


@pytest.mark.parametrize("array", ["tokens", "document_ends"])
def test_missing_and_truncated_arrays_are_found_at_open(source: Path, array: str) -> None:
    file = source / "train" / "shard-00001" / array / "c" / "0"
    whole = file.read_bytes()
    for size in (0, 100, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"{file} has {size} bytes instead of {len(whole)}"):
            open_split(source / "train")
    file.unlink()
    with pytest.raises(ValueError, match=f"{file} is missing"):
        open_split(source / "train")


@pytest.mark.parametrize(("key", "value"), [("shape", [5]), ("data_type", "uint32")])
def test_array_of_other_shape_or_dtype_is_found_at_open(
    source: Path, key: str, value: object
) -> None:
    path = source / "train" / "shard-00001" / "tokens" / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=r"shard-00001/tokens is damaged .*run .* again"):
        open_split(source / "train")
    path.unlink()
    with pytest.raises(ValueError, match="shard-00001/tokens is damaged"):
        open_split(source / "train")


def flip(file: Path, byte: int) -> None:
    values = bytearray(file.read_bytes())
    values[byte] ^= 1
    file.write_bytes(values)


@pytest.mark.parametrize("byte", [3, -10])  # a token, and the index of the chunks
def test_flipped_bit_is_found_at_read(source: Path, byte: int) -> None:
    flip(source / "train" / "shard-00001" / "tokens" / "c" / "0", byte)
    store = open_split(source / "train")
    store.read([0], [16])
    with pytest.raises(ValueError, match=r"shard-00001/tokens is damaged.*[Dd]igest") as error:
        store.read([0], [17])
    assert "tensorstore_spec" not in str(error.value)
    with pytest.raises(ValueError, match="shard-00001/tokens is damaged"):
        verify(source)


def test_file_lost_after_opening_is_no_zeros(source: Path) -> None:
    store = open_split(source / "train")
    (source / "train" / "shard-00000" / "tokens" / "c" / "0").unlink()
    with pytest.raises(ValueError, match="shard-00000/tokens is damaged"):
        store.read([0], [3])


def test_verify_finds_what_checksums_of_chunks_cannot(source: Path) -> None:
    tokens, ends = documents([5, 2, 9], 300, seed=0)
    verify(source)
    write_shard(source / "train", "shard-00000", tokens[::-1].copy(), ends, 48)
    with pytest.raises(ValueError, match="shard-00000/tokens: its sha256"):
        verify(source)
    write_shard(source / "train", "shard-00000", tokens, np.array([5, 8, 16]), 48)
    with pytest.raises(ValueError, match="shard-00000/document_ends: not the ends"):
        verify(source)
    write_shard(source / "train", "shard-00000", tokens, ends, 48)
    flip(source / "token_bytes" / "c" / "0", 5)
    with pytest.raises(ValueError, match="token_bytes is damaged"):
        verify(source)
    (source / "tokenizer.json").write_text("{} ")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not the one"):
        verify(source)


# ---- docs/shards.md, taken at its word: an array written and read without TensorStore


def crc32c(data: bytes) -> int:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def array_file(values: np.ndarray, inner: int) -> bytes:
    """Returns the bytes of `c/0` as the specification gives them."""
    chunks = -(-values.size // inner)
    padded = np.pad(values, (0, chunks * inner - values.size))
    body, index = b"", b""
    for chunk in padded.reshape(chunks, inner):
        data = chunk.astype(chunk.dtype.newbyteorder("<")).tobytes()
        index += struct.pack("<QQ", len(body), len(data) + 4)
        body += data + struct.pack("<I", crc32c(data))
    return body + index + struct.pack("<I", crc32c(index))


def test_a_strangers_shard_is_read(source: Path) -> None:
    tokens, ends = documents([4], 300, seed=99)
    shard = source / "train" / "shard-00001"
    (shard / "tokens" / "c" / "0").write_bytes(array_file(tokens, 65_536))
    (shard / "document_ends" / "c" / "0").write_bytes(array_file(ends.astype(np.uint64), 16_384))
    for array, dtype, inner, size in (
        ("tokens", "uint16", 65_536, 4),
        ("document_ends", "uint64", 16_384, 1),
    ):
        plain = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        metadata = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [size],
            "data_type": dtype,
            "fill_value": 0,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [inner]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "codecs": [
                {
                    "name": "sharding_indexed",
                    "configuration": {
                        "chunk_shape": [inner],
                        "codecs": plain,
                        "index_codecs": plain,
                        "index_location": "end",
                    },
                }
            ],
        }
        (shard / array / "zarr.json").write_text(json.dumps(metadata, indent=2))
    path = source / "train" / "manifest.json"
    values = json.loads(path.read_text())
    values["shards"][1]["sha256"] = hashlib.sha256(tokens.astype("<u2").tobytes()).hexdigest()
    path.write_text(json.dumps(values))
    verify(source)
    (found,) = open_split(source / "train").read([16], [4])
    np.testing.assert_array_equal(found, tokens)


def test_remote_paths_name_bucket_and_object() -> None:
    spec = shards._spec(epath.Path("gs://my-bucket/ko/train/shard-00000/tokens"), "uint16", 3)
    assert spec["kvstore"] == {
        "driver": "gcs",
        "bucket": "my-bucket",
        "path": "ko/train/shard-00000/tokens/",
    }
    ts.Spec(spec)


def test_our_files_are_those_of_the_specification(tmp_path: Path) -> None:
    tokens, ends = documents([70_000, 3], 300, seed=1)
    write_shard(tmp_path, "shard-00000", tokens, ends, 0)
    shard = tmp_path / "shard-00000"
    assert (shard / "tokens" / "c" / "0").read_bytes() == array_file(tokens, 65_536)
    expected = array_file(ends.astype(np.uint64), 16_384)
    assert (shard / "document_ends" / "c" / "0").read_bytes() == expected
