"""Seconds and peak memory of converting a full-width model, beside a plain copy of the files.

    python -m benchmarks.convert [--experiment=ko_12p8b] [--layers=4,8] [--dtype=bfloat16]

An HF directory of invented weights is converted to a checkpoint and that one back, each by the
program in a process of its own, and what it wrote is then copied, read from the disk and forced to
it as the conversion is. Layers stand for depth: memory must not grow with them. Take --folder on
the disk to be measured; it needs three times the model's size.
"""

import dataclasses
import json
import math
import os
import runpy
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from flax.traverse_util import flatten_dict, unflatten_dict

from benchmarks import child, record
from polyglot_jax import cli, hf_config, hf_weights
from polyglot_jax.config import NeoxConfig, load_experiment
from polyglot_jax.models import neox
from polyglot_jax.tensor_files import DTYPES

TOKENIZER = {"model": {"vocab": {"<|endoftext|>": 2}}, "added_tokens": []}


@dataclass(frozen=True)
class Invented:
    """Normal values, others where another row starts, and as hard to compress as trained ones."""

    shape: tuple[int, ...]
    drawn: np.ndarray
    dtype: np.dtype = DTYPES["float32"]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        shape = (stop - start, *self.shape[1:])
        return np.resize(np.roll(self.drawn, 977 * start), math.prod(shape)).reshape(shape)


def write_hf(directory: Path, model: NeoxConfig, dtype: str) -> None:
    """Writes an HF directory of invented weights."""
    drawn = 0.02 * np.random.default_rng(0).standard_normal(2**20, np.float32)
    shapes = jax.eval_shape(lambda: neox.init(model, jax.random.key(0)))
    flat = {k: Invented(v.shape, drawn) for k, v in flatten_dict(shapes, sep="/").items()}
    directory.mkdir()
    hf_weights.write_weights(directory, model, unflatten_dict(flat, sep="/"), dtype)
    config = hf_config.config_to_hf(model, dtype, end_of_text=2)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text(json.dumps(TOKENIZER))


def program(arguments: list[str]) -> Iterator[child.Row]:
    """Converts, as `python -m polyglot_jax.convert` does; yields one row."""
    sys.argv = ["convert", *arguments]
    start = time.perf_counter()
    try:
        runpy.run_module("polyglot_jax.convert", run_name="__main__")
    except SystemExit as exit:
        if exit.code:
            raise
    yield {"seconds": time.perf_counter() - start, "peak": child.peak_bytes()}


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def forget(directory: Path) -> None:
    """Drops the files from the page cache, so that they are read from the disk."""
    for path in files(directory):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy_seconds(source: Path, target: Path) -> float:
    """Returns the seconds of a plain copy of a directory that ends on the disk; removes it."""
    forget(source)
    start = time.perf_counter()
    shutil.copytree(source, target)
    for path in files(target):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds


def measure(model: NeoxConfig, dtype: str, folder: Path, rounds: int) -> Iterator[child.Row]:
    """Yields a row for each conversion, with the plain copy that followed it."""
    hf, orbax, back, copy = (folder / name for name in ("hf", "orbax", "back", "copy"))
    write_hf(hf, model, dtype)
    ways = {
        "HF to checkpoint": (hf, orbax, ["--to=orbax", f"--hf={hf}"]),
        "checkpoint to HF": (orbax, back, ["--to=hf", f"--checkpoint={orbax}"]),
    }
    for _ in range(rounds):
        for way, (source, target, arguments) in ways.items():
            forget(source)
            arguments = [*arguments, f"--output={target}", f"--dtype={dtype}"]
            (row,) = child.rows("benchmarks.convert:program", {"arguments": arguments})
            if "error" in row:
                raise ValueError(f"{way}: {row['error']}")
            size = sum(path.stat().st_size for path in files(target))
            copied = copy_seconds(target, copy)
            yield row | {"way": way, "layers": model.num_layers, "bytes": size, "copied": copied}
        for target in (orbax, back):
            shutil.rmtree(target)
    shutil.rmtree(hf)


def report(rows: list[child.Row]) -> str:
    """Returns the Markdown of one run."""
    lines: list[list[Any]] = []
    for way, layers in dict.fromkeys((row["way"], row["layers"]) for row in rows):
        same = [row for row in rows if (row["way"], row["layers"]) == (way, layers)]
        ratios = [row["seconds"] / row["copied"] for row in same]
        seconds, copied = (statistics.median(r[key] for r in same) for key in ("seconds", "copied"))
        gigabytes = same[0]["bytes"] / 1e9
        lines.append(
            [
                *(way, layers, f"{gigabytes:.1f}", f"{seconds:.1f}", f"{gigabytes / seconds:.2f}"),
                *(f"{copied:.1f}", f"{gigabytes / copied:.2f}"),
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                f"{max(row['peak'] for row in same) / 2**30:.2f}",
            ]
        )
    columns = ["way", "layers", "GB written", "s", "GB/s", "copy s", "copy GB/s"]
    return record.table([*columns, "times the copy", "peak GiB"], lines)


def main() -> None:
    values = flags.FLAGS
    load_before = os.getloadavg()[0]
    whole = load_experiment(values.experiment).model
    rows: list[child.Row] = []
    for layers in map(int, values.layers):
        model = dataclasses.replace(whole, num_layers=layers)
        with tempfile.TemporaryDirectory(dir=values.folder) as folder:
            rows += measure(model, values.dtype, Path(folder), values.rounds)
        print(report(rows), flush=True)
    if values.smoke:
        return
    names = ("orbax-checkpoint", "tensorstore", "safetensors", "numpy")
    section = record.section(
        f"Conversion, width of {values.experiment}, {record.now()}",
        {
            "command": f"`{record.command('benchmarks.convert')}`",
            "commit": record.commit(),
            "versions": ", ".join(f"{k} {v}" for k, v in record.versions(*names).items()),
            "machine": f"{record.cpu()}; load average {load_before:.1f} before the run, "
            f"{os.getloadavg()[0]:.1f} after",
            "work": f"d {whole.d_model:,}, {values.dtype} both ways, conversion and copy in turns "
            f"({values.rounds} each), caches dropped before; peak is VmHWM of the program",
        },
        report(rows),
    )
    record.append_section(section)


if __name__ == "__main__":
    flags.DEFINE_string("experiment", "ko_12p8b", "Whose width is taken.")
    flags.DEFINE_list("layers", ["4", "8"], "Depths to measure.")
    flags.DEFINE_enum("dtype", "bfloat16", list(DTYPES), "Of the weights, both ways.")
    flags.DEFINE_integer("rounds", 3, "Pairs of conversion and copy.", lower_bound=1)
    flags.DEFINE_string("folder", None, "On the disk to measure; the temporary one if not given.")
    flags.DEFINE_bool("smoke", False, "Write nothing to RESULTS.md.")
    cli.run(main)
