"""The manifest of a split: what its shards hold, checked strictly on the way in.

A manifest is written last and atomically, so a split with a manifest is whole; its fingerprint
stands for the data wherever training must know that it is still the same.
"""

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from etils import epath

from polyglot_jax import files

FORMAT_VERSION = 1
SPLITS = ("train", "held_out")
REMEDY = "delete the directory and run polyglot_jax.data.encode again, or copy it again whole"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard as its manifest knows it."""

    name: str  # directory inside the split
    documents: int
    tokens: int  # separators included
    bytes: int  # UTF-8 bytes of the documents' text
    sha256: str  # of the tokens as little-endian bytes of the manifest's dtype


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a split holds. Its stream of tokens is that of its shards, in this order."""

    source: str
    split: str
    tokenizer_sha256: str
    vocab_size: int  # ids of the tokenizer, added tokens included
    separator_id: int
    dtype: str
    seed: int  # of the order of documents
    held_out_fraction: float  # share of the texts, chosen by their hash, that is in `held_out`
    shards: tuple[Shard, ...]

    @property
    def documents(self) -> int:
        return sum(shard.documents for shard in self.shards)

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    def to_json(self) -> dict[str, Any]:
        totals = {key: getattr(self, key) for key in _TOTALS}
        return {"format_version": FORMAT_VERSION, **dataclasses.asdict(self), **totals}

    @classmethod
    def from_json(cls, values: Any, where: str) -> "Manifest":
        """Inverse of `to_json`. Raises ValueError that starts with `where` on anything else."""
        if not isinstance(values, dict):
            raise ValueError(f"{where}: expected a JSON object; {REMEDY}")
        if values.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"{where}: format_version {values.get('format_version')!r} is not "
                f"{FORMAT_VERSION}, the one that this program reads; encode the documents again"
            )
        fields = _fields(cls, values, where, besides=("format_version", *_TOTALS))
        if not isinstance(values["shards"], list | tuple) or not values["shards"]:
            raise ValueError(f"{where}: shards must be a list of at least one; {REMEDY}")
        shards = tuple(
            Shard(**_fields(Shard, shard, f"{where}: shards[{i}]"))
            for i, shard in enumerate(values["shards"])
        )
        manifest = cls(**{**fields, "shards": shards})
        for problem, wrong in {
            f"split {manifest.split!r} is none of {SPLITS}": manifest.split not in SPLITS,
            f"dtype {manifest.dtype!r} does not hold vocab_size {manifest.vocab_size}": (
                manifest.vocab_size < 1 or manifest.dtype != dtype_for(manifest.vocab_size)
            ),
            f"separator_id {manifest.separator_id} is no id": (
                not 0 <= manifest.separator_id < manifest.vocab_size
            ),
            "a shard is named twice": len({s.name for s in shards}) < len(shards),
            "a shard holds no document": any(not 0 < s.documents <= s.tokens for s in shards),
            "the totals are not those of the shards": any(
                values.get(key) != getattr(manifest, key) for key in _TOTALS
            ),
        }.items():
            if wrong:
                raise ValueError(f"{where}: {problem}; {REMEDY}")
        return manifest

    def fingerprint(self) -> str:
        """Returns the sha256 of the manifest's canonical JSON: equal only for equal data."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


_TOTALS = ("documents", "tokens", "bytes")
_PATTERNS = {  # names become paths: nothing that could lead out of the split
    "name": re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*"),
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "tokenizer_sha256": re.compile(r"[0-9a-f]{64}"),
}


def _fields(cls: Any, values: Any, where: str, besides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Returns the values of a dataclass's fields, each checked for presence, type and form."""
    kinds = {field.name: field.type for field in dataclasses.fields(cls)}
    if not isinstance(values, dict) or values.keys() != {*kinds, *besides}:
        found = sorted(values) if isinstance(values, dict) else values
        raise ValueError(
            f"{where}: expected the keys {sorted({*kinds, *besides})}, found {found}; {REMEDY}"
        )
    for name, kind in kinds.items():
        value, pattern = values[name], _PATTERNS.get(name)
        if (
            (kind is int and (type(value) is not int or value < 0))
            or (kind is float and (type(value) is not float or not 0 < value < 1))
            or (kind is str and (not isinstance(value, str) or not value))
            or (pattern and not pattern.fullmatch(value))
        ):
            raise ValueError(f"{where}: {name}={value!r} is not allowed; {REMEDY}")
    return {name: values[name] for name in kinds}


def read_manifest(split_dir: epath.PathLike) -> Manifest:
    """Returns the manifest of a split. Raises ValueError if it is missing, broken or strange."""
    path = epath.Path(split_dir) / "manifest.json"
    try:
        values = json.loads(path.read_bytes().decode())
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"{path} is missing: no (finished) token shards here; "
            "write them with python -m polyglot_jax.data.encode --output=DIR"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a complete manifest ({error}); {REMEDY}") from None
    manifest = Manifest.from_json(values, str(path))
    if manifest.split != epath.Path(split_dir).name:
        raise ValueError(f"{path}: is of the split {manifest.split!r}; {REMEDY}")
    return manifest


def write_manifest(split_dir: epath.PathLike, manifest: Manifest) -> None:
    """Writes the manifest, which declares the split finished: call it after everything else."""
    text = json.dumps(manifest.to_json(), indent=1, ensure_ascii=False)
    files.write(epath.Path(split_dir) / "manifest.json", text, "\n")


def dtype_for(vocab_size: int) -> str:
    """Returns the name of the smallest dtype for token ids below `vocab_size`."""
    return "uint16" if vocab_size <= 2**16 else "uint32"
