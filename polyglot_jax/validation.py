"""Which values of an experiment go together, and what to do where they do not."""

import dataclasses
import itertools
import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # config calls this module
    from polyglot_jax.config import DataPhase, Experiment

LARGEST = 2**31 - 1  # of int32, in which devices count steps
CHOICES = {
    "model.activation": ("gelu", "gelu_tanh"),
    "model.init": ("small_wang", "normal"),
    "model.compute_dtype": ("bfloat16", "float32"),
    "model.attention": ("auto", "xla", "cudnn", "splash", "triton"),
    "model.remat": ("none", "dots", "full"),
    "optimizer.schedule": ("neox_cosine", "cosine"),
    "health.on_spike": ("skip", "rewind"),
    "health.on_plunge": ("alarm", "stop"),
}


def validate(experiment: "Experiment") -> None:
    """Raises ValueError that names the field, its value and the fix when fields do not fit."""
    e, m, d = experiment, experiment.model, experiment.data
    o, t = experiment.optimizer, experiment.train
    for section, values in dataclasses.asdict(e).items():
        for field, value in values.items() if isinstance(values, dict) else ():
            finite = not isinstance(value, float) or math.isfinite(value)
            _check(finite, f"{section}.{field}={value}: must be a finite number")
    for path, choices in CHOICES.items():
        section, field = path.split(".")
        value = getattr(getattr(e, section), field)
        _check(value in choices, f"{path}={value!r}: choose one of {', '.join(choices)}")

    for path, value in (
        ("train.steps", t.steps),
        ("health.max_nonfinite", e.health.max_nonfinite),
    ):
        _check(value <= LARGEST, f"{path}={value}: must be at most {LARGEST:,}")

    positive = {
        "model": (
            *("vocab_size", "num_layers", "d_model", "num_heads", "d_ff", "max_seq_len"),
            *("rotary_base", "layer_norm_eps"),
        ),
        "data": ("seq_len",),
        "optimizer": ("learning_rate", "decay_steps", "clip_norm", "eps"),
        "train": (
            *("steps", "batch_size", "accumulation", "log_every", "eval_every"),
            *("eval_sequences", "checkpoint_every"),
            *("keep_checkpoints", "keep_best", "keep_every"),
        ),
        "health": (
            *("max_nonfinite", "spike_sigma", "probe_every", "replicas_every", "stall_seconds"),
        ),
        "mesh": ("data", "fsdp", "tensor"),
    }
    for section, fields in positive.items():
        for field in fields:
            value = getattr(getattr(e, section), field)
            _check(value is None or value > 0, f"{section}.{field}={value}: must be above 0")

    def divides(small: str, a: int, large: str, b: int) -> None:
        _check(b % a == 0, f"{large}={b} is not divisible by {small}={a}; change one of them")

    divides("model.num_heads", m.num_heads, "model.d_model", m.d_model)
    divides("mesh.tensor", e.mesh.tensor, "model.num_heads", m.num_heads)
    divides("mesh.tensor", e.mesh.tensor, "model.d_ff", m.d_ff)
    divides("mesh.tensor", e.mesh.tensor, "model.vocab_size", m.vocab_size)
    divides("mesh.fsdp", e.mesh.fsdp, "model.d_model", m.d_model)
    divides("train.accumulation", t.accumulation, "train.batch_size", t.batch_size)
    divides(
        "mesh.data * mesh.fsdp",
        (e.mesh.data or 1) * e.mesh.fsdp,
        "train.batch_size / train.accumulation",
        t.batch_size // t.accumulation,
    )
    _check(
        0 < m.rotary_dims <= m.head_dim and m.rotary_dims % 2 == 0,
        f"model.rotary_pct={m.rotary_pct}: rotates {m.rotary_dims} of {m.head_dim} dims of a head; "
        "must be an even number between 2 and all of them",
    )
    _check(
        d.seq_len <= m.max_seq_len,
        f"data.seq_len={d.seq_len} is more than model.max_seq_len={m.max_seq_len}",
    )
    _check(
        0 <= o.min_learning_rate <= o.learning_rate,
        f"optimizer.min_learning_rate={o.min_learning_rate}: must lie between 0 and "
        f"optimizer.learning_rate={o.learning_rate}",
    )
    _check(
        0 <= o.warmup_fraction < 1,
        f"optimizer.warmup_fraction={o.warmup_fraction}: must be at least 0 and below 1",
    )
    _check(0 <= o.b1 < 1, f"optimizer.b1={o.b1}: must be at least 0 and below 1")
    _check(0 <= o.b2 < 1, f"optimizer.b2={o.b2}: must be at least 0 and below 1")
    _check(o.weight_decay >= 0, f"optimizer.weight_decay={o.weight_decay}: must not be negative")
    _check_pattern("optimizer.trainable", o.trainable)
    _check(
        bool(e.health.probe_prompts) or e.health.probe_every is None,
        "health.probe_prompts is empty: give it a prompt, or --set health.probe_every=none",
    )
    _check(0 <= t.seed < 2**32, f"train.seed={t.seed}: must fit 32 bits")
    _validate_plan(d.plan)


def _validate_plan(plan: tuple["DataPhase", ...]) -> None:
    starts = [phase.from_step for phase in plan]
    _check(bool(plan), "data.plan is empty: give it one phase with its sources")
    _check(
        starts[0] == 0 and all(a < b for a, b in itertools.pairwise(starts)),
        f"data.plan: from_step is {starts}; the first must be 0 and each later one larger",
    )
    for i, phase in enumerate(plan):
        where = f"data.plan.{i}"
        paths = [source.path for source in phase.sources]
        _check(bool(paths), f"{where}.sources is empty: name at least one directory of shards")
        _check(len(set(paths)) == len(paths), f"{where}.sources: a path is named twice in {paths}")
        for source in phase.sources:
            _check(
                math.isfinite(source.weight) and source.weight > 0,
                f"{where}: weight {source.weight} of {source.path!r} must be above 0",
            )
        _check(0 <= phase.seed < 2**32, f"{where}.seed={phase.seed}: must fit 32 bits")
        ends = [0, *(edge for pair in phase.skipped for edge in pair)]
        _check(
            ends == sorted(ends) and all(first < end for first, end in phase.skipped),
            f"{where}.skipped={phase.skipped}: must be rising, disjoint [first, end) pairs",
        )
        _check(
            max(phase.from_step, *ends) <= LARGEST,
            f"{where}: from_step={phase.from_step} and skipped={phase.skipped} must be at most "
            f"{LARGEST:,}",
        )


def _check_pattern(path: str, pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"{path}={pattern!r} is not a regular expression: {error}") from None


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
