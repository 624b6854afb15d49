"""Where tasks run: processes of this machine, or a Ray cluster. The tasks are the same.

A runner is `run(label, function, arguments)`, which calls the function with each tuple and returns
when all are done, or raises the first error. Tasks leave their results in files, so no data goes
through an engine, and one that runs a task twice does no harm.
"""

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import tqdm

from polyglot_jax import pool

RUNNERS = ("local", "ray")
# Tries of a task whose worker or node was lost; a task that raises is not tried again.
_TRIES = 10
_LOG_SECONDS = 30.0
_REACH_SECONDS = 10.0


def runner(
    name: str, *, processes: int = 1, ray_address: str | None = None
) -> AbstractContextManager[pool.Run]:
    """Returns the context in which the runner of this name works.

    One process is this one: nothing to start, and errors keep their place.
    """
    if name == "ray":
        return _ray_runner(ray_address)
    return pool.workers(processes, processes) if processes > 1 else nullcontext(_run_here)


def _run_here(
    label: str, function: Callable[..., None], arguments: Sequence[tuple[Any, ...]]
) -> None:
    for args in tqdm.tqdm(arguments, desc=label, unit=" tasks", disable=None):
        function(*args)


@contextmanager
def _ray_runner(address: str | None) -> Iterator[pool.Run]:
    """Runs tasks on a Ray cluster: one that runs at `address`, or one of this machine.

    The nodes get this package from here and must see the same input and output paths.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its warning of a change
    try:
        import ray
    except ImportError:
        raise ValueError("--runner=ray needs the ray extra: pip install -e '.[ray]'") from None
    _check_reachable(address)
    package = str(Path(__file__).resolve().parents[1])
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False if address is None else None,
            runtime_env={"py_modules": [package]},
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ValueError(f"no Ray cluster at {address or 'this machine'}: {error}") from None
    try:
        yield _run_on_ray
    finally:
        ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Raises ValueError if nothing listens at host:port: Ray itself would try for half a minute."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # "auto", say
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise ValueError(f"--ray_address={address}: cannot be reached ({error})") from None


def _run_on_ray(
    label: str, function: Callable[..., None], arguments: Sequence[tuple[Any, ...]]
) -> None:
    import ray

    remote = ray.remote(num_cpus=1, max_retries=_TRIES)(function)
    waiting = [remote.remote(*args) for args in arguments]
    logged = time.monotonic()
    with tqdm.tqdm(total=len(waiting), desc=label, unit=" tasks", disable=None) as bar:
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, timeout=_LOG_SECONDS)
            try:
                ray.get(done)
            except ray.exceptions.RayTaskError as error:
                for other in waiting:
                    ray.cancel(other, force=True)
                raise error.cause from None
            except ray.exceptions.RayError as error:
                raise OSError(f"Ray gave a task up: {error}; run the same command again") from None
            bar.update(len(done))
            if bar.disable and time.monotonic() - logged > _LOG_SECONDS:
                logged = time.monotonic()
                left = len(arguments) - len(waiting)
                print(f"{label}: {left}/{len(arguments)} tasks", file=sys.stderr)
