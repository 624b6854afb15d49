"""What a reader wants to know of a measured model besides its hash: name, size, tokens, step."""

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

from etils import epath

from eval import published
from eval.results import ModelInfo
from polyglot_jax import checkpoint
from polyglot_jax.config import from_dict, model_from_dict
from polyglot_jax.convert import split_step
from polyglot_jax.step import family

# Buffers that old checkpoints carry; no parameters.
BUFFERS = ("attention.bias", "attention.masked_bias", "rotary_emb.inv_freq")


def describe(path: str) -> ModelInfo:
    """Returns what is known of an HF directory or of WORKDIR[@STEP].

    The training tokens of an HF directory are those of the published model it has the name of.

    Raises:
      ValueError: there is no model, or no complete checkpoint of that step.
    """
    directory, step = split_step(path)
    if not is_workdir(directory):
        return _describe_hf(Path(path))
    if step is None:
        step = checkpoint.latest_step(directory)
    if step is None:
        raise ValueError(f"no complete checkpoint in {directory} yet; --follow waits for them")
    metadata = checkpoint.read_metadata(directory, step)
    model = model_from_dict(metadata["model"])
    tokens = None
    if "experiment" in metadata:
        experiment = from_dict(metadata["experiment"])
        tokens = step * experiment.train.batch_size * experiment.data.seq_len
    return ModelInfo(
        name=_name(directory),
        path=f"{directory}@{step}",
        run=os.fspath(directory),
        step=step,
        parameters=family(model).num_params(model),
        tokens=tokens,
    )


def is_workdir(path: epath.Path) -> bool:
    return (path / "checkpoints").is_dir()


def _describe_hf(directory: Path) -> ModelInfo:
    if not (directory / "config.json").is_file():
        raise ValueError(
            f"{directory} is neither a directory that transformers loads (with config.json) nor "
            "the --workdir of a training run (with checkpoints/)"
        )
    name = _name(directory)
    known = published.counterpart(name)
    return ModelInfo(
        name=name,
        path=os.fspath(directory),
        parameters=_count_parameters(directory),
        tokens=published.training_tokens().get(known) if known else None,
    )


def _name(directory: epath.PathLike) -> str:
    return Path(os.fspath(directory)).absolute().name


def _count_parameters(directory: Path) -> int | None:
    """Returns the numbers in *.safetensors, from their headers alone; None where there are none."""
    files = sorted(directory.glob("*.safetensors"))
    shapes = [
        entry["shape"]
        for file in files
        for name, entry in _header(file).items()
        if name != "__metadata__" and not name.endswith(BUFFERS)
    ]
    return sum(map(math.prod, shapes)) if files else None


def _header(file: Path) -> dict[str, Any]:
    """Returns {tensor: {"dtype", "shape", "data_offsets"}}, as safetensors defines its files."""
    with file.open("rb") as opened:
        try:
            (length,) = struct.unpack("<Q", opened.read(8))
            return json.loads(opened.read(length))
        except (struct.error, ValueError, OverflowError, MemoryError):
            raise ValueError(f"{file} is not a whole safetensors file") from None
