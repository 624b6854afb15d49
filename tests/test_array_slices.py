"""Checkpoints written and read in slices: Orbax's own files, in few rows at a time."""

import json
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from polyglot_jax import array_slices
from polyglot_jax.array_slices import REGISTRY, StoredArray, rows_at_a_time, save_args

ROW = 6 * 10 * 4  # bytes of a row of "stacked"


class Made:
    """Rows that are made when they are asked for; counts the most at a time."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.most = array, array.shape, array.dtype, 0

    def __getitem__(self, rows):
        part = self.array[rows]
        self.most = max(self.most, len(part))
        return part


@pytest.fixture
def tree(monkeypatch):
    monkeypatch.setattr(array_slices, "SLICE_BYTES", 2 * ROW)
    monkeypatch.setattr(array_slices, "CHUNK_BYTES", ROW // 2)
    monkeypatch.setattr(array_slices, "BYTES_IN_FLIGHT", ROW)
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    return {
        "stacked": draw(5, 6, 10),
        "matrix": draw(33, 7),
        "bias": draw(4),
        "half": draw(3, 4).astype(ml_dtypes.bfloat16),
    }


def save(path, tree):
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=REGISTRY)
    with ocp.Checkpointer(handler) as writer:
        writer.save(path, args=ocp.args.PyTreeSave(tree))


def open_stored(path, names):
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=REGISTRY)
    args = {name: ocp.RestoreArgs(restore_type=StoredArray) for name in names}
    with ocp.Checkpointer(handler) as reader:
        return reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=args))


def test_stock_orbax_restores_it(tmp_path, tree):
    made = {name: Made(array) for name, array in tree.items()}
    save(tmp_path / "x", made)
    assert [made[name].most for name in ("stacked", "matrix", "bias")] == [2, 17, 4]
    with ocp.StandardCheckpointer() as reader:
        jax.tree.map(np.testing.assert_array_equal, reader.restore(tmp_path / "x"), tree)


def test_stock_orbax_restores_it_onto_a_mesh(tmp_path, tree):
    save(tmp_path / "x", tree)
    mesh = jax.make_mesh((2,), ("a",), devices=jax.devices()[:2])
    sharding = NamedSharding(mesh, PartitionSpec(None, "a"))
    abstract = {"stacked": jax.ShapeDtypeStruct((5, 6, 10), jnp.float32, sharding=sharding)}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        args = ocp.checkpoint_utils.construct_restore_args(abstract)
        restored = reader.restore(
            tmp_path / "x",
            args=ocp.args.PyTreeRestore(abstract, restore_args=args, partial_restore=True),
        )
    assert restored["stacked"].sharding == sharding
    np.testing.assert_array_equal(restored["stacked"], tree["stacked"])


def test_metadata_is_that_of_stock_orbax(tmp_path, tree):
    save(tmp_path / "ours", tree)
    with ocp.StandardCheckpointer() as writer:
        writer.save(tmp_path / "theirs", tree)
    ours, theirs = (
        json.loads((tmp_path / name / "_METADATA").read_text()) for name in ("ours", "theirs")
    )
    assert ours == theirs


def test_rows_of_what_slices_wrote(tmp_path, tree):
    save(tmp_path / "x", tree)
    stored = open_stored(tmp_path / "x", tree)
    assert stored["stacked"].chunk_shape == (1, 6, 5)
    assert rows_at_a_time(stored["stacked"]) == 2
    for name, array in tree.items():
        assert (stored[name].shape, stored[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(stored[name][:], array)
    np.testing.assert_array_equal(stored["stacked"][3:5], tree["stacked"][3:5])


def on_a_mesh(array, *spec):
    mesh = jax.make_mesh((4, 2), ("a", "b"))
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))


def test_rows_of_what_a_mesh_wrote(tmp_path, tree, monkeypatch):
    """Its chunks have all rows: so many are read at once as memory allows, not chunk by chunk."""
    tree = {"stacked": on_a_mesh(tree["stacked"], None, "b")}
    with ocp.StandardCheckpointer() as writer:
        writer.save(tmp_path / "x", tree)
    stored = open_stored(tmp_path / "x", tree)["stacked"]
    assert stored.chunk_shape == (5, 3, 10)
    assert rows_at_a_time(stored) == 5
    monkeypatch.setattr(array_slices, "WIDE_BYTES", 3 * ROW)
    assert rows_at_a_time(stored) == 3
    np.testing.assert_array_equal(stored[2:4], tree["stacked"][2:4])


def test_a_training_state_is_saved_in_chunks_of_a_layer(tmp_path, tree, monkeypatch):
    monkeypatch.setattr(array_slices, "WIDE_BYTES", 3 * ROW)
    layers = on_a_mesh(tree["stacked"], None, "b")
    tree = {"layers": layers, "head": on_a_mesh(tree["stacked"], None, None, "b")}
    with ocp.StandardCheckpointer() as writer:
        writer.save(tmp_path / "x", tree, save_args=save_args(tree))
    stored = open_stored(tmp_path / "x", tree)
    assert stored["layers"].chunk_shape[0] == 1
    assert stored["head"].chunk_shape == (5, 6, 5)
    np.testing.assert_array_equal(stored["layers"][:], layers)


def test_what_goes_wrong_while_reading_passes_through_errors(tmp_path):
    save(tmp_path / "x", {"noise": np.random.default_rng(0).standard_normal((4, 2000))})

    @contextmanager
    def errors():
        try:
            yield
        except ValueError as error:
            raise OSError("translated") from error

    stored = StoredArray(open_stored(tmp_path / "x", ["noise"])["noise"].store, errors)
    for file in (tmp_path / "x").rglob("d/*"):
        file.write_bytes(b"")
    with pytest.raises(OSError, match="translated"):
        stored[:]
