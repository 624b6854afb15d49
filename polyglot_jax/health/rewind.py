"""Back to the checkpoint before a spike, and past the data that made it.

What PaLM did by hand (arXiv 2204.02311, section 5.1): go back, leave out the batches around the
spike, and it does not come again. The batches that are left out are recorded in
WORKDIR/rewinds.json, so that the run that resumes is the same run; checkpoints carry them in the
fingerprint of their data as if the plan had skipped them from the start.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from etils import epath

from polyglot_jax import distributed, files, typed
from polyglot_jax.config import DataConfig, DataPhase
from polyglot_jax.data.mixture import skip

MOST = 3  # rewinds to one checkpoint: if the spike comes again then, it is not the data


@dataclass(frozen=True, kw_only=True)
class Rewind:
    """One step back: the data of the updates after `step` up to `spike` is left out."""

    step: int  # of the checkpoint
    spike: int  # number of the update that was one
    # Of the data plan then; what is appended later has nothing to leave out. Not said: all.
    phases: int = sys.maxsize


def read(workdir: epath.PathLike) -> list[Rewind]:
    """Returns the rewinds of a run in order, as process 0 reads them; all processes call it.

    Raises:
      ValueError: the file is not `begin`'s.
    """
    path = epath.Path(workdir) / "rewinds.json"
    values = []
    if jax.process_index() == 0 and path.exists():
        try:
            values = json.loads(path.read_text())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
    rewinds = typed.build(tuple[Rewind, ...], distributed.agreed(values), where=str(path))
    if any(rewind.phases < 1 for rewind in rewinds):
        raise ValueError(f"{path}: phases must be at least 1")
    return list(rewinds)


def begin(workdir: epath.PathLike, rewind: Rewind) -> None:
    """Records that the run goes back; all processes call it.

    Raises:
      FloatingPointError: it has gone back there often enough.
    """
    earlier = read(workdir)
    if sum(other.step == rewind.step for other in earlier) >= MOST:
        raise FloatingPointError(
            f"step {rewind.spike}: a spike again, though the run went back to the checkpoint of "
            f"step {rewind.step} {MOST} times, each time past the data that made it. It is not the "
            "data: lower optimizer.learning_rate, or --set health.on_spike=skip"
        )
    if jax.process_index() == 0:
        rewinds = [dataclasses.asdict(r) for r in [*earlier, rewind]]
        files.write(epath.Path(workdir) / "rewinds.json", json.dumps(rewinds, indent=2), "\n")


def without(data: DataConfig, rewinds: Sequence[Rewind]) -> DataConfig:
    """Returns the plan with the data of the rewinds skipped, each counted in what was left."""
    for rewind in rewinds:
        then, later = data.plan[: rewind.phases], data.plan[rewind.phases :]
        ends = [*(following.from_step for following in then[1:]), rewind.spike]
        plan = tuple(
            _leave_out(phase, max(phase.from_step, rewind.step), min(end, rewind.spike))
            for phase, end in zip(then, ends, strict=True)
        )
        data = dataclasses.replace(data, plan=(*plan, *later))
    return data


def _leave_out(phase: DataPhase, first: int, end: int) -> DataPhase:
    """Returns the phase without the batches that the steps [first, end) would train on."""
    if first >= end:
        return phase
    begin = skip(first - phase.from_step, phase.skipped)
    past = skip(end - 1 - phase.from_step, phase.skipped) + 1
    merged = [pair for pair in phase.skipped if pair[1] < begin or pair[0] > past]
    absorbed = [pair for pair in phase.skipped if pair not in merged]
    begin = min([begin, *(pair[0] for pair in absorbed)])
    past = max([past, *(pair[1] for pair in absorbed)])
    return dataclasses.replace(phase, skipped=tuple(sorted([*merged, (begin, past)])))
