"""Disks that are full or forbidden: one clear line, nothing good lost, and the run goes on later.

A limit on the size of files stands for the full disk everywhere; where this process may mount one,
a small tmpfs is filled for real. Root may do all things, so permissions are tried without that
right (`setpriv`).
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from polyglot_jax import checkpoint
from tests.runs import (
    START,
    STEPS,
    assert_same_run,
    finish,
    settings,
    start,
    when_step,
)

CAPABILITIES = "-dac_override,-dac_read_search"
AS_ANYBODY = (
    ("setpriv", f"--bounding-set={CAPABILITIES}", f"--inh-caps={CAPABILITIES}")
    if os.geteuid() == 0
    else ()
)


def only_error(output: str) -> str:
    (error,) = (line for line in output.splitlines() if not line.startswith(("step ", *START)))
    return error


def goes_on(workdir: Path, whole_run: Path, shards: Path) -> None:
    code, output = finish(start(workdir, settings(shards)))
    assert code == 0, output
    assert_same_run(workdir, whole_run, shards)


def test_full_disk_is_one_line_and_the_run_goes_on_later(whole_run, tiny_shards, tmp_path):
    """The arrays no longer fit, the logs do."""
    limited = ("sh", "-c", 'ulimit -f 120 && exec "$@"', "sh")  # in 512 bytes: 60 kB
    code, output = finish(start(tmp_path / "run", settings(tiny_shards), prefix=limited))
    assert code == 1
    assert only_error(output).startswith("error: cannot write a checkpoint to")
    assert checkpoint.latest_step(tmp_path / "run") is None
    goes_on(tmp_path / "run", whole_run, tiny_shards)


@pytest.fixture
def small_disk(tmp_path: Path):
    """Yields a disk of 3 MB, some five checkpoints: three are kept and one is being written."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this process may not mount a tmpfs")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [100, 500, 900, 1300])
def test_full_tmpfs(whole_run, tiny_shards, small_disk, tmp_path, kilobytes):
    """It is full from the start, while the first is written, or later: whole ones stay whole."""
    (small_disk / "other").write_bytes(b"x" * (3 * 2**20 - kilobytes * 1024))
    code, output = finish(start(small_disk / "run", settings(tiny_shards)))
    assert code == 1, output
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("error: ")
    steps = checkpoint.complete_steps(small_disk / "run")
    assert [checkpoint.damage(small_disk / "run", step, digests=True) for step in steps] == [
        None for _ in steps
    ]
    (small_disk / "other").unlink()
    goes_on(small_disk / "run", whole_run, tiny_shards)


needs_rights_to_lose = pytest.mark.skipif(
    bool(AS_ANYBODY) and shutil.which("setpriv") is None, reason="no setpriv to drop root's rights"
)


@needs_rights_to_lose
def test_permission_lost_in_mid_run(whole_run, tiny_shards, tmp_path):
    """What was saved before stays, and the run goes on when the permission is back."""
    workdir = tmp_path / "run"
    process = start(workdir, settings(tiny_shards), prefix=AS_ANYBODY)
    while process.poll() is None and not when_step(10)(workdir, process):
        time.sleep(0.001)
    (workdir / "checkpoints").chmod(0o555)
    code, output = finish(process)
    steps = checkpoint.complete_steps(workdir)
    (workdir / "checkpoints").chmod(0o755)
    assert code == 1, output
    assert only_error(output).startswith("error: cannot write a checkpoint to")
    assert "ermission denied" in only_error(output)
    assert steps
    assert max(steps) < STEPS
    goes_on(workdir, whole_run, tiny_shards)


@needs_rights_to_lose
def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_damaged(
    whole_run, tiny_shards, tmp_path
):
    workdir = shutil.copytree(whole_run, tmp_path / "run")
    newest = workdir / "checkpoints" / str(STEPS)
    newest.chmod(0o000)
    code, output = finish(start(workdir, settings(tiny_shards), prefix=AS_ANYBODY))
    newest.chmod(0o755)
    assert code == 1
    assert output.startswith("error: ")
    assert f"ermission denied: '{newest}" in output
    assert output.count("\n") == 1
    assert not (workdir / "damaged").exists()
