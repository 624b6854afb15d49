"""Checkpoints that were damaged after they were written: the newest good one goes on."""

import errno
import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from polyglot_jax import checkpoint, integrity
from polyglot_jax.selection import Keep
from polyglot_jax.train import train
from tests.runs import STEPS, assert_same_run, experiment, finish, records, settings, start

NEWEST, BEFORE = STEPS, STEPS - 3


def largest(step: Path) -> Path:
    """Returns the file of most of the arrays."""
    return max((step / "state").rglob("d/*"), key=lambda path: path.stat().st_size)


def flip(step: Path) -> None:
    """Of all damage the worst: Orbax reads other numbers and says nothing."""
    content = bytearray(largest(step).read_bytes())
    content[len(content) // 2] ^= 1
    largest(step).write_bytes(content)


def truncate(step: Path) -> None:
    largest(step).write_bytes(largest(step).read_bytes()[:1000])


def half_delete(step: Path) -> None:
    for path in sorted(path for path in step.rglob("*") if path.is_file())[::2]:
        path.unlink()


def lose_arrays(step: Path) -> None:
    shutil.rmtree(step / "state")


def lose_digests(step: Path) -> None:
    (step / integrity.FILE).unlink()


def empty_metadata(step: Path) -> None:
    (step / "metadata" / "metadata").write_text("")


def spoil_digests(step: Path) -> None:
    (step / integrity.FILE).write_text('{"files": {"../../metrics.jsonl": {"bytes": 1')


def no_digests(step: Path) -> None:
    (step / integrity.FILE).write_text('{"files": {}}')


def stray_digests(step: Path) -> None:
    path = step / integrity.FILE
    path.write_text(json.dumps({"files": {"state/../../x": {"bytes": 1, "sha256": None}}}))


def spoil_listing(step: Path) -> None:
    """Orbax's own file, for which it would refuse every step of the run."""
    (step / "_CHECKPOINT_METADATA").write_text("[1]")


def directory_for_digests(step: Path) -> None:
    (step / "digests.json").unlink()
    (step / "digests.json").mkdir()


DAMAGES = {
    flip: "has another sha256 than when it was written",
    truncate: "has 1000 bytes instead of",
    half_delete: "is missing",
    lose_arrays: "is missing",
    lose_digests: "digests.json is missing",
    empty_metadata: "metadata/metadata has 0 bytes instead of",
    spoil_digests: "digests.json is not what was written",
    directory_for_digests: "digests.json is not what was written",
    no_digests: "digests.json does not name all files",
    stray_digests: "digests.json names what is no file of a checkpoint",
    spoil_listing: "_CHECKPOINT_METADATA is not Orbax's",
}


@pytest.mark.parametrize(
    ("damage", "what"), DAMAGES.items(), ids=lambda v: getattr(v, "__name__", "")
)
def test_damage_is_known_and_set_aside(whole_run, tmp_path, capsys, damage, what):
    workdir = shutil.copytree(whole_run, tmp_path / "run")
    assert checkpoint.set_damaged_aside(workdir) == []
    damage(workdir / "checkpoints" / str(NEWEST))
    with pytest.raises(ValueError, match=rf"checkpoints/{NEWEST} is damaged \(.*{what}"):
        checkpoint.restore_params(workdir, NEWEST)
    assert checkpoint.open_params(workdir)[0]["step"] == BEFORE
    said = capsys.readouterr().err
    assert re.fullmatch(rf"checkpoint {NEWEST} of .* is damaged \(.*{what}.*\): passed.*\n", said)
    before = sorted(p.name for p in (workdir / "checkpoints" / str(NEWEST)).rglob("*"))
    (line,) = checkpoint.set_damaged_aside(workdir)
    place = workdir / "damaged" / f"{NEWEST}.0"
    assert re.fullmatch(rf"checkpoint {NEWEST} is damaged \(.*{what}.*\): moved to {place}", line)
    assert sorted(p.name for p in place.rglob("*")) == before  # nothing of it is deleted
    assert what in place.with_name(f"{NEWEST}.0.txt").read_text()
    assert sorted(checkpoint.complete_steps(workdir)) == [NEWEST - 6, BEFORE]


def test_the_newest_good_one_goes_on(whole_run, tiny_shards, tmp_path):
    workdir = shutil.copytree(whole_run, tmp_path / "run")
    flip(workdir / "checkpoints" / str(NEWEST))
    code, output = finish(start(workdir, settings(tiny_shards)))
    assert code == 0, output
    assert output.startswith(f"checkpoint {NEWEST} is damaged")
    assert f"from step {BEFORE} of" in output
    assert (workdir / "damaged" / f"{NEWEST}.0").is_dir()
    assert_same_run(workdir, whole_run, tiny_shards)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [*DAMAGES], ids=lambda damage: damage.__name__)
def test_the_two_newest_are_damaged(whole_run, tiny_shards, tmp_path, damage):
    workdir = shutil.copytree(whole_run, tmp_path / "run")
    for step in (BEFORE, NEWEST):
        damage(workdir / "checkpoints" / str(step))
    code, output = finish(start(workdir, settings(tiny_shards)))
    assert code == 0, output
    assert f"from step {NEWEST - 6} of" in output
    assert_same_run(workdir, whole_run, tiny_shards)


def test_a_step_under_another_name(whole_run, tiny_shards, tmp_path):
    workdir = shutil.copytree(whole_run, tmp_path / "run")
    (workdir / "checkpoints" / str(NEWEST)).rename(workdir / "checkpoints" / "30")
    with pytest.raises(ValueError, match=rf"checkpoints/30 is that of step {NEWEST}; give it"):
        train(experiment(tiny_shards), epath.Path(workdir), STEPS)


@pytest.mark.parametrize(
    ("lost", "message"),
    [("experiment", "experiment: missing"), ("data", "does not say what data it was trained on")],
)
def test_metadata_that_lost_a_part(whole_run, tiny_shards, tmp_path, lost, message):
    """With digests that agree: a tool of someone's wrote it so."""
    workdir = shutil.copytree(whole_run, tmp_path / "run")
    step = epath.Path(workdir / "checkpoints" / str(NEWEST))
    metadata = json.loads((step / "metadata" / "metadata").read_text())
    del metadata[lost]
    (step / "metadata" / "metadata").write_text(json.dumps(metadata))
    integrity.seal(step)
    with pytest.raises(ValueError, match=message):
        train(experiment(tiny_shards), epath.Path(workdir), STEPS)


def test_a_spoilt_file_of_tags_is_known_before_the_first_save(whole_run, tiny_shards, tmp_path):
    workdir = shutil.copytree(whole_run, tmp_path / "run")
    (workdir / "tags.json").write_text("[")
    with pytest.raises(ValueError, match=r"tags\.json is not an object of tags and steps"):
        train(experiment(tiny_shards), epath.Path(workdir), STEPS)


def test_all_damaged_is_one_line_and_all_stay(whole_run, tiny_shards, tmp_path):
    workdir = shutil.copytree(whole_run, tmp_path / "run")
    for step in checkpoint.complete_steps(workdir):
        flip(workdir / "checkpoints" / str(step))
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole; of the newest, 24, "):
        checkpoint.set_damaged_aside(workdir)
    assert len(checkpoint.complete_steps(workdir)) == 3
    assert records(workdir) == records(whole_run)


def test_the_list_names_the_damage(whole_run, tmp_path):
    workdir = shutil.copytree(whole_run, tmp_path / "run")
    truncate(workdir / "checkpoints" / str(BEFORE))
    assert checkpoint.newest_good(workdir) == NEWEST
    assert "has 1000 bytes instead of" in (checkpoint.damage(workdir, BEFORE) or "")


def test_a_bit_that_flips_anywhere_is_known(whole_run, tmp_path):
    """Except in the files that Orbax keeps for itself, which decide nothing that is read."""
    step = shutil.copytree(whole_run / "checkpoints" / str(NEWEST), tmp_path / "24")
    rng = np.random.default_rng(0)
    own = ("commit_success.txt", "_CHECKPOINT_METADATA")
    for path in (p for p in step.rglob("*") if p.is_file() and p.name not in own):
        content = path.read_bytes()
        for at in rng.integers(0, len(content), 5):
            flipped = bytearray(content)
            flipped[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(flipped)
            if path.name != integrity.FILE:  # there a flip in a blank changes nothing
                assert integrity.damage(epath.Path(step), digests=True), (path, at)
        path.write_bytes(content)
    assert integrity.damage(epath.Path(step), digests=True) is None


def test_what_a_kill_left_of_a_save_is_deleted(tmp_path):
    """It is as large as a checkpoint, and a months-long run is killed often."""
    manager = checkpoint.open_manager(tmp_path, Keep(newest=3))
    checkpoint.save(manager, {"params": np.ones(3)}, {"format_version": 2, "step": 1})
    checkpoint.finish(manager)
    whole = tmp_path / "checkpoints" / "1"
    shutil.copytree(whole, tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp-17")
    manager = checkpoint.open_manager(tmp_path, Keep(newest=3))
    checkpoint.save(manager, {"params": np.ones(3)}, {"format_version": 2, "step": 3})
    checkpoint.finish(manager)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "3"]


@pytest.mark.parametrize("kept", [1, 2])
def test_a_failed_save_deletes_nothing(tmp_path, monkeypatch, kept):
    """The disk is full when the last file is written: older ones must not have gone by then."""
    manager = checkpoint.open_manager(tmp_path, Keep(newest=kept))

    def save(step: int) -> None:
        metadata = {"format_version": checkpoint.FORMAT_VERSION, "step": step}
        checkpoint.save(manager, {"params": np.ones(3)}, metadata)

    def fail(step_dir: epath.Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(step_dir))

    for step in (1, 2):
        save(step)
    manager.wait_until_finished()
    good = checkpoint.complete_steps(tmp_path)
    assert len(good) == kept
    monkeypatch.setattr(integrity, "seal", fail)
    save(3)
    with pytest.raises(OSError, match=r"cannot write a checkpoint to .*No space left on device"):
        checkpoint.finish(manager)
    assert checkpoint.complete_steps(tmp_path) == good
    assert checkpoint.newest_good(tmp_path) == 2


def test_a_save_that_failed_is_known_before_the_next_one(tmp_path, monkeypatch):
    """Or a run would go on for an interval that it cannot save."""

    def fail(step_dir: epath.Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(step_dir))

    manager = checkpoint.open_manager(tmp_path, Keep(newest=1))
    checkpoint.raise_failure(manager)
    monkeypatch.setattr(integrity, "seal", fail)
    checkpoint.save(manager, {"params": np.ones(3)}, {"format_version": 2, "step": 1})
    while manager.is_saving_in_progress():
        time.sleep(0.01)
    with pytest.raises(OSError, match=r"cannot write a checkpoint to .*No space left on device"):
        checkpoint.raise_failure(manager)


def test_directories_that_are_no_steps_are_passed_over(whole_run, tiny_shards, tmp_path):
    workdir = shutil.copytree(whole_run, tmp_path / "run")
    names = ("00030", "٣٠", "²")
    for name in names:
        shutil.copytree(workdir / "checkpoints" / str(NEWEST), workdir / "checkpoints" / name)
    assert checkpoint.find_step(workdir) == NEWEST
    train(experiment(tiny_shards, f"train.steps={STEPS + 1}"), epath.Path(workdir), STEPS + 1)
    assert checkpoint.find_step(workdir) == STEPS + 1
    assert all((workdir / "checkpoints" / name).exists() for name in names)
