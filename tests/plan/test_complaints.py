"""What is wrong with a sharding: on 8 devices of this machine the step is compiled for real.

Good rules draw no complaint; each bad one does.
"""

import math
from typing import Any

import jax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from polyglot_jax import mesh as meshes
from polyglot_jax.config import Experiment, MeshConfig, load_experiment
from polyglot_jax.mesh import make_mesh
from polyglot_jax.plan import compiled, complaints, hlo
from polyglot_jax.step import abstract_state
from tests.plan.made import SETTINGS, experiment


def collective(kind: str, shape: tuple[int, ...], axes: tuple[str, ...], times: int = 1) -> Any:
    return hlo.Collective(
        kind=kind,
        shapes=(shape,),
        bytes=2 * math.prod(shape),
        axes=axes,
        times=times,
        op="mlp",
        overlapped=True,
    )


def gathers(
    kind: str = "all-gather", share: float = 1.0, config: MeshConfig | None = None
) -> list[hlo.Collective]:
    """The least that a step gathers: every matrix of the model once in each microbatch."""
    mesh = make_mesh(config or experiment().mesh)
    leaves = jax.tree.leaves(abstract_state(experiment(), mesh).params)
    matrices = [leaf for leaf in leaves if "fsdp" in str(leaf.sharding.spec)]
    sizes = [2 * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in matrices]  # of fsdp=2
    taken = sizes[: round(share * len(sizes))]
    return [collective(kind, (size,), ("fsdp",), times=2) for size in taken]


def complaints_of(step: Any, said: str = "") -> list[str]:
    tried = experiment()
    mesh = make_mesh(tried.mesh)
    found = hlo.collectives(step.as_text(), dict(mesh.shape)) if step else gathers()
    return list(complaints.complaints(tried, mesh, found, said))


def test_good_rules_draw_no_complaint() -> None:
    step = compiled.compile_step(experiment(), make_mesh(experiment().mesh))
    assert complaints_of(*step) == []


def test_matrices_that_fsdp_does_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(meshes.RULES, "embed", ())
    (line,) = complaints_of(None)
    assert "of parameters and optimizer state on each device" in line


def test_heads_that_tensor_does_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(meshes.RULES, "heads", ())
    (line,) = complaints_of(None)
    assert "of parameters and optimizer state on each device" in line


def test_replicated_optimizer_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def replicated(tried: Experiment, mesh: jax.sharding.Mesh) -> Any:
        state = abstract_state(tried, mesh)
        whole = NamedSharding(mesh, PartitionSpec())
        return state.replace(
            opt_state=jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), state.opt_state
            )
        )

    monkeypatch.setattr(complaints, "abstract_state", replicated)
    lines = complaints_of(None)
    assert any("does not lie as its parameter does" in line for line in lines)
    assert any("on each device" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "axes", "line"),
    [
        ("sequence", ("tensor",), "all-gather over tensor"),
        ("batch", ("data",), "all-reduce over fsdp"),
    ],
)
def test_an_activation_on_the_wrong_axis(
    name: str, axes: tuple[str, ...], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(meshes.RULES, name, axes)
    lines = complaints_of(*compiled.compile_step(experiment(), make_mesh(experiment().mesh)))
    assert any(line in told and "not a parameter" in told for told in lines), lines


def test_weights_on_the_wrong_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(meshes.RULES, "embed", ("data",))
    lines = complaints_of(*compiled.compile_step(experiment(), make_mesh(experiment().mesh)))
    told = [line for line in lines if "gathered and gradients scattered over fsdp alone" in line]
    assert any("all-gather over data" in line for line in told), lines


def test_gathers_that_became_other_collectives() -> None:
    mesh = make_mesh(experiment().mesh)

    def told(found: list[hlo.Collective]) -> list[str]:
        return list(complaints.complaints(experiment(), mesh, found, ""))

    assert told(gathers()) == []
    for found in ([], gathers("all-reduce"), gathers(share=0.5)):
        assert "gathers of weights are compiled as other collectives" in told(found)[0]
    whole = make_mesh(MeshConfig(data=4, tensor=2))  # nothing to gather
    assert not any("gathers" in line for line in complaints.complaints(experiment(), whole, [], ""))


@pytest.mark.parametrize(
    ("shape", "axes", "is_told"),
    [
        ((64, 256), ("fsdp",), False),  # the MLP's first matrix, of which fsdp and tensor hold half
        ((1, 256, 64), ("fsdp",), False),
        ((3, 64, 256), ("fsdp",), False),  # of all layers
        ((72, 256), ("fsdp",), False),  # padded to a tile
        ((72, 288), ("fsdp",), True),
        ((96, 256), ("fsdp",), True),
        ((64, 256), ("data",), True),
        ((96, 128), ("fsdp",), True),  # an activation, as large as the shard of [q|k|v]
        ((2, 96, 128), ("fsdp",), True),
    ],
)
def test_permutes_may_be_gathers_in_steps(
    shape: tuple[int, ...], axes: tuple[str, ...], is_told: bool
) -> None:
    permute = collective("collective-permute", shape, axes)
    mesh = make_mesh(experiment().mesh)
    lines = list(complaints.complaints(experiment(), mesh, [permute, *gathers()], ""))
    assert bool(lines) is is_told, lines


@pytest.mark.parametrize(
    ("shape", "is_told"), [((144, 256), False), ((128, 256), False), ((200, 256), True)]
)
def test_scattered_gradients_may_be_padded(shape: tuple[int, ...], is_told: bool) -> None:
    scatter = collective("reduce-scatter", shape, ("fsdp",))
    tried = load_experiment("ko_tiny", [*SETTINGS, "train.accumulation=4"])  # a small residual
    mesh = make_mesh(tried.mesh)
    lines = list(complaints.complaints(tried, mesh, [scatter, *gathers(), *gathers()], ""))
    assert bool(lines) is is_told, lines


@pytest.mark.parametrize(
    ("kind", "shape", "axes"),
    [
        ("reduce-scatter", (64, 512), ("data",)),  # a shard of the MLP's first matrix
        ("all-gather", (64, 512), ("data",)),
        ("all-reduce", (96, 128), ("data",)),  # of [q|k|v] what fsdp=2 and data=2 in a slice leave
        ("all-gather", (4, 128), ("data", "fsdp")),  # vectors together
    ],
)
def test_reductions_over_slices_go_in_parts(
    kind: str, shape: tuple[int, ...], axes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = MeshConfig(data=4, fsdp=2)  # on two slices of data=2
    found, mesh = [collective(kind, shape, axes), *gathers(config=config)], make_mesh(config)
    assert list(complaints.complaints(experiment(), mesh, found, ""))
    monkeypatch.setattr(complaints, "_slices", lambda mesh: 2)
    assert not list(complaints.complaints(experiment(), mesh, found, ""))


@pytest.mark.parametrize(
    ("shape", "held"),
    [  # of compiled programs for v6e: 40B over fsdp 32 and tensor 2, and 1.3B over fsdp 32
        ((1, 256, 16384), (256, 16384)),
        ((16384, 1, 256), (16384, 256)),
        ((1, 256, 32, 3, 128), (256, 32, 3, 128)),
        ((32, 128, 1, 256), (32, 128, 256)),
        ((256, 15040), (256, 15040)),
        ((8192, 72), (8192, 64)),
    ],
)
def test_steps_that_tpus_take(shape: tuple[int, ...], held: tuple[int, ...]) -> None:
    assert complaints._is_step(shape, {(7,), held})


def test_involuntary_rematerialization_is_told() -> None:
    said = "W0000 spmd_partitioner.cc] [SPMD] Involuntary full rematerialization. The compiler ..."
    assert "involuntary full rematerialization" in complaints_of(None, said)[0]
