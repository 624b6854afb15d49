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
        "with Stop():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('still here', flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (128 + signal.SIGINT, "")
