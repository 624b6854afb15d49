"""Tells of shardings that cost what they should not, from the collectives of a compiled step.

The layout of `polyglot_jax.mesh` asks for few: weights are gathered and their gradients scattered
over fsdp, gradients are reduced over data, activations over tensor. Everything else is a complaint.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from polyglot_jax.config import Experiment
from polyglot_jax.plan import hlo
from polyglot_jax.plan.hardware import GIB
from polyglot_jax.step import abstract_state


def device_bytes(abstract: Any) -> int:
    """Returns the bytes that one device holds of a tree of arrays, by their shardings alone."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(abstract)
    )


def complaints(
    experiment: Experiment, mesh: Mesh, found: list[hlo.Collective], said: str
) -> Iterator[str]:
    """Yields a line for each sharding of a compiled step that costs what it should not.

    Args:
      found: the collectives of the program.
      said: what the compiler wrote.
    """
    if "nvoluntary full rematerialization" in said:
        yield "involuntary full rematerialization: an array is replicated to be sharded anew"
    state = abstract_state(experiment, mesh)
    leaves = jax.tree.leaves(state.params)
    gathered = {shape for leaf in leaves for shape in _gathered(leaf)}
    parameters = {math.prod(shape) for shape in gathered}
    held = {shape for leaf in leaves for shape in _shards(leaf)}
    cut = parameters | {size // mesh.shape["fsdp"] for size in parameters}
    shards = mesh.shape["data"] * mesh.shape["fsdp"] * experiment.train.accumulation
    rows = experiment.train.batch_size // shards * experiment.data.seq_len
    residual = rows * experiment.model.d_model
    vectors = [leaf for leaf in leaves if "fsdp" not in str(leaf.sharding.spec)]
    small = max(rows, sum(math.prod(leaf.shape[1:]) for leaf in vectors))  # those of a layer
    slices = _slices(mesh)
    inside = max(mesh.shape["data"] // slices, 1)  # of data, in a slice
    parts = cut | {size // mesh.shape["fsdp"] // inside for size in parameters}
    for c in found:
        elements = [math.prod(shape) for shape in c.shapes]
        is_reduced_in_parts = slices > 1 and (
            max(elements, default=0) <= small
            or ("data" in c.axes and all(n in parts for n in elements))
        )
        if is_reduced_in_parts:  # over data: scattered in a slice, reduced between, gathered
            continue
        where = f"{c.kind} over {'+'.join(c.axes)} of {_shapes(c)} in {c.op[-80:] or 'the step'}"
        if (
            c.kind in ("all-to-all", "collective-permute")
            and max(elements, default=0) > rows
            and not (c.axes == ("fsdp",) and all(_is_step(shape, held) for shape in c.shapes))
        ):
            yield f"{where}: no layout of this model asks for it"
        elif c.kind == "all-gather" and not set(elements) <= parameters:
            yield f"{where}: not a parameter"
        elif "tensor" in c.axes and c.kind != "all-reduce":
            yield f"{where}: tensor parallelism has all-reduces only"
        elif c.kind in ("all-gather", "reduce-scatter") and c.axes != ("fsdp",):
            yield f"{where}: weights are gathered and gradients scattered over fsdp alone"
        elif "tensor" in c.axes and max(elements, default=0) > residual:
            yield f"{where}: larger than the residual"
        elif "tensor" not in c.axes and any(
            math.prod(shape) >= residual and math.prod(shape) not in cut and len(shape) > 1
            for shape in c.shapes  # XLA concatenates gradients to vectors
            if not (c.kind == "reduce-scatter" and _is_step(shape, gathered))
        ):
            yield f"{where}: not a parameter's gradient"
    yield from _not_gathered(leaves, mesh.shape["fsdp"], experiment.train.accumulation, found)
    yield from _unsharded(state, mesh)


def _slices(mesh: Mesh) -> int:
    return len({getattr(device, "slice_index", 0) for device in mesh.devices.flat})


def _is_step(shape: tuple[int, ...], held: set[tuple[int, ...]]) -> bool:
    """Returns whether that may be one of these arrays as TPUs take them: in any order of dimensions
    and one of them padded to whole tiles. Gathers go in steps too, shard by shard along a ring."""
    given = Counter(size for size in shape if size > 1)
    for shard in map(Counter, held):
        more, less = list((given - shard).elements()), list((shard - given).elements())
        if not more and not less:
            return True
        if len(more) == len(less) == 1 and less[0] <= more[0] <= 1.25 * less[0]:
            return True
    return False


def _not_gathered(
    leaves: list[jax.ShapeDtypeStruct], fsdp: int, accumulation: int, found: list[hlo.Collective]
) -> Iterator[str]:
    """Tells of too few gathers: each microbatch takes every matrix whole at least once, and a
    compiler may have made other collectives of it (libtpu 0.0.42 all-reduces over whole slices)."""
    matrices = [leaf for leaf in leaves if "fsdp" in str(leaf.sharding.spec)]
    least = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * fsdp for leaf in matrices)
    gathered = sum(
        c.times * math.prod(shape)
        for c in found
        if c.kind in ("all-gather", "collective-permute") and c.axes == ("fsdp",)
        for shape in c.shapes
    )
    if fsdp > 1 and gathered < accumulation * least:
        yield (
            f"gathers of weights are compiled as other collectives: {gathered / 1e9:.2f}e9 "
            f"elements an update are gathered over fsdp, of {accumulation * least / 1e9:.2f}e9"
        )


def _unsharded(state: Any, mesh: Mesh) -> Iterator[str]:
    shardings = {leaf.shape: leaf.sharding for leaf in jax.tree.leaves(state.params)}
    for moment in jax.tree.leaves(state.opt_state):
        if moment.ndim and moment.sharding != shardings.get(moment.shape):
            yield f"optimizer state of shape {moment.shape} does not lie as its parameter does"
    held = device_bytes(state)
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    least = whole / mesh.shape["fsdp"] / mesh.shape["tensor"]
    if held > 1.1 * least:  # vectors are not sharded: less than 1 % of these models
        yield (
            f"{held / GIB:.2f} GiB of parameters and optimizer state on each device, of "
            f"{whole / GIB:.2f}: fsdp * tensor would cut that to {least / GIB:.2f}"
        )


def _gathered(leaf: jax.ShapeDtypeStruct) -> tuple[tuple[int, ...], ...]:
    """Returns what a gather over fsdp may give of it: all layers, or one; without ones."""
    held, spec = leaf.sharding.shard_shape(leaf.shape), leaf.sharding.spec
    stack = tuple(
        part if "tensor" in str(axes) else whole
        for whole, part, axes in itertools.zip_longest(leaf.shape, held, spec)
    )
    return _without_ones(stack), _without_ones(stack[1:])


def _shards(leaf: jax.ShapeDtypeStruct) -> tuple[tuple[int, ...], ...]:
    """Returns what a device holds of it, likewise."""
    stack = leaf.sharding.shard_shape(leaf.shape)
    return _without_ones(stack), _without_ones(stack[1:])


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size > 1)


def _shapes(c: hlo.Collective) -> str:
    return ", ".join("[" + ",".join(map(str, shape)) + "]" for shape in c.shapes[:3])
