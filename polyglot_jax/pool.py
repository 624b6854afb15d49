"""Worker processes that run a list of tasks, show progress, and leave nothing behind.

Workers are spawned, not forked (tokenizers and TensorStore hold threads), and die with their
parent: an orphan would go on writing beside the next run. An interrupt is the parent's to handle.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import tqdm

_LOG_SECONDS = 30.0
_documents: Any = None  # in a worker: the counter that all of them share

A = TypeVar("A")
B = TypeVar("B")
Run = Callable[[str, Callable[..., None], Sequence[tuple[Any, ...]]], None]


def count(num_documents: int) -> None:
    """Tells the parent, from inside a task, that so many documents more are done."""
    if _documents is not None:
        with _documents.get_lock():
            _documents.value += num_documents


def _start(counter: Any, threads: int) -> None:
    global _documents
    _documents = counter
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _submit(executor: ProcessPoolExecutor, function: Callable[..., B], *args: Any) -> Future[B]:
    """Submits a task with SIGINT blocked, as it then stays in a worker that this starts.

    One that handled it, were it only while it still imports, would print a traceback of its own.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return executor.submit(function, *args)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def workers(processes: int, tasks: int) -> Iterator[Run]:
    """Yields `run(label, function, arguments)`, which runs a task per tuple of arguments.

    Where there are fewer `tasks` than processes, each tokenises on several threads instead.
    `run` raises the first exception of a task, and OSError if a worker was killed; leaving the
    block by an exception ends the workers at once.
    """
    counter = multiprocessing.get_context("spawn").Value("q", 0)

    def run(
        label: str, function: Callable[..., None], arguments: Sequence[tuple[Any, ...]]
    ) -> None:
        counter.value = 0
        waiting = {_submit(executor, function, *args) for args in arguments}
        logged = time.monotonic()
        with tqdm.tqdm(desc=label, unit=" documents", disable=None) as bar:
            while waiting:
                finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_EXCEPTION)
                for future in finished:
                    future.result()
                left = f"{len(arguments) - len(waiting)}/{len(arguments)} tasks"
                bar.set_postfix_str(left, refresh=False)
                bar.update(counter.value - bar.n)
                if bar.disable and time.monotonic() - logged > _LOG_SECONDS:
                    logged = time.monotonic()
                    print(f"{label}: {counter.value:,} documents, {left}", file=sys.stderr)

    with _executor(processes, counter, max(1, processes // tasks)) as executor:
        yield run


def ordered(function: Callable[[A], B], items: Iterable[A], processes: int) -> Iterator[B]:
    """Yields the function's result for each item, in order, a few items ahead of what is taken.

    Raises the first exception of a task, and OSError if a worker was killed. Leaving early waits
    for the tasks under way, which should be short.
    """
    counter = multiprocessing.get_context("spawn").Value("q", 0)
    waiting: deque[Future[B]] = deque()
    with _executor(processes, counter, threads=1) as executor:
        try:
            for item in items:
                waiting.append(_submit(executor, function, item))
                if len(waiting) > 4 * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # A worker ended while it writes a large result leaves the executor reading for ever.
            executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _executor(processes: int, counter: Any, threads: int) -> Iterator[ProcessPoolExecutor]:
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        processes,  # each is started only once a task finds the others busy
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(counter, threads),
    )
    try:
        yield executor
    except BaseException as error:
        executor.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        if isinstance(error, BrokenProcessPool):
            raise OSError(
                "a worker process was killed (out of memory?); run the same command again to go "
                "on, with fewer --processes if need be"
            ) from None
        raise
    executor.shutdown()
