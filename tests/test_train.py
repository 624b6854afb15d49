"""The training program: it learns, records, and resumes bit for bit."""

import json
import re
import shutil
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from polyglot_jax import checkpoint
from polyglot_jax.config import model_from_dict
from polyglot_jax.convert import save_hf
from polyglot_jax.data.mixture import Mixture
from polyglot_jax.train import train
from tests.runs import (
    STEPS,
    assert_same_run,
    experiment,
    finish,
    records,
    settings,
    start,
    training,
    when_step,
)

# ---- a whole run


def test_run_leaves_everything_that_is_promised(whole_run):
    names = {path.name for path in whole_run.iterdir()}
    promised = {"config.json", "tokenizer.json", "checkpoints", "metrics.jsonl", "tensorboard"}
    assert names == promised | {"curve.png", "lock"}
    steps = sorted(int(path.name) for path in (whole_run / "checkpoints").iterdir())
    assert steps == [STEPS - 6, STEPS - 3, STEPS]
    described = json.loads((whole_run / "config.json").read_text())
    assert described["experiment"]["train"]["steps"] == STEPS
    assert described["versions"]["jax"] == jax.__version__


def test_run_learns_and_records_it(whole_run):
    recorded = records(whole_run)
    assert [r["step"] for r in training(whole_run)] == list(range(1, STEPS + 1))
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


def test_starts_from_the_weights_of_an_hf_directory(whole_run, tiny_shards, tmp_path, monkeypatch):
    """Straight into the mesh: before the first step the model is the one that was converted.

    In a relative workdir, which users type and Orbax refuses.
    """
    metadata, params = checkpoint.restore_params(whole_run)
    model = model_from_dict(metadata["model"])
    hf = tmp_path / "hf"
    save_hf(hf, model, params, whole_run / "tokenizer.json", "float32", metadata)
    sharded = ("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2", f"train.init_from={hf}")
    monkeypatch.chdir(tmp_path)
    train(experiment(tiny_shards, *sharded), epath.Path("run"), 1)
    assert checkpoint.latest_step("run") == 1
    first, last = records(tmp_path / "run")[0], records(whole_run)[-1]
    assert first["step"] == 0
    assert first["held_out/loss"] == pytest.approx(last["held_out/loss"], rel=1e-5)


def test_evaluation_takes_a_microbatch_at_a_time(tiny_shards, tmp_path, monkeypatch):
    """A whole batch of a large experiment would not fit its devices."""

    def spy(data, batch_size, max_windows):
        raise ValueError(f"{batch_size} at a time")

    monkeypatch.setattr("polyglot_jax.preflight.open_held_outs", spy)
    with pytest.raises(ValueError, match=f"^{24 // 3} at a time"):
        train(experiment(tiny_shards, "train.accumulation=3"), epath.Path(tmp_path / "run"), 1)


# ---- resuming


def test_a_signal_saves_and_ends(whole_run, tiny_shards, tmp_path):
    process = start(tmp_path / "run", settings(tiny_shards, "train.checkpoint_every=100"))
    while process.poll() is None and not when_step(8)(tmp_path / "run", process):
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 128 + signal.SIGTERM, output
    step = checkpoint.latest_step(tmp_path / "run")
    assert 8 <= step < STEPS
    saved, again = output.splitlines()[-2:]
    assert saved == f"SIGTERM: step {step} is saved"
    assert re.fullmatch("to go on: .*python.* -m polyglot_jax.train --experiment=ko_tiny .*", again)
    code, output = finish(start(tmp_path / "run", settings(tiny_shards)))
    assert code == 0, output
    assert_same_run(tmp_path / "run", whole_run, tiny_shards)


@pytest.mark.slow  # the kills of tests/faults go on from a checkpoint as well
def test_stopping_early_and_going_on_is_the_same_run(whole_run, tiny_shards, tmp_path):
    code, output = finish(start(tmp_path / "run", settings(tiny_shards), "--steps=10"))
    assert code == 0, output
    assert checkpoint.latest_step(tmp_path / "run") == 10
    code, output = finish(start(tmp_path / "run", settings(tiny_shards)))
    assert code == 0, output
    assert "from step 10 of" in output
    whole = training(whole_run)
    got = training(tmp_path / "run")
    assert got == whole


def resume_from_18(whole_run: Path, shards: Path, workdir: Path) -> None:
    """Resumes a copy of the whole run in this process and holds its record to the whole one's."""
    shutil.copytree(whole_run, workdir)
    for step in (21, 24):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    train(experiment(shards), epath.Path(workdir), STEPS)
    got, want = (np.array([r["train/loss"] for r in training(w)]) for w in (workdir, whole_run))
    np.testing.assert_allclose(got, want, rtol=1e-5)  # another mesh, so not to the bit


def test_off_by_one_resume_turns_the_check_red(whole_run, tiny_shards, tmp_path, monkeypatch):
    resume_from_18(whole_run, tiny_shards, tmp_path / "right")
    right = Mixture.batches
    monkeypatch.setattr(
        Mixture, "batches", lambda self, start, end, rows: right(self, start + 1, end + 1, rows)
    )
    with pytest.raises(AssertionError):
        resume_from_18(whole_run, tiny_shards, tmp_path / "off-by-one")
