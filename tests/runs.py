"""Tiny training runs, as programs and in this process, and how to compare them."""

import json
import subprocess
import sys
from collections.abc import Callable
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


def when_step(n: int) -> Callable[[Path], bool]:
    def reached(workdir: Path) -> bool:
        path = workdir / "metrics.jsonl"
        return path.exists() and f'"step": {n},' in path.read_text()

    return reached


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
