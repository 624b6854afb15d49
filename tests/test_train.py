"""The training program: it resumes bit for bit, refuses what it cannot continue, and says why."""

import itertools
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from polyglot_jax import checkpoint
from polyglot_jax.config import Experiment, load_experiment, override
from polyglot_jax.mesh import make_mesh
from polyglot_jax.step import abstract_state
from polyglot_jax.train import train

ROOT = Path(__file__).resolve().parents[1]
START = ("no peak FLOP/s", "ko_tiny: ", "compiled ")  # lines of every start
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
    output, _ = process.communicate(timeout=180)
    return process.returncode, output


def records(workdir: Path) -> list[dict[str, float]]:
    """Returns the record of a run without what depends on the clock."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.endswith("tokens_per_second")}
        for line in lines
    ]


def final_state(workdir: Path, shards: Path):
    one = load_experiment("ko_tiny", settings(shards))
    mesh = make_mesh(one.mesh, jax.devices()[:1])
    step = checkpoint.latest_step(workdir)
    assert step == STEPS
    return jax.device_get(checkpoint.restore(workdir, step, abstract_state(one, mesh)))


def assert_same_run(got: Path, want: Path, shards: Path) -> None:
    assert records(got) == records(want)
    jax.tree.map(np.testing.assert_array_equal, final_state(got, shards), final_state(want, shards))


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, tiny_shards) -> Path:
    """A run that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("whole")
    code, output = finish(start(workdir, settings(tiny_shards)))
    assert code == 0, output
    return workdir


# ---- a whole run


def test_run_leaves_everything_that_is_promised(whole_run):
    names = {path.name for path in whole_run.iterdir()}
    promised = {"config.json", "tokenizer.json", "checkpoints", "metrics.jsonl", "tensorboard"}
    assert names == promised | {"curve.png"}
    steps = sorted(int(path.name) for path in (whole_run / "checkpoints").iterdir())
    assert steps == [STEPS - 6, STEPS - 3, STEPS]
    described = json.loads((whole_run / "config.json").read_text())
    assert described["experiment"]["train"]["steps"] == STEPS
    assert described["versions"]["jax"] == jax.__version__


def test_run_learns_and_records_it(whole_run):
    recorded = records(whole_run)
    assert [r["step"] for r in recorded if "train/loss" in r] == list(range(1, STEPS + 1))
    held_out = {r["step"]: r["held_out/bits_per_byte"] for r in recorded if "held_out/loss" in r}
    assert list(held_out) == [0, 8, 16, 24]
    assert held_out[24] < 0.7 * held_out[0]
    last = recorded[-2]
    assert last["train/epoch/tiny"] > 1  # the run crosses an epoch's boundary
    # a byte-level tokenizer: nearly a byte a token, so bits per byte are nearly the loss in bits
    assert last["train/bits_per_byte"] == pytest.approx(last["train/loss"] / np.log(2), rel=0.05)


def test_finished_run_has_nothing_left_to_do(whole_run, tiny_shards, tmp_path):
    workdir = shutil.copytree(whole_run, tmp_path / "run")
    code, output = finish(start(workdir, settings(tiny_shards)))
    assert code == 0, output
    assert records(workdir) == records(whole_run)


def test_relative_workdir(tiny_shards, tmp_path, monkeypatch):
    """Orbax wants absolute paths; users type relative ones."""
    monkeypatch.chdir(tmp_path)
    train(experiment(tiny_shards), epath.Path("run"), 2)
    assert checkpoint.latest_step("run") == 2


# ---- resuming


def when_step(n: int):
    def reached(workdir: Path) -> bool:
        path = workdir / "metrics.jsonl"
        return path.exists() and f'"step": {n},' in path.read_text()

    return reached


def when_saving(workdir: Path) -> bool:
    """An asynchronous save is under way: Orbax's temporary directory is there."""
    return any("tmp" in path.name for path in (workdir / "checkpoints").glob("*"))


def after_seconds(seconds: float):
    end = time.monotonic() + seconds
    return lambda workdir: time.monotonic() > end


def run_with_kills(workdir: Path, sets: list[str], moments) -> None:
    """Kills the program at each moment in turn, then lets it end."""
    for is_due in moments:
        process = start(workdir, sets)
        while process.poll() is None and not is_due(workdir):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        finish(process)
    code, output = finish(start(workdir, sets))
    assert code == 0, output


def test_killed_runs_end_like_the_whole_one(whole_run, tiny_shards, tmp_path):
    """Once between two saves, once while one is being written, once at any time."""
    moments = [when_step(8), when_saving, after_seconds(random.Random(0).uniform(4, 9))]
    run_with_kills(tmp_path / "run", settings(tiny_shards), moments)
    assert_same_run(tmp_path / "run", whole_run, tiny_shards)


@pytest.mark.slow
def test_many_kills(whole_run, tiny_shards, tmp_path):
    rng = random.Random(1)
    moments = [after_seconds(rng.uniform(2, 10)) for _ in range(12)] + [when_saving] * 5
    run_with_kills(tmp_path / "run", settings(tiny_shards), moments)
    assert_same_run(tmp_path / "run", whole_run, tiny_shards)


def test_stopping_early_and_going_on_is_the_same_run(whole_run, tiny_shards, tmp_path):
    code, output = finish(start(tmp_path / "run", settings(tiny_shards), "--steps=10"))
    assert code == 0, output
    assert checkpoint.latest_step(tmp_path / "run") == 10
    code, output = finish(start(tmp_path / "run", settings(tiny_shards)))
    assert code == 0, output
    assert "from step 10 of" in output
    whole = [r for r in records(whole_run) if "train/loss" in r]
    got = [r for r in records(tmp_path / "run") if "train/loss" in r]
    assert got == whole


def test_off_by_one_resume_would_show(whole_run):
    """The check of the tests above is sharp: the next step's batch has another loss."""
    losses = [r["train/loss"] for r in records(whole_run) if "train/loss" in r]
    assert all(abs(a - b) > 1e-4 for a, b in itertools.pairwise(losses))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_two_processes_train_like_one(whole_run, tiny_shards, tmp_path):
    coordinator = f"--coordinator=127.0.0.1:{free_port()}"
    processes = [
        start(
            tmp_path / "run",
            settings(tiny_shards, "train.steps=10"),
            *(coordinator, "--num_processes=2", f"--process_id={i}"),
        )
        for i in range(2)
    ]
    for process in processes:
        code, output = finish(process)
        assert code == 0, output
    steps = [r for r in records(tmp_path / "run") if "train/loss" in r]
    assert [r["step"] for r in steps] == list(range(1, 11))
    alone = load_experiment("ko_tiny", settings(tiny_shards, "train.steps=10"))
    train_alone(alone, tmp_path / "alone")
    for got, want in zip(steps, records_of_training(tmp_path / "alone"), strict=True):
        assert got["train/loss"] == pytest.approx(want["train/loss"], rel=1e-5)
        assert got["train/grad_norm"] == pytest.approx(want["train/grad_norm"], rel=1e-5)
        assert got["train/epoch/tiny"] == want["train/epoch/tiny"]


def records_of_training(workdir: Path) -> list[dict[str, float]]:
    return [r for r in records(workdir) if "train/loss" in r]


def train_alone(e: Experiment, workdir: Path) -> None:
    train(override(e, ["mesh.data=8"]), epath.Path(workdir), e.train.steps)


# ---- refusing, in this process: cli.run makes one line of each (tests/test_cli.py)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.seed=1", "train.seed=1, but the checkpoint was trained with 0"),
        ("train.batch_size=16", "train.batch_size=16, but the checkpoint was trained with 24"),
        ("data.plan.0.seed=9", "seed"),
        ("data.seq_len=16", "seq_len: was 32, is 16"),
        ("model.d_ff=128", "model.d_ff=128, but the checkpoint was trained with 64"),
        ("optimizer.trainable=kernel", "optimizer.trainable='kernel', but"),
    ],
)
def test_another_run_in_the_workdir_is_refused(change, message, whole_run, tiny_shards):
    before = sorted(whole_run.rglob("*"))
    with pytest.raises(ValueError, match=message):
        train(experiment(tiny_shards, change), epath.Path(whole_run), STEPS)
    assert sorted(whole_run.rglob("*")) == before


def test_other_data_is_refused(whole_run, tiny_shards, tmp_path):
    other = shutil.copytree(tiny_shards, tmp_path / "shards")
    manifest = other / "train" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 1234', '"seed": 1235'))
    with pytest.raises(ValueError, match="data differs from what the checkpoint"):
        train(experiment(other), epath.Path(whole_run), STEPS)


def test_missing_shards(tmp_path):
    with pytest.raises(ValueError, match="no-such-shards"):
        train(experiment(tmp_path / "no-such-shards"), epath.Path(tmp_path / "run"), 1)
    assert not (tmp_path / "run").exists()


def test_corrupt_shard(tiny_shards, tmp_path):
    other = shutil.copytree(tiny_shards, tmp_path / "shards")
    chunk = max((other / "train").rglob("c/*"), key=lambda path: path.stat().st_size)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 3] ^= 0xFF
    chunk.write_bytes(content)
    with pytest.raises(ValueError, match=r"shards/train/shard-00000"):
        train(experiment(other), epath.Path(tmp_path / "run"), STEPS)


def test_vocabulary_smaller_than_the_tokenizers(tiny_shards, tmp_path):
    with pytest.raises(ValueError, match=r"model.vocab_size=128 is smaller than the tokenizer's"):
        train(experiment(tiny_shards, "model.vocab_size=128"), epath.Path(tmp_path / "run"), 1)
    assert not (tmp_path / "run").exists()


def test_mesh_that_does_not_fit(tiny_shards, tmp_path):
    bad = experiment(tiny_shards, "mesh.data=3")
    with pytest.raises(ValueError, match="does not fit 8 devices"):
        train(bad, epath.Path(tmp_path / "run"), 1)


def test_loss_that_is_not_finite_stops_the_run(tiny_shards, tmp_path):
    bad = experiment(tiny_shards, "optimizer.learning_rate=1e30", "optimizer.warmup_fraction=0")
    with pytest.raises(FloatingPointError, match=r"step \d: loss is nan"):
        train(bad, epath.Path(tmp_path / "run"), STEPS)


# ---- refusing, as a program


def test_misspelt_override_is_one_line(tiny_shards, tmp_path):
    code, output = finish(start(tmp_path / "run", settings(tiny_shards, "train.stepz=3")))
    assert code == 1
    assert output.startswith("error: --set train.stepz=3: unknown key 'stepz'; did you mean steps?")
    assert output.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_workdir_that_cannot_be_made_is_one_line(tiny_shards, tmp_path):
    (tmp_path / "file").write_text("")
    code, output = finish(start(tmp_path / "file" / "run", settings(tiny_shards)))
    assert code == 1
    assert output.startswith("error: ")
    assert output.count("\n") == 1


def test_full_disk_is_one_line_and_the_run_goes_on_later(whole_run, tiny_shards, tmp_path):
    """A limit on the size of files stands for the disk: the arrays no longer fit, the logs do."""
    limited = ("sh", "-c", 'ulimit -f 120 && exec "$@"', "sh")  # in 512 bytes: 60 kB
    code, output = finish(start(tmp_path / "run", settings(tiny_shards), prefix=limited))
    assert code == 1
    (error,) = (line for line in output.splitlines() if not line.startswith(("step ", *START)))
    assert error.startswith("error: cannot write a checkpoint to")
    assert checkpoint.latest_step(tmp_path / "run") is None
    code, output = finish(start(tmp_path / "run", settings(tiny_shards)))
    assert code == 0, output
    assert_same_run(tmp_path / "run", whole_run, tiny_shards)
