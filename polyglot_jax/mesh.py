"""The device mesh, and the one table that says how every array lies on it.

Model code names the logical axes of its arrays; `RULES` maps each name to mesh axes. Changing the
sharding strategy is editing that table. Names that are not in it, two axes of one array on the same
mesh axis, and dimensions that do not divide raise.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from polyglot_jax.config import MeshConfig

AXES = ("data", "fsdp", "tensor")  # outermost first: data is the one that crosses hosts and slices

RULES: dict[str, tuple[str, ...]] = {
    # activations
    "batch": ("data", "fsdp"),
    "sequence": (),
    "residual": (),  # d_model of an activation: whole, since the batch already takes fsdp
    # parameters
    "layers": (),  # stacked by scan
    "embed": ("fsdp",),  # d_model of a matrix
    "norm": (),  # d_model of a vector: too small to be worth gathering
    "qkv": (),
    "heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
}


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the (data, fsdp, tensor) mesh over all devices, or over those given.

    Slices of a TPU and nodes of GPUs have a fast network inside and a slow one between them: data
    crosses them first, then fsdp, never tensor, whose collectives nothing hides.

    Raises:
      ValueError: the number of devices is not a multiple of fsdp * tensor, or not the product of
        the three sizes where all three are set; or tensor would cross slices or nodes.
    """
    devices = jax.devices() if devices is None else devices
    inner = config.fsdp * config.tensor
    data = config.data or len(devices) // inner
    if data * inner != len(devices):
        sizes = f"data={config.data}, fsdp={config.fsdp}, tensor={config.tensor}"
        raise ValueError(
            f"mesh ({sizes}) does not fit {len(devices)} devices; "
            "set mesh.data, mesh.fsdp and mesh.tensor so that their product is that number"
        )
    grid = device_grid(data, config.fsdp, config.tensor, devices)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def device_grid(data: int, fsdp: int, tensor: int, devices: Sequence[jax.Device]) -> np.ndarray:
    """Returns the devices laid out so that neighbours in the mesh are near in the network."""
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(
            (data, fsdp, tensor), devices, allow_split_physical_axes=True
        )
    data_slices, fsdp_slices = spread(data, fsdp, tensor, slices, len(devices) // slices)
    return mesh_utils.create_hybrid_device_mesh(
        (data // data_slices, fsdp // fsdp_slices, tensor),
        (data_slices, fsdp_slices, 1),
        devices,
        allow_split_physical_axes=True,
    )


def spread(data: int, fsdp: int, tensor: int, slices: int, per_slice: int) -> tuple[int, int]:
    """Returns over how many slices or nodes data and fsdp go.

    Raises:
      ValueError: tensor would cross them.
    """
    data_slices = math.gcd(data, slices)
    fsdp_slices = slices // data_slices
    if fsdp % fsdp_slices:
        raise ValueError(
            f"mesh (data={data}, fsdp={fsdp}, tensor={tensor}) on {slices} slices or nodes of "
            f"{per_slice} devices: tensor would cross them; make data * fsdp a multiple of {slices}"
        )
    return data_slices, fsdp_slices


def partition_spec(names: Sequence[str | None], where: str = "array") -> PartitionSpec:
    """Maps the logical names of an array's dimensions to mesh axes.

    Raises:
      ValueError: a name is not in `RULES`, or two dimensions claim one mesh axis.
    """
    taken: dict[str, str] = {}
    entries: list[tuple[str, ...] | str | None] = []
    for name in names:
        if name is None or name not in RULES:
            raise ValueError(f"{where}: no rule for logical axis {name!r} in {tuple(names)}")
        axes = RULES[name]
        for axis in axes:
            if axis in taken:
                raise ValueError(
                    f"{where}: logical axes {taken[axis]!r} and {name!r} both map to mesh axis "
                    f"{axis!r}"
                )
            taken[axis] = name
        entries.append(axes[0] if len(axes) == 1 else axes or None)
    return PartitionSpec(*entries)


def named_sharding(
    mesh: Mesh, names: Sequence[str | None], shape: Sequence[int], where: str = "array"
) -> NamedSharding:
    """Returns the sharding of one array. Raises ValueError as `partition_spec`, and for a
    dimension that its mesh axes do not divide."""
    if len(names) != len(shape):
        raise ValueError(
            f"{where}: {len(names)} axis names {tuple(names)} for shape {tuple(shape)}"
        )
    spec = partition_spec(names, where)
    for name, size in zip(names, shape, strict=True):
        assert name is not None
        parts = math.prod(mesh.shape[axis] for axis in RULES[name])
        if size % parts:
            raise ValueError(
                f"{where}: dimension {name!r} of size {size} is not divisible by the {parts} "
                f"devices along mesh axes {RULES[name]}"
            )
    return NamedSharding(mesh, spec)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: examples, the leading dimension, over data and fsdp."""
    return NamedSharding(mesh, partition_spec(("batch",)))


def local_rows(mesh: Mesh, batch_size: int) -> list[int]:
    """Returns the rising numbers of the examples of a global batch that this process holds."""
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    numbers = np.arange(batch_size)
    held = np.concatenate([numbers[index] for index in slices if index is not None])
    return np.unique(held).tolist()


def put_batch(mesh: Mesh, rows: Mapping[str, np.ndarray], batch_size: int) -> dict[str, jax.Array]:
    """Makes global arrays of batch_size examples out of this process's `local_rows`."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(
            sharding, array, (batch_size, *array.shape[1:])
        )
        for name, array in rows.items()
    }


def constrain(x: Any, *names: str) -> Any:
    """Pins an activation to its place on the mesh set by `jax.set_mesh`; no mesh, no effect."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(names))
