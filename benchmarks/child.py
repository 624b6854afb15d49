"""Runs one measurement in a process of its own and hands its rows over one by one.

A fresh process has clean memory, peaks that are its own, and a crash that loses nothing but itself.
A measurement is a generator function of JSON values that yields rows (dicts of JSON values). The
child computes a row only when it is asked for one, so two children can take turns on one machine.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]

# JAX takes 75% of a GPU's memory by default, which is less than AdamW's state of the larger models.
MEMORY_FRACTION = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"}


def peak_bytes() -> int:
    """Returns the most memory that this process has held at a time.

    Not `ru_maxrss`: that begins with what the parent held when it started this process.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def rows(
    function: str,
    arguments: Mapping[str, Any],
    *,
    timeout: float | None = None,
    env: Mapping[str, str] = MEMORY_FRACTION,
) -> Generator[Row]:
    """Yields the rows of a generator function, run as `python -m benchmarks.child`.

    A child that fails or is stopped ends its rows with one of status "error", which has the last
    line it wrote to stderr. Closing the iterator ends the child.

    Args:
      function: "module:name".
      timeout: seconds until the child is stopped.
      env: added to the environment.
    """
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **env},
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(timeout or threading.TIMEOUT_MAX, process.kill)
        timer.daemon = True
        timer.start()
        try:
            while True:
                try:
                    process.stdin.write("\n")
                    process.stdin.flush()
                except BrokenPipeError:
                    break
                line = process.stdout.readline()
                if not line:
                    break
                yield json.loads(line)
            was_stopped = not timer.is_alive()
            if process.wait() != 0:
                reason = f"stopped after {timeout:.0f} s" if was_stopped else _last_line(stderr)
                yield {"status": "error", "error": reason or f"exit code {process.returncode}"}
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


def _last_line(stderr: Any) -> str:
    stderr.seek(0)
    lines = [line.strip() for line in stderr.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")[:300]


def main() -> None:
    """Answers each line on stdin with one row on stdout, until the function has no more."""
    module, _, name = sys.argv[1].partition(":")
    # What libraries print goes to stderr: stdout is the protocol.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    measurement = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
    for _ in sys.stdin:
        row = next(measurement, None)
        if row is None:
            return
        print(json.dumps(row), file=answers, flush=True)


if __name__ == "__main__":
    main()
