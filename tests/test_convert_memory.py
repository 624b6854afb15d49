"""No model is whole in memory while it is converted or loaded onto a mesh, whatever its depth."""

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

from benchmarks.convert import measure, write_hf
from polyglot_jax import array_slices, checkpoint, convert, hf_weights
from polyglot_jax.config import NeoxConfig, load_experiment
from tests.oracle import check_equal, tiny

ROOT = Path(__file__).resolve().parents[1]
CONFIG = tiny(vocab_size=384, num_layers=5)
METADATA = {"step": 0, "git_commit": "abc", "versions": {"jax": "0"}}


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    write_hf(tmp_path / "hf", CONFIG, "float32")
    return tmp_path / "hf"


def to_orbax(hf: Path, output: Path, dtype: str) -> None:
    convert._to_orbax(str(hf), str(output), dtype)


def bytes_of_layers(config: NeoxConfig, layers: int) -> int:
    """Returns the bytes of layers of QKV, the largest parameter, in float32."""
    return layers * config.d_model * 3 * config.d_model * 4


@pytest.mark.parametrize("layers", [1, 2])
def test_both_ways_ask_for_a_few_layers_at_a_time(hf, tmp_path, monkeypatch, layers):
    limit = bytes_of_layers(CONFIG, layers)
    monkeypatch.setattr(array_slices, "SLICE_BYTES", limit)
    asked = []

    def counted(read):
        def read_and_count(self, cuts):
            part = read(self, cuts)
            asked.append(part.nbytes)
            return part

        return read_and_count

    for kind in (hf_weights.HfArray, array_slices.StoredArray):
        monkeypatch.setattr(kind, "__getitem__", counted(kind.__getitem__))
    to_orbax(hf, tmp_path / "orbax", "float32")
    assert limit / 2 < max(asked) <= limit
    asked.clear()
    _, params = checkpoint.open_params(tmp_path / "orbax")
    layered = {"layers": params["layers"]}
    monkeypatch.setattr(hf_weights, "TABLE", layers_only(hf_weights.TABLE))
    (tmp_path / "back").mkdir()
    hf_weights.write_weights(tmp_path / "back", CONFIG, layered, "float32")
    assert limit / 2 < max(asked) <= limit


def layers_only(table):
    return {path: entry for path, entry in table.items() if path.startswith(hf_weights.LAYERS)}


def test_a_bfloat16_checkpoint(hf, tmp_path):
    to_orbax(hf, tmp_path / "whole", "float32")
    to_orbax(hf, tmp_path / "half", "bfloat16")
    _, whole = checkpoint.restore_params(tmp_path / "whole")
    _, stored = checkpoint.open_params(tmp_path / "half")
    assert {array.dtype.name for array in jax.tree.leaves(stored)} == {"bfloat16"}
    _, read = checkpoint.restore_params(tmp_path / "half")
    rounded = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32), whole)
    assert {array.dtype.name for array in jax.tree.leaves(read)} == {"float32"}
    check_equal(read, rounded)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shardings = jax.tree.map(lambda _: device, whole)
    _, placed = checkpoint.restore_params(tmp_path / "half", shardings=shardings)
    assert {array.dtype.name for array in jax.tree.leaves(placed)} == {"float32"}
    check_equal(placed, rounded)


def test_a_checkpoint_that_is_damaged_before_or_while_it_is_read(hf, tmp_path):
    to_orbax(hf, tmp_path / "orbax", "float32")
    _, params = checkpoint.open_params(tmp_path / "orbax")
    data = (tmp_path / "orbax").rglob("ocdbt.process_0/d/*")
    largest = max(data, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole; of the newest, 0, state"):
        checkpoint.open_params(tmp_path / "orbax")
    with pytest.raises(ValueError, match=r"checkpoints/0 cannot be read; if it is damaged"):
        convert.save_hf(
            *(tmp_path / "back", CONFIG, params, tmp_path / "orbax" / "tokenizer.json"),
            *("float32", METADATA),
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "orbax"]


def test_a_source_that_fails_leaves_no_checkpoint(hf, tmp_path, monkeypatch):
    def fail(self, cuts):
        raise OSError("the disk is gone")

    monkeypatch.setattr(hf_weights.HfArray, "__getitem__", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        to_orbax(hf, tmp_path / "orbax", "float32")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


# ---- processes of their own, whose peak is their own


@pytest.mark.slow
def test_memory_does_not_grow_with_depth(tmp_path: Path) -> None:
    """At the width of 12.8B; 20 GB of disk and a quarter of an hour."""
    whole = load_experiment("ko_12p8b").model
    peaks: dict[str, list[int]] = {}
    for layers in (4, 8):
        model = dataclasses.replace(whole, num_layers=layers)
        (tmp_path / f"{layers}").mkdir()
        for row in measure(model, "bfloat16", tmp_path / f"{layers}", rounds=1):
            peaks.setdefault(row["way"], []).append(row["peak"])
    for four, eight in peaks.values():
        assert eight < 1.05 * four
        assert eight < 6 * 2**30


PROCESS = """
import sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")
address, rank, directory = sys.argv[1:]
jax.distributed.initialize(address, 2, int(rank))
from benchmarks.child import peak_bytes
from polyglot_jax import convert
from polyglot_jax.config import MeshConfig, load_experiment
from polyglot_jax.mesh import make_mesh
from polyglot_jax.step import abstract_state, shardings_of
import dataclasses
model = convert.read_hf_config(directory)
experiment = dataclasses.replace(
    load_experiment("ko_tiny"), model=model, mesh=MeshConfig(data=1, fsdp=2, tensor=1)
)
shardings = shardings_of(abstract_state(experiment, make_mesh(experiment.mesh)).params)
before = peak_bytes()
params = convert.load_hf(directory, model, shardings)
held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(params))
whole = sum(x.nbytes for x in jax.tree.leaves(params))
print(held / whole, (peak_bytes() - before) / whole)
"""


@pytest.mark.slow
def test_a_process_holds_its_part_of_the_mesh_only(tmp_path: Path) -> None:
    model = dataclasses.replace(load_experiment("ko_1p3b").model, num_layers=8)
    write_hf(tmp_path / "hf", model, "bfloat16")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, address, str(rank), str(tmp_path / "hf")],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0
        held, peak = map(float, output.split())
        assert held < 0.51
        assert peak < 0.75  # its half and what is being read


@pytest.mark.slow
def test_benchmark_reports(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.convert", "--experiment=ko_tiny", "--layers=1"),
            *("--rounds=1", "--smoke", f"--folder={tmp_path}", "--dtype=bfloat16"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "| HF to checkpoint | 1 | 0.0 |" in done.stdout
    assert "| checkpoint to HF | 1 | 0.0 |" in done.stdout
    assert not list(tmp_path.iterdir())
