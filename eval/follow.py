"""Checkpoints of a run as they appear, for a second process beside the training.

The trainer knows nothing of it. A checkpoint counts once it has its final name, so a half-written
one is never read; the trainer deletes old ones, so one may go between listing and reading.
"""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from etils import epath

from polyglot_jax import checkpoint
from polyglot_jax.convert import split_step
from polyglot_jax.workdirs import described

POLL = 10.0  # seconds

Opened = TypeVar("Opened")


def checkpoints(
    workdir: epath.Path, open_one: Callable[[str], Opened], poll: float = POLL
) -> Iterator[Opened]:
    """Yields what `open_one` makes of WORKDIR@STEP, oldest step first, until the run has ended.

    Whatever `open_one` raises of a whole checkpoint is raised; one that is damaged, or was deleted
    meanwhile, is a line. While there is nothing new, looks again after `poll` seconds.

    Raises:
      ValueError: the path is that of one checkpoint, or of a directory of transformers.
    """
    _check_is_run(workdir)
    seen: set[int] = set()
    while True:
        ended = has_ended(workdir)  # asked first: its last checkpoint is then among the steps below
        new = [step for step in sorted(checkpoint.complete_steps(workdir)) if step not in seen]
        for step in new:
            seen.add(step)
            try:
                opened = open_one(f"{workdir}@{step}")
            except (ValueError, OSError):
                fate = "deleted before it was read"
                if step in checkpoint.complete_steps(workdir):
                    if (damage := checkpoint.damage(workdir, step, digests=True)) is None:
                        raise
                    fate = f"damaged ({damage})"
                print(f"{workdir}: step {step:,} was {fate}; skipped")
                continue
            yield opened
        if ended:
            print(f"{workdir}: the run has ended")
            return
        if new or not seen:
            after = f"a checkpoint after step {max(seen):,}" if seen else "the first checkpoint"
            print(f"{workdir}: waiting for {after} (ctrl-C ends)", flush=True)
        time.sleep(poll)


def has_ended(workdir: epath.Path) -> bool:
    """Says whether the last step of the experiment has its checkpoint.

    A run that was stopped before, by --steps or by a signal, may go on and has not ended. Converted
    weights have no config.json: nothing will be added to them.
    """
    newest = checkpoint.latest_step(workdir)
    experiment = described(workdir)
    if newest is None or experiment is None:
        return newest == 0
    return newest >= experiment.train.steps


def _check_is_run(workdir: epath.Path) -> None:
    """What is not there may still come, but not to a path that can be no run."""
    directory, step = split_step(workdir)
    if step is not None:
        raise ValueError(f"--follow takes all checkpoints: name {directory}, not {workdir}")
    if (workdir / "config.json").exists() and described(workdir) is None:
        raise ValueError(f"{workdir} is not the --workdir of a run; measure it without --follow")
