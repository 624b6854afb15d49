"""Looks for the settings of an experiment that fit a topology, the fastest of them first.

Arithmetic orders the candidates and drops those that cannot fit; the compiler has the last word.
The estimates are rough (memory within some 20 %): they decide what is compiled, never what is
reported.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from polyglot_jax.attention import Device, choose_kernel
from polyglot_jax.config import Experiment, MeshConfig
from polyglot_jax.plan.compiled import Plan, plan
from polyglot_jax.plan.hardware import Topology
from polyglot_jax.step import family
from polyglot_jax.validation import validate

MFU = 0.5  # of the arithmetic alone, in the order of candidates
RECOMPUTED = {"none": 1.0, "dots": 1.05, "full": 4 / 3}  # arithmetic, relative to no remat
COLLECTIVES, LATENCY = 6, 20e-6  # of a layer, and seconds of one for each doubling of its group
HEADROOM = 0.8  # of the memory, for an estimate to be worth compiling
LARGEST = 8  # sequences at a time on a device: more is not faster
FAILURES = 4  # of the compiler, for other reasons than memory, until the search gives up


@dataclass(frozen=True)
class Candidate:
    experiment: Experiment
    bytes: float  # of a device, estimated
    seconds: float  # of an update, estimated


def candidates(experiment: Experiment, topology: Topology) -> list[Candidate]:
    """Returns the settings worth a try, the fastest by estimate first."""
    made = [
        Candidate(tried, estimate_bytes(tried), estimate_seconds(tried, topology))
        for tried in _settings(_with_kernel(experiment, topology), topology)
    ]
    # Of equal ones first those of fewer microbatches: larger products are never the slower ones.
    return sorted(made, key=lambda c: (c.seconds, c.experiment.train.accumulation, c.bytes))


def search(experiment: Experiment, topology: Topology, tries: int = 3) -> Iterator[Plan]:
    """Yields the plans that were compiled, until one fits or `tries` did not.

    Where no estimate is near the memory of a device, only the smallest candidate is compiled. One
    that the compiler fails on for another reason than memory is no try, and the next is taken: the
    last of `tries` that do not fit is always the smallest that compiles.

    Raises:
      ValueError: no mesh of these devices goes with the model and its batch, or the compiler fails
        on every candidate or on `FAILURES` of them.
    """
    ordered = candidates(experiment, topology)
    if not ordered:
        raise ValueError(
            f"{experiment.name}: no mesh of {len(topology.devices)} devices divides its width, "
            f"heads and train.batch_size={experiment.train.batch_size}"
        )
    limit = HEADROOM * topology.hardware.usable
    failures = 0
    while True:
        smallest = min(ordered, key=lambda c: c.bytes)
        likely = [c for c in ordered if c.bytes < limit]
        # The last word is of the smallest, or "does not fit" would be said too early.
        chosen = likely[0] if likely and tries > 1 else smallest
        try:
            found = plan(chosen.experiment, topology)
        except ValueError:
            failures += 1
            ordered.remove(chosen)
            if failures == FAILURES or not ordered:
                raise
            continue
        yield found
        tries -= 1
        if found.fits or chosen is smallest:
            return
        # What was missing corrects the estimates of the others.
        limit = min(limit, chosen.bytes - found.short, 0.98 * chosen.bytes)


def _with_kernel(experiment: Experiment, topology: Topology) -> Experiment:
    """Asks for xla by name where the device's fast kernel does not take the model."""
    try:
        choose_kernel(
            experiment.model.attention,
            head_dim=experiment.model.head_dim,
            seq_len=experiment.data.seq_len,
            dtype=experiment.model.compute_dtype,
            device=Device.of(topology.devices[0]),
        )
    except ValueError:
        model = dataclasses.replace(experiment.model, attention="xla")
        return dataclasses.replace(experiment, model=model)
    return experiment


def _settings(experiment: Experiment, topology: Topology) -> Iterator[Experiment]:
    size, batch = len(topology.devices), experiment.train.batch_size
    powers = [2**i for i in range(size.bit_length())]
    for fsdp, tensor, sequences in itertools.product(powers, (1, 2, 4, 8), (1, 2, 4, LARGEST)):
        shards = size // tensor
        if size % (fsdp * tensor) or batch % (shards * sequences) or tensor > topology.per_host:
            continue
        if experiment.model.d_model // fsdp % 32:
            continue  # a TPU pads what is narrower, and gathers of slivers are slow everywhere
        for remat in RECOMPUTED:
            tried = dataclasses.replace(
                experiment,
                model=dataclasses.replace(experiment.model, remat=remat),
                mesh=MeshConfig(data=size // fsdp // tensor, fsdp=fsdp, tensor=tensor),
                train=dataclasses.replace(
                    experiment.train, accumulation=batch // (shards * sequences)
                ),
            )
            try:
                validate(tried)
            except ValueError:
                continue
            yield tried


def estimate_bytes(experiment: Experiment) -> float:
    """Returns roughly the bytes of one device: state, gradients, gathered weights, activations."""
    m, mesh = experiment.model, experiment.mesh
    D, F, V, T, t = m.d_model, m.d_ff, m.vocab_size, experiment.data.seq_len, mesh.tensor
    params = family(m).num_params(m) / (mesh.fsdp * t)
    accumulation = experiment.train.accumulation
    b = experiment.train.batch_size / accumulation / ((mesh.data or 1) * mesh.fsdp)
    layer = (4 * D * D + 2 * D * F) / t
    gathered = 0.0 if mesh.fsdp == 1 else 2 * 2 * layer + 6 * V * D / t
    scores = 12 * b * m.num_heads / t * T * T if m.attention == "xla" else 0.0
    kept = {
        "full": 2 * D,
        "dots": 2 * (2 * D + (4 * D + F) / t),
        "none": 2 * (6 * D + (8 * D + 4 * F) / t),
    }[m.remat]
    if m.remat == "none" and m.attention == "xla":
        kept += 8 * m.num_heads / t * T
    working = b * T * (24 * D + 8 * F / t) + scores
    logits = 10 * b * T * V / t
    gradients = 4 * params * (2 if accumulation > 1 else 1)
    return 12 * params + gradients + gathered + b * T * kept * m.num_layers + working + logits


def estimate_seconds(experiment: Experiment, topology: Topology) -> float:
    """Returns roughly the seconds of an update: arithmetic beside gathers, and what waits.

    What waits: reductions over tensor, the start of each collective, and the sums of float32
    gradients, which each microbatch reads twice and writes once.
    """
    m, mesh, hardware = experiment.model, experiment.mesh, topology.hardware
    D, T, t = m.d_model, experiment.data.seq_len, mesh.tensor
    accumulation = experiment.train.accumulation
    size, batch = len(topology.devices), experiment.train.batch_size
    flops = family(m).flops_per_token(m, T) * batch * T * RECOMPUTED[m.remat]
    slow_attention = 1.2 if m.attention == "xla" else 1.0
    arithmetic = flops * slow_attention / size / (hardware.peak_flops * MFU)

    def rate(group: int) -> float:
        return hardware.link if group <= topology.per_host else hardware.network

    b = batch / accumulation / (size / t)
    params = family(m).num_params(m) / t
    share = 0.0 if mesh.fsdp == 1 else 1.0
    # The gradient's scatter too, which a TPU's compiler makes an all-reduce over a whole slice.
    whole = not hardware.gpu and mesh.fsdp == size
    passes = 2 + share * (2 if whole else 1)
    gathers = share * passes * 2 * params / rate(t * mesh.fsdp)
    data = 0.0 if mesh.data == 1 else 2 * 2 * params / mesh.fsdp / rate(size)
    reductions = 0.0
    if t > 1:
        times = 4 if m.remat == "none" else 5
        reductions = times * 2 * 2 * b * T * D * m.num_layers / rate(t)
    waits = accumulation * m.num_layers * COLLECTIVES * LATENCY * math.log2(size)
    sums = 3 * 4 * params / mesh.fsdp / hardware.memory_bandwidth
    beside = max(arithmetic, accumulation * (gathers + data))
    return beside + accumulation * (reductions + sums) + waits
