"""One trainer at a time on a workdir: a second one would write checkpoints between the first's.

On a disk the kernel holds the lock and frees it with the process, however that ends; the text of
the file only tells who has it. A bucket has no such kernel. There the owner rewrites the object
again and again, and whoever finds one waits to see whether that still happens: by its own clock,
so the clocks of two machines are never compared. All processes of one run are one trainer; its
process 0 holds the lock.
"""

import fcntl
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import jax
import tensorstore as ts
from etils import epath

from polyglot_jax import files

FILE = "lock"
BEAT = 20.0  # seconds between two signs of life
SILENCE = 90.0  # seconds without one after which an owner counts as dead


@contextmanager
def only_trainer(workdir: epath.Path) -> Iterator[Callable[[], None]]:
    """Holds the workdir while the block runs.

    Yields:
      A function that raises OSError once the workdir is no longer ours: it was moved or deleted, or
      another trainer has taken it from one that was cut off from its bucket for `SILENCE`.
    Raises:
      ValueError: another trainer has it; the line names its process, host and start.
      OSError: the workdir cannot be written.
    """
    if jax.process_index() != 0:
        yield lambda: None
    elif files.is_remote(workdir):
        with _in_store(ts.KvStore.open(f"{workdir}/").result(), workdir) as still_ours:
            yield still_ours
    else:
        with _on_disk(workdir) as still_ours:
            yield still_ours


@contextmanager
def _on_disk(workdir: epath.Path) -> Iterator[Callable[[], None]]:
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / FILE, "a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise _in_use(workdir, file.read().decode()) from None
        except OSError as error:  # some network disks have no locks
            print(
                f"{workdir} cannot be locked ({error}): see to it that only one trainer runs there",
                file=sys.stderr,
            )
        file.truncate(0)
        mine = _myself().encode()
        try:
            file.write(mine)
        except OSError as error:
            raise OSError(f"cannot write {workdir / FILE}: {error}") from error

        def still_ours() -> None:
            # By what it says: not every file system tells whether two files are the same one.
            path = workdir / FILE
            try:
                owner = path.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                owner = b""
            if owner and owner != mine:  # on a disk without locks
                raise OSError(
                    f"{workdir} was taken over by {owner.decode(errors='replace')}; nothing more "
                    "is saved"
                )
            if not owner:
                raise OSError(
                    f"{path} is no longer the file that this run holds: the workdir was moved or "
                    "deleted, or somebody removed the lock; nothing more is saved. Put it back "
                    "and start again to go on from the newest checkpoint"
                )

        try:
            yield still_ours
        finally:
            file.seek(0)
            if file.read() == mine:
                file.truncate(0)


@contextmanager
def _in_store(
    store: ts.KvStore, workdir: epath.Path, beat: float = BEAT, silence: float = SILENCE
) -> Iterator[Callable[[], None]]:
    mine = _myself()
    generation = _take(store, workdir, mine, silence)
    over, lost = threading.Event(), threading.Event()

    def keep_alive() -> None:
        nonlocal generation
        while not over.wait(beat):
            try:
                # The same text is another generation, and only ours is overwritten.
                written = store.write(FILE, mine, if_equal=generation).result().generation
                if not written:
                    found = store.read(FILE).result()
                    if found.value != mine.encode():
                        lost.set()
                        return
                    written = found.stamp.generation  # a write of ours whose answer was lost
                generation = written
            except ValueError:  # what TensorStore raises for all failures, after its own retries
                continue

    def still_ours() -> None:
        owner = store.read(FILE).result().value  # now: the last beat may be long ago
        if owner != mine.encode():
            raise OSError(
                f"{workdir} was taken over by {owner.decode() or 'nobody'}, after no sign of life "
                f"from here for {silence:.0f} s; nothing more is saved"
            )

    thread = threading.Thread(target=keep_alive, daemon=True)
    thread.start()
    try:
        yield still_ours
    finally:
        over.set()
        thread.join()
        if not lost.is_set():
            with suppress(ValueError):  # a run that has ended well is no failure; silence frees it
                store.write(FILE, None, if_equal=generation).result()


def _take(store: ts.KvStore, workdir: epath.Path, mine: str, silence: float) -> bytes:
    """Writes the object if nobody's is there or its owner is silent; returns its generation."""
    found = store.read(FILE).result()
    end = time.monotonic() + silence
    if found.state == "value":
        owner = found.value.decode()
        print(f"{workdir} was last used by {owner}; waiting up to {silence:.0f} s for a sign of it")
    while found.state == "value" and time.monotonic() < end:
        time.sleep(silence / 50)
        again = store.read(FILE).result()
        if again.state == "value" and again.stamp.generation != found.stamp.generation:
            raise _in_use(workdir, again.value.decode())
        found = again
    written = store.write(FILE, mine, if_equal=found.stamp.generation).result().generation
    if not written:
        raise _in_use(workdir, store.read(FILE).result().value.decode())
    return written


def _myself() -> str:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}"


def _in_use(workdir: epath.Path, owner: str) -> ValueError:
    return ValueError(
        f"{workdir} is in use by {owner or 'another trainer'}; stop that one, or use another "
        "--workdir"
    )
