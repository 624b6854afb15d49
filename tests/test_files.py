"""Files that are whole or absent, and users who have no name."""

import pwd
from pathlib import Path

import pytest
from etils import epath

from polyglot_jax import checkpoint, files
from polyglot_jax.train import train
from tests.runs import experiment


def test_a_written_file_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    assert files.write(path, "새", b"\xea\xb2\x83") == epath.Path(path)
    assert path.read_text(encoding="utf-8") == "새것"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def write_half() -> None:
        with files.writing(path) as file:
            file.write(b"half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_half()
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".model.tmp").mkdir()
    (tmp_path / ".model.tmp" / "half").touch()
    with files.new_directory(tmp_path / "model") as new:
        (new / "whole").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "whole"]


def test_length_and_time(tmp_path: Path) -> None:
    path = files.write(tmp_path / "a", "새것")
    assert files.stat(path).length == 6
    assert files.stat(path).mtime == int((tmp_path / "a").stat().st_mtime)
    with pytest.raises(FileNotFoundError):
        files.stat(tmp_path / "b")


def test_a_user_without_a_name_can_train(tiny_shards, tmp_path, monkeypatch) -> None:
    """In a container that runs under any number there is no such user, nor need there be."""

    def nobody(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    workdir = epath.Path(tmp_path / "run")
    train(experiment(tiny_shards), workdir, 2)
    train(experiment(tiny_shards), workdir, 3)
    assert checkpoint.newest_good(workdir) == 3
