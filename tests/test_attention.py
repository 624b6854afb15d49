"""Attention: the xla path against plain formulas, and the choice of kernel never falls back."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyglot_jax.attention import attention, choose_kernel


def device(platform="gpu", capability: str | None = "9.0", kind="NVIDIA H100"):
    return SimpleNamespace(platform=platform, device_kind=kind, compute_capability=capability)


H100 = device()
A100 = device(capability="8.0", kind="NVIDIA A100")
MI300 = device(capability="gfx942", kind="AMD Instinct MI300X")
CPU = SimpleNamespace(platform="cpu", device_kind="cpu")
TPU = SimpleNamespace(platform="tpu", device_kind="TPU v5p")


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
        ("auto", 128, "float32", H100, "xla"),
        ("auto", 128, "bfloat16", MI300, "xla"),
        ("auto", 128, "bfloat16", CPU, "xla"),
        ("auto", 128, "bfloat16", TPU, "xla"),
        ("xla", 256, "bfloat16", A100, "xla"),
        ("cudnn", 64, "bfloat16", A100, "cudnn"),
    ],
)
def test_choice(kernel, head_dim, dtype, on, chosen):
    assert choose_kernel(kernel, head_dim, dtype, on) == chosen


@pytest.mark.parametrize(
    ("kernel", "head_dim", "dtype", "on", "message"),
    [
        ("auto", 256, "bfloat16", A100, "up to 128, not 256; set model.attention=xla"),
        ("cudnn", 256, "bfloat16", A100, "up to 128, not 256"),
        ("cudnn", 512, "bfloat16", H100, "up to 256, not 512"),
        ("cudnn", 60, "bfloat16", H100, "multiple of 8"),
        ("cudnn", 64, "float32", H100, "computes in bfloat16, not float32"),
        ("cudnn", 64, "bfloat16", CPU, "needs an NVIDIA GPU, not 'cpu'"),
        ("cudnn", 64, "bfloat16", MI300, "needs an NVIDIA GPU"),
    ],
)
def test_what_cannot_run_raises(kernel, head_dim, dtype, on, message):
    with pytest.raises(ValueError, match=message):
        choose_kernel(kernel, head_dim, dtype, on)


@pytest.mark.parametrize("length", [5, 128, 300, 1100], ids=str)
def test_leaving_out_what_is_masked_changes_nothing(length: int):
    q, k, v = random_qkv(length, length)
    seen = np.random.default_rng(0).random((2, length, length)) < 0.5
    mask = jnp.asarray((seen | np.eye(length, dtype=bool)) & np.tri(length, dtype=bool))
    whole = attention(q, k, v, kernel="xla", mask_BTS=mask)
    in_blocks = attention(q, k, v, kernel="xla", mask_BTS=mask, masks_later=True)
    np.testing.assert_allclose(in_blocks, whole, atol=1e-5)
