"""Ends a run in good order when it is told to: Ctrl-C, SIGTERM from a scheduler or a cloud.

The first signal only leaves word; the training loop asks after each step, saves, and ends. The
second ends the process at once, and so does the first before there is anything to save. Several
hosts must stop after the same step: there JAX's preemption service takes SIGTERM, which is also how
TPU maintenance is announced, and agrees on the step.
"""

import os
import shlex
import signal
import sys
from types import FrameType, TracebackType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Listens from `with` on; the handlers that were there come back at its end."""

    def __init__(self) -> None:
        self.has_work = False  # set by the loop: a step is done that was not when it began
        self._received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._alone = jax.process_count() == 1

    def __enter__(self) -> Self:
        for number in SIGNALS if self._alone else (signal.SIGINT,):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def requested(self, step: int) -> signal.Signals | None:
        """Returns the signal after which to stop with this step, on all hosts alike."""
        if self._alone:
            return self._received
        # Every host asks after every step: the service counts on it.
        if not multihost_utils.reached_preemption_sync_point(step):
            return None
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the service's own took it without effect
        if self._received is None:
            _say(2, "\nSIGTERM: saving after this step; once more ends at once\n")
        return signal.SIGTERM

    def _receive(self, number: int, unused_frame: FrameType | None) -> None:
        if self._received is not None:
            os._exit(128 + number)  # no handler, no flush: whoever asks twice means it
        self._received = signal.Signals(number)
        if self._alone and not self.has_work:
            _say(2, f"\n{self._received.name}: nothing to save yet\n")
            _say(1, f"{resume_line()}\n")
            os._exit(128 + number)
        _say(2, f"\n{self._received.name}: saving after this step; once more ends at once\n")
        if not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)  # the service tells the other hosts


def resume_line() -> str:
    """Returns the line that tells the command which goes on."""
    return f"to go on: {shlex.join(sys.orig_argv)}"


def _say(stream: int, text: str) -> None:
    os.write(stream, text.encode())  # a print may have been interrupted itself
