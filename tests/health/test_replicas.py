"""Devices that share parameters: a single bit is seen, and whose it is."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from polyglot_jax.config import MeshConfig
from polyglot_jax.health.replicas import cuts, differing, jit_bit_sums
from polyglot_jax.mesh import make_mesh

SPECS = {
    "matrix": PartitionSpec("fsdp", "tensor"),
    "head": PartitionSpec(None, "tensor"),
    "norm": PartitionSpec(),
}


@pytest.fixture(scope="module")
def setting():
    mesh = make_mesh(MeshConfig(data=4, fsdp=2, tensor=1))
    shardings = {name: NamedSharding(mesh, spec) for name, spec in SPECS.items()}
    return mesh, shardings, jit_bit_sums(mesh, shardings)


def params(shardings, spoilt=None, devices=()):
    """Returns parameters of which one has a bit turned over on some devices."""
    made = {}
    for name, sharding in shardings.items():
        whole = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
        parts = []
        for device, index in sharding.devices_indices_map(whole.shape).items():
            part = whole[index].copy()
            if name == spoilt and device.id in devices:
                part.view(np.uint32)[0, 0] ^= 1
            parts.append(jax.device_put(part, device))
        made[name] = jax.make_array_from_single_device_arrays(whole.shape, sharding, parts)
    return made


@pytest.mark.parametrize(
    ("spoilt", "devices", "expected"),
    [
        (None, (), []),
        ("matrix", (5,), [5]),
        ("norm", (3,), [3]),
        ("head", (0, 7), [0, 7]),
        ("matrix", (0, 2), [0, 2, 4, 6]),  # two of four: who is right cannot be told
    ],
)
def test_who_differs(setting, spoilt, devices, expected):
    mesh, shardings, bit_sums = setting
    sums = np.asarray(bit_sums(params(shardings, spoilt, devices)))
    assert [device.id for device in differing(sums, mesh, cuts(shardings))] == expected
