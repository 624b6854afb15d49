"""Files on disks and in buckets: written whole or not at all, and looked at without their owners.

`epath.Path.stat` asks for the name of a file's owner and fails where there is none, as in most
containers that do not run as root and on shares of other machines.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

from etils import epath


class Stat(NamedTuple):
    """What is asked of a file."""

    length: int  # bytes
    mtime: int  # s; 0 in a bucket that does not tell


def is_remote(path: epath.PathLike) -> bool:
    return "://" in os.fspath(path)


def stat(path: epath.PathLike) -> Stat:
    """Looks at a file. Raises OSError if it is not there, or cannot be looked at."""
    if is_remote(path):
        found = epath.Path(path).stat()
        return Stat(found.length, found.mtime)
    local = os.stat(path)
    return Stat(local.st_size, int(local.st_mtime))


@contextmanager
def writing(path: epath.PathLike) -> Iterator[IO[bytes]]:
    """Opens a file for writing that is whole and durable at the end of the block, or not there.

    Two processes may write the same file at once, so the temporary is each one's own.
    """
    if is_remote(path):
        with tempfile.TemporaryFile() as file:  # an object appears only once it is sent whole
            yield cast(IO[bytes], file)
            file.seek(0)
            with epath.Path(path).open("wb") as target:
                shutil.copyfileobj(file, target, 1 << 20)
        return
    folder, name = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        # It may be what filled the disk.
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def write(path: epath.PathLike, *pieces: str | bytes) -> epath.Path:
    """Writes a file as `writing` does, text as UTF-8; returns its path."""
    with writing(path) as file:
        file.writelines(piece.encode() if isinstance(piece, str) else piece for piece in pieces)
    return epath.Path(path)


@contextmanager
def new_directory(directory: epath.PathLike) -> Iterator[Path]:
    """Gives a temporary directory that gets its name when the block ends well.

    What a killed process left of the same name is removed first.

    Raises:
      ValueError: the name is taken, or is not of this file system.
    """
    final = check_new(directory)
    temporary = final.with_name(f".{final.name}.tmp")
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary)
        raise


def check_new(directory: epath.PathLike) -> Path:
    """Returns the path of a directory that can be made. Raises ValueError if it cannot."""
    if is_remote(directory):
        raise ValueError(
            f"{directory}: converted to local directories only, since a bucket cannot rename one "
            "when it is whole; copy it there afterwards"
        )
    path = Path(directory).absolute()
    if path.exists():
        raise ValueError(f"{directory} exists; name a new directory or delete it first")
    return path
