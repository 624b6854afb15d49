"""What a workdir says of its run, and whether a run may go on in it."""

import dataclasses
import json
from typing import Any

from etils import epath

from polyglot_jax import checkpoint, distributed, files, provenance
from polyglot_jax.config import Experiment, from_dict, to_dict
from polyglot_jax.data.resume import check_same


def check_start(experiment: Experiment, workdir: epath.Path, data: dict[str, Any]) -> int:
    """Returns the step that the run goes on from, 0 for a new one; only sizes of files are checked.

    All processes call it.

    Args:
      data: fingerprint of what the run trains on and is evaluated on.
    Raises:
      ValueError: all checkpoints are damaged, or the newest good one is not of this run; or the
        processes of the run have not found the same.
    """
    start = checkpoint.newest_good(workdir)
    if start == 0:
        raise ValueError(
            f"{workdir} holds converted weights, not a run; use another --workdir, and "
            "--set train.init_from=HF_DIR to start from weights"
        )
    if start:
        metadata = checkpoint.read_metadata(workdir, start)
        check_same_run(from_dict(metadata.get("experiment", {})), experiment)
        check_same(metadata.get("data", {}), data, start)
    _check_agreed(experiment, data, start or 0)
    return start or 0


def _check_agreed(experiment: Experiment, data: dict[str, Any], start: int) -> None:
    """Raises ValueError if this process would train something else than process 0."""
    sections = to_dict(experiment)
    del sections["data"], sections["train"]["init_from"]  # paths may be others on another host
    found = json.loads(json.dumps({**sections, "data": data, "checkpoint": start}))
    first = distributed.agreed(found)
    for what, value in found.items():
        if value != first[what]:
            shown = f" ({value}, process 0 {first[what]})" if isinstance(value, int) else ""
            raise ValueError(
                f"this process has found another {what} than process 0{shown}: start all with the "
                "same command, the same data, and a --workdir that they share"
            )


def check_same_run(saved: Experiment, current: Experiment) -> None:
    """Raises ValueError if going on with `current` would not continue the run of `saved`.

    The model, its seed, the batch and what is evaluated must be the same. How it is computed (mesh,
    kernel, remat, accumulation), how long, and how fast it learns may change.
    """
    free = {"attention": "", "remat": "", "compute_dtype": ""}
    decides = {
        "model": lambda e: dataclasses.asdict(dataclasses.replace(e.model, **free)),
        "train": lambda e: {
            name: getattr(e.train, name) for name in ("seed", "batch_size", "eval_sequences")
        },
        "optimizer": lambda e: {"trainable": e.optimizer.trainable},
    }
    for section, values_of in decides.items():
        old, new = values_of(saved), values_of(current)
        for name in old:
            if old[name] != new[name]:
                raise ValueError(
                    f"{section}.{name}={new[name]!r}, but the checkpoint was trained with "
                    f"{old[name]!r}; set it back, or use another --workdir"
                )


def described(workdir: epath.PathLike) -> Experiment | None:
    """Returns the experiment of a run by its config.json; None where none is described, as beside
    converted weights and in directories of transformers.

    Raises:
      ValueError: the file is not what `describe` writes.
    """
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_bytes()).get("experiment")
        return None if values is None else from_dict(values)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} does not describe a run: {error}") from error


def describe(experiment: Experiment, workdir: epath.Path, tokenizer: epath.Path) -> None:
    """Writes what the run is, so that the workdir alone can be converted and evaluated.

    Raises:
      OSError: it cannot be written.
    """
    description = {
        "experiment": to_dict(experiment),
        **provenance.code(),
        "started_on": provenance.surroundings(),
    }
    for name, content in (
        ("config.json", json.dumps(description, indent=2).encode()),
        ("tokenizer.json", tokenizer.read_bytes()),
    ):
        try:
            files.write(workdir / name, content)
        except OSError as error:
            raise OSError(f"cannot write {workdir / name}: {error}") from error
