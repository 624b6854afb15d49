"""What compilers write to stderr, caught where C++ writes it.

This module imports no jax: importing it is to be caught too.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# What JAX's CUDA plugin says three times on every machine without a GPU, as soon as it is imported.
NO_GPU_HERE = ("cudart_stub.cc", "before absl::InitializeLog() is called are written to STDERR")


@contextmanager
def what_compilers_say() -> Iterator[list[str]]:
    """Collects what is written to file descriptor 2, where the C++ of the compilers writes."""
    said: list[str] = []
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said.append(file.read().decode(errors="replace"))


def worth_telling(said: str) -> str:
    """Returns the lines that do not merely say that this machine has no GPU."""
    lines = said.splitlines(keepends=True)
    return "".join(line for line in lines if not any(words in line for words in NO_GPU_HERE))
