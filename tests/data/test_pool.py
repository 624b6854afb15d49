"""Worker processes: results, errors and deaths reach the caller, and no process stays behind."""

import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from polyglot_jax.data import pool


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
