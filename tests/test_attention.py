"""Attention: the xla path against plain formulas, and the choice of kernel never falls back."""

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyglot_jax.attention import (
    Device,
    attention,
    choose_kernel,
    compiling_for,
    splash,
    triton,
)
from polyglot_jax.config import MeshConfig, NeoxConfig
from polyglot_jax.mesh import make_mesh
from polyglot_jax.models import neox

H100 = Device("gpu", "NVIDIA H100", "9.0")
A100 = Device("cuda", "NVIDIA A100", "8.0")
T4 = Device("gpu", "Tesla T4", "7.5")
V100 = Device("cuda", "Tesla V100-SXM2-32GB", "7.0")
B200 = Device("gpu", "NVIDIA B200", "10.0")
MI300 = Device("gpu", "AMD Instinct MI300X", "gfx942")
CPU = Device("cpu", "cpu")
TPU = Device("tpu", "TPU v5p")


def plain(q, k, v, mask):
    """Softmax attention written out in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    scores = np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(q.shape[-1])
    scores = np.where(mask[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhts,bshk->bthk", weights, v)


def random_qkv(T, S, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 3)
    return tuple(
        jax.random.normal(key, (2, n, 3, 8), dtype) for key, n in zip(keys, (T, S, S), strict=True)
    )


def test_no_mask_is_causal():
    q, k, v = random_qkv(7, 7)
    mask = np.broadcast_to(np.tril(np.ones((7, 7), bool)), (2, 7, 7))
    np.testing.assert_allclose(attention(q, k, v, kernel="auto"), plain(q, k, v, mask), atol=1e-5)


def test_mask_decides_what_is_seen():
    q, k, v = random_qkv(3, 7)
    mask = np.random.default_rng(0).random((2, 3, 7)) < 0.5
    mask[:, :, 0] = True
    got = attention(q, k, v, kernel="auto", mask_BTS=jnp.asarray(mask))
    np.testing.assert_allclose(got, plain(q, k, v, mask), atol=1e-5)


def test_softmax_of_bfloat16_scores_is_float32():
    q, k, v = random_qkv(64, 64, jnp.bfloat16)
    got = attention(q, k, v, kernel="xla")
    mask = np.broadcast_to(np.tril(np.ones((64, 64), bool)), (2, 64, 64))
    assert got.dtype == jnp.bfloat16
    # half a unit in the last of bfloat16's 8 bits, for the result and for the weights
    np.testing.assert_allclose(np.float32(got), plain(q, k, v, mask), atol=2**-7)


@pytest.mark.parametrize(
    ("kernel", "head_dim", "dtype", "on", "chosen"),
    [
        ("auto", 128, "bfloat16", H100, "cudnn"),
        ("auto", 256, "bfloat16", H100, "cudnn"),
        ("auto", 128, "bfloat16", A100, "cudnn"),
        ("auto", 128, "bfloat16", B200, "cudnn"),
        ("auto", 128, "float32", H100, "xla"),
        ("auto", 128, "bfloat16", T4, "xla"),  # cuDNN's flash attention begins with Ampere
        ("auto", 256, "bfloat16", V100, "xla"),
        ("auto", 128, "bfloat16", MI300, "xla"),
        ("auto", 128, "bfloat16", CPU, "xla"),
        ("auto", 128, "bfloat16", TPU, "splash"),
        ("auto", 256, "float32", TPU, "splash"),
        ("splash", 64, "bfloat16", TPU, "splash"),
        ("xla", 64, "bfloat16", TPU, "xla"),
        ("triton", 256, "bfloat16", A100, "triton"),
        ("xla", 256, "bfloat16", A100, "xla"),
        ("cudnn", 64, "bfloat16", A100, "cudnn"),
    ],
)
def test_choice(kernel, head_dim, dtype, on, chosen):
    got = choose_kernel(kernel, head_dim=head_dim, seq_len=2048, dtype=dtype, device=on)
    assert got == chosen
    with compiling_for(on):
        assert choose_kernel(kernel, head_dim=head_dim, seq_len=2048, dtype=dtype) == chosen


def test_devices_of_jax_are_described():
    assert Device.of(jax.devices()[0]) == CPU
    gpu = SimpleNamespace(platform="gpu", device_kind="NVIDIA H100", compute_capability="9.0")
    assert Device.of(gpu) == H100


@pytest.mark.parametrize(
    ("kernel", "head_dim", "dtype", "on", "message"),
    [
        ("auto", 256, "bfloat16", A100, "up to 128, not 256; .* on this device: xla, triton$"),
        ("cudnn", 256, "bfloat16", A100, "up to 128, not 256; .* on this device: xla, triton$"),
        ("cudnn", 512, "bfloat16", H100, "up to 256, not 512; .* on this device: xla$"),
        ("cudnn", 60, "bfloat16", H100, "multiple of 8 .* on this device: xla, triton$"),
        ("cudnn", 64, "float32", H100, "computes in bfloat16, not float32 .* on this device: xla$"),
        ("cudnn", 64, "bfloat16", CPU, "needs an NVIDIA GPU, not 'cpu'; .* on this device: xla$"),
        ("cudnn", 64, "bfloat16", MI300, "needs an NVIDIA GPU"),
        ("cudnn", 64, "bfloat16", TPU, "needs an NVIDIA GPU.* on this device: xla, splash$"),
        ("cudnn", 64, "bfloat16", T4, "cudnn needs compute capability 8.0 or later; Tesla T4 has"),
        ("cudnn", 64, "bfloat16", V100, "has 7.0; .* on this device: xla$"),
        ("triton", 128, "bfloat16", T4, "triton needs compute capability 8.0.* this device: xla$"),
        ("triton", 512, "bfloat16", H100, "up to 256, not 512"),
        ("triton", 128, "float32", H100, "computes in bfloat16"),
        ("triton", 128, "bfloat16", TPU, "needs an NVIDIA GPU"),
        ("splash", 64, "bfloat16", H100, "needs a TPU, not 'NVIDIA H100'.*: xla, cudnn, triton$"),
        ("splash", 64, "bfloat16", CPU, "needs a TPU, not 'cpu'; set model.attention to one"),
        ("flash", 64, "bfloat16", H100, "kernel flash does not exist.*: xla, cudnn, triton$"),
    ],
)
def test_what_cannot_run_raises(kernel, head_dim, dtype, on, message):
    with pytest.raises(ValueError, match=message):
        choose_kernel(kernel, head_dim=head_dim, seq_len=2048, dtype=dtype, device=on)


@pytest.mark.parametrize(("kernel", "on"), [("auto", TPU), ("splash", TPU), ("triton", A100)])
def test_pallas_kernels_take_whole_blocks_only(kernel, on):
    with pytest.raises(ValueError, match=r"multiple of 128 tokens, not 200 .* device: xla"):
        choose_kernel(kernel, head_dim=64, seq_len=200, dtype="bfloat16", device=on)


def with_gradients(forward):
    def run(q, k, v, cotangent):
        out, pullback = jax.vjp(forward, q, k, v)
        return out, *pullback(cotangent)

    return jax.jit(run)


@pytest.mark.parametrize(
    ("kernel", "meshes"),
    [(splash, None), (splash, MeshConfig(fsdp=2, tensor=2)), (triton, None)],
    ids=["splash", "splash on a mesh", "triton"],
)
def test_pallas_kernels_equal_xla(kernel, meshes):
    """Three blocks, so that whole, masked and skipped ones all occur; each device runs its own."""
    shape = (4, 384, 2, 16) if meshes else (1, 384, 2, 16)
    arrays = [jax.random.normal(jax.random.key(i), shape) for i in range(4)]
    want = with_gradients(partial(attention, kernel="xla"))(*arrays)
    with jax.set_mesh(make_mesh(meshes or MeshConfig())) if meshes else nullcontext():
        got = with_gradients(partial(kernel, interpret=True))(*arrays)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def lowered(model: NeoxConfig, on: Device, platform: str) -> str:
    """Returns the StableHLO of the gradient of 8 examples of 256 tokens on a 2x2x2 mesh."""
    params = jax.eval_shape(partial(neox.init, model), jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((8, 256), jnp.int32)
    batch = {"inputs": tokens, "targets": tokens, "weights": tokens}
    loss = lambda p, b: neox.loss_sum_and_weight(model, p, b, jax.random.key(0))[0]  # noqa: E731
    with compiling_for(on), jax.set_mesh(make_mesh(MeshConfig(fsdp=2, tensor=2))):
        traced = jax.jit(jax.grad(loss)).trace(params, batch)
        return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(("remat", "kernels"), [("none", 3), ("dots", 3), ("full", 4)])
@pytest.mark.parametrize(
    ("kernel", "head_dim", "on", "platform", "call"),
    [
        ("auto", 64, TPU, "tpu", "@tpu_custom_call"),
        ("auto", 256, TPU, "tpu", "@tpu_custom_call"),
        ("triton", 256, A100, "cuda", "@__gpu$xla.gpu.triton"),
    ],
    ids=["tpu, 64", "tpu, 256", "a100, 256"],
)
def test_devices_run_the_kernel_on_their_own_shard(
    remat, kernels, kernel, head_dim, on, platform, call
):
    """Once forward, twice backward; `full` runs the forward one again, which `dots` must not."""
    model = NeoxConfig(
        **{"vocab_size": 128, "num_layers": 2, "num_heads": 4, "d_ff": 64, "rotary_pct": 0.25},
        **{"d_model": 4 * head_dim, "max_seq_len": 256, "remat": remat, "attention": kernel},
    )
    calls = [line for line in lowered(model, on, platform).splitlines() if call in line]
    assert len(calls) == kernels
    # 8 examples over data * fsdp = 4, 4 heads over tensor = 2
    local = f"2x2x256x{head_dim}xbf16" if platform == "tpu" else f"2x256x2x{head_dim}xbf16"
    assert all(f"tensor<{local}>" in line for line in calls)
