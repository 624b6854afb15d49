"""What a run records: JSON lines first, TensorBoard second, one status line with fixed fields."""

import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from types import TracebackType
from typing import Any, Self

import jax
from etils import epath
from tqdm import tqdm

from polyglot_jax import distributed, files
from polyglot_jax.devices import peak_flops


class RunLog:
    """The record of one run; only process 0 writes.

    `metrics.jsonl` has one object a line: the step (updates done) and flat, prefixed values,
    "train/...", "held_out/...", "probe/..." or "health/...". On resume, lines of steps that will
    be run again are dropped, so a killed run leaves the record of an uninterrupted one. `records`
    has what the file has, on every process.

    A bucket cannot append: there the whole object is written by `flush` and at the end.
    """

    def __init__(
        self,
        workdir: epath.Path,
        *,
        start_step: int,
        end_step: int,
        tokens_per_step: int,
        flops_per_token: int,
    ):
        self._is_writer = jax.process_index() == 0
        self._tokens_per_step = tokens_per_step
        self._flops_per_token = flops_per_token
        device = jax.devices()[0]
        self._peak = peak_flops(device.device_kind)
        self._end_step = end_step
        self._since = (time.perf_counter(), start_step)
        self._paused = 0.0
        path = workdir / "metrics.jsonl"
        lines = _lines(path) if self._is_writer and start_step and path.exists() else []
        whole = [line for line in lines if _step_of(line) <= start_step]
        kept = distributed.agreed(whole)
        self.records: list[dict[str, float]] = [json.loads(line) for line in kept]
        if not self._is_writer:
            return
        self._path = path
        self._lines = [line + "\n" for line in kept]
        with self._write_errors():
            files.write(path, *self._lines)
        from polyglot_jax.board import Board  # loads torch where there is one: readers need not

        self._jsonl = None if files.is_remote(path) else path.open("a")
        self._board = Board(workdir / "tensorboard", purge_step=start_step + 1)
        self._bar = tqdm(
            total=end_step, initial=start_step, unit="step", disable=None, dynamic_ncols=True
        )
        if self._peak is None:
            self.say(f"no peak FLOP/s is known for {device.device_kind!r}: MFU is not reported")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_writer:
            return
        self._bar.close()
        with suppress(OSError) if error else nullcontext():  # of two errors the first counts
            try:
                if self._jsonl is None:
                    self.flush()
                else:
                    with self._write_errors():
                        self._jsonl.close()
            finally:
                self._board.close()

    def say(self, text: str) -> None:
        """Prints one line, above the bar where there is one."""
        if self._is_writer:
            self._bar.write(text, file=sys.stdout)
            sys.stdout.flush()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Takes the block's time, spent on an evaluation say, out of the throughput."""
        before = time.perf_counter()
        yield
        self._paused += time.perf_counter() - before

    def train(self, step: int, values: Mapping[str, Any], epochs: Mapping[str, float]) -> None:
        """Records a finished training step: its metrics, the epoch of each source, the speed."""
        now = time.perf_counter()
        then, first = self._since
        seconds = max(now - then - self._paused, 1e-9)
        self._since, self._paused = (now, step), 0.0
        speed = (step - first) * self._tokens_per_step / seconds
        values = {k: float(v) for k, v in values.items()} | {"tokens_per_second": speed}
        if self._peak is not None:
            peak = self._peak * jax.device_count()
            values["mfu"] = speed * self._flops_per_token / peak
        values |= {f"epoch/{name}": epoch for name, epoch in epochs.items()}
        self.record(step, "train", values)
        if self._is_writer:
            self._bar.update(step - self._bar.n)
        self.say(self._status(step, values, epochs))

    def held_out(self, step: int, values: Mapping[str, float]) -> None:
        """Records an evaluation: loss (nats per token), bits_per_byte, tokens."""
        self.record(step, "held_out", values)
        self.say(
            f"step {step:>7,}  held-out loss {values['loss']:.4f}  "
            f"bits per byte {values['bits_per_byte']:.4f}"
        )

    def _status(self, step: int, values: Mapping[str, float], epochs: Mapping[str, float]) -> str:
        speed = values["tokens_per_second"]
        eta = int((self._end_step - step) * self._tokens_per_step / speed)
        mfu = f"{values['mfu']:6.1%}" if "mfu" in values else "     -"
        return (
            f"step {step:>7,}/{self._end_step:,}  loss {values['loss']:.4f}  "
            f"bpb {values['bits_per_byte']:.4f}  lr {values['learning_rate']:.2e}  "
            f"grad {values['grad_norm']:.3f}  epoch {max(epochs.values()):.2f}  "
            f"tok/s {speed:,.0f}  mfu {mfu}  eta {eta // 3600}:{eta // 60 % 60:02}:{eta % 60:02}"
        )

    def record(self, step: int, prefix: str, values: Mapping[str, float]) -> None:
        """Writes a line of metrics.jsonl; what is not finite, which JSON cannot say, is left out.

        Raises:
          OSError: the file cannot be written.
        """
        finite = {f"{prefix}/{k}": v for k, v in values.items() if math.isfinite(v)}
        self.records.append({"step": step} | finite)
        if not self._is_writer:
            return
        line = json.dumps(self.records[-1]) + "\n"
        if self._jsonl is None:
            self._lines.append(line)
        else:
            with self._write_errors():
                self._jsonl.write(line)
                self._jsonl.flush()
        for name, value in finite.items():
            self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """Makes the record durable: call it before a checkpoint is saved, which relies on it.

        Raises:
          OSError: the file cannot be written, or is no longer there.
        """
        if not self._is_writer:
            return
        with self._write_errors():
            if self._jsonl is None:
                self._path.write_text("".join(self._lines))
            else:
                os.fsync(self._jsonl.fileno())
                try:
                    length = files.stat(self._path).length
                except (FileNotFoundError, NotADirectoryError):
                    length = -1
                if length != self._jsonl.tell():
                    raise OSError("it was moved, deleted or changed while the run wrote to it")

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(f"cannot write {self._path}: {error}") from error


def read_metrics(workdir: epath.PathLike) -> list[dict[str, float]]:
    """Returns the records of a run in order; a last line that a kill cut off is none.

    Raises:
      ValueError: there are none, or a line is not a record.
    """
    path = epath.Path(workdir) / "metrics.jsonl"
    if not path.exists():
        raise ValueError(f"no {path}: is it the --workdir of a training run?")
    return [_record(line, f"{path}, line {i}") for i, line in enumerate(_lines(path), 1)]


def _lines(path: epath.Path) -> list[str]:
    return path.read_bytes().decode(errors="replace").rpartition("\n")[0].splitlines()


def _record(line: str, where: str) -> dict[str, float]:
    try:
        record = json.loads(line)
        if not isinstance(record["step"], int):
            raise TypeError
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in record.values()):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise ValueError(f"{where}: not a record of a step and its values") from None
    return record


def _step_of(line: str) -> float:
    """Returns the step of a line; what is no record, after a power cut say, belongs to no step."""
    try:
        return _record(line, "")["step"]
    except ValueError:
        return float("inf")
