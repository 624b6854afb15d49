"""Experiments as frozen dataclasses: what a run is, checked before anything slow happens.

One experiment is one file in `experiments/` that holds one literal `Experiment`. Defaults live here
and nowhere else; unknown names and keys are errors; `None` means off. This module imports no jax,
so loading and validating an experiment takes milliseconds.
"""

import dataclasses
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from polyglot_jax import typed
from polyglot_jax.validation import validate


@dataclass(frozen=True, kw_only=True)
class NeoxConfig:
    """Shape and numerics of a GPT-NeoX decoder (`polyglot_jax.models.neox`)."""

    family: ClassVar[str] = "neox"  # the module under polyglot_jax.models

    vocab_size: int  # rows of the embedding, padding included
    num_layers: int
    d_model: int
    num_heads: int
    d_ff: int
    rotary_pct: float  # share of each head that is rotated
    rotary_base: float = 10_000.0
    max_seq_len: int = 2048  # HF max_position_embeddings
    layer_norm_eps: float = 1e-5
    activation: str = "gelu"  # "gelu" is erf, as in HF's config; "gelu_tanh" is NeoX's fused kernel
    init: str = "small_wang"  # "small_wang" or "normal", GPT-NeoX's two pairs of initialisers
    compute_dtype: str = "bfloat16"  # parameters, softmax, norm statistics and loss stay float32
    attention: str = "auto"  # kernel, see polyglot_jax.attention
    remat: str = "none"  # what the backward pass recomputes, see polyglot_jax.models.neox

    @property
    def head_dim(self) -> int:
        return self.d_model // self.num_heads

    @property
    def rotary_dims(self) -> int:
        return int(self.head_dim * self.rotary_pct)


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One directory of token shards, as `polyglot_jax.data.encode` writes it."""

    path: str  # local or gs://; holds train/ and held_out/
    weight: float = 1.0  # share of the examples, relative to the other sources of the phase


@dataclass(frozen=True, kw_only=True)
class DataPhase:
    """What is trained on from one step on. A source that goes on keeps its place in its epoch."""

    from_step: int = 0
    sources: tuple[SourceConfig, ...]
    seed: int = 1234  # of the order of examples; GPT-NeoX's default
    skipped: tuple[tuple[int, int], ...] = ()  # [first, end) batches of this phase never trained on


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data plan: append-only, so that (plan, step) decides every batch."""

    seq_len: int = 2048  # tokens predicted per example; an example holds one more
    plan: tuple[DataPhase, ...]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW as GPT-NeoX uses it; defaults are Pythia's (arXiv 2304.01373, appendix E)."""

    learning_rate: float  # peak
    min_learning_rate: float
    schedule: str = "neox_cosine"  # or "cosine": see polyglot_jax.optimizer
    warmup_fraction: float = 0.01  # of decay_steps
    decay_steps: int | None = None  # None: train.steps
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0  # global norm of the gradient
    trainable: str | None = None  # regular expression over parameter paths; None trains all


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each mesh axis; `data` is outermost and takes what is left when None."""

    data: int | None = None
    fsdp: int = 1
    tensor: int = 1


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length of the run, its batch, and what it records."""

    steps: int  # optimizer updates
    batch_size: int  # sequences per update, over all devices
    accumulation: int = 1  # microbatches per update
    seed: int = 0  # of the parameters
    log_every: int = 10  # steps
    eval_every: int | None = 1000  # steps; None evaluates at the end only
    eval_sequences: int = 512  # held-out sequences per evaluation, over all sources
    checkpoint_every: int = 1000  # steps
    keep_checkpoints: int = 3  # newest
    keep_best: int | None = 1  # of the lowest held-out bits per byte, beside the newest
    keep_every: int | None = None  # steps; the checkpoints of its multiples stay for good
    init_from: str | None = None  # HF directory whose weights start the run


@dataclass(frozen=True, kw_only=True)
class HealthConfig:
    """What the trainer watches and what it does then: see docs/health.md."""

    max_nonfinite: int = 10  # updates in a row without a finite loss and gradient; then it ends
    spike_sigma: float | None = 6.0  # standard deviations above the last 128 steps; None: no spikes
    on_spike: str = "skip"  # the update; "rewind" goes back to the checkpoint before, past the data
    on_plunge: str = "alarm"  # or "stop": when the loss falls away from the held-out loss
    probe_every: int | None = 1000  # steps; writes to the prompts and measures repetition
    probe_prompts: tuple[str, ...] = ("", "옛날에", "대한민국의", "나는 오늘", "이것은", "우리는")
    replicas_every: int | None = 100  # steps; devices compare the parameters that they share
    stall_seconds: float | None = 600.0  # without a step, and 10 times the usual: the process ends


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that decides a run. Two equal experiments on equal data give equal runs."""

    name: str
    model: NeoxConfig
    data: DataConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    health: HealthConfig = HealthConfig()
    mesh: MeshConfig = MeshConfig()


# ---- loading


def load_experiment(name: str, overrides: Sequence[str] = ()) -> Experiment:
    """Returns the validated experiment of a name in `experiments/` or of a `.py` file.

    Args:
      name: "ko_tiny", or a path that ends in `.py` to a file that defines `experiment`.
      overrides: "a.b=c" strings; `c` is parsed by the annotation of field `b`, tuples are indexed
        by number ("data.plan.0.sources.0.path=/data/ko") or given whole as JSON.

    Raises:
      ValueError: no such experiment, file or field (with the closest matches), a file that does
        not run, a value that does not fit its type, or fields that do not fit each other.
    """
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"no experiment file {name!r}")
    else:
        files = {f.stem: f for f in _EXPERIMENTS.glob("*.py") if not f.stem.startswith("_")}
        if name not in files:
            raise ValueError(f"unknown experiment {name!r}{typed.closest(name, sorted(files))}")
        path = files[name]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # anything may be wrong in a file that the user wrote
        raise ValueError(f"{path}: {type(error).__name__}: {error}") from error
    experiment = getattr(module, "experiment", None)
    if not isinstance(experiment, Experiment):
        raise ValueError(f"{path}: the file must define experiment = Experiment(...)")
    return override(experiment, overrides)


_EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def override(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    """Applies "a.b=c" strings and validates the result. Raises ValueError as load_experiment."""
    for item in overrides:
        path, separator, text = item.partition("=")
        if not separator:
            raise ValueError(f"--set {item}: expected a.b=value")
        where = f"--set {item}"
        experiment = typed.replace_at(Experiment, experiment, path.split("."), text, where)
    validate(experiment)
    return experiment


def to_dict(config: Experiment | NeoxConfig) -> dict[str, Any]:
    """Returns a config as JSON types; `from_dict` is its inverse."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: Mapping[str, Any]) -> Experiment:
    """Builds and validates an experiment. Raises ValueError on unknown or missing keys."""
    experiment = typed.build(Experiment, values, where="experiment")
    validate(experiment)
    return experiment


def model_from_dict(values: Mapping[str, Any]) -> NeoxConfig:
    """Builds a model config. Raises ValueError on unknown or missing keys."""
    return typed.build(NeoxConfig, values, where="model")
