"""The watchdog: a standstill ends the process, everything that only takes long does not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from polyglot_jax.health.watchdog import Watchdog

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import signal, sys, time
from polyglot_jax.health.watchdog import Watchdog

def hangs():
    time.sleep(20)

with Watchdog({seconds}, 1, {stacks!r}) as watchdog:
    {body}
print("ended well")
"""


def run(body: str, seconds: float | None = 0.4, stacks: Path | None = None):
    program = PROGRAM.format(body=body, seconds=seconds, stacks=str(stacks) if stacks else None)
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_a_standstill_ends_with_the_stacks(tmp_path):
    done = run("watchdog.beat(7); hangs()", stacks=tmp_path / "stall.txt")
    assert done.returncode == 75
    assert "error: no step has ended for" in done.stderr
    assert f"after step 7; the stacks of all threads are in {tmp_path}/stall.txt or" in done.stderr
    assert "in hangs" in (tmp_path / "stall.txt").read_text()


def test_without_a_local_workdir_the_stacks_go_to_stderr():
    done = run("watchdog.beat(7); hangs()")
    assert done.returncode == 75
    assert "in hangs" in done.stderr


@pytest.mark.parametrize(
    ("body", "after"),
    [
        ("hangs()", "the start"),
        ("watchdog.beat(3)\n    with watchdog.pause(): hangs()", "step 3"),
    ],
)
def test_a_start_or_a_save_that_never_ends_is_a_standstill(body, after):
    """Six times as much patience: 2.4 seconds here."""
    done = run(body)
    assert done.returncode == 75
    assert f"error: no step has ended for 2 s after {after};" in done.stderr


def test_shards_that_never_answer_are_a_standstill(tmp_path):
    body = (
        "from unittest import mock; from etils import epath\n"
        "    from polyglot_jax import config, preflight, train\n"
        "    with mock.patch.object(preflight, 'open_plan', lambda *_: hangs()):\n"
        "        one = config.load_experiment('ko_tiny', ['health.stall_seconds=0.4'])\n"
        f"        train.train(one, epath.Path({str(tmp_path / 'run')!r}), 1)"
    )
    done = run(body, seconds=None)
    assert done.returncode == 75
    assert "in hangs" in done.stderr


def test_a_disk_that_hangs_keeps_no_process_alive(tmp_path):
    """A pipe that nobody reads stands for it: to open it waits for ever."""
    os.mkfifo(tmp_path / "stall.txt")
    body = "import polyglot_jax.health.watchdog as w; w.PATIENCE = 0.5; watchdog.beat(1); hangs()"
    done = run(body, stacks=tmp_path / "stall.txt")
    assert done.returncode == 75
    assert "in hangs" in done.stderr


@pytest.mark.parametrize(
    "body",
    [
        "time.sleep(1)",  # nothing has begun: the first step compiles
        "watchdog.beat(1)\n    with watchdog.pause(): time.sleep(1)",
        "for i in range(10): watchdog.beat(i); time.sleep(0.1)",
    ],
)
def test_what_takes_long_is_no_standstill(body):
    done = run(body)
    assert (done.returncode, done.stdout) == (0, "ended well\n"), done.stderr


def test_a_process_that_was_suspended_has_not_stood_still():
    body = """watchdog.beat(1)
    import os, subprocess
    subprocess.Popen(["sh", "-c", f"sleep 1.5; kill -CONT {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGSTOP)"""
    done = run(body, seconds=1.0)
    assert (done.returncode, done.stdout) == (0, "ended well\n"), done.stderr


def test_slow_steps_have_more_time():
    watchdog = Watchdog(0.01, 1, None)
    watchdog.beat(1)
    time.sleep(0.1)
    watchdog.beat(2)
    assert 1.1 <= watchdog.limit < 5  # 10 medians and 1 unseen step of a tenth of a second
    with watchdog.pause():
        time.sleep(0.5)
    watchdog.beat(102)
    assert watchdog.limit < 1.1


def test_off():
    done = run("watchdog.beat(1); time.sleep(1)", seconds=None)
    assert (done.returncode, done.stdout) == (0, "ended well\n"), done.stderr
