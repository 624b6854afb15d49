"""Tiny training runs, as programs and in this process, and how to compare them."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import numpy as np

from polyglot_jax import checkpoint
from polyglot_jax.config import Experiment, load_experiment
from polyglot_jax.mesh import make_mesh
from polyglot_jax.step import abstract_state

ROOT = Path(__file__).resolve().parents[1]
START = ("no peak FLOP/s", "ko_tiny: ", "compiling ")  # lines of every start
STEPS = 24  # of 8 windows of 32 tokens: more than an epoch of the tiny corpus
SETS = (
    *("model.num_layers=1", "model.d_model=32", "model.num_heads=2", "model.d_ff=64"),
    *("model.vocab_size=384", "model.max_seq_len=32", "data.seq_len=32"),
    *("train.batch_size=24", f"train.steps={STEPS}", "train.log_every=1", "train.eval_every=8"),
    *("train.checkpoint_every=3", "train.eval_sequences=24"),
)


def settings(shards: Path, *more: str) -> list[str]:
    return [*SETS, f"data.plan.0.sources.0.path={shards}", *more]


def experiment(shards: Path, *more: str) -> Experiment:
    return load_experiment("ko_tiny", settings(shards, "mesh.data=8", *more))


def start(workdir: Path, sets: list[str], *flags: str, prefix: tuple[str, ...] = ()):
    """Starts the program as a user does."""
    command = [
        *(*prefix, sys.executable, "-m", "polyglot_jax.train"),
        *("--experiment=ko_tiny", f"--workdir={workdir}"),
        *(f"--set={item}" for item in sets),
        *flags,
    ]
    return subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, output


def records(workdir: Path) -> list[dict[str, float]]:
    """Returns the record of a run without what depends on the clock."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.endswith("tokens_per_second")}
        for line in lines
    ]


def training(workdir: Path) -> list[dict[str, float]]:
    return [r for r in records(workdir) if "train/loss" in r]


def final_state(workdir: Path, shards: Path):
    one = load_experiment("ko_tiny", settings(shards))
    mesh = make_mesh(one.mesh, jax.devices()[:1])
    step = checkpoint.latest_step(workdir)
    assert step == STEPS
    return jax.device_get(checkpoint.restore(workdir, step, abstract_state(one, mesh)))


def assert_same_run(got: Path, want: Path, shards: Path) -> None:
    assert records(got) == records(want)
    jax.tree.map(np.testing.assert_array_equal, final_state(got, shards), final_state(want, shards))


# ---- kills

Moment = Callable[[Path, subprocess.Popen], bool]  # whether it has come


def when_step(n: int) -> Moment:
    """Step n is in the record."""

    def reached(workdir: Path, process: subprocess.Popen) -> bool:
        path = workdir / "metrics.jsonl"
        return path.exists() and f'"step": {n},' in path.read_text()

    return reached


def when_locked(workdir: Path, process: subprocess.Popen) -> bool:
    """The program has the workdir: it verifies checkpoints and restores, then data and compiler."""
    path = workdir / "lock"
    return path.exists() and f"process {process.pid} " in path.read_text()


def when_recording(workdir: Path, process: subprocess.Popen) -> bool:
    """The record is open: the state is there, the data starts, the steps are compiled."""
    board = workdir / "tensorboard"
    return when_locked(workdir, process) and any(
        path.stat().st_mtime > (workdir / "config.json").stat().st_mtime for path in board.glob("*")
    )


def when_saving(workdir: Path, process: subprocess.Popen) -> bool:
    """An asynchronous save is under way: a temporary directory that is not an earlier kill's."""
    return when_recording(workdir, process) and any(
        "tmp" in path.name for path in (workdir / "checkpoints").glob("*")
    )


def later(moment: Moment, seconds: float) -> Moment:
    """The time is counted from the moment on."""
    due: list[float] = []

    def reached(workdir: Path, process: subprocess.Popen) -> bool:
        if not due and moment(workdir, process):
            due.append(time.monotonic() + seconds)
        return bool(due) and time.monotonic() >= due[0]

    return reached


def run_with_kills(workdir: Path, sets: list[str], moments: Iterable[Moment]) -> None:
    """Kills the program at each moment in turn, then lets it end."""
    for is_due in moments:
        process = start(workdir, sets)
        while process.poll() is None and not is_due(workdir, process):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        code, output = finish(process)
        assert code == -signal.SIGKILL, f"the run was over before its moment came: {output}"
    code, output = finish(start(workdir, sets))
    assert code == 0, output
