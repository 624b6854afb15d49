"""GPT-NeoX in linen: parallel residual, partial rotary embedding, untied head.

The architecture and its numbers are those of GPT-NeoX (branch multilingual-ko) as released in
transformers' GPTNeoX, which the tests hold it to. Layers are stacked and run under one scan.
Everything that knows a shape of this model is in this file: parameters with their logical axes,
the forward pass with or without a key-value cache, the loss, and the exact counts.

Shape suffixes: B batch, T query time, S key time, D model, H heads, K head dim, R rotary dims,
F feed-forward, V vocabulary, N layers.
"""

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from polyglot_jax.attention import attention
from polyglot_jax.config import NeoxConfig
from polyglot_jax.mesh import constrain
from polyglot_jax.models.rotary import rotary_angles, rotate

Params = Mapping[str, Any]


def _is_product(primitive: Any, *args: Any, **params: Any) -> bool:
    """Matrix products with weights, and the kernels of cuDNN, splash and triton: to their
    primitives JAX's policy is blind, and would run them a second time in the backward pass."""
    if primitive.name in ("dot_product_attention_fwd_wrapper", "pallas_call", "custom_vjp_call"):
        return True
    return jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *args, **params)


REMAT_POLICIES = {  # what is kept for the backward pass; all else is computed again
    "dots": _is_product,
    "full": jax.checkpoint_policies.nothing_saveable,  # only the input of each layer
}


@flax.struct.dataclass
class KVCache:
    """Keys and values of all layers; `length` counts the columns that are filled.

    Rows of unequal length are padded on the left, so all rows fill the same columns: `mask_BS` is
    false on the padding, and positions are counted from each row's first token.
    """

    k_NBSHK: jax.Array
    v_NBSHK: jax.Array
    mask_BS: jax.Array
    length: jax.Array  # int32 scalar


@flax.struct.dataclass
class Layout:
    """Rows that hold several texts: the position of each token, and what each may see."""

    positions_BT: jax.Array
    mask_BTS: jax.Array  # true where token T may see token S, never one further right


def init_cache(config: NeoxConfig, mask_BS: jax.Array) -> KVCache:
    """Returns an empty cache for S columns, in the compute dtype."""
    B, S = mask_BS.shape
    shape = (config.num_layers, B, S, config.num_heads, config.head_dim)
    k_NBSHK = jnp.zeros(shape, config.compute_dtype)
    v_NBSHK = jnp.zeros(shape, config.compute_dtype)  # not k's buffer, or neither can be donated
    return KVCache(k_NBSHK=k_NBSHK, v_NBSHK=v_NBSHK, mask_BS=mask_BS, length=jnp.int32(0))


# ---- initialisers: standard deviations of GPT-NeoX's init_functions.py


def _input_std(config: NeoxConfig) -> float:
    """Embedding, QKV, first MLP matrix and head: small_init (arXiv 1910.05895) or 0.02."""
    return math.sqrt(2 / (5 * config.d_model)) if config.init == "small_wang" else 0.02


def _output_std(config: NeoxConfig) -> float:
    """The two matrices that write to the residual: wang_init (GPT-J) or 0.02 / sqrt(2 N)."""
    if config.init == "small_wang":
        return 2 / (config.num_layers * math.sqrt(config.d_model))
    return 0.02 / math.sqrt(2 * config.num_layers)


def _normal(std: float, *names: str) -> nn.initializers.Initializer:
    return nn.with_logical_partitioning(nn.initializers.normal(std), names)


def _zeros(*names: str) -> nn.initializers.Initializer:
    return nn.with_logical_partitioning(nn.initializers.zeros_init(), names)


def _layer_norm(config: NeoxConfig, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(
        epsilon=config.layer_norm_eps,
        dtype=config.compute_dtype,
        use_fast_variance=False,  # E[x^2] - E[x]^2 cancels where the mean is large
        scale_init=nn.with_logical_partitioning(nn.initializers.ones_init(), ("norm",)),
        bias_init=_zeros("norm"),
        name=name,
    )


# ---- the model


class ToResidual(nn.Module):
    """The last product of attention and of the MLP, and its bias, which is not added yet."""

    config: NeoxConfig
    axes: tuple[str, ...]  # the last of the input, which are contracted

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        c, n = self.config, len(self.axes)
        init = _normal(_output_std(c), *self.axes, "embed")
        kernel = self.param("kernel", init, (*x.shape[-n:], c.d_model))
        bias_D = self.param("bias", _zeros("norm"), (c.d_model,)).astype(c.compute_dtype)
        return jnp.tensordot(x, kernel.astype(c.compute_dtype), n), bias_D


class Attention(nn.Module):
    """Self-attention with QKV fused per head, [q | k | v], as GPT-NeoX and HF store it."""

    config: NeoxConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        rotary: tuple[jax.Array, jax.Array],
        cache_kv: Any,
        mask_BTS: jax.Array | None,
        length: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array, Any]:
        c = self.config
        qkv_BT3HK = nn.DenseGeneral(
            (c.num_heads, 3, c.head_dim),
            dtype=c.compute_dtype,
            kernel_init=_normal(_input_std(c), "embed", "heads", "qkv", "head_dim"),
            bias_init=_zeros("heads", "qkv", "head_dim"),
            name="query_key_value",
        )(x_BTD)
        q_BTHK, k_BTHK, v_BTHK = (qkv_BT3HK[..., i, :] for i in range(3))
        q_BTHK, k_BTHK = rotate(q_BTHK, *rotary), rotate(k_BTHK, *rotary)
        k_BSHK, v_BSHK = k_BTHK, v_BTHK
        if cache_kv is not None:
            assert length is not None
            k_BSHK, v_BSHK = cache_kv = tuple(
                jax.lax.dynamic_update_slice_in_dim(old, new, length, axis=1)
                for old, new in zip(cache_kv, (k_BTHK, v_BTHK), strict=True)
            )
        out_BTHK = attention(
            *(q_BTHK, k_BSHK, v_BSHK),
            kernel=c.attention,
            mask_BTS=mask_BTS,
            masks_later=cache_kv is None,
        )
        return *ToResidual(c, ("heads", "head_dim"), name="dense")(out_BTHK), cache_kv


class MLP(nn.Module):
    config: NeoxConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> tuple[jax.Array, jax.Array]:
        c = self.config
        x_BTF = nn.DenseGeneral(
            c.d_ff,
            dtype=c.compute_dtype,
            kernel_init=_normal(_input_std(c), "embed", "mlp"),
            bias_init=_zeros("mlp"),
            name="dense_h_to_4h",
        )(x_BTD)
        x_BTF = jax.nn.gelu(x_BTF, approximate=c.activation == "gelu_tanh")
        return ToResidual(c, ("mlp",), name="dense_4h_to_h")(x_BTF)


class Block(nn.Module):
    """One layer: x + attention(norm1(x)) + mlp(norm2(x))."""

    config: NeoxConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        cache_kv: Any,
        rotary: tuple[jax.Array, jax.Array],
        mask_BTS: jax.Array | None,
        length: jax.Array | None,
    ) -> tuple[jax.Array, Any]:
        c = self.config
        attention_BTD, attention_D, cache_kv = Attention(c, name="attention")(
            _layer_norm(c, "input_layernorm")(x_BTD), rotary, cache_kv, mask_BTS, length
        )
        mlp_BTD, mlp_D = MLP(c, name="mlp")(_layer_norm(c, "post_attention_layernorm")(x_BTD))
        # Biases last: the compilers of GPUs and TPUs then sum both over `tensor` in one reduction.
        update_BTD = attention_BTD + mlp_BTD + (attention_D + mlp_D)
        return constrain(x_BTD + update_BTD, "batch", "sequence", "residual"), cache_kv


class NeoX(nn.Module):
    """Tokens to logits. Without a cache the attention is causal over the whole input."""

    config: NeoxConfig

    @nn.compact
    def __call__(
        self, tokens_BT: jax.Array, cache: KVCache | None = None, layout: Layout | None = None
    ) -> tuple[jax.Array, KVCache | None]:
        """Returns float32 logits_BTV, and the cache extended by T columns if one was given.

        With a layout, which takes no cache, it returns the x_BTD that the head is for, see `head`.
        """
        c = self.config
        T = tokens_BT.shape[1]
        cache_kv = length = None
        if layout is not None:
            positions_BT, mask_BTS = layout.positions_BT, layout.mask_BTS
        elif cache is None:
            positions_BT, mask_BTS = jnp.arange(T)[None], None
        else:
            length, cache_kv = cache.length, (cache.k_NBSHK, cache.v_NBSHK)
            positions_BS = jnp.cumsum(cache.mask_BS, axis=1) - 1
            positions_BT = jax.lax.dynamic_slice_in_dim(positions_BS, length, T, axis=1)
            past_TS = jnp.arange(cache.mask_BS.shape[1]) <= (length + jnp.arange(T))[:, None]
            mask_BTS = cache.mask_BS[:, None, :] & past_TS

        embedding_VD = self.param(
            "embed_in", _normal(_input_std(c), "vocab", "embed"), (c.vocab_size, c.d_model)
        )
        # Gathered over fsdp before the lookup: rows of a table cut along D cannot go to a batch
        # that is cut along the same mesh axis without replicating everything. Cast after it: the
        # gradient of a frequent token sums thousands of rows, too many for bfloat16.
        embedding_VD = constrain(embedding_VD, "vocab", "residual")
        x_BTD = embedding_VD[tokens_BT].astype(c.compute_dtype)
        x_BTD = constrain(x_BTD, "batch", "sequence", "residual")

        block = Block
        if c.remat != "none":
            block = nn.remat(Block, policy=REMAT_POLICIES[c.remat], prevent_cse=False)
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
            length=c.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(c, name="layers")
        rotary = rotary_angles(c, positions_BT)
        x_BTD, cache_kv = layers(x_BTD, cache_kv, rotary, mask_BTS, length)

        x_BTD = _layer_norm(c, "final_layer_norm")(x_BTD)
        if layout is not None:
            return x_BTD, None
        logits_BTV = nn.DenseGeneral(
            c.vocab_size,
            use_bias=False,
            dtype=c.compute_dtype,
            kernel_init=_normal(_input_std(c), "embed", "vocab"),
            name="embed_out",
        )(x_BTD)
        if cache is not None:
            k_NBSHK, v_NBSHK = cache_kv
            cache = KVCache(k_NBSHK, v_NBSHK, cache.mask_BS, cache.length + T)
        return logits_BTV.astype(jnp.float32), cache  # softmax and loss are float32


# ---- the family's interface: pure functions of (config, params)


def init(config: NeoxConfig, key: jax.Array) -> Params:
    """Returns float32 parameters, a nested dict of arrays."""
    return nn.meta.unbox(_init_boxed(config, key))


def logical_axes(config: NeoxConfig) -> Params:
    """Returns the tree of `init` with a tuple of logical axis names (see mesh.RULES) per array."""
    boxed = jax.eval_shape(partial(_init_boxed, config), jax.random.key(0))
    is_box = lambda leaf: isinstance(leaf, nn.meta.AxisMetadata)  # noqa: E731
    return jax.tree.map(lambda box: tuple(box.names), boxed, is_leaf=is_box)


def _init_boxed(config: NeoxConfig, key: jax.Array) -> Params:
    plain = dataclasses.replace(config, attention="xla")  # one token fits no block of splash
    return NeoX(plain).init(key, jnp.zeros((1, 1), jnp.int32))["params"]


def apply(
    config: NeoxConfig, params: Params, tokens_BT: jax.Array, cache: KVCache | None = None
) -> tuple[jax.Array, KVCache | None]:
    """Returns (float32 logits_BTV, cache), see `NeoX`."""
    return NeoX(config).apply({"params": params}, tokens_BT, cache)  # type: ignore[return-value]


def hidden(config: NeoxConfig, params: Params, tokens_BT: jax.Array, layout: Layout) -> jax.Array:
    """Returns x_BTD, normalised and in the compute dtype, from which `head` makes logits."""
    return NeoX(config).apply({"params": params}, tokens_BT, layout=layout)[0]


def head(config: NeoxConfig, params: Params, x_UD: jax.Array) -> jax.Array:
    """Returns the float32 logits_UV of any rows of `hidden`: those of few tokens cost little."""
    kernel_DV = params["embed_out"]["kernel"].astype(config.compute_dtype)
    return jnp.einsum("ud,dv->uv", x_UD, kernel_DV, preferred_element_type=jnp.float32)


def loss_sum_and_weight(
    config: NeoxConfig, params: Params, batch: Mapping[str, jax.Array], key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the summed cross-entropy in nats and the summed weight, float32 scalars.

    Over the whole padded vocabulary, as GPT-NeoX: the dummy columns are trained down, not masked.

    Args:
      batch: inputs_BT and targets_BT int32, weights_BT float32.
      key: unused; the family trains without dropout.
    """
    del key
    logits_BTV, _ = apply(config, params, batch["inputs"])
    targets_BT, weights_BT = batch["targets"], batch["weights"]
    target_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    loss_BT = jax.nn.logsumexp(logits_BTV, axis=-1) - target_BT
    return jnp.sum(loss_BT * weights_BT), jnp.sum(weights_BT)


def num_params(config: NeoxConfig) -> int:
    """Returns the exact number of parameters: 2 V D + N (12 D^2 + 13 D) + 2 D for F = 4 D."""
    D, F, V, N = config.d_model, config.d_ff, config.vocab_size, config.num_layers
    attention_params = D * 3 * D + 3 * D + D * D + D
    mlp_params = D * F + F + F * D + D
    norms = 2 * 2 * D
    return 2 * V * D + N * (attention_params + mlp_params + norms) + 2 * D


def flops_per_token(config: NeoxConfig, seq_len: int) -> int:
    """Returns the floating-point operations of forward and backward per token, for MFU.

    Convention: matrix products only, backward twice the forward, no recomputation counted, the
    embedding lookup free, and attention halved for causality:
    6 (N (4 D^2 + 2 D F) + V D) + 6 N T D.
    """
    D, F, V, N = config.d_model, config.d_ff, config.vocab_size, config.num_layers
    return 6 * (N * (4 * D * D + 2 * D * F) + V * D) + 6 * N * seq_len * D
