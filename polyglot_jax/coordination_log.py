"""Puts JAX's last words into one line: why a run of several processes ends.

When another process dies, JAX's coordination service, or the library of collectives, ends this one
from C++: a log of many lines with addresses, then SIGABRT. No Python of that process can run then,
so its stderr goes through this small program, which `polyglot_jax.distributed` starts beside it:

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
SAID = "\0 this process says itself why it ends\n"  # and the service may find out meanwhile
_BROKEN = "terminate called after throwing an instance of 'gloo::"  # collectives of CPUs
WHAT_TO_DO = (
    "the log of the process that ended first says why; run the same command on all hosts again to "
    "go on from the newest checkpoint"
)
BROKEN = f"a connection to another process broke; {WHAT_TO_DO}"


def plain(lines: Iterable[str], timeout_s: int, join_s: int) -> Iterator[str]:
    """Yields the lines without those of the coordination service, its fatal error as one line.

    Nothing of it beside `SAID`.

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
        if of_service:
            told.append(line)
        if _FATAL in line or line.startswith(_BROKEN):
            after = list(lines)  # to the end of the process
            if SAID not in after:
                cause = _cause("".join([*told, *after]), timeout_s, join_s)
                yield f"error: {cause if of_service else BROKEN}\n"
        elif line == SAID:
            return
        elif not of_service:
            yield line


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
    for _ in sys.stdin:
        pass  # or the process that still writes would get SIGPIPE
