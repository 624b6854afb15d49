"""The mesh and the rule table: what does not fit raises and names itself."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from polyglot_jax.config import MeshConfig
from polyglot_jax.mesh import (
    AXES,
    batch_sharding,
    constrain,
    device_grid,
    local_rows,
    make_mesh,
    named_sharding,
    partition_spec,
    put_batch,
)


def test_data_axis_takes_what_is_left():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize("config", [MeshConfig(fsdp=3), MeshConfig(data=4), MeshConfig(data=16)])
def test_mesh_that_does_not_fit_the_devices_raises(config):
    with pytest.raises(ValueError, match="does not fit 8 devices"):
        make_mesh(config)


def nodes(count: int, per_node: int) -> list[SimpleNamespace]:
    """Returns GPUs as JAX shows them: a slice_index for each node; here in no order."""
    gpus = [
        SimpleNamespace(id=i, slice_index=i // per_node, platform="gpu", device_kind="A100")
        for i in range(count * per_node)
    ]
    return gpus[::2] + gpus[1::2]


@pytest.mark.parametrize(
    ("sizes", "crossed"),
    [
        ((32, 2, 4), ["data"]),  # the machine of the original run
        ((64, 4, 1), ["data"]),
        ((4, 8, 8), ["data", "fsdp"]),  # a replica over 8 nodes: fsdp crosses what data leaves
        ((1, 256, 1), ["fsdp"]),
    ],
)
def test_data_is_what_crosses_nodes(sizes, crossed):
    grid = device_grid(*sizes, nodes(32, 8))
    assert sorted(d.id for d in grid.flat) == list(range(256))
    node_of = np.vectorize(lambda d: d.slice_index)(grid)
    changes = [axis for i, axis in enumerate(AXES) if (np.diff(node_of, axis=i) != 0).any()]
    assert changes == crossed
    assert (np.diff(node_of[:, :, 0], axis=0) >= 0).all()  # outermost: each node in one piece


def test_tensor_never_crosses_nodes():
    with pytest.raises(ValueError, match="tensor would cross them; make data"):
        device_grid(1, 16, 16, nodes(32, 8))


def test_rules_give_the_spec_of_each_dimension():
    assert partition_spec(("layers", "embed", "heads", "qkv", "head_dim")) == PartitionSpec(
        None, "fsdp", "tensor", None, None
    )
    assert partition_spec(("batch", "sequence")) == PartitionSpec(("data", "fsdp"), None)


def test_unmatched_name_raises():
    with pytest.raises(ValueError, match=r"layers/kernel: no rule for logical axis 'embedd'"):
        partition_spec(("embedd",), "layers/kernel")


def test_collision_raises():
    with pytest.raises(ValueError, match="'heads' and 'mlp' both map to mesh axis 'tensor'"):
        partition_spec(("heads", "mlp"))


def test_indivisible_dimension_raises():
    mesh = make_mesh(MeshConfig(tensor=4))
    with pytest.raises(ValueError, match="'heads' of size 6 is not divisible by the 4 devices"):
        named_sharding(mesh, ("heads",), (6,))


def test_batch_arrives_in_order():
    mesh = make_mesh(MeshConfig(fsdp=4))
    rows = np.arange(16 * 3).reshape(16, 3)
    assert local_rows(mesh, 16) == list(range(16))
    batch = put_batch(mesh, {"inputs": rows}, 16)
    assert batch["inputs"].sharding.is_equivalent_to(batch_sharding(mesh), 2)
    assert np.array_equal(batch["inputs"], rows)


def test_constrain_without_a_mesh_changes_nothing():
    x = jax.numpy.ones((3, 2))
    assert constrain(x, "batch", "sequence") is x
