"""Whether devices that should hold the same parameters do: a broken one diverges in silence.

Every device adds up the bits of its own parts as 32-bit integers. Devices that hold the same part
must have the same sum, to the bit. That is a read of the parameters and one small gather.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from polyglot_jax.mesh import AXES, replicated


def jit_bit_sums(mesh: Mesh, shardings: Any) -> Any:
    """Returns the compiled params -> uint32[data, fsdp, tensor, cuts], for `differing`.

    A cut is a set of mesh axes that parameters are divided along, see `cuts`.

    Args:
      shardings: the tree of the parameters' shardings.
    """
    places = jax.tree.map(lambda sharding: sharding.spec, shardings)
    groups = cuts(shardings)

    def own_sums(params: Any) -> jax.Array:
        sums = dict.fromkeys(groups, jnp.uint32(0))
        for leaf, spec in zip(jax.tree.leaves(params), _specs(shardings), strict=True):
            bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32)
            sums[_axes(spec)] += jnp.sum(bits, dtype=jnp.uint32)  # wraps around
        return jnp.stack(list(sums.values())).reshape(1, 1, 1, -1)

    summed = jax.shard_map(
        own_sums,
        mesh=mesh,
        in_specs=(places,),
        out_specs=PartitionSpec(*AXES),
        check_vma=False,  # that the replicas are equal is what is asked
    )
    return jax.jit(summed, in_shardings=(shardings,), out_shardings=replicated(mesh))


def cuts(shardings: Any) -> list[tuple[str, ...]]:
    """Returns the sets of mesh axes along which parameters are divided, in a fixed order."""
    return sorted({_axes(spec) for spec in _specs(shardings)})


def differing(sums: np.ndarray, mesh: Mesh, groups: Sequence[tuple[str, ...]]) -> list[jax.Device]:
    """Returns the devices whose sum is not that of most of their replicas; of two, both.

    Args:
      sums: of `jit_bit_sums`.
      groups: `cuts` of the same shardings.
    """
    found = set()
    for i, group in enumerate(groups):
        shared = tuple(axis for axis, name in enumerate(AXES) if name not in group)
        for place in np.ndindex(*sums.shape[:3]):
            index = tuple(slice(None) if axis in shared else place[axis] for axis in range(3))
            replicas = sums[(*index, i)].ravel()
            if np.sum(replicas == sums[(*place, i)]) <= replicas.size / 2:
                found.add(mesh.devices[place])
    return sorted(found, key=lambda device: device.id) if found else []


def _specs(shardings: Any) -> list[PartitionSpec]:
    leaves = jax.tree.leaves(shardings, is_leaf=lambda x: isinstance(x, NamedSharding))
    return [sharding.spec for sharding in leaves]


def _axes(spec: PartitionSpec) -> tuple[str, ...]:
    entries = (entry if isinstance(entry, tuple) else (entry,) for entry in spec)
    return tuple(sorted(axis for entry in entries for axis in entry if axis is not None))
