"""Worker processes: results, errors and deaths reach the caller, and no process stays behind."""

import itertools
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from polyglot_jax import pool


@pytest.fixture(autouse=True)
def no_process_stays() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.01)  # the executor's own thread reaps them
    assert not multiprocessing.active_children()


def test_tasks_run(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pool.workers(2, tasks=2) as run:
        run("copying", shutil.copy, [(tmp_path / "a", tmp_path / name) for name in "bc"])
        run("again", shutil.copy, [(tmp_path / "c", tmp_path / "d")])
    assert (tmp_path / "b").read_text() == (tmp_path / "d").read_text() == "x"
    assert not multiprocessing.active_children()


def test_the_exception_of_a_task_is_raised_and_ends_the_others() -> None:
    start = time.monotonic()
    with pytest.raises(ZeroDivisionError), pool.workers(2, tasks=9) as run:
        run("x", divmod, [(1, 0)])
    with pytest.raises(OverflowError), pool.workers(2, tasks=2) as run:
        run("x", time.sleep, [(60,), (1e99,)])
    assert time.monotonic() - start < 30


def test_a_killed_worker_is_one_clear_error() -> None:
    with pytest.raises(OSError, match="worker process was killed"), pool.workers(1, 1) as run:
        run("x", os._exit, [(9,)])


def test_ordered_results_a_bounded_way_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for i in itertools.count():
            taken.append(i)
            yield i

    results = pool.ordered(math.factorial, items(), processes=2)
    assert list(itertools.islice(results, 20)) == [math.factorial(i) for i in range(20)]
    assert len(taken) < 40
    results.close()  # type: ignore[attr-defined]
    assert list(pool.ordered(abs, [-1, 2], processes=2)) == [1, 2]
    with pytest.raises(OSError, match="worker process was killed"):
        list(pool.ordered(os._exit, [9], processes=1))


def test_leaving_early_with_large_results_ends() -> None:
    results = pool.ordered(bytes, itertools.repeat(10**6), processes=2)
    assert len(next(results)) == 10**6
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("kill", "seconds"), [(signal.SIGINT, 1), (signal.SIGKILL, 60)])
def test_workers_end_with_their_parent_and_say_nothing(kill: signal.Signals, seconds: int) -> None:
    program = (
        "import time; from polyglot_jax import pool\n"
        "if __name__ == '__main__':\n"
        "    print('up', flush=True)\n"
        "    try:\n"
        "        list(pool.ordered(time.sleep, [SECONDS] * 4, processes=2))\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program.replace("SECONDS", str(seconds))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        time.sleep(0.3)  # the workers are started and still import
        if kill == signal.SIGINT:
            os.killpg(parent.pid, kill)  # as a terminal does
        else:
            parent.send_signal(kill)
        # Ends only once every worker has closed its copy of the pipes.
        rest, errors = parent.communicate(timeout=30)
    assert rest == ("interrupted\n" if kill == signal.SIGINT else "")
    # Of a killed parent, Python's own resource tracker says that it left semaphores.
    assert errors == "" if kill == signal.SIGINT else "Traceback" not in errors
