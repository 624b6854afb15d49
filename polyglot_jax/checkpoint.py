"""Checkpoints of a run: Orbax, asynchronous, atomic, newest complete step first.

WORKDIR/checkpoints/STEP holds two items: `state`, the TrainState with named paths, and `metadata`,
a JSON object with the format version, the step, the resolved experiment, the fingerprint of the
data, and where the code came from. A step directory appears under its name only when it is whole,
with the digests of its files (`polyglot_jax.integrity`).

    python -m polyglot_jax.checkpoint --list=WORKDIR [--verify]
"""

import dataclasses
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import flags
from etils import epath

from polyglot_jax import (
    array_slices,
    cli,
    integrity,
    provenance,
    selection,
    storage_errors,
)
from polyglot_jax.config import Experiment, NeoxConfig, model_from_dict, to_dict
from polyglot_jax.health import guard
from polyglot_jax.step import TrainState, family

FORMAT_VERSION = 2
READABLE = (1, 2)  # 1 has no guard


def main() -> None:
    workdir = epath.Path(flags.FLAGS.list)
    find_step(workdir)  # there is something to list
    steps = complete_steps(workdir)
    damaged = {step: damage(workdir, step, digests=flags.FLAGS.verify) for step in steps}
    names = selection.names_of(workdir, steps, {s: what for s, what in damaged.items() if what})
    print(selection.overview(workdir, names))
    try:
        print(f"drawn in {selection.draw(workdir, names)}")
    except (ValueError, OSError) as error:  # of a workdir that one may only read, say
        print(f"not drawn: {cli.one_line(error)}")


def open_manager(
    workdir: epath.PathLike, keep: selection.Keep, handlers: Any = None
) -> ocp.CheckpointManager:
    """Opens the checkpoints of a run for writing; those of `keep` are kept. Close it at the end.

    Args:
      handlers: {item: Orbax's handler}; None lets Orbax choose.
    Raises:
      OSError: the directory cannot be made.
    """
    directory = _directory(workdir)
    directory.mkdir(parents=True, exist_ok=True)
    # Orbax calls it when the files of a step are final and the step has not got its name yet.
    before_commit = ocp.options.AsyncOptions(
        post_finalization_callback=lambda: integrity.seal_unnamed(directory)
    )
    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(
            preservation_policy=keep,
            cleanup_tmp_directories=True,  # of a kill while it saved: as large as a checkpoint
            enable_async_checkpointing=True,
            async_options=before_commit,
        ),
        item_handlers=handlers,
    )


def save(manager: ocp.CheckpointManager, state: Any, metadata: dict[str, Any]) -> None:
    """Starts writing the state under metadata's step; returns once it is copied off the devices.

    Raises:
      OSError: this or the previous write failed, by a full disk say.
    """
    with storage_errors.writing(manager.directory):
        manager.save(
            metadata["step"],
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state, array_slices.save_args(state)),
                metadata=ocp.args.JsonSave(metadata),
            ),
        )


def raise_failure(manager: ocp.CheckpointManager) -> None:
    """Raises OSError if the write that was under way has ended and failed; waits for nothing."""
    if not manager.is_saving_in_progress():
        with storage_errors.writing(manager.directory):
            manager.wait_until_finished()


def finish(manager: ocp.CheckpointManager) -> None:
    """Waits for the writes under way and closes. Raises OSError if one of them failed."""
    with storage_errors.writing(manager.directory):
        manager.wait_until_finished()
        manager.check_for_errors()
    manager.close()


@contextmanager
def finished(
    manager: ocp.CheckpointManager, waiting: Callable[[], AbstractContextManager[None]]
) -> Iterator[None]:
    """Finishes when the block ends, also by an error that has nothing to do with storage: the
    checkpoint that is under way is whole then.

    Args:
      waiting: gives the context to wait in, as it may take long.
    """
    try:
        yield
    except (ValueError, FloatingPointError):
        with waiting(), suppress(OSError):
            finish(manager)
        raise
    with waiting():
        finish(manager)


def latest_step(workdir: epath.PathLike) -> int | None:
    """Returns the newest complete step of a run, None if there is none."""
    return max(complete_steps(workdir), default=None)


def damage(workdir: epath.PathLike, step: int, *, digests: bool = False) -> str | None:
    """Returns what is wrong with the files of a complete step; see `integrity.damage`."""
    return integrity.damage(_directory(workdir) / str(step), digests=digests)


def newest_good(workdir: epath.PathLike) -> int | None:
    """Returns the newest complete step whose files have the right sizes, None without steps.

    Raises:
      ValueError: there are steps, and all of them are damaged.
    """
    return integrity.newest_good(_directory(workdir), complete_steps(workdir))[0]


def set_damaged_aside(workdir: epath.PathLike) -> list[str]:
    """Moves what is newer than the newest good step to WORKDIR/damaged, and says so in lines.

    There it neither counts among the newest, for which older ones are deleted, nor is in the way of
    the step that is trained again. Reads all files of the checkpoint that the run goes on from.

    Raises:
      ValueError: there are steps, and all of them are damaged; nothing is moved then.
    """
    directory = _directory(workdir)
    _, damaged = integrity.newest_good(directory, complete_steps(workdir), digests=True)
    return [
        f"checkpoint {step} is damaged ({what}): moved to "
        f"{integrity.set_aside(directory, step, what)}"
        for step, what in damaged.items()
    ]


def find_step(workdir: epath.PathLike, name: str = selection.NEWEST) -> int:
    """Returns the step of a complete checkpoint: by number, "newest", "best" or a tag.

    Raises:
      ValueError: there is no complete checkpoint, or none of that name.
    """
    steps = complete_steps(workdir)
    if not steps:
        raise ValueError(
            f"no complete checkpoint in {_directory(workdir)}: is {workdir} the --workdir of a run?"
        )
    return selection.choose(workdir, steps, name)


def restore(workdir: epath.PathLike, step: int, abstract: TrainState) -> TrainState:
    """Reads the state of a complete step straight onto the devices of `abstract`'s shardings.

    Raises:
      ValueError: the checkpoint is damaged, or holds other arrays than `abstract` names.
    """
    path = _directory(workdir) / str(step)
    version = read_metadata(workdir, step)["format_version"]
    with storage_errors.reading(path), ocp.StandardCheckpointer() as reader:
        if version == FORMAT_VERSION:
            return reader.restore(path / "state", abstract)
        fields = {name: getattr(abstract, name) for name in ("step", "params", "opt_state")}
        restored = reader.restore(path / "state", fields)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract.guard)
    return TrainState(**restored, guard=jax.jit(guard.fresh, out_shardings=shardings)())


def read_metadata(workdir: epath.PathLike, step: int) -> dict[str, Any]:
    """Returns the metadata of a step. Raises ValueError when it is damaged or of a newer format."""
    path = _directory(workdir) / str(step)
    with storage_errors.reading(path), ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        metadata = reader.restore(path / "metadata")
        if not isinstance(metadata, dict) or not {"step", "model"} <= metadata.keys():
            raise ValueError("not the metadata of a checkpoint")
    if metadata["step"] != step:
        raise ValueError(
            f"checkpoint {path} is that of step {metadata['step']}; give it its name back"
        )
    version = metadata.get("format_version")
    if version not in READABLE:
        raise ValueError(
            f"checkpoint {path} has format version {version}; this code reads versions "
            f"{' and '.join(map(str, READABLE))}: use the code that wrote it"
        )
    return metadata


def restore_params(
    workdir: epath.PathLike, step: int | None = None, shardings: Any = None
) -> tuple[dict[str, Any], Any]:
    """Reads the parameters of a run, without its optimizer state.

    Args:
      step: None is the newest that is not damaged; what is passed over for it is printed.
      shardings: a tree of shardings like the parameters; None gives numpy arrays.
    Returns:
      The checkpoint's metadata, whose "model" is what `config.model_from_dict` takes, and the
      parameters.
    Raises:
      ValueError: no such complete checkpoint, or it is damaged.
    """
    metadata, path, params = _abstract_params(workdir, step)
    if shardings is None:
        restore_args = jax.tree.map(
            lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype), params
        )
    else:
        restore_args = jax.tree.map(
            lambda leaf, sharding: ocp.ArrayRestoreArgs(
                sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype
            ),
            params,
            shardings,
        )
    with storage_errors.reading(path), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        return metadata, _restore_params(reader, path, params, restore_args)


def open_params(workdir: epath.PathLike, step: int | None = None) -> tuple[dict[str, Any], Any]:
    """Like `restore_params`, but gives a tree of `StoredArray`, which read when indexed."""
    metadata, path, params = _abstract_params(workdir, step)
    stored = ocp.RestoreArgs(restore_type=array_slices.StoredArray)
    restore_args = jax.tree.map(lambda _: stored, params)
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=array_slices.REGISTRY)
    with storage_errors.reading(path), ocp.Checkpointer(handler) as reader:
        opened = _restore_params(reader, path, params, restore_args)
    damage = functools.partial(storage_errors.reading, path)
    return metadata, jax.tree.map(lambda x: dataclasses.replace(x, errors=damage), opened)


def _abstract_params(
    workdir: epath.PathLike, step: int | None
) -> tuple[dict[str, Any], epath.Path, Any]:
    """Returns the metadata of a step, its directory, and the shapes of its parameters."""
    directory = _directory(workdir)
    if step is None:
        find_step(workdir)  # there is one
        step, damaged = integrity.newest_good(directory, complete_steps(workdir), digests=True)
        for other, what in damaged.items():
            line = f"checkpoint {other} of {workdir} is damaged ({what}): passed over"
            print(line, file=sys.stderr)
        assert step is not None
    else:
        path = directory / str(find_step(workdir, str(step)))
        if wrong := integrity.damage(path, digests=True):
            raise ValueError(
                f"checkpoint {path} is damaged ({wrong}); name another, as WORKDIR@STEP"
            )
    path = directory / str(step)
    metadata = read_metadata(workdir, step)
    model = model_from_dict(metadata["model"])
    params = jax.eval_shape(lambda: family(model).init(model, jax.random.key(0)))
    return metadata, path, params


def _restore_params(
    reader: ocp.Checkpointer, path: epath.Path, params: Any, restore_args: Any
) -> Any:
    args = ocp.args.PyTreeRestore(
        {"params": params}, restore_args={"params": restore_args}, partial_restore=True
    )
    return reader.restore(path / "state", args=args)["params"]


def save_params(workdir: epath.PathLike, model: NeoxConfig, params: Any) -> None:
    """Writes parameters that were not trained here as checkpoint 0, for `restore_params` to read.

    Args:
      params: a tree of arrays, of which a few layers at a time are asked for.
    Raises:
      OSError: the directory cannot be written.
    """
    slices = ocp.PyTreeCheckpointHandler(type_handler_registry=array_slices.REGISTRY)
    handlers = {"state": slices, "metadata": ocp.JsonCheckpointHandler()}
    manager = open_manager(workdir, selection.Keep(), handlers)
    metadata = {"format_version": FORMAT_VERSION, "step": 0, "model": to_dict(model)}
    args = ocp.args.Composite(
        state=ocp.args.PyTreeSave({"params": params}),
        metadata=ocp.args.JsonSave(metadata | provenance.code()),
    )
    with storage_errors.writing(manager.directory):
        manager.save(0, args=args)
    finish(manager)


def make_metadata(experiment: Experiment, step: int, data: dict[str, Any]) -> dict[str, Any]:
    """Returns what a checkpoint says of itself; `data` is the fingerprint of what it trains on."""
    return {
        "format_version": FORMAT_VERSION,
        "step": step,
        "model": to_dict(experiment.model),
        "experiment": to_dict(experiment),
        "data": data,
        **provenance.code(),
        "started_on": provenance.surroundings(),
    }


def _directory(workdir: epath.PathLike) -> epath.Path:
    path = epath.Path(workdir)
    if "://" not in os.fspath(path):
        path = path.absolute()  # Orbax refuses relative paths
    return path / "checkpoints"


def complete_steps(workdir: epath.PathLike) -> list[int]:
    paths = ocp.path.step.checkpoint_steps_paths(_directory(workdir))
    # Names that we did not give are passed over: 007, and digits of other scripts.
    return [int(path.name) for path in paths if re.fullmatch(r"0|[1-9][0-9]*", path.name)]


if __name__ == "__main__":
    flags.DEFINE_string("list", None, "Workdir of the run whose checkpoints are shown.")
    flags.DEFINE_bool("verify", False, "Read all files and compare their digests, not sizes only.")
    flags.mark_flag_as_required("list")
    cli.run(main)
