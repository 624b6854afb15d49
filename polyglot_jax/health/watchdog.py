"""Ends a process that has come to a standstill, with the stacks that say where.

A collective that waits for a host which is gone, or a read that never returns, hangs without a
word. A thread that does nothing but wait sees it: where no step ends for ten times as long as a
step takes, or the start, an evaluation or a save does not end at all, it writes all stacks and
exits, so that whoever started the run can start it again.
"""

import faulthandler
import os
import statistics
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from types import TracebackType
from typing import Self

from etils import epath

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again later
MEDIANS = 10
PAUSES = 6  # times the shortest standstill: what may take long still has to end
PATIENCE = 10.0  # seconds that writing the stacks to a file may take
TICKS = 60  # a standstill is looked for so often within the shortest one


class Watchdog:
    """Watches from `with` on; before the first `beat` and within `pause` with more patience.

    Args:
      seconds: the shortest standstill; None: nothing is watched.
      unseen_steps: steps that may be under way on the device without a word.
      stacks: local file that they are written to beside stderr, if any.
    """

    def __init__(self, seconds: float | None, unseen_steps: int, stacks: epath.Path | None) -> None:
        self._seconds = seconds
        self._unseen_steps = unseen_steps
        self._stacks = stacks
        self._step_seconds: deque[float] = deque(maxlen=100)
        self._last: tuple[int, float] | None = None  # step and time of the last beat
        self._paused = 0.0  # seconds since it
        self._waited = 0.0  # seconds without a sign of life, as the thread has seen them
        self._is_paused = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        if self._seconds is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end.set()
        if self._seconds is not None:
            self._thread.join()

    def beat(self, step: int) -> None:
        """Says that the device has finished a step."""
        now = perf_counter()
        if self._last is not None and step > self._last[0]:
            before, then = self._last
            self._step_seconds.append((now - then - self._paused) / (step - before))
        self._last, self._paused, self._waited = (step, now), 0.0, 0.0

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Lets the block, an evaluation say, take longer, and its time be no step's."""
        before, was_paused = perf_counter(), self._is_paused
        self._is_paused = True
        try:
            yield
        finally:
            self._waited = 0.0  # first, or the thread sees what was waited by the shorter limit
            self._is_paused = was_paused
            if not was_paused:
                self._paused += perf_counter() - before

    @property
    def limit(self) -> float:
        """Seconds that count as a standstill."""
        assert self._seconds is not None
        if self._last is None or self._is_paused:
            return PAUSES * self._seconds
        median = statistics.median(self._step_seconds) if self._step_seconds else 0.0
        return max(self._seconds, (MEDIANS + self._unseen_steps) * median)

    def _watch(self) -> None:
        assert self._seconds is not None
        tick = self._seconds / TICKS
        while not self._end.wait(tick):
            # Ticks and not the clock: a process that was suspended has waited for nothing.
            self._waited += tick
            if self._waited > self.limit:
                self._give_up()

    def _give_up(self) -> None:
        where = f"in {self._stacks} or below" if self._stacks else "below"
        after = f"step {self._last[0]}" if self._last else "the start"
        line = (
            f"error: no step has ended for {self._waited:,.0f} s after {after}; the stacks of all "
            f"threads are {where}, and the process ends with exit code {EXIT_CODE}; start it again "
            "to go on from the newest checkpoint\n"
        )
        disk_hangs = threading.Timer(PATIENCE, _show_and_exit)  # the disk may be what hangs
        disk_hangs.daemon = True
        disk_hangs.start()
        try:
            os.write(2, f"\n{line}".encode())  # the locks of sys.stderr may be too
            if self._stacks is not None:
                with open(os.fspath(self._stacks), "w") as file:
                    faulthandler.dump_traceback(file)
            else:
                _show_and_exit()
        except OSError:  # no workdir yet
            _show_and_exit()
        finally:
            os._exit(EXIT_CODE)  # the main thread cannot be waited for


def _show_and_exit() -> None:
    faulthandler.dump_traceback(2)
    os._exit(EXIT_CODE)
