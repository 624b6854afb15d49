"""What computes a run, for its metadata: the code, the packages, the machine and its settings."""

import functools
import importlib.metadata
import os
import subprocess
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorstore", "numpy")


@functools.cache  # what started, even if the clone changes meanwhile
def code() -> dict[str, Any]:
    """Returns the git commit ("-dirty" if files differ from it) and the versions of packages."""
    describe = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")  # never a tag
    git = ("git", "-C", str(Path(__file__).parent), *describe)
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"  # not run from a clone
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {"git_commit": commit, "versions": versions}


def surroundings() -> dict[str, Any]:
    """Returns where a run computes and with which settings of the compiler and the network.

    Only variables of these prefixes: others may hold secrets.
    """
    prefixes = ("XLA_", "LIBTPU_", "NCCL_", "JAX_")
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(prefixes)},
    }
