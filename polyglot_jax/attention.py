"""Attention: one function, several kernels. What cannot run as asked raises; nothing falls back.

Kernels (`model.attention`):
  xla    plain contractions, everywhere, any mask; memory grows with the square of the length.
  cudnn  flash attention of cuDNN: NVIDIA GPUs, bfloat16, causal; head_dim up to 128, or up to 256
         on Hopper and later (limits of jax.nn.dot_product_attention).
  auto   cudnn on NVIDIA GPUs in bfloat16, else xla. A GPU whose cuDNN cannot take the head_dim
         raises instead of running many times slower in silence; ask for xla by name there.

Shape suffixes: B batch, T query time, S key time, H heads, K head dim.
"""

from typing import Literal

import jax
import jax.numpy as jnp

SMALLEST_BLOCK = 128  # queries of a masked call that are computed together
MOST_BLOCKS = 8  # each is compiled by itself


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
      kernel: "auto", "xla" or "cudnn".
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
    chosen = choose_kernel(kernel, q_BTHK.shape[-1], q_BTHK.dtype)
    return jax.nn.dot_product_attention(
        q_BTHK, k_BSHK, v_BSHK, is_causal=True, implementation=chosen
    )


def choose_kernel(
    kernel: str, head_dim: int, dtype: jnp.dtype | str, device: jax.Device | None = None
) -> Literal["xla", "cudnn"]:
    """Returns the kernel that will run, "xla" or "cudnn".

    Args:
      kernel: what the experiment asks for.
      device: the device that will run it; None is the first one.
    Raises:
      ValueError: "cudnn" was asked for where it cannot run, or "auto" would have to fall back to
        the slow kernel on a GPU.
    """
    if kernel == "xla":
        return "xla"
    if device is None:
        device = jax.devices()[0]
    is_half = jnp.dtype(dtype) in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))
    capability = str(getattr(device, "compute_capability", ""))  # "9.0"; AMD's is "gfx942"
    on_nvidia = device.platform in ("gpu", "cuda") and capability.replace(".", "").isdecimal()
    if kernel == "auto" and not (on_nvidia and is_half):
        return "xla"
    if not on_nvidia:
        raise ValueError(
            f"model.attention=cudnn needs an NVIDIA GPU, not {device.device_kind!r}; "
            "set model.attention=auto or xla"
        )
    if not is_half:
        raise ValueError(
            f"model.attention=cudnn computes in bfloat16, not {jnp.dtype(dtype).name}; "
            "set model.compute_dtype=bfloat16 or model.attention=xla"
        )
    limit = 256 if float(capability) >= 9.0 else 128
    if head_dim > limit or head_dim % 8:
        raise ValueError(
            f"cuDNN attention on {device.device_kind} (compute capability {capability}) takes a "
            f"head_dim that is a multiple of 8 up to {limit}, not {head_dim}; set "
            "model.attention=xla to run the slower kernel"
        )
    return "cudnn"
