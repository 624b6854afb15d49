"""Spoilt files of every kind that we read: a value or one clear line, soon, in bounded memory.

What is read is mutated from something valid, as bytes and as JSON, since random bytes never come
past the first check. A few hundred inputs a run; the slow suite takes more than ten thousand.
"""

import contextlib
import copy
import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from polyglot_jax import checkpoint, config, convert, integrity, selection, workdirs
from polyglot_jax.data import documents, shards
from polyglot_jax.data.held_out import open_held_out
from polyglot_jax.data.mixture import open_plan
from polyglot_jax.health import plunge, rewind
from polyglot_jax.hf_weights import to_hf
from polyglot_jax.metrics import read_metrics
from polyglot_jax.vocabulary import make_vocabulary
from tests.data.made import write_tokenizer
from tests.oracle import hf_config, random_params, tiny

ROOT = Path(__file__).resolve().parents[2]
CONFIG = tiny(vocab_size=384)
SECONDS = 20.0  # for one input, on a busy machine
MORE_MEMORY = 1 << 30  # bytes, over all inputs of a target

# ---- inputs

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 10**30, 10**400, 1e308, -0.0]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["../../etc/passwd", "/etc/passwd", "a\nb", "\x00", "NaN", "\ud800", "x" * 9999]
    ),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
DEEP = st.sampled_from([b"[", b'{"a":']).map(lambda opening: opening * 100_000)


@st.composite
def mutated_json(draw: Any, content: bytes) -> bytes:
    """Replaces, removes or adds a few values anywhere in the JSON of `content`."""
    tree = copy.deepcopy(json.loads(content))
    for _ in range(draw(st.integers(1, 3))):
        node: Any = {"": tree}
        key: Any = ""
        while isinstance(node[key], dict | list) and node[key] and draw(st.integers(0, 4)):
            node = node[key]
            key = draw(
                st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node)))
            )
        match draw(st.integers(0, 3)):
            case 0 if key != "":
                del node[key]
            case 1 if isinstance(node[key], dict):
                node[key][draw(st.text(max_size=8))] = draw(VALUES)
            case _:
                node[key] = draw(VALUES)
        tree = node[""] if key == "" else tree
    return json.dumps(tree).encode()


@st.composite
def mutated_bytes(draw: Any, content: bytes) -> bytes:
    """Cuts, overwrites, doubles or flips a few bytes anywhere."""
    spoilt = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(spoilt) - 1, 0)))
        end = at + draw(st.integers(1, 32))
        match draw(st.integers(0, 4)):
            case 0:
                del spoilt[at:]
            case 1:
                del spoilt[at:end]
            case 2:
                spoilt[at:end] = draw(st.binary(max_size=32))
            case 3:
                spoilt[at:at] = spoilt[at:end]
            case _:
                spoilt[at : at + 1] = bytes([draw(st.integers(0, 255))])
    return bytes(spoilt)


def spoilt(content: bytes, *, is_json: bool = True) -> st.SearchStrategy[bytes]:
    if not is_json:
        return mutated_bytes(content)
    return mutated_json(content) | mutated_bytes(content) | DEEP


# ---- outcomes


def check(
    target: Callable[[bytes], object], inputs: st.SearchStrategy[bytes], examples: int
) -> None:
    """Runs a reader on many inputs. It may return, or raise what `cli.run` shows as one line."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(
        max_examples=examples,
        deadline=SECONDS * 1000,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def run(content: bytes) -> None:
        with contextlib.suppress(ValueError, OSError):
            target(content)

    run()
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < MORE_MEMORY


FEW_AND_MANY = pytest.mark.parametrize("scale", [1, pytest.param(40, marks=pytest.mark.slow)])


# ---- targets


@FEW_AND_MANY
def test_manifests(tiny_shards, tmp_path, scale):
    source = shutil.copytree(tiny_shards, tmp_path / "shards")
    path = source / "train" / "manifest.json"
    data = config.DataConfig(
        seq_len=32, plan=(config.DataPhase(sources=(config.SourceConfig(path=str(source)),)),)
    )

    def read(content: bytes) -> None:
        path.write_bytes(content)
        mixture = open_plan(data, 2)
        mixture.read(mixture.examples_at(0))
        open_held_out(data, 2, 4)

    check(read, spoilt(path.read_bytes()), 40 * scale)


@FEW_AND_MANY
def test_shards(tiny_shards, tmp_path, scale):
    source = shutil.copytree(tiny_shards, tmp_path / "shards")
    names = ["tokens/zarr.json", "tokens/c/0", "document_ends/zarr.json", "document_ends/c/0"]
    for name in names:
        path = source / "train" / "shard-00000" / name
        whole = path.read_bytes()

        def read(content: bytes, path: Path = path) -> None:
            path.write_bytes(content)
            shards.verify(source)

        check(read, spoilt(whole, is_json=name.endswith("json")), 10 * scale)
        path.write_bytes(whole)


@FEW_AND_MANY
def test_tokenizers(tmp_path, scale):
    def read(content: bytes) -> None:
        make_vocabulary(content, "tokenizer.json")
        documents.check_lossless(content, "tokenizer.json")
        documents.token_bytes(content, "tokenizer.json")

    whole = write_tokenizer(tmp_path / "tokenizer.json").read_bytes()
    check(read, spoilt(whole), 40 * scale)


@FEW_AND_MANY
def test_hf_configs(tmp_path, scale):
    def read(content: bytes) -> None:
        (tmp_path / "config.json").write_bytes(content)
        convert.read_hf_config(tmp_path)

    whole = json.dumps(hf_config(CONFIG).to_dict()).encode()
    check(read, spoilt(whole), 40 * scale)


@FEW_AND_MANY
def test_experiments(scale):
    """As checkpoints, config.json and --set hold them."""
    one = config.load_experiment("ko_tiny")

    def read(content: bytes) -> None:
        try:
            values = json.loads(content)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict):
            config.from_dict(values)
        text = content.decode(errors="replace")
        for key in ("data.plan", "train.steps", "mesh.data", "optimizer.learning_rate"):
            config.override(one, [f"{key}={text}"])

    check(read, spoilt(json.dumps(config.to_dict(one)).encode()), 40 * scale)


@FEW_AND_MANY
def test_safetensors(tmp_path, scale):
    """The header is eight bytes of length and JSON; behind it are the numbers."""
    path = tmp_path / "model.safetensors"
    save_file(dict(to_hf(CONFIG, random_params(CONFIG))), path)
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header, tensors = whole[8:end], whole[end:]

    def read(content: bytes) -> None:
        path.write_bytes(content)
        convert.load_hf(tmp_path, CONFIG)

    def framed(header: bytes) -> bytes:
        return len(header).to_bytes(8, "little") + header + tensors

    check(read, spoilt(header).map(framed) | mutated_bytes(whole[:end]), 20 * scale)


@FEW_AND_MANY
def test_safetensors_indexes(tmp_path, scale):
    state = dict(to_hf(CONFIG, random_params(CONFIG)))
    names = sorted(state)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, its in files.items():
        save_file({name: state[name] for name in its}, tmp_path / file)
    weight_map = {name: file for file, its in files.items() for name in its}
    path = tmp_path / "model.safetensors.index.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        convert.load_hf(tmp_path, CONFIG)

    check(read, spoilt(json.dumps({"weight_map": weight_map}).encode()), 20 * scale)


RECORDS = {
    "tags.json": (b'{"before_plunge": 24}', lambda w: selection.choose(w, [24], "before_plunge")),
    "rewinds.json": (b'[{"step": 1, "spike": 2, "phases": 1}]', rewind.read),
    "metrics.jsonl": (
        b'{"step": 1, "train/loss": 2.0, "held_out/loss": 2.0, "held_out/bits_per_byte": 2.0}',
        lambda w: (selection.overview(w, {1: []}), plunge.judge(read_metrics(w))),
    ),
    "config.json": (None, workdirs.described),
    "checkpoints/24/metadata/metadata": (None, lambda w: checkpoint.read_metadata(w, 24)),
    "checkpoints/24/digests.json": (None, lambda w: checkpoint.damage(w, 24)),
}


@FEW_AND_MANY
@pytest.mark.parametrize("name", RECORDS)
def test_files_of_a_workdir(whole_run, tmp_path, scale, name):
    workdir = shutil.copytree(whole_run, tmp_path / "run")
    content, target = RECORDS[name]
    whole = (workdir / name).read_bytes() if content is None else content

    def read(content: bytes) -> None:
        (workdir / name).write_bytes(content + b"\n")  # a record without it was cut off
        target(workdir)

    check(read, spoilt(whole), 15 * scale)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@FEW_AND_MANY
def test_arrays_of_a_checkpoint_without_digests(whole_run, tmp_path, scale):
    """Numbers may be wrong without a digest; the reader must not be."""
    workdir = shutil.copytree(whole_run, tmp_path / "run")
    step = workdir / "checkpoints" / "24"
    (step / integrity.FILE).unlink()
    for name in ("_METADATA", "manifest.ocdbt", "array_metadatas/process_0", "d"):
        path = step / "state" / name
        path = path if path.is_file() else max(path.iterdir(), key=lambda p: p.stat().st_size)
        whole = path.read_bytes()

        def read(content: bytes, path: Path = path) -> None:
            path.write_bytes(content)
            checkpoint.restore_params(workdir, 24)

        is_json = name in ("_METADATA", "array_metadatas/process_0")
        check(read, spoilt(whole, is_json=is_json), 2 * scale)
        path.write_bytes(whole)
