"""Checkpoints of a run: Orbax, asynchronous, atomic, newest complete step first.

WORKDIR/checkpoints/STEP holds two items: `state`, the TrainState with named paths, and `metadata`,
a JSON object with the format version, the step, the resolved experiment, the fingerprint of the
data, and where the code came from. A step directory appears under its name only when it is whole.
"""

import importlib.metadata
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from polyglot_jax.cli import one_line
from polyglot_jax.config import Experiment, NeoxConfig, model_from_dict, to_dict
from polyglot_jax.step import TrainState, family

FORMAT_VERSION = 1
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorstore", "numpy")


def open_manager(workdir: epath.PathLike, keep: int) -> ocp.CheckpointManager:
    """Opens the checkpoints of a run for writing; the newest `keep` are kept. Close it at the end.

    Raises:
      OSError: the directory cannot be made.
    """
    directory = epath.Path(workdir) / "checkpoints"
    directory.mkdir(parents=True, exist_ok=True)
    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True),
    )


def save(manager: ocp.CheckpointManager, state: Any, metadata: dict[str, Any]) -> None:
    """Starts writing the state under metadata's step; returns once it is copied off the devices.

    Raises:
      OSError: this or the previous write failed, by a full disk say.
    """
    with _storage_errors(manager):
        manager.save(
            metadata["step"],
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(metadata)
            ),
        )


def finish(manager: ocp.CheckpointManager) -> None:
    """Waits for the writes under way and closes. Raises OSError if one of them failed."""
    with _storage_errors(manager):
        manager.wait_until_finished()
        manager.check_for_errors()
    manager.close()


def restore(manager: ocp.CheckpointManager, step: int, abstract: TrainState) -> TrainState:
    """Reads the state of a complete step straight onto the devices of `abstract`'s shardings.

    Raises:
      ValueError: the checkpoint is damaged, or holds other arrays than `abstract` names.
    """
    args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
    with _damage(manager, step):
        return manager.restore(step, args=args)["state"]


def read_metadata(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """Returns the metadata of a step. Raises ValueError when it is damaged or of a newer format."""
    with _damage(manager, step):
        metadata = manager.restore(step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore()))[
            "metadata"
        ]
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"checkpoint {manager.directory / str(step)} has format version {version}; this code "
            f"reads version {FORMAT_VERSION}: use the code that wrote it"
        )
    return metadata


def restore_params(
    workdir: epath.PathLike, step: int | None = None, shardings: Any = None
) -> tuple[dict[str, Any], Any]:
    """Reads the parameters of a run, without its optimizer state.

    Args:
      step: None is the newest complete one.
      shardings: a tree of shardings like the parameters; None gives numpy arrays.
    Returns:
      The checkpoint's metadata, whose "model" is what `config.model_from_dict` takes, and the
      parameters.
    Raises:
      ValueError: no such complete checkpoint, or it is damaged.
    """
    directory = epath.Path(workdir) / "checkpoints"
    if not directory.is_dir():
        raise ValueError(f"no checkpoints in {workdir}: is it the --workdir of a training run?")
    with ocp.CheckpointManager(
        directory, options=ocp.CheckpointManagerOptions(read_only=True)
    ) as manager:
        step = check_step(manager, step)
        metadata = read_metadata(manager, step)
        model = model_from_dict(metadata["model"])
        params = jax.eval_shape(lambda: family(model).init(model, jax.random.key(0)))
        if shardings is None:
            item = {"params": params}
            restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        else:
            placed = jax.tree.map(
                lambda leaf, sharding: jax.ShapeDtypeStruct(
                    leaf.shape, leaf.dtype, sharding=sharding
                ),
                params,
                shardings,
            )
            item = {"params": placed}
            restore_args = ocp.checkpoint_utils.construct_restore_args(item)
        args = ocp.args.PyTreeRestore(item, restore_args=restore_args, partial_restore=True)
        with _damage(manager, step):
            restored = manager.restore(step, args=ocp.args.Composite(state=args))
    return metadata, restored["state"]["params"]


def check_step(manager: ocp.CheckpointManager, step: int | None) -> int:
    """Returns the step asked for, or the newest one. Raises ValueError if there is no such step."""
    steps = sorted(manager.all_steps())
    if not steps:
        raise ValueError(f"no complete checkpoint in {manager.directory}")
    if step is None:
        return steps[-1]
    if step not in steps:
        listed = ", ".join(map(str, steps))
        raise ValueError(f"no checkpoint of step {step} in {manager.directory}; there are {listed}")
    return step


def save_params(workdir: epath.PathLike, model: NeoxConfig, params: Any) -> None:
    """Writes parameters that were not trained here as checkpoint 0, for `restore_params` to read.

    Raises:
      OSError: the directory cannot be written.
    """
    manager = open_manager(workdir, keep=1)
    metadata = {"format_version": FORMAT_VERSION, "step": 0, "model": to_dict(model)}
    save(manager, {"params": params}, metadata | provenance())
    finish(manager)


def make_metadata(experiment: Experiment, step: int, data: dict[str, Any]) -> dict[str, Any]:
    """Returns what a checkpoint says of itself; `data` is the fingerprint of what it trains on."""
    return {
        "format_version": FORMAT_VERSION,
        "step": step,
        "model": to_dict(experiment.model),
        "experiment": to_dict(experiment),
        "data": data,
        **provenance(),
    }


def provenance() -> dict[str, Any]:
    """Returns the git commit ("-dirty" if files differ from it) and the versions of packages."""
    git = (
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
    )
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"  # not run from a clone
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"git_commit": commit, "versions": versions}


@contextmanager
def _damage(manager: ocp.CheckpointManager, step: int) -> Iterator[None]:
    """Turns whatever a broken checkpoint makes Orbax raise into one line that says what to do."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"checkpoint {manager.directory / str(step)} cannot be read; delete that directory to "
            f"go on from an earlier one ({type(error).__name__}: {one_line(error)[:300]})"
        ) from error


@contextmanager
def _storage_errors(manager: ocp.CheckpointManager) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise OSError(
            f"cannot write a checkpoint to {manager.directory} "
            f"({type(error).__name__}: {one_line(error)[:300]})"
        ) from error
