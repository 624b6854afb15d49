"""Checkpoints: exact round trips, newest complete first, damage said in one line."""

import gc
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from polyglot_jax import checkpoint, integrity
from polyglot_jax.config import MeshConfig, from_dict
from polyglot_jax.health import guard
from polyglot_jax.mesh import make_mesh
from polyglot_jax.selection import Keep
from polyglot_jax.step import abstract_state, jit_init, shardings_of
from tests.test_step import small_experiment

FIXTURES = Path(__file__).parent / "fixtures"
EXPERIMENT = small_experiment(sets=["model.num_layers=1", "model.d_model=16", "model.d_ff=32"])


def fresh_state(mesh):
    return jit_init(EXPERIMENT, mesh)()


def write(workdir, state, steps=(1,), keep=3):
    manager = checkpoint.open_manager(workdir, Keep(newest=keep))
    for step in steps:
        metadata = checkpoint.make_metadata(EXPERIMENT, step, {"data": "none"})
        checkpoint.save(manager, state.replace(step=np.int32(step)), metadata)
    checkpoint.finish(manager)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def state(mesh):
    return fresh_state(mesh)


def assert_same(got, want):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(got), jax.device_get(want))


def test_round_trip_is_exact(tmp_path, mesh, state):
    write(tmp_path, state)
    restored = checkpoint.restore(tmp_path, 1, abstract_state(EXPERIMENT, mesh))
    assert_same(restored, state.replace(step=np.int32(1)))
    metadata = checkpoint.read_metadata(tmp_path, 1)
    assert from_dict(metadata["experiment"]) == EXPERIMENT
    assert metadata["data"] == {"data": "none"}
    assert metadata["versions"]["jax"] == jax.__version__


def test_restores_onto_another_mesh(tmp_path, state):
    write(tmp_path, state)
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    abstract = abstract_state(EXPERIMENT, mesh)
    restored = checkpoint.restore(tmp_path, 1, abstract)
    assert_same(restored.params, state.params)
    assert jax.tree.all(
        jax.tree.map(lambda a, b: a.sharding == b, restored, shardings_of(abstract))
    )


def test_keeps_the_newest(tmp_path, state):
    write(tmp_path, state, steps=(1, 2, 3), keep=2)
    manager = checkpoint.open_manager(tmp_path, Keep(newest=2))
    assert manager.all_steps() == [2, 3]
    manager.close()


def test_half_written_checkpoint_is_not_taken_for_whole(tmp_path, state):
    """Orbax writes to a name of its own and renames: a kill leaves only that name."""
    write(tmp_path, state)
    whole = tmp_path / "checkpoints" / "1"
    shutil.copytree(whole, whole.with_name("2.orbax-checkpoint-tmp-0"))
    assert checkpoint.latest_step(tmp_path) == 1


def test_params_alone(tmp_path, mesh, state):
    write(tmp_path, state, steps=(4, 5))
    metadata, params = checkpoint.restore_params(tmp_path)
    assert metadata["step"] == 5
    assert isinstance(params["embed_in"], np.ndarray)
    assert_same(params, state.params)
    shardings = shardings_of(abstract_state(EXPERIMENT, mesh).params)
    _, placed = checkpoint.restore_params(tmp_path, 4, shardings)
    assert placed["embed_in"].sharding == shardings["embed_in"]
    assert_same(placed, state.params)


def test_params_that_were_not_trained_here(tmp_path, state):
    checkpoint.save_params(tmp_path, EXPERIMENT.model, state.params)
    metadata, params = checkpoint.restore_params(tmp_path)
    assert metadata["step"] == 0
    assert_same(params, state.params)


def test_missing_checkpoints_are_named(tmp_path, state):
    assert checkpoint.latest_step(tmp_path) is None
    with pytest.raises(ValueError, match="no complete checkpoint in"):
        checkpoint.restore_params(tmp_path)
    write(tmp_path, state, steps=(4,))
    with pytest.raises(ValueError, match=r"no checkpoint of step 7 in .*; there are 4"):
        checkpoint.restore_params(tmp_path, 7)


def data_files(directory):
    return sorted((directory / "state").rglob("d/*"), key=lambda path: path.stat().st_size)


def truncate(directory):
    largest = data_files(directory)[-1]
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def lose_arrays(directory):
    shutil.rmtree(directory / "state")


def empty_metadata(directory):
    (directory / "metadata" / "metadata").write_text("")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", [truncate, lose_arrays, empty_metadata])
def test_damage_is_found_without_digests_too(tmp_path, state, damage):
    """In checkpoints of before there were any. What is damaged without one: tests/faults."""
    write(tmp_path, state)
    (tmp_path / "checkpoints" / "1" / integrity.FILE).unlink()
    damage(tmp_path / "checkpoints" / "1")
    with pytest.raises(ValueError, match=r"checkpoints/1 (cannot be read; if it is|is) damaged"):
        checkpoint.restore_params(tmp_path, 1)
    gc.collect()  # Orbax leaves the futures of a failed read behind, to complain at collection


def test_newer_format_is_refused(tmp_path, state):
    manager = checkpoint.open_manager(tmp_path, Keep(newest=3))
    metadata = checkpoint.make_metadata(EXPERIMENT, 1, {}) | {"format_version": 3}
    checkpoint.save(manager, state, metadata)
    checkpoint.finish(manager)
    with pytest.raises(ValueError, match="format version 3; this code reads versions 1 and 2"):
        checkpoint.restore_params(tmp_path)


def test_unwritable_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        checkpoint.open_manager(tmp_path / "file", Keep(newest=3))


@pytest.mark.parametrize("version", [1, 2])
def test_every_version_still_loads(version, mesh):
    """The fixtures were written when their versions were made; they must load as long as we say."""
    workdir = FIXTURES / f"checkpoint_v{version}"
    metadata, params = checkpoint.restore_params(workdir)
    assert (metadata["step"], metadata["format_version"]) == (1, version)
    experiment = from_dict(metadata["experiment"])
    state = checkpoint.restore(workdir, 1, abstract_state(experiment, mesh))
    assert state.step == 1
    assert_same(state.params, params)
    assert_same(state.guard, guard.fresh())
    assert abs(float(np.std(params["embed_in"])) - (2 / (5 * 16)) ** 0.5) < 0.01
