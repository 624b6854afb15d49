"""The hardware that a plan may name: memory and links of a device, and the devices of a topology.

Nothing of it needs to be here. TPU slices come from libtpu, GPU clusters from the CUDA compiler and
a target configuration that is written here, field by field, from public datasheets. Peak FLOP/s are
those of `polyglot_jax.devices`: there is one table of them.
"""

import importlib.metadata
import importlib.util
import math
import os
import re
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from polyglot_jax.devices import peak_flops
from polyglot_jax.plan.said import what_compilers_say

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """What XLA's CUDA compiler asks of a device (`GpuTargetConfigProto`)."""

    capability: tuple[int, int]
    cores: int  # streaming multiprocessors
    fpus_per_core: int
    shared_per_core: int  # bytes
    shared_per_block: int  # bytes, the most that a kernel may ask for
    l2_cache: int  # bytes
    clock_ghz: float


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One kind of device. Rates are of one device and one direction."""

    name: str
    kind: str  # jax's device_kind
    memory: float  # bytes; of a TPU those that its compiler gives to a program
    memory_bandwidth: float  # bytes/s
    link: float  # bytes/s to the other devices of its slice or node
    network: float  # bytes/s out of its node, or of its slice of TPUs
    gpu: Gpu | None = None  # None is a TPU
    largest: int | None = None  # chips of a slice; None: clusters of GPUs have no such bound

    @property
    def compiler(self) -> str:
        """The package of its compiler."""
        return "jax-cuda12-plugin" if self.gpu else "libtpu"

    @property
    def usable(self) -> float:
        """Bytes that a program may use."""
        return GPU_SHARE * self.memory if self.gpu else self.memory

    @property
    def peak_flops(self) -> float:
        peak = peak_flops(self.kind)
        assert peak is not None, f"{self.kind} has no peak in polyglot_jax.devices"
        return peak


# The share of a GPU's memory that scripts/xla_flags.sh gives to XLA; the rest is of CUDA's context,
# cuDNN and NCCL. The bytes below are what CUDA reports of each device, by OpenXLA's public
# descriptions (xla/backends/gpu/target_config/specs).
GPU_SHARE = 0.9

# Shared memory: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
AMPERE = Gpu(
    capability=(8, 0),
    cores=108,
    fpus_per_core=64,
    shared_per_core=164 * 1024,
    shared_per_block=163 * 1024,
    l2_cache=40 * 2**20,
    clock_ghz=1.41,
)
HOPPER = Gpu(
    capability=(9, 0),
    cores=132,
    fpus_per_core=128,
    shared_per_core=228 * 1024,
    shared_per_block=227 * 1024,
    l2_cache=50 * 2**20,
    clock_ghz=1.98,
)

HARDWARE = {
    hardware.name: hardware
    for hardware in (
        # Google Cloud documentation, the pages of TPU v4, v5e, v5p and v6e: HBM bandwidth per chip,
        # inter-chip interconnect bandwidth per chip (there bidirectional), chips of a pod. Their
        # 32, 16, 95 and 32 GB of memory are here what libtpu 0.0.42 leaves of them to a program, as
        # it says when one is too large. The network is that of the data centre, between slices: of
        # v5p 50 Gbit/s a chip, of v5e and v6e 6.4 and 25.6 Tbit/s a pod. No page tells it of v4:
        # half of a v5p's, as the links are, is an assumption.
        Hardware(
            name="v4",
            kind="TPU v4",
            memory=30.75 * GIB,
            memory_bandwidth=1200e9,
            link=150e9,
            network=3.125e9,
            largest=4096,
        ),
        Hardware(
            name="v5e",
            kind="TPU v5 lite",
            memory=15.75 * GIB,
            memory_bandwidth=819e9,
            link=100e9,
            network=3.125e9,
            largest=256,
        ),
        Hardware(
            name="v5p",
            kind="TPU v5",
            memory=95.74 * GIB,
            memory_bandwidth=2765e9,
            link=300e9,
            network=6.25e9,
            largest=8960,
        ),
        Hardware(
            name="v6e",
            kind="TPU v6 lite",
            memory=31.25 * GIB,
            memory_bandwidth=1638e9,
            link=224e9,
            network=12.5e9,
            largest=256,
        ),
        # NVIDIA A100 Tensor Core GPU datasheet and architecture whitepaper (108 SMs, 40 MB L2,
        # 1,410 MHz, NVLink 600 GB/s both ways); DGX A100 datasheet: 200 Gbit/s a GPU outside.
        Hardware(
            name="a100-40g",
            kind="NVIDIA A100-SXM4-40GB",
            memory=42_331_013_120,
            memory_bandwidth=1555e9,
            link=300e9,
            network=25e9,
            gpu=AMPERE,
        ),
        Hardware(
            name="a100-80g",
            kind="NVIDIA A100-SXM4-80GB",
            memory=85_100_068_864,
            memory_bandwidth=2039e9,
            link=300e9,
            network=25e9,
            gpu=AMPERE,
        ),
        # NVIDIA H100 Tensor Core GPU datasheet (SXM) and architecture whitepaper (132 SMs, 50 MB
        # L2, NVLink 900 GB/s both ways); DGX H100 datasheet: 400 Gbit/s a GPU outside.
        Hardware(
            name="h100",
            kind="NVIDIA H100 80GB HBM3",
            memory=84_942_979_072,
            memory_bandwidth=3350e9,
            link=450e9,
            network=50e9,
            gpu=HOPPER,
        ),
        # NVIDIA H200 Tensor Core GPU datasheet; its 141 GB are decimal, of which CUDA reports some
        # 139.8 GiB.
        Hardware(
            name="h200",
            kind="NVIDIA H200",
            memory=150_110_000_000,
            memory_bandwidth=4800e9,
            link=450e9,
            network=50e9,
            gpu=HOPPER,
        ),
    )
}


MOST_DEVICES = 2**16  # to describe: beyond all machines of one job, and seconds of this one

# Of the process: no TPU VM is here to ask for its metadata, and no chips are here to share.
_LIBTPU = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


@dataclass(frozen=True)
class Topology:
    """Devices that compile but do not run: "v5p:8x8x4", "2*v5e:16x16" (slices) or "a100-80g:32x8"
    (nodes x GPUs)."""

    name: str
    hardware: Hardware
    devices: tuple[Any, ...]
    slices: int = 1  # of TPUs

    @property
    def per_host(self) -> int:
        """Devices that share the fast links: those of a GPU node, or of a TPU slice."""
        if self.hardware.gpu:
            return int(self.name.rpartition("x")[2])
        return len(self.devices) // self.slices


def open_topology(name: str) -> Topology:
    """Returns the described devices of a topology's name.

    Raises:
      ValueError: no such hardware, a shape that it does not come in, more devices than there are,
        or a compiler that is not installed.
    """
    times, star, rest = name.rpartition("*")
    kind, _, shape = rest.partition(":")
    if kind not in HARDWARE:
        raise ValueError(f"--topology={name}: unknown hardware {kind!r} ({_known()})")
    hardware = HARDWARE[kind]
    if star and (hardware.gpu or not re.fullmatch(r"[1-9]\d*", times)):
        raise ValueError(f"--topology={name}: only slices of TPUs are counted, as in 2*v5e:16x16")
    dims = 2 if hardware.gpu or kind in ("v5e", "v6e") else 3
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)" + f"{{{dims - 1}}}", shape):
        example = "32x8 (nodes x GPUs)" if hardware.gpu else {2: "16x16", 3: "4x4x4"}[dims]
        raise ValueError(f"--topology={name}: {kind} takes a shape such as {kind}:{example}")
    size, slices = math.prod(map(int, shape.split("x"))), int(times or 1)
    if hardware.largest and size > hardware.largest:
        raise ValueError(
            f"--topology={name}: a slice of {kind} has at most {hardware.largest} chips"
        )
    if slices * size > MOST_DEVICES:
        raise ValueError(f"--topology={name}: more than {MOST_DEVICES} devices")
    _require("jax_plugins.xla_cuda12" if hardware.gpu else "libtpu", name)
    jax.config.update("jax_platforms", "cpu")  # of the process; the compilers stand beside it
    try:
        with what_compilers_say():  # that there is no such device here, in many lines
            described = _describe(hardware, shape, slices)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"--topology={name}: {' '.join(str(error).split())[:200]}") from None
    assert len(described.devices) == slices * size
    return Topology(name, hardware, tuple(described.devices), slices)


def _describe(hardware: Hardware, shape: str, slices: int) -> Any:
    if hardware.gpu:
        nodes, gpus = shape.split("x")
        return topologies.get_topology_desc(
            "",
            platform="cuda",
            target_config=target_config(hardware),
            topology=f"{nodes}x1x{gpus}",
        )
    for variable, value in _LIBTPU.items():
        os.environ.setdefault(variable, value)
    options: dict[str, Any] = {"chip_config_name": "megacore"} if hardware.name == "v4" else {}
    if shape == "1x1":  # otherwise hosts have 2 x 2 chips
        options["chips_per_host_bounds"] = (1, 1, 1)
    if slices > 1:
        options["num_slices"] = slices
    return topologies.get_topology_desc(
        platform="tpu", topology_name=f"{hardware.name}:{shape}", **options
    )


def _known() -> str:
    return "known: " + ", ".join(f"{name}:..." for name in HARDWARE)


def hardware_of(topology: str) -> Hardware:
    """Returns the hardware of a topology's name. Raises KeyError for an unknown one."""
    return HARDWARE[topology.rpartition("*")[2].partition(":")[0]]


def installed(package: str) -> str | None:
    """Returns the version of a compiler's package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _require(module: str, topology: str) -> None:
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise ValueError(
            f"--topology={topology} needs a compiler that is not installed ({module}); "
            "`make plan-env` installs it into .venv-plan, or: pip install -e '.[plan]'"
        )


def target_config(hardware: Hardware) -> str:
    """Returns the text of a `GpuTargetConfigProto` (openxla, stream_executor)."""
    gpu = hardware.gpu
    assert gpu is not None
    major, minor = gpu.capability
    extension = "ACCELERATED_FEATURES" if major >= 9 else "NONE"
    return f"""
gpu_device_info {{
  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {extension} }}
  core_count: {gpu.cores}
  fpus_per_core: {gpu.fpus_per_core}
  clock_rate_ghz: {gpu.clock_ghz}
  device_memory_size: {int(hardware.memory)}
  memory_bandwidth: {int(hardware.memory_bandwidth)}
  l2_cache_size: {gpu.l2_cache}
  shared_memory_per_block: {48 * 1024}
  shared_memory_per_block_optin: {gpu.shared_per_block}
  shared_memory_per_core: {gpu.shared_per_core}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: {2**31 - 1} block_dim_limit_y: 65535 block_dim_limit_z: 65535
  driver_version: "12.8.0"
  runtime_version: "12.8.0"
  compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{hardware.kind}"
"""
