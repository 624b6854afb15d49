"""The same values for TensorBoard, written where they arise.

tensorboardX's own SummaryWriter hands them to a thread. When that fails, on a full disk say, nobody
is told: its queue fills up and the run hangs on the next value. Here a failure is the caller's.
"""

import time
from typing import Any

from etils import epath
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

FLUSH_SECONDS = 30.0


class Board:
    """An events file in a directory. Close it at the end."""

    def __init__(self, directory: epath.Path, purge_step: int):
        """Opens a new file, before which TensorBoard forgets the steps from `purge_step` on.

        Raises:
          OSError: the file cannot be written.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._flushed = time.monotonic()
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        try:
            self._events = EventsWriter(str(directory / "events"))
            self._write(purge_step, session_log=start)
        except OSError as error:
            raise self._failure(error) from error

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Raises OSError if the file cannot be written."""
        try:
            self._write(step, summary=summary.scalar(name, value))
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._events.flush()
                self._flushed = time.monotonic()
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Raises OSError if the file cannot be written."""
        try:
            self._events.close()
        except OSError as error:
            raise self._failure(error) from error

    def _write(self, step: int, **content: Any) -> None:
        self._events.write_event(event_pb2.Event(step=step, wall_time=time.time(), **content))

    def _failure(self, error: OSError) -> OSError:
        return OSError(f"cannot write {self._directory}: {error}")
