"""Attention: one function, several kernels. What cannot run as asked raises; nothing falls back.

Kernels (`model.attention`):
  xla     plain contractions, everywhere, any mask; memory grows with the square of the length.
  cudnn   flash attention of cuDNN: NVIDIA GPUs, bfloat16, causal; head_dim up to 128, or up to 256
          on Hopper and later (limits of jax.nn.dot_product_attention).
  splash  flash attention of JAX for TPUs (a Pallas kernel), causal, lengths of whole blocks of 128.
  auto    cudnn on NVIDIA GPUs in bfloat16, splash on TPUs, else xla. A device whose fast kernel
          cannot take the shape raises instead of running many times slower in silence; ask for xla
          by name there.

The choice is a function of a `Device`, which may be described instead of present: that is how an
experiment is compiled for hardware that is not here (see `compiling_for`).

Shape suffixes: B batch, T query time, S key time, H heads, K head dim.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention

from polyglot_jax.mesh import partition_spec

SMALLEST_BLOCK = 128  # queries of a masked call that are computed together
MOST_BLOCKS = 8  # each is compiled by itself
SPLASH_BLOCKS = (512, 256, 128)  # queries and keys of a tile: the kernel takes multiples of 128

Kernel = Literal["xla", "cudnn", "splash"]


@dataclass(frozen=True)
class Device:
    """What of a device decides the kernel."""

    platform: str  # "cpu", "tpu", "gpu" or "cuda"
    kind: str  # for messages
    compute_capability: str | None = None  # "9.0" on NVIDIA GPUs; AMD's is "gfx942"

    @classmethod
    def of(cls, device: Any) -> "Device":
        """Describes a jax.Device, of this machine or of a topology."""
        capability = getattr(device, "compute_capability", None)
        return cls(
            device.platform, device.device_kind, None if capability is None else str(capability)
        )


_compiling_for: ContextVar[Device | None] = ContextVar("compiling_for", default=None)


@contextmanager
def compiling_for(device: Device) -> Iterator[None]:
    """Makes functions that are traced in the block choose their kernel for `device`."""
    token = _compiling_for.set(device)
    try:
        yield
    finally:
        _compiling_for.reset(token)


def attention(
    q_BTHK: jax.Array,
    k_BSHK: jax.Array,
    v_BSHK: jax.Array,
    *,
    kernel: str,
    mask_BTS: jax.Array | None = None,
    masks_later: bool = False,
) -> jax.Array:
    """Returns softmax(q k / sqrt(K)) v in q's dtype, out_BTHK; the softmax is float32.

    Args:
      kernel: "auto", "xla", "cudnn" or "splash".
      mask_BTS: true where a query may see a key; None is causal, for queries and keys of the same
        positions. Only xla takes a mask, so a masked call always runs on it.
      masks_later: the mask shows no query a key of a higher index, so that nearly half of the work
        is left out.
    Raises:
      ValueError: see `choose_kernel`.
    """
    if mask_BTS is not None and masks_later:
        T = q_BTHK.shape[1]
        size = max(SMALLEST_BLOCK, -(-T // MOST_BLOCKS))
        blocks = [
            attention(
                q_BTHK[:, start : start + size],
                k_BSHK[:, : start + size],
                v_BSHK[:, : start + size],
                kernel=kernel,
                mask_BTS=mask_BTS[:, start : start + size, : start + size],
            )
            for start in range(0, T, size)
        ]
        return jnp.concatenate(blocks, axis=1)
    if mask_BTS is not None:
        return jax.nn.dot_product_attention(
            q_BTHK, k_BSHK, v_BSHK, mask=mask_BTS[:, None], implementation="xla"
        )
    chosen = choose_kernel(
        kernel, head_dim=q_BTHK.shape[-1], seq_len=q_BTHK.shape[1], dtype=q_BTHK.dtype
    )
    if chosen == "splash":
        return splash(q_BTHK, k_BSHK, v_BSHK)
    return jax.nn.dot_product_attention(
        q_BTHK, k_BSHK, v_BSHK, is_causal=True, implementation=chosen
    )


def splash(
    q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """Causal attention by JAX's splash kernel, out_BTHK; T is a multiple of 128.

    The compiler cannot cut a kernel up: under a mesh each device runs it on its own examples and
    heads.

    Args:
      interpret: run the kernel in Pallas' interpreter, on any device.
    """
    T = q_BTHK.shape[1]
    block = next(size for size in SPLASH_BLOCKS if T % size == 0)
    sizes = splash_attention.BlockSizes(
        *(block, block, block),  # forward
        *(block, block, block),  # gradients of keys and values
        *(block, block),  # gradient of queries
    )

    def local(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array) -> jax.Array:
        H, K = q_BTHK.shape[2:]
        mask = splash_attention.MultiHeadMask([splash_attention.CausalMask((T, T))] * H)
        run = splash_attention.make_splash_mha(
            mask, head_shards=1, q_seq_shards=1, block_sizes=sizes, interpret=interpret
        )
        scaled_BTHK = q_BTHK * K**-0.5  # the kernel takes the scores as they are
        heads_first = (x.swapaxes(1, 2) for x in (scaled_BTHK, k_BTHK, v_BTHK))
        return jax.vmap(run)(*heads_first).swapaxes(1, 2)

    if jax.sharding.get_abstract_mesh().empty:
        return local(q_BTHK, k_BTHK, v_BTHK)
    spec = partition_spec(("batch", "sequence", "heads", "head_dim"))
    on_each = jax.shard_map(local, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)
    return on_each(q_BTHK, k_BTHK, v_BTHK)


def choose_kernel(
    kernel: str,
    *,
    head_dim: int,
    seq_len: int,
    dtype: jnp.dtype | str,
    device: Device | None = None,
) -> Kernel:
    """Returns the kernel that will run.

    Args:
      kernel: what the experiment asks for.
      device: what will run it; None is that of `compiling_for`, else the first of this machine.
    Raises:
      ValueError: a kernel was asked for where it cannot run, or "auto" would have to fall back to
        the slow kernel on a device that has a fast one.
    """
    if kernel == "xla":
        return "xla"
    device = device or _compiling_for.get() or Device.of(jax.devices()[0])
    is_half = jnp.dtype(dtype) in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))
    capability = device.compute_capability or ""
    on_nvidia = device.platform in ("gpu", "cuda") and capability.replace(".", "").isdecimal()
    on_tpu = device.platform == "tpu"
    if kernel == "auto" and not on_tpu and not (on_nvidia and is_half):
        return "xla"
    if kernel == "splash" or (kernel == "auto" and on_tpu):
        _check(on_tpu, f"splash needs a TPU, not {device.kind!r}; set model.attention=auto or xla")
        _check(
            seq_len % SPLASH_BLOCKS[-1] == 0,
            f"splash on {device.kind} takes sequences of a multiple of {SPLASH_BLOCKS[-1]} tokens, "
            f"not {seq_len}; change data.seq_len, or set model.attention=xla to run the slower "
            "kernel",
        )
        return "splash"
    _check(
        on_nvidia,
        f"cudnn needs an NVIDIA GPU, not {device.kind!r}; set model.attention=auto or xla",
    )
    _check(
        is_half,
        f"cudnn computes in bfloat16, not {jnp.dtype(dtype).name}; "
        "set model.compute_dtype=bfloat16 or model.attention=xla",
    )
    limit = 256 if float(capability) >= 9.0 else 128
    _check(
        head_dim <= limit and head_dim % 8 == 0,
        f"cudnn on {device.kind} (compute capability {capability}) takes a head_dim that is a "
        f"multiple of 8 up to {limit}, not {head_dim}; set model.attention=xla to run the slower "
        "kernel",
    )
    return "cudnn"


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f"attention kernel {message}")
