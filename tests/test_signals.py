"""A first signal leaves word, a second ends at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from polyglot_jax.signals import Stop

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_remembered_and_the_old_handler_comes_back(number, capfd) -> None:
    before = signal.getsignal(number)
    with Stop() as stop:
        stop.has_work = True
        assert stop.requested(1) is None
        os.kill(os.getpid(), number)
        assert stop.requested(2) is number
    assert signal.getsignal(number) is before
    assert (
        capfd.readouterr().err
        == f"\n{number.name}: saving after this step; once more ends at once\n"
    )


def test_the_second_ends_at_once() -> None:
    program = (
        "import os, signal; from polyglot_jax.signals import Stop\n"
        "with Stop() as stop:\n"
        "    stop.has_work = True\n"
        "    os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('still here', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGINT, "")


def test_before_there_is_anything_to_save_the_first_ends_at_once() -> None:
    """While a checkpoint is restored or the step compiles, which may take longer than the grace."""
    program = (
        "import os, signal; from polyglot_jax.signals import Stop\n"
        "with Stop():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stdout.startswith(f"to go on: {sys.executable} -c ")
    assert not done.stdout.endswith("\nstill here\n")
    assert done.stderr == "\nSIGTERM: nothing to save yet\n"
