"""Compiles for hardware that is not here, by the real compilers: `make test-plan`, minutes each."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from polyglot_jax.config import load_experiment
from polyglot_jax.mesh import make_mesh
from polyglot_jax.plan import hlo, table
from polyglot_jax.plan.__main__ import settings
from polyglot_jax.plan.compiled import _asked, compile_step, plan
from polyglot_jax.plan.hardware import open_topology

pytestmark = pytest.mark.plan
pytest.importorskip("libtpu", reason="the compilers are not here: make test-plan")

CELLS = (
    ("ko_12p8b", "a100-80g:32x8"),  # the original's machine
    ("ko_5p8b", "h200:1x1"),  # heads of 256 dims, which cuDNN takes on Hopper
    ("ko_5p8b", "a100-80g:1x8"),  # and not on Ampere
    ("ko_12p8b", "h200:1x1"),  # does not fit
    ("ko_12p8b", "v5e:16x16"),
    ("ko_12p8b", "v5p:4x4x4"),
)


@pytest.mark.parametrize(("size", "topology"), CELLS)
def test_compiled_anew_a_cell_is_what_was_kept(size: str, topology: str) -> None:
    path = Path(__file__).resolve().parents[2] / "docs" / "scale.jsonl"
    cells = table.read_cells(path)
    if (size, topology) not in cells:
        pytest.skip("not compiled yet by these versions and options")
    kept = cells[size, topology]
    overrides = [flag.removeprefix("--set ") for flag in settings(kept)]
    made = plan(load_experiment(size, overrides), open_topology(topology))
    assert made.fits == kept.fits
    assert made.arguments == kept.arguments
    assert made.temporaries == pytest.approx(kept.temporaries, rel=0.1)
    assert made.attention == kept.attention
    assert made.complaints == ()


@pytest.mark.parametrize("topology", ["a100-40g:1x8", "h100:1x1"])
def test_gpu_arguments_are_the_state_over_its_shards_exactly(topology: str) -> None:
    size = 8 if topology.endswith("8") else 1
    small = ("model.num_layers=2", "train.batch_size=8", "train.accumulation=1")
    made = plan(
        load_experiment("ko_1p3b", [*small, "mesh.data=1", f"mesh.fsdp={size}"]),
        open_topology(topology),
    )
    assert made.compiled_arguments == made.arguments


def test_tpu_arguments_are_the_state_over_its_shards_but_for_padding() -> None:
    small = ("model.num_layers=2", "train.batch_size=4", "train.accumulation=1")
    made = plan(
        load_experiment("ko_1p3b", [*small, "mesh.data=2", "mesh.fsdp=2"]), open_topology("v5e:2x2")
    )
    assert made.compiled_arguments is not None
    # Vectors and the rows of three, [q|k|v], are padded to whole tiles.
    assert made.arguments <= made.compiled_arguments <= 1.002 * made.arguments
    assert made.attention == "splash"


@pytest.mark.parametrize("topology", ["a100-80g:1x8", "v5e:2x4"])
def test_tensor_parallelism_sums_attention_and_mlp_before_it_reduces(topology: str) -> None:
    """One tensor forward; backward two, since each has a norm of its own, as in GPT-NeoX."""
    layers, accumulation, rows = 3, 2, 2 * 256
    small = (f"model.num_layers={layers}", "model.vocab_size=1024", "data.seq_len=256")
    batch = ("train.batch_size=16", f"train.accumulation={accumulation}")
    mesh = ("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2")
    experiment = load_experiment("ko_1p3b", [*small, *batch, *mesh])
    devices = make_mesh(experiment.mesh, open_topology(topology).devices)
    step, _ = compile_step(experiment, devices)
    residual = rows * experiment.model.d_model * 2  # bytes, bfloat16
    in_layers = [
        c.bytes / residual
        for c in hlo.collectives(step.as_text(), dict(devices.shape))
        if c.axes == ("tensor",) and c.times == layers * accumulation
    ]
    assert sorted(in_layers) == [1, 2]


def test_a_program_that_is_too_large_is_an_answer() -> None:
    made = plan(
        load_experiment("ko_5p8b", ["mesh.data=1", "mesh.fsdp=4", "train.accumulation=8"]),
        open_topology("v5e:2x2"),
    )
    assert not made.fits
    assert made.temporaries is None
    assert made.short > 2**30


def test_what_a_tpus_compiler_calls_temporaries() -> None:
    """12.5 GiB of arguments and 8 of temporaries."""
    (device, *_) = open_topology("v5e:2x2").devices
    sizes = ((2**16, 40_960), (40_960, 2**14))
    x, w = (
        jax.ShapeDtypeStruct(size, jnp.float32, sharding=SingleDeviceSharding(device))
        for size in sizes
    )
    program = jax.jit(lambda x, w: (jnp.sort(x @ w, axis=0) @ w.T).sum())
    with pytest.raises(jax.errors.JaxRuntimeError) as refused:
        program.lower(x, w).compile()
    assert _asked(str(refused.value)) == (20.5 * 2**30, 15.75 * 2**30)


def test_importing_says_nothing_and_fails_as_ever() -> None:
    def run(program: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert run("import polyglot_jax.plan.__main__").stderr == ""
    broken = "import sys; sys.modules['jax.version'] = None; import polyglot_jax.plan"
    assert "ModuleNotFoundError" in run(broken).stderr


@pytest.mark.parametrize("topology", ["v5e:1x1", "v6e:1x1"])
def test_single_chips(topology: str) -> None:
    assert len(open_topology(topology).devices) == 1


def test_data_crosses_the_slices_of_a_multislice() -> None:
    slices = open_topology("2*v5e:2x2")
    small = ("model.num_layers=2", "train.batch_size=8", "train.accumulation=1")
    made = plan(load_experiment("ko_1p3b", [*small, "mesh.data=4", "mesh.fsdp=2"]), slices)
    assert (made.topology, made.devices) == ("2*v5e:2x2", 8)
    assert made.fits
    # The compiler pads the rows of a scattered gradient and moves some back: its own doing, told.
    assert all("collective-permute over fsdp" in line for line in made.complaints)
    (between,) = (t for t in made.traffic if (t.kind, t.axes) == ("all-reduce", ("data",)))
    assert between.bytes > 2 * 200e6 / 4  # most bf16 gradients of 224e6 parameters over a slice
    with pytest.raises(ValueError, match="on 2 slices or nodes of 4 devices: tensor would cross"):
        plan(
            load_experiment("ko_1p3b", [*small, "mesh.data=1", "mesh.fsdp=1", "mesh.tensor=8"]),
            slices,
        )


def test_shapes_that_no_slice_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"v5p:9x9x9: .*not divisible"):
        open_topology("v5p:9x9x9")
