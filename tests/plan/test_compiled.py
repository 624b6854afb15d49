"""What a compiled step says: that of `train`, compiled for real on 8 devices of this machine."""

import re
from pathlib import Path
from typing import Any

import jax
import pytest

from polyglot_jax.config import load_experiment
from polyglot_jax.data.mixture import open_plan
from polyglot_jax.mesh import local_rows, make_mesh, put_batch
from polyglot_jax.plan import compiled, hlo
from polyglot_jax.plan.hardware import HARDWARE, Topology
from polyglot_jax.step import abstract_state
from tests.plan.made import SETTINGS, experiment, topology


@pytest.fixture(scope="module")
def step() -> tuple[Any, str]:
    return compiled.compile_step(experiment(), make_mesh(experiment().mesh))


def test_arguments_are_the_state_over_its_shards_exactly(step: tuple[Any, str]) -> None:
    mesh = make_mesh(experiment().mesh)
    abstract = abstract_state(experiment(), mesh), compiled.abstract_batch(experiment(), mesh)
    analysis = step[0].memory_analysis()
    assert analysis.argument_size_in_bytes == compiled.device_bytes(abstract)


def test_tensor_parallelism_is_megatrons(step: tuple[Any, str]) -> None:
    found = hlo.collectives(step[0].as_text(), {"data": 2, "fsdp": 2, "tensor": 2})
    layers, accumulation, rows = 3, 2, 2 * 96
    across = [c for c in found if c.axes == ("tensor",) and c.bytes >= 4 * rows * 128]
    assert {c.kind for c in across} == {"all-reduce"}
    # One for attention and MLP together in each direction of a layer; the embedding and the head.
    assert sorted(c.times for c in across) == [accumulation] * 2 + [accumulation * layers] * 2
    # The CPU's compiler reduces two tensors there; those of GPUs and TPUs sum the forward ones
    # first, see test_described.py.
    in_layers = [c.shapes for c in across if c.times == accumulation * layers]
    assert in_layers == [((2, 96, 128),) * 2] * 2


def test_tensor_across_nodes_is_refused_as_in_training() -> None:
    sets = ["model.num_heads=8", "mesh.fsdp=1", "mesh.tensor=8"]
    nodes = Topology("a100-80g:2x4", HARDWARE["a100-80g"], tuple(jax.devices()))
    with pytest.raises(ValueError, match="on 2 slices or nodes of 4 devices: tensor would cross"):
        compiled.plan(load_experiment("ko_tiny", sets), nodes)


def test_the_batch_is_that_of_training(tiny_shards: Any) -> None:
    tried = load_experiment(
        "ko_tiny", [*SETTINGS, f"data.plan.0.sources.0.path={tiny_shards}", "data.seq_len=32"]
    )
    mesh = make_mesh(tried.mesh)
    batch = next(open_plan(tried.data, 16).batches(0, 1, local_rows(mesh, 16)))
    placed = put_batch(mesh, batch, 16)
    expected = compiled.abstract_batch(tried, mesh)
    assert {k: (v.shape, v.dtype) for k, v in placed.items()} == {
        k: (v.shape, v.dtype) for k, v in expected.items()
    }


def test_the_flags_are_those_of_the_scripts() -> None:
    """Compiled otherwise, the memory would be that of another program."""
    scripts = Path(__file__).resolve().parents[2] / "scripts"
    text = (scripts / "xla_flags.sh").read_text(encoding="utf-8")
    given = dict.fromkeys(re.findall(r"--(xla_\w+)=true", text), True)
    assert compiled.FLAGS["gpu"] | compiled.FLAGS["tpu"] == given


# ---- failures of compilers


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        (
            "Ran out of memory on HBM, the total memory required for HLO temporaries (19.86G) "
            "exceeds available HBM (15.75G).",
            (19.86, 15.75),
        ),
        (
            "Ran out of memory in memory space hbm. Used 512.0M of 15.75G hbm. Exceeded",
            (0.5, 15.75),
        ),
        ("INTERNAL: something else", None),
    ],
)
def test_what_a_compiler_asked_for(message: str, asked: tuple[float, float] | None) -> None:
    found = compiled._asked(message)
    assert found == (asked and pytest.approx([gib * 2**30 for gib in asked]))


def test_what_is_missing_has_the_arguments_in_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*unused: Any) -> None:
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (20.50G) exceeds available HBM (15.75G)."
        )

    monkeypatch.setattr(compiled, "compile_step", refuse)
    slice_ = topology("v5e:2x4", 8)
    monkeypatch.setattr(compiled, "make_mesh", lambda config, devices: make_mesh(config))
    made = compiled.plan(load_experiment("ko_tiny", [*SETTINGS, "data.seq_len=128"]), slice_)
    assert not made.fits
    assert made.spare is None
    assert made.attention == "splash"  # and not "auto"
    assert made.short == pytest.approx(4.75 * 2**30)
