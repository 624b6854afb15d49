"""Several processes, one run: how they meet, and how all of them end when one does.

Each process is started with the same command. Where they meet is told by the platform (TPU
metadata, GKE, SLURM, Open MPI: whatever JAX detects) or by flags. A process that fails says why in
one line and leaves at once, without the goodbye that would wait for the others; those that stay
behind notice, by a collective that breaks or by missing signs of life, and end too. So a scheduler
sees failure on all hosts soon, and can start the command again.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from polyglot_jax import cli, coordination_log

JOIN_SECONDS = 300  # for all to meet: hosts of a large slice do not start at the same moment


@contextmanager
def joined(
    coordinator: str | None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout_s: int = 60,
    join_s: int = JOIN_SECONDS,
) -> Iterator[None]:
    """Joins this process to its run for the block; must come before anything that uses a device.

    Args:
      coordinator: "host:port" of process 0, "auto" where the platform knows, None for one process
        alone.
      num_processes, process_id: with host:port.
      timeout_s: after this many seconds without a sign of life from one, all others end.
      join_s: how long to wait for all to be there.
    Raises:
      ValueError: the flags contradict each other, or "auto" finds no platform it knows.
    An exception inside the block ends the process, with the line and the exit code of `cli.run`.
    """
    if coordinator is None:
        if num_processes is not None or process_id is not None:
            raise ValueError("--num_processes and --process_id need --coordinator=host:port")
        yield
        return
    if coordinator == "auto":
        if num_processes is not None or process_id is not None:
            raise ValueError(
                "--coordinator=auto finds them itself: leave out --num_processes and --process_id"
            )
        _meet_at_platforms_choice(timeout_s, join_s)
    else:
        _meet_at(coordinator, num_processes, process_id, timeout_s, join_s)
    where = "a process of several"
    try:
        where = f"process {jax.process_index()} of {jax.process_count()}"
        yield
    except (Exception, KeyboardInterrupt) as error:
        end = cli.last_words(error)
        if end is None:
            traceback.print_exc()
        else:
            is_shared = isinstance(error, jax.errors.JaxRuntimeError)  # a collective broke, say
            advice = f"; {coordination_log.WHAT_TO_DO}" if is_shared else ""
            print(f"{end[0]} ({where}){advice}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(2, coordination_log.SAID.encode())
        # Not by sys.exit: threads that wait for other processes, and JAX's own goodbye, would hold
        # this one for minutes while the others wait for it in a collective.
        os._exit(1 if end is None else end[1])


def agreed(value: Any) -> Any:
    """Returns what process 0 gives, JSON, on every process; all must call it, in the same order.

    For whatever is decided by a file: one that process 0 has written may look older elsewhere, and
    processes that decide differently wait for each other forever.
    """
    if jax.process_count() == 1:
        return value
    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(content.size)))
    told = multihost_utils.broadcast_one_to_all(np.resize(content, size))
    return json.loads(np.asarray(told).tobytes())


def _meet_at(
    coordinator: str,
    num_processes: int | None,
    process_id: int | None,
    timeout_s: int,
    join_s: int,
) -> None:
    host, separator, port = coordinator.rpartition(":")
    if not (host and separator and port.isdecimal()):
        raise ValueError(f"--coordinator={coordinator}: must be host:port of process 0, or 'auto'")
    if num_processes is None or process_id is None:
        raise ValueError(
            f"--coordinator={coordinator} needs --num_processes and --process_id; "
            "on TPU slices and in SLURM, --coordinator=auto needs neither"
        )
    if not 0 <= process_id < num_processes:
        raise ValueError(
            f"--process_id={process_id} must be from 0 to {num_processes - 1}, "
            f"for --num_processes={num_processes}"
        )
    _speak_plainly(timeout_s, join_s)
    jax.distributed.initialize(
        coordinator,
        num_processes,
        process_id,
        # Flags are the whole truth: SLURM's detection would leave each process one GPU of many.
        cluster_detection_method="deactivate",
        initialization_timeout=join_s,
        heartbeat_timeout_seconds=timeout_s,
    )


def _meet_at_platforms_choice(timeout_s: int, join_s: int) -> None:
    _speak_plainly(timeout_s, join_s)
    try:
        jax.distributed.initialize(
            initialization_timeout=join_s, heartbeat_timeout_seconds=timeout_s
        )
    except ValueError as error:
        raise ValueError(
            f"--coordinator=auto found no TPU slice, SLURM or Open MPI job here ({error}); leave "
            "it out for a single process, or give --coordinator=host:port --num_processes=N "
            "--process_id=I"
        ) from error


def _speak_plainly(timeout_s: int, join_s: int) -> None:
    """Sends what C++ writes to stderr through `coordination_log`; Python's stays as it is."""
    sys.stderr.flush()
    terminal = os.dup(2)
    reader = subprocess.Popen(
        [
            *(sys.executable, "-I", "-S", str(Path(coordination_log.__file__))),
            *(str(timeout_s), str(join_s)),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert reader.stdin is not None
    os.dup2(reader.stdin.fileno(), 2)
    reader.stdin.close()
    sys.stderr = os.fdopen(terminal, "w", buffering=1, errors="backslashreplace")
