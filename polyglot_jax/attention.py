"""Attention: one function, several kernels. What cannot run as asked raises; nothing falls back.

Kernels (`model.attention`):
  xla     plain contractions, everywhere, any mask; memory grows with the square of the length.
  cudnn   flash attention of cuDNN: NVIDIA GPUs from Ampere on (NVIDIA's support matrix; JAX does
          not check it), bfloat16, causal; head_dim up to 128, or up to 256 on Hopper and later
          (limits of jax.nn.dot_product_attention).
  splash  flash attention of JAX for TPUs (a Pallas kernel), causal, lengths of whole blocks of 128.
  triton  flash attention of JAX for NVIDIA GPUs (a Pallas kernel, through Triton): from Ampere on,
          bfloat16, causal, head_dim up to 256, lengths of whole blocks of 128. For the heads that
          cuDNN does not take there; never chosen by auto.
  auto    cudnn on NVIDIA GPUs from Ampere on in bfloat16, splash on TPUs, else xla. A device whose
          fast kernel cannot take the shape raises instead of running many times slower in silence;
          ask for xla by name there.

The choice is a function of a `Device`, which may be described instead of present: that is how an
experiment is compiled for hardware that is not here (see `compiling_for`).

Shape suffixes: B batch, T query time, S key time, H heads, K head dim.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from polyglot_jax.mesh import partition_spec

SMALLEST_BLOCK = 128  # queries of a masked call that are computed together
MOST_BLOCKS = 8  # each is compiled by itself
PALLAS_BLOCK = 128  # lengths that both Pallas kernels take are multiples of it
SPLASH_BLOCKS = (512, 256, 128)  # queries and keys of a tile


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

    @property
    def nvidia(self) -> float:
        """The compute capability as a number; 0 where it is not an NVIDIA GPU."""
        capability = self.compute_capability or ""
        is_gpu = self.platform in ("gpu", "cuda")
        return float(capability) if is_gpu and capability.replace(".", "").isdecimal() else 0.0


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
      kernel: "auto", "xla", "cudnn", "splash" or "triton".
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
    if chosen == "triton":
        return triton(q_BTHK, k_BSHK, v_BSHK)
    return jax.nn.dot_product_attention(  # type: ignore[call-overload]  # "xla" or "cudnn"
        q_BTHK, k_BSHK, v_BSHK, is_causal=True, implementation=chosen
    )


def splash(
    q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """Causal attention by JAX's splash kernel, out_BTHK; T is a multiple of 128.

    Args:
      interpret: run the kernel in Pallas' interpreter, on any device.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention  # experimental: only where it runs

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

    return _on_shards(local, q_BTHK, k_BTHK, v_BTHK)


def triton(
    q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """Causal attention by JAX's Triton kernel, see `splash`.

    JAX 0.12 calls the module deprecated, in favour of the package tokamax.
    """
    from jax.experimental.pallas.ops.gpu import attention as triton_attention

    # Of queries and keys: the largest, of powers of two, whose tiles of 256 dims fit the 163 KiB of
    # shared memory of an A100; the compiler refuses larger ones.
    blocks = triton_attention.BlockSizes(
        *(128, 64),  # forward
        *(64, 64),  # gradients of keys and values
        *(64, 64),  # gradient of queries
    )

    def local(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array) -> jax.Array:
        return triton_attention.mha(
            *(q_BTHK, k_BTHK, v_BTHK),
            segment_ids=None,
            sm_scale=q_BTHK.shape[-1] ** -0.5,
            causal=True,
            block_sizes=blocks,
            num_warps=8,
            interpret=interpret,
        )

    return _on_shards(local, q_BTHK, k_BTHK, v_BTHK)


def _on_shards(local: Callable[..., jax.Array], *qkv_BTHK: jax.Array) -> jax.Array:
    """Runs a kernel, which the compiler cannot cut up, on each device's own examples and heads."""
    if jax.sharding.get_abstract_mesh().empty:
        return local(*qkv_BTHK)
    spec = partition_spec(("batch", "sequence", "heads", "head_dim"))
    on_each = jax.shard_map(local, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)
    return on_each(*qkv_BTHK)


@dataclass(frozen=True)
class _Call:
    """What decides whether a kernel runs."""

    device: Device
    dtype: jnp.dtype
    head_dim: int
    seq_len: int

    @property
    def cudnn_head_dim(self) -> int:
        return 256 if self.device.nvidia >= 9.0 else 128


Condition = tuple[Callable[[_Call], bool], str]  # the text is of the call that does not meet it

_NVIDIA: Condition = (
    lambda c: c.device.nvidia > 0,
    "needs an NVIDIA GPU, not {c.device.kind!r}",
)
_AMPERE: Condition = (
    lambda c: c.device.nvidia >= 8.0,
    "needs compute capability 8.0 or later; {c.device.kind} has {c.device.nvidia}",
)
_HALF: Condition = (
    lambda c: c.dtype in (jnp.bfloat16, jnp.float16),
    "computes in bfloat16, not {c.dtype.name} (model.compute_dtype)",
)
_TPU: Condition = (
    lambda c: c.device.platform == "tpu",
    "needs a TPU, not {c.device.kind!r}",
)
_BLOCKS: Condition = (
    lambda c: c.seq_len % PALLAS_BLOCK == 0,
    f"takes sequences of a multiple of {PALLAS_BLOCK} tokens, not {{c.seq_len}} (data.seq_len)",
)
_CUDNN_HEADS: Condition = (
    lambda c: c.head_dim <= c.cudnn_head_dim and c.head_dim % 8 == 0,
    "takes on {c.device.kind} a head_dim that is a multiple of 8 up to {c.cudnn_head_dim}, not "
    "{c.head_dim}",
)
_TRITON_HEADS: Condition = (
    lambda c: c.head_dim <= 256,
    "takes a head_dim up to 256, not {c.head_dim}",
)
# By kernel: what it asks of the device and the dtype, then what it asks of the shape.
CONDITIONS: dict[str, tuple[tuple[Condition, ...], tuple[Condition, ...]]] = {
    "xla": ((), ()),
    "cudnn": ((_NVIDIA, _AMPERE, _HALF), (_CUDNN_HEADS,)),
    "splash": ((_TPU,), (_BLOCKS,)),
    "triton": ((_NVIDIA, _AMPERE, _HALF), (_TRITON_HEADS, _BLOCKS)),
}


def choose_kernel(
    kernel: str,
    *,
    head_dim: int,
    seq_len: int,
    dtype: jnp.dtype | str,
    device: Device | None = None,
) -> str:
    """Returns the kernel that will run, one of CONDITIONS.

    Args:
      kernel: what the experiment asks for: one of them, or "auto".
      device: what will run it; None is that of `compiling_for`, else the first of this machine.
    Raises:
      ValueError: there is no such kernel; one was asked for where it cannot run; or "auto" would
        have to fall back to the slow kernel on a device that has a fast one. The message ends with
        the kernels that run this shape there.
    """
    if kernel == "xla":
        return "xla"
    device = device or _compiling_for.get() or Device.of(jax.devices()[0])
    call = _Call(device, jnp.dtype(dtype), head_dim, seq_len)

    def unmet(conditions: tuple[Condition, ...]) -> list[str]:
        return [text.format(c=call) for holds, text in conditions if not holds(call)]

    if kernel == "auto":
        kernel = next((k for k in ("cudnn", "splash") if not unmet(CONDITIONS[k][0])), "xla")
    of_device, of_shape = CONDITIONS.get(kernel, ((), ()))
    refusals = unmet(of_device + of_shape) if kernel in CONDITIONS else ["does not exist"]
    if refusals:
        run = [k for k, (where, shape) in CONDITIONS.items() if not unmet(where + shape)]
        raise ValueError(
            f"attention kernel {kernel} {refusals[0]}; set model.attention to one that takes this "
            f"shape on this device: {', '.join(run)}"
        )
    return kernel
