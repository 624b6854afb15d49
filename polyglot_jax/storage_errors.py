"""Whatever storage makes Orbax raise, in one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
from etils import epath

from polyglot_jax.cli import is_of_bucket, one_line

_LOST = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


@contextmanager
def reading(path: epath.Path) -> Iterator[None]:
    """Turns what a broken checkpoint makes its readers raise into a ValueError.

    What tells of the storage and not of the checkpoint, as permissions, a disk that fails or a
    bucket that does not answer, is raised as it is.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:
        if is_of_bucket(error) or (isinstance(error, OSError) and not isinstance(error, _LOST)):
            raise
        raise ValueError(
            f"checkpoint {path} cannot be read; if it is damaged, move it away to go on from an "
            f"earlier one ({type(error).__name__}: {one_line(error, 300)})"
        ) from error


@contextmanager
def writing(directory: epath.PathLike) -> Iterator[None]:
    """Turns what a write raises into an OSError that names the directory of checkpoints."""
    try:
        yield
    except Exception as error:
        raise OSError(
            f"cannot write a checkpoint to {directory}, or delete an old one "
            f"({type(error).__name__}: {one_line(error, 300)})"
        ) from error
