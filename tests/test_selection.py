"""Which checkpoints a run keeps and what @best means."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from polyglot_jax import checkpoint, integrity, selection
from polyglot_jax.selection import Keep

ROOT = Path(__file__).resolve().parents[1]


def kept(keep: Keep, steps: list[int]) -> list[int]:
    infos = [SimpleNamespace(step=step) for step in steps]
    flags = keep.should_preserve(infos, context=None)
    return [step for step, flag in zip(steps, flags, strict=True) if flag]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (Keep(newest=2), [5, 6]),
        (Keep(newest=1, best=1, held_out=lambda: {1: 2.0, 2: 1.0, 6: 1.5}), [2, 6]),
        (Keep(newest=1, best=2, held_out=lambda: {1: 2.0, 2: 1.0, 6: 3.0}), [1, 2, 6]),
        (Keep(newest=1, best=1, held_out=lambda: {2: 1.0, 4: 1.0, 9: 0.5}), [4, 6]),
        (Keep(newest=1, best=1), [6]),
        (Keep(newest=1, every=3), [3, 6]),
        (Keep(newest=1, tags=lambda: {"before_plunge": 2, "gone": 77}), [2, 6]),
        (Keep(newest=9), [1, 2, 3, 4, 5, 6]),
    ],
)
def test_what_is_kept(keep: Keep, expected: list[int]) -> None:
    assert kept(keep, [1, 2, 3, 4, 5, 6]) == expected


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """A run of checkpoints 10, 20 and 30; what is in them does not matter here."""
    for step in (10, 20, 30):
        for name in integrity.NEEDED:
            path = tmp_path / "checkpoints" / str(step) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
    records = [
        {"step": 0, "held_out/bits_per_byte": 8.0, "held_out/loss": 9.0},
        {
            "step": 10,
            "train/bits_per_byte": 2.25,
            "train/loss": 3,
            "train/epoch/a": 0.5,
            "train/epoch/b": 1.5,
        },
        {"step": 10, "held_out/bits_per_byte": 2.0, "held_out/loss": 4.0},
        {"step": 15, "held_out/bits_per_byte": 1.0, "held_out/loss": 2.0},
        {"step": 20, "held_out/bits_per_byte": 1.5, "held_out/loss": 3.0},
        {"step": 30, "held_out/bits_per_byte": 1.75, "held_out/loss": 3.5},
        {"step": 30, "probe/repetition": 0.25, "probe/distinct_2": 0.5, "probe/looping": 0.125},
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "metrics.jsonl").write_text(lines)
    return tmp_path


def test_names(workdir: Path) -> None:
    selection.tag(workdir, "before_plunge", 10)
    names = ("newest", "best", "before_plunge", "20")
    assert [checkpoint.find_step(workdir, name) for name in names] == [30, 20, 10, 20]


def test_best_is_among_those_that_are_there(workdir: Path) -> None:
    shutil.rmtree(workdir / "checkpoints" / "20")
    assert checkpoint.find_step(workdir, "best") == 30


def test_only_evaluations_on_the_newest_sources_are_ranked(workdir: Path) -> None:
    with (workdir / "metrics.jsonl").open("a") as file:
        for step, bits in ((30, 5.0), (40, 6.0)):
            values = {"held_out/bits_per_byte": bits, "held_out/sources_since": 25}
            file.write(json.dumps({"step": step} | values) + "\n")
    assert selection.held_out(workdir) == {30: 5.0, 40: 6.0}
    assert checkpoint.find_step(workdir, "best") == 30


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("40", "no checkpoint of step 40 in .*; there are 10, 20, 30"),
        ("plunge", "no such tag; .* one of: best, newest, before$"),
        ("before", "is step 5, which is no longer there"),
    ],
)
def test_a_name_that_means_nothing(workdir: Path, name: str, message: str) -> None:
    selection.tag(workdir, "before", 5)
    with pytest.raises(ValueError, match=message):
        checkpoint.find_step(workdir, name)


def test_best_of_a_run_without_evaluations(workdir: Path) -> None:
    (workdir / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match="no checkpoint of this run has a held-out loss"):
        checkpoint.find_step(workdir, "best")


@pytest.mark.parametrize("name", ["best", "newest", "12", "a b", ""])
def test_a_tag_is_no_step(workdir: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a tag"):
        selection.tag(workdir, name, 10)


@pytest.mark.parametrize(
    "text", ["[", "[1]", '{"a": "b"}', '{"a": true}', '{"best": 1}', '{"12": 1}']
)
def test_a_spoilt_tag_file(workdir: Path, text: str) -> None:
    (workdir / "tags.json").write_text(text)
    with pytest.raises(ValueError, match=r"tags\.json is not an object"):
        selection.read_tags(workdir)


def test_the_list(workdir: Path) -> None:
    selection.tag(workdir, "before_plunge", 10)
    command = [sys.executable, "-m", "polyglot_jax.checkpoint", f"--list={workdir}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()[1:4]]
    assert rows == [
        ["10", "1.5000", "3.0000", "2.2500", "4.0000", "2.0000", "-", "-", "@before_plunge"],
        ["20", "-", "-", "-", "3.0000", "1.5000", "-", "-", "@best"],
        ["30", "-", "-", "-", "3.5000", "1.7500", "0.2500", "0.1250", "@newest"],
    ]
    assert (workdir / "checkpoints.png").read_bytes().startswith(b"\x89PNG")
    assert done.stderr == ""


def test_the_list_of_a_run_that_lost_its_record(workdir: Path) -> None:
    """Where it is needed most: without a record, damaged, and not to be written."""
    (workdir / "metrics.jsonl").unlink()
    names = selection.names_of(workdir, [10, 20, 30], {30: "state/d is missing"})
    assert names == {10: [], 20: ["@newest"], 30: ["damaged: state/d is missing"]}
    rows = [line.split() for line in selection.overview(workdir, names).splitlines()[1:]]
    assert rows[1] == ["20", *["-"] * 7, "@newest"]
    with pytest.raises(ValueError, match="no held-out loss is recorded"):
        selection.draw(workdir, names)


def test_the_last_good_evaluation_keeps_a_checkpoint_before_it() -> None:
    keep = Keep(newest=1, last_good=lambda: 5)
    assert kept(keep, [1, 3, 4, 6, 7]) == [4, 7]
    assert kept(keep, [6, 7]) == [7]


def test_the_list_of_no_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "polyglot_jax.checkpoint", f"--list={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no complete checkpoint in")
