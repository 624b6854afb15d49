"""The ladder to transformers' GPTNeoX: block, logits, gradients, one update, twenty steps.

Each rung has its negative: a sabotaged input for which the very same check must fail.
"""

import dataclasses
import math

import jax
import numpy as np
import pytest
import torch
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXLayer, GPTNeoXRotaryEmbedding

from polyglot_jax.config import OptimizerConfig, load_experiment
from polyglot_jax.mesh import make_mesh, put_batch
from polyglot_jax.models import neox
from polyglot_jax.optimizer import make_optimizer
from polyglot_jax.step import init_params, init_state, jit_train_step
from tests.oracle import (
    adamw,
    check_close,
    check_gradients,
    check_logits,
    hf_config,
    hf_state,
    make_batch,
    make_model,
    ragged_tokens,
    random_params,
    tiny,
    torch_loss,
)

CONFIGS = (
    tiny(rotary_pct=0.5),
    tiny(rotary_pct=0.25, activation="gelu_tanh"),
    tiny(rotary_pct=0.25, num_heads=4, layer_norm_eps=1e-3, rotary_base=500.0),
)
each_config = pytest.mark.parametrize("config", CONFIGS, ids=("half", "quarter-tanh", "quarter"))


# ---- one block


@each_config
def test_block(config):
    params = jax.tree.map(lambda x: x[0], random_params(config)["layers"])
    x_BTD = np.random.default_rng(1).standard_normal((2, 24, config.d_model)).astype(np.float32)
    rotary = neox.rotary_angles(config, np.arange(24)[None])
    block = jax.jit(neox.Block(config).apply)
    ours, _ = block({"params": params}, x_BTD, None, rotary, None, None)

    layer = GPTNeoXLayer(hf_config(config), layer_idx=0)
    prefix = "gpt_neox.layers.0."
    layer.load_state_dict(
        {
            name.removeprefix(prefix): torch.tensor(tensor)
            for name, tensor in hf_state(config, random_params(config)).items()
            if name.startswith(prefix)
        }
    )
    positions = torch.arange(24)[None]
    causal = torch.full((24, 24), -torch.inf).triu(1)[None, None]
    x = torch.tensor(x_BTD)
    with torch.no_grad():
        angles = GPTNeoXRotaryEmbedding(hf_config(config))(x, positions)
        theirs = layer(x, attention_mask=causal, position_embeddings=angles)
    check_close(ours, theirs, "block")


# ---- logits


def thirds(name, tensor):
    """Rows ordered as if q, k and v were thirds of all rows, the common mistake."""
    if "query_key_value" not in name:
        return tensor
    return tensor.reshape(3, 3, -1, *tensor.shape[1:]).swapaxes(0, 1).reshape(tensor.shape)


def without(suffix):
    return lambda name, tensor: tensor * 0 if name.endswith(suffix) else tensor


@each_config
def test_logits(config):
    params = random_params(config)
    check_logits(config, params, make_model(config, params), *ragged_tokens(config))


SABOTAGES = {
    "thirds-split QKV": thirds,
    "no QKV bias": without("query_key_value.bias"),
    "no attention output bias": without("attention.dense.bias"),
    "no MLP input bias": without("dense_h_to_4h.bias"),
    "no MLP output bias": without("dense_4h_to_h.bias"),
    "no norm bias": without("post_attention_layernorm.bias"),
    "no final norm bias": without("final_layer_norm.bias"),
}


@pytest.mark.parametrize("sabotage", SABOTAGES.values(), ids=SABOTAGES)
def test_logits_check_sees(sabotage):
    config, params = CONFIGS[0], random_params(CONFIGS[0])
    model = make_model(config, params, sabotage)
    with pytest.raises(AssertionError, match="logits"):
        check_logits(config, params, model, *ragged_tokens(config))


@pytest.mark.parametrize(
    "change", [{"rotary_pct": 0.25}, {"activation": "gelu_tanh"}, {"rotary_base": 9000.0}]
)
def test_logits_check_sees_another_config(change):
    config, params = CONFIGS[0], random_params(CONFIGS[0])
    model = make_model(dataclasses.replace(config, **change), params)
    with pytest.raises(AssertionError, match="logits"):
        check_logits(config, params, model, *ragged_tokens(config))


# ---- gradients


@each_config
def test_gradients(config):
    params, (tokens, mask) = random_params(config), ragged_tokens(config)
    model = make_model(config, params)
    check_gradients(config, params, make_batch(tokens, mask), model, tokens, mask)


def test_gradients_check_sees_shifted_labels():
    config, params = CONFIGS[0], random_params(CONFIGS[0])
    tokens, mask = ragged_tokens(config)
    batch = make_batch(tokens, mask)
    batch["targets"] = np.roll(batch["targets"], -1, axis=1)
    with pytest.raises(AssertionError, match="loss"):
        check_gradients(config, params, batch, make_model(config, params), tokens, mask)


def test_gradients_check_sees_unmasked_padding():
    config, params = CONFIGS[0], random_params(CONFIGS[0])
    tokens, mask = ragged_tokens(config)
    batch = make_batch(tokens, np.ones_like(mask))
    with pytest.raises(AssertionError, match="loss"):
        check_gradients(config, params, batch, make_model(config, params), tokens, mask)


# ---- one update from the same gradients (the key bias's own are zero but for noise, and Adam
# makes steps of full size out of noise)

# A large rate: float32 keeps an update of 1e-3 to a parameter near 1 to 1e-4 of itself only.
OPTIMIZER = OptimizerConfig(
    learning_rate=1e-2, min_learning_rate=1e-3, warmup_fraction=0.0, decay_steps=1000
)


def check_update(**torch_options):
    config = CONFIGS[0]
    params, gradients = random_params(config), random_params(config, seed=1)
    optimizer = make_optimizer(OPTIMIZER, 1000, params)
    updates, _ = jax.jit(optimizer.update)(gradients, jax.jit(optimizer.init)(params), params)
    ours = hf_state(config, updates)

    model = make_model(config, params)
    given, old = hf_state(config, gradients), hf_state(config, params)
    for name, parameter in model.named_parameters():
        parameter.grad = torch.tensor(given[name])
    torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.clip_norm)
    adamw(model, OPTIMIZER, **torch_options).step()
    for name, parameter in model.named_parameters():
        theirs = parameter.detach().numpy() - old[name]
        check_close(ours[name], theirs, f"update of {name}")


def test_update():
    check_update()


@pytest.mark.parametrize(
    "decays",
    [
        lambda name: True,
        lambda name: not name.endswith("bias"),
        lambda name: "norm" not in name,
        lambda name: "norm" not in name and not name.endswith("bias") and "embed_in" not in name,
        lambda name: "norm" not in name and not name.endswith("bias") and "lm_head" not in name,
    ],
    ids=["all", "norms too", "biases too", "not the embedding", "not the head"],
)
def test_update_check_sees_a_wrong_decay_mask(decays):
    with pytest.raises(AssertionError, match="update of"):
        check_update(decays=decays)


# ---- twenty steps

STEPS, BATCH, SEQ = 20, 8, 24


def neox_schedule(t, peak=3e-3, minimum=3e-4, end=40, warmup=4):
    """GPT-NeoX's AnnealingLR, written from its description."""
    if t < warmup:
        return peak * t / warmup
    return max(minimum, peak / 2 * (math.cos(math.pi * (t - warmup) / end) + 1))


def training_batches(config):
    for seed in range(STEPS):
        lengths = np.random.default_rng(seed).integers(2, SEQ + 2, BATCH)
        lengths[0] = SEQ + 1
        yield ragged_tokens(config, tuple(lengths), seed)


def our_losses(experiment, params):
    mesh = make_mesh(experiment.mesh, jax.devices()[:1])
    with jax.set_mesh(mesh):
        state = jax.jit(init_state, static_argnums=0)(experiment, params)
        train_step = jit_train_step(experiment, mesh)
        losses = []
        for tokens, mask in training_batches(experiment.model):
            batch = put_batch(mesh, make_batch(tokens, mask), BATCH)
            state, metrics = train_step(state, batch)
            losses.append((float(metrics["loss"]), float(metrics["grad_norm"])))
    return np.array(losses)


def torch_losses(experiment, params):
    model = make_model(experiment.model, params)
    optimizer = adamw(model, experiment.optimizer)
    peak = experiment.optimizer.learning_rate
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: neox_schedule(t) / peak)
    losses = []
    for tokens, mask in training_batches(experiment.model):
        optimizer.zero_grad()
        loss = torch_loss(model, tokens, mask)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), experiment.optimizer.clip_norm)
        optimizer.step()
        schedule.step()
        losses.append((loss.item(), norm.item()))
    return np.array(losses)


def test_twenty_steps():
    config = CONFIGS[0]
    experiment = load_experiment("ko_tiny", [f"train.batch_size={BATCH}", "train.steps=40"])
    experiment = dataclasses.replace(
        experiment,
        model=config,
        data=dataclasses.replace(experiment.data, seq_len=SEQ),
        optimizer=OptimizerConfig(
            learning_rate=3e-3, min_learning_rate=3e-4, warmup_fraction=0.1, clip_norm=0.5
        ),
    )
    params = jax.device_get(jax.jit(init_params, static_argnums=0)(experiment))
    ours, theirs = our_losses(experiment, params), torch_losses(experiment, params)
    assert theirs[0, 0] - theirs[-1, 0] > 0.02  # it does learn
    assert (theirs[:, 1] > experiment.optimizer.clip_norm).any()  # and is clipped
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
