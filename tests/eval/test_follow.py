"""Following a run: every checkpoint once, none half-written, deleted ones skipped, and an end."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from eval import describe, follow, results
from polyglot_jax import integrity
from polyglot_jax.config import load_experiment, to_dict
from tests.eval.fake import write_copa

ROOT = Path(__file__).resolve().parents[2]


def made_run(folder, steps, last=30):
    """Makes the directories that checkpoints have; nothing reads what is in them."""
    for step in steps:
        (folder / "checkpoints" / str(step)).mkdir(parents=True)
        (folder / "checkpoints" / str(step) / "_CHECKPOINT_METADATA").write_text("{}")
    content = {"experiment": to_dict(load_experiment("ko_tiny", [f"train.steps={last}"]))}
    (folder / "config.json").write_text(json.dumps(content))
    return epath.Path(folder)


def test_all_existing_checkpoints_then_the_end(tmp_path, capsys):
    workdir = made_run(tmp_path, [30, 10, 20])
    assert list(follow.checkpoints(workdir, str)) == [f"{tmp_path}@{s}" for s in (10, 20, 30)]
    assert capsys.readouterr().out == f"{tmp_path}: the run has ended\n"


def test_new_checkpoints_are_taken_as_they_appear(tmp_path, monkeypatch, capsys):
    workdir = made_run(tmp_path, [10])
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            made_run(tmp_path, [20])
        if len(waits) == 3:
            made_run(tmp_path, [30])

    monkeypatch.setattr(follow.time, "sleep", sleep)
    found = [path.rpartition("@")[2] for path in follow.checkpoints(workdir, str)]
    assert found == ["10", "20", "30"]
    assert waits == [follow.POLL] * 3
    said = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1].split(" (")[0] for line in said] == [
        "waiting for a checkpoint after step 10",
        "waiting for a checkpoint after step 20",
        "the run has ended",
    ]


def test_half_written_checkpoints_are_not_seen(tmp_path):
    workdir = made_run(tmp_path, [10, 30])
    (tmp_path / "checkpoints" / "20.orbax-checkpoint-tmp-7").mkdir()
    found = [path.rpartition("@")[2] for path in follow.checkpoints(workdir, str)]
    assert found == ["10", "30"]


def test_deleted_or_damaged_is_a_line_and_all_else_an_error(tmp_path, capsys):
    workdir = made_run(tmp_path, [5, 10, 20, 30])
    for name in integrity.NEEDED:
        path = tmp_path / "checkpoints" / "30" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")

    def open_one(path):
        if path.endswith("@5"):
            shutil.rmtree(tmp_path / "checkpoints" / "5")
        if path.endswith("@20"):
            return path
        raise ValueError("cannot be read")

    found = follow.checkpoints(workdir, open_one)
    assert next(found).endswith("@20")
    said = capsys.readouterr().out
    assert "step 5 was deleted before it was read; skipped" in said
    assert "step 10 was damaged (state/_METADATA is missing or empty); skipped" in said
    with pytest.raises(ValueError, match="cannot be read"):
        next(found)


def test_a_run_that_was_stopped_has_not_ended(tmp_path):
    workdir = made_run(tmp_path, [10])
    (tmp_path / "curve.png").write_bytes(b"")  # also drawn at a stop
    assert not follow.has_ended(workdir)
    made_run(tmp_path, [30])
    assert follow.has_ended(workdir)
    assert not follow.has_ended(epath.Path(tmp_path / "not_yet"))


def test_what_can_be_no_run_is_refused(tmp_path):
    made_run(tmp_path / "run", [10])
    with pytest.raises(ValueError, match="takes all checkpoints"):
        next(follow.checkpoints(epath.Path(tmp_path / "run@10"), str))
    (tmp_path / "config.json").write_text('{"model_type": "gpt_neox"}')
    with pytest.raises(ValueError, match="is not the --workdir of a run"):
        next(follow.checkpoints(epath.Path(tmp_path), str))


def test_converted_weights_have_ended(tmp_path):
    workdir = made_run(tmp_path, [0])
    (tmp_path / "config.json").unlink()
    assert follow.has_ended(workdir)


def test_a_real_run_is_described_and_measured(whole_run, tmp_path):
    info = describe.describe(str(whole_run))
    assert info.step == 24
    assert info.tokens == 24 * 24 * 32
    attention, mlp, norms = 4 * 32**2 + 4 * 32, 2 * 32 * 64 + 64 + 32, 3 * 2 * 32
    assert info.parameters == 2 * 384 * 32 + attention + mlp + norms
    command = [
        *(sys.executable, "-m", "eval.run", f"--model={whole_run}", "--follow"),
        *("--tasks=kobest_copa", f"--data={write_copa(tmp_path / 'data', 4)}"),
        f"--output={tmp_path / 'out'}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = results.read_all(epath.Path(tmp_path / "out"))
    assert len(found) > 1
    assert [r.model.step for r in found] == sorted(r.model.step for r in found)
    assert found[-1].model.step == 24
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert f"Learning curve of {whole_run}" in page
