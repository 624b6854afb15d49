"""keep_going: a command is started again after failures, and ends saved when it is told to."""

import os
import signal
import subprocess
import sys
import time

from tests.scripts.calls import ROOT, calls, run


def test_a_failed_command_is_started_again(stand_in, tmp_path):
    stand_in("sleep")
    log = stand_in("work", f"(( $(wc -l <{tmp_path}/work.log) == 3 ))")
    done = run("scripts/keep_going.sh", "work", "a b")
    assert done.returncode == 0
    assert calls(log) == [["a b"]] * 3
    assert "failure 2 of 5 in a row; starting again" in done.stderr


def test_it_gives_up_with_the_commands_exit_code(stand_in):
    stand_in("sleep")
    log = stand_in("work", "exit 7")
    done = run("scripts/keep_going.sh", "--tries=3", "work")
    assert done.returncode == 7
    assert len(calls(log)) == 3
    assert "gave up after 3 failures in a row" in done.stderr


def test_sigterm_lets_the_command_save_and_ends(stand_in, tmp_path):
    log = stand_in("work", f"trap 'touch {tmp_path}/saved; exit 143' TERM; read -t 60 <> <(:)")
    process = subprocess.Popen([ROOT / "scripts" / "keep_going.sh", "work"])
    while not log.exists():
        time.sleep(0.01)
    time.sleep(0.2)  # the stand-in has written before it traps
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert (tmp_path / "saved").exists()
    assert len(calls(log)) == 1


def test_ctrl_c_reaches_the_command_once(tmp_path):
    """A terminal sends it to the whole group; training ends unsaved at the second signal."""
    program = """
import os, signal, sys, time
told = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, frame: told.append(number))
open("ready", "w").close()
while not told:
    time.sleep(0.01)
time.sleep(0.5)
sys.exit(100 + len(told))
"""
    (tmp_path / "work.py").write_text(program)
    process = subprocess.Popen(
        [ROOT / "scripts" / "keep_going.sh", sys.executable, "work.py"],
        **{"cwd": tmp_path, "start_new_session": True},
    )
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 101


def test_sigterm_between_two_attempts_ends(stand_in):
    """Who says so then is a stand-in for the sleep between them."""
    stand_in("sleep", "kill -TERM $PPID")
    log = stand_in("work", "exit 7")
    assert run("scripts/keep_going.sh", "work").returncode == 7
    assert len(calls(log)) == 1
