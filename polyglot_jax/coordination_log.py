"""Puts JAX's last words into one line: why a run of several processes ends.

When another process dies, JAX's coordination service ends this one from C++: a log of many lines
with addresses, then SIGABRT. No Python of that process can run then, so its stderr goes through
this small program, which `polyglot_jax.distributed` starts beside it:

    python coordination_log.py TIMEOUT_S JOIN_S

Everything else passes as it is. It imports only the standard library, so that it starts at once.
"""

import re
import signal
import sys
from collections.abc import Iterable, Iterator

_HEAD = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ (\S+?):\d+\] ")  # absl's and glog's
_SERVICE = re.compile(r"coordination_service|preemption_sync")
_FATAL = "Terminating process because the JAX distributed service detected fatal errors"
WHAT_TO_DO = (
    "the log of the process that ended first says why; run the same command on all hosts again to "
    "go on from the newest checkpoint"
)


def plain(lines: Iterable[str], timeout_s: int, join_s: int) -> Iterator[str]:
    """Yields the lines without those of the coordination service, its fatal error as one line.

    Args:
      timeout_s: how long a silent process is waited for.
      join_s: how long all are waited for at the start.
    """
    lines = iter(lines)
    told: list[str] = []  # by the service, for the cause
    of_service = False
    for line in lines:
        if head := _HEAD.match(line):  # lines without one go on with the message before them
            of_service = bool(_SERVICE.search(head[1])) or _FATAL in line
        if not of_service:
            yield line
            continue
        told.append(line)
        if _FATAL in line:
            told += lines  # nothing else comes after it
            yield f"error: {_cause(''.join(told), timeout_s, join_s)}\n"


def _cause(told: str, timeout_s: int, join_s: int) -> str:
    if "RegisterTask" in told:
        return (
            f"the processes did not all join within {join_s} s; start all of them, with the same "
            "coordinator and number of processes, and open the coordinator's port to their hosts"
        )
    if dead := re.search(r"\(stopped sending heartbeats\):\s+((?:\d+[,\s]+)+)", told):
        numbers = dead[1].split()
        who = f"process{'es' if len(numbers) > 1 else ''} {', '.join(numbers)}"
        cause = f"{who} gave no sign of life for {timeout_s} s"
    elif "Failed to send RPC" in told or "DEADLINE_EXCEEDED" in told:
        cause = "process 0, the coordinator, is gone or cannot be reached"
    else:
        message = re.search("absl::Status: (.*)", told)
        cause = message[1] if message else "the coordination service failed"
    return f"{cause}, so this process ends too; {WHAT_TO_DO}"


if __name__ == "__main__":
    # Ctrl-C and the scheduler's SIGTERM are for the process that it serves; it ends after that one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    for text in plain(sys.stdin, int(sys.argv[1]), int(sys.argv[2])):
        sys.stderr.write(text)
        sys.stderr.flush()
