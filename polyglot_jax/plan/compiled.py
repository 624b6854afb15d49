"""Compiles the training step of `train` for described devices and says what it needs.

The step, its shardings and its kernels are those of a run; only the devices are described. A step
that is too large is an answer too: by how much, by the compiler's own account.
"""

import dataclasses
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo as cudnn_attention
from jax.sharding import Mesh

from polyglot_jax.attention import Device, choose_kernel, compiling_for
from polyglot_jax.cli import one_line
from polyglot_jax.config import Experiment
from polyglot_jax.mesh import batch_sharding, make_mesh, spread
from polyglot_jax.plan import hlo
from polyglot_jax.plan.complaints import complaints, device_bytes
from polyglot_jax.plan.hardware import Topology
from polyglot_jax.plan.said import what_compilers_say
from polyglot_jax.step import abstract_state, family, jit_train_step

CUDNN = 91000  # of the target configuration
_TPU_FLAGS = (
    "xla_enable_async_all_gather",
    "xla_tpu_prefer_async_allgather_to_allreduce",
    "xla_tpu_enable_async_collective_fusion",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather",
    "xla_tpu_enable_async_collective_fusion_multiple_steps",
    "xla_tpu_overlap_compute_collective_tc",
    "xla_tpu_enable_data_parallel_all_reduce_opt",
    "xla_tpu_data_parallel_opt_different_sized_ops",
)
FLAGS = {  # those of scripts/xla_flags.sh
    "gpu": {"xla_gpu_enable_latency_hiding_scheduler": True},
    "tpu": dict.fromkeys(_TPU_FLAGS, True),
}


@dataclass(frozen=True)
class Plan:
    """One experiment on one topology. Bytes are of one device; FLOPs are of the whole update."""

    experiment: str
    topology: str
    devices: int
    mesh: dict[str, int]
    sequences: int  # that a device computes at a time
    accumulation: int
    remat: str
    memory: float  # that a program may use
    arguments: int  # parameters, optimizer state and batch, by their shardings
    compiled_arguments: int | None  # the same by the compiler's account: TPUs pad small arrays
    temporaries: int | None  # None: it did not compile
    peak: int | None  # of both together: a TPU's compiler lets some share their place
    short: float  # bytes that are missing; 0 fits
    attention: str  # kernel of the compiled program, or the one chosen where there is none
    flops: float
    tokens: int  # of the whole experiment
    steps: int
    peak_flops: float  # of all devices
    traffic: tuple[hlo.Traffic, ...]
    complaints: tuple[str, ...]  # shardings that cost what they should not

    @property
    def fits(self) -> bool:
        return self.short == 0

    @property
    def spare(self) -> float | None:
        """Bytes that are left; None where it does not fit."""
        return self.memory - self.peak if self.fits and self.peak is not None else None

    def step_seconds(self, mfu: float) -> float:
        """Returns the length of an update at a share of the peak that someone states."""
        return self.flops / self.peak_flops / mfu


def abstract_batch(experiment: Experiment, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the batch of one update as `polyglot_jax.data.mixture` makes it."""
    B, T = experiment.train.batch_size, experiment.data.seq_len
    shapes = {
        "inputs": ((B, T), jnp.int32),
        "targets": ((B, T), jnp.int32),
        "weights": ((B, T), jnp.float32),
        "num_bytes": ((B,), jnp.int32),
    }
    sharding = batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for name, (shape, dtype) in shapes.items()
    }


def compile_step(experiment: Experiment, mesh: Mesh) -> tuple[Any, str]:
    """Compiles the training step for the devices of a mesh, which may be described.

    Returns:
      The compiled step, and what the compilers wrote to stderr meanwhile.
    Raises:
      jax.errors.JaxRuntimeError: the compiler refuses it.
    """
    state, batch = abstract_state(experiment, mesh), abstract_batch(experiment, mesh)
    step = jit_train_step(experiment, mesh)
    device = Device.of(mesh.devices.flat[0])
    with compiling_for(device), _cudnn_of(device), jax.set_mesh(mesh), what_compilers_say() as said:
        compiled = step.lower(state, batch).compile(FLAGS.get(device.platform))
    return compiled, said[0]


def plan(experiment: Experiment, topology: Topology) -> Plan:
    """Compiles an experiment as it is set for a topology.

    Raises:
      ValueError: its mesh, batch or kernel does not go with the devices, or their compiler fails
        for another reason than a lack of memory.
    """
    mesh = make_mesh(experiment.mesh, topology.devices)
    # Described nodes have one slice_index, which those of a run have not: it would refuse the mesh.
    nodes = mesh.size // topology.per_host
    crossed = spread(**mesh.shape, slices=nodes, per_slice=topology.per_host)
    across = tuple(axis for axis, n in zip(("data", "fsdp"), crossed, strict=True) if n > 1)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    t, T = experiment.train, experiment.data.seq_len
    sequences, rest = divmod(t.batch_size, t.accumulation * shards)
    if rest or not sequences:
        raise ValueError(
            f"train.batch_size={t.batch_size} in train.accumulation={t.accumulation} microbatches "
            f"does not divide over data * fsdp = {shards} of the mesh {dict(mesh.shape)}"
        )
    kernel = choose_kernel(
        experiment.model.attention,
        head_dim=experiment.model.head_dim,
        seq_len=T,
        dtype=experiment.model.compute_dtype,
        device=Device.of(topology.devices[0]),
    )
    state, batch = abstract_state(experiment, mesh), abstract_batch(experiment, mesh)
    arguments = device_bytes((state, batch))
    hardware = topology.hardware
    memory = hardware.usable
    tokens = t.batch_size * T  # of an update
    known = Plan(
        experiment=experiment.name,
        topology=topology.name,
        devices=mesh.size,
        mesh=dict(mesh.shape),
        sequences=sequences,
        accumulation=t.accumulation,
        remat=experiment.model.remat,
        memory=memory,
        arguments=arguments,
        compiled_arguments=None,
        temporaries=None,
        peak=None,
        short=0,
        attention=kernel,
        flops=float(family(experiment.model).flops_per_token(experiment.model, T)) * tokens,
        tokens=t.steps * tokens,
        steps=t.steps,
        peak_flops=hardware.peak_flops * mesh.size,
        traffic=(),
        complaints=(),
    )
    try:
        compiled, said = compile_step(experiment, mesh)
    except jax.errors.JaxRuntimeError as error:
        if (asked := _asked(str(error))) is None:
            raise ValueError(
                f"the compiler of {topology.name} fails on {experiment.name} over the mesh "
                f"{dict(mesh.shape)}, {sequences} sequences at a time, remat "
                f"{experiment.model.remat}: {one_line(error, 300)}"
            ) from error
        wanted, memory = asked
        return dataclasses.replace(known, memory=memory, short=wanted - memory)
    analysis = compiled.memory_analysis()
    temporaries = analysis.temp_size_in_bytes
    peak = arguments + temporaries if hardware.gpu else analysis.peak_memory_in_bytes
    found = hlo.collectives(compiled.as_text(), dict(mesh.shape), across)
    return dataclasses.replace(
        known,
        compiled_arguments=analysis.argument_size_in_bytes,
        temporaries=temporaries,
        peak=peak,
        short=max(peak - memory, 0) if hardware.gpu else 0,
        attention=hlo.attention_kernel(compiled.as_text()),
        traffic=hlo.traffic(found),
        complaints=tuple(complaints(experiment, mesh, found, said)),
    )


def _asked(message: str) -> tuple[float, float] | None:
    """Returns the bytes that a TPU's compiler could not place and those it had, None for other
    failures. What it calls temporaries has the arguments in it (libtpu 0.0.42: 12.5 GiB of
    arguments and 8 of temporaries are "temporaries (20.50G)")."""
    size = r"([\d.]+)([KMGT]?)"
    match = re.search(rf"temporaries \({size}\) exceeds available HBM \({size}\)", message)
    match = match or re.search(rf"Used {size} of {size} hbm", message)
    if match is None:
        return None
    wanted, wanted_unit, had, had_unit = match.groups()
    units = {unit: 1024.0**power for power, unit in enumerate(("", "K", "M", "G", "T"))}
    return float(wanted) * units[wanted_unit], float(had) * units[had_unit]


@contextmanager
def _cudnn_of(device: Device) -> Iterator[None]:
    """Answers for the described GPU where JAX asks the GPU of this machine, and only there."""
    with ExitStack() as stack:
        if device.compute_capability is not None:
            capability = tuple(int(part) for part in device.compute_capability.split("."))

            def parts(text: str) -> tuple[int, ...]:
                return tuple(int(part) for part in text.split("."))

            answers = {
                "check_cudnn_version": lambda: CUDNN,
                "check_compute_capability": lambda least: capability >= parts(least),
                "is_cuda_compute_capability_equal": lambda other: capability == parts(other),
            }
            for name, answer in answers.items():
                stack.enter_context(mock.patch.object(cudnn_attention, name, answer))
        yield
