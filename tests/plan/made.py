"""Topologies without a compiler, and plans without compiling."""

import dataclasses
from types import SimpleNamespace
from typing import Any

from polyglot_jax.config import Experiment, load_experiment
from polyglot_jax.plan.compiled import Plan
from polyglot_jax.plan.hardware import GIB, HARDWARE, Topology
from polyglot_jax.plan.hlo import Traffic

SETTINGS = (
    *("model.num_layers=3", "model.d_model=128", "model.num_heads=4", "model.d_ff=512"),
    *("model.vocab_size=320", "data.seq_len=96", "model.remat=full"),
    *("train.batch_size=16", "train.accumulation=2"),
    *("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2"),
)


def experiment() -> Experiment:
    return load_experiment("ko_tiny", SETTINGS)


def topology(name: str, size: int) -> Topology:
    hardware = HARDWARE[name.partition(":")[0]]
    capability = ".".join(map(str, hardware.gpu.capability)) if hardware.gpu else None
    device = SimpleNamespace(
        platform="gpu" if hardware.gpu else "tpu",
        device_kind=hardware.kind,
        compute_capability=capability,
    )
    return Topology(name, hardware, (device,) * size)


def made_plan(**changes: Any) -> Plan:
    plan = Plan(
        experiment="ko_1p3b",
        topology="a100-80g:1x8",
        devices=8,
        mesh={"data": 1, "fsdp": 8, "tensor": 1},
        sequences=8,
        accumulation=16,
        remat="dots",
        memory=80e9,
        arguments=2 * GIB,
        compiled_arguments=2 * GIB,
        temporaries=17 * GIB,
        peak=19 * GIB,
        short=0,
        attention="cudnn",
        flops=1e16,
        tokens=10**11,
        steps=1000,
        peak_flops=2.5e15,
        traffic=(Traffic("all-gather", ("fsdp",), 100, 4 * GIB, 0.5),),
        complaints=(),
    )
    return dataclasses.replace(plan, **changes)


def too_large(experiment: Experiment, topology: Topology, short: float) -> Plan:
    return made_plan(experiment=experiment.name, temporaries=None, peak=None, short=short)
