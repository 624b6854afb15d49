"""The oracle of the parity tests: transformers' GPTNeoX in torch, float32, eager attention.

It is configured and fed by hand wherever that is possible, so that an error in our own conversion
shows instead of cancelling. Every check raises AssertionError when the two sides differ.
"""

import functools

import jax
import numpy as np
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from polyglot_jax.config import NeoxConfig
from polyglot_jax.hf_weights import to_hf
from polyglot_jax.models import neox

# Float32 sums in another order differ by 1e-6 to 1e-5 of the largest value; a wrong model by 1e-2.
TOLERANCE = 1e-4
IGNORED = -100  # torch's label of a token without loss

torch.set_num_threads(2)


def tiny(**changes) -> NeoxConfig:
    """Three heads and unequal dimensions everywhere, so that no mistaken axis goes unnoticed."""
    shape = {
        **{"vocab_size": 97, "num_layers": 2, "d_model": 48, "num_heads": 3, "d_ff": 80},
        **{"rotary_pct": 0.5, "max_seq_len": 64, "compute_dtype": "float32"},
    }
    return NeoxConfig(**shape | changes)


def random_params(config: NeoxConfig, seed: int = 0):
    """Parameters of standard deviation 0.2 and more, norms and biases too (numpy)."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: neox.init(config, jax.random.key(0)))

    def draw(path, shape):
        mean = 1.0 if path[-1].key == "scale" else 0.0
        return (mean + 0.25 * rng.standard_normal(shape.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def ragged_tokens(config: NeoxConfig, lengths=(24, 17, 3), seed: int = 0):
    """Returns tokens_BT, padded on the right with token 0, and mask_BT, true on tokens."""
    rng = np.random.default_rng(seed)
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    tokens = rng.integers(1, config.vocab_size, mask.shape, dtype=np.int32)
    return np.where(mask, tokens, 0), mask


def hf_config(config: NeoxConfig) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.d_model,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.d_ff,
        rotary_pct=config.rotary_pct,
        rotary_emb_base=config.rotary_base,
        max_position_embeddings=config.max_seq_len,
        layer_norm_eps=config.layer_norm_eps,
        hidden_act={"gelu": "gelu", "gelu_tanh": "gelu_new"}[config.activation],
        attn_implementation="eager",
    )


def hf_state(config: NeoxConfig, tree) -> dict[str, np.ndarray]:
    """A tree like the parameters as HF's state dict; the head's name is transformers 5's."""
    state = dict(to_hf(config, jax.tree.map(np.asarray, tree)))
    state["lm_head.weight"] = state.pop("embed_out.weight")
    return state


def make_model(config: NeoxConfig, params, sabotage=lambda name, tensor: tensor):
    """A torch model with our weights; `sabotage` may change each tensor on the way."""
    model = GPTNeoXForCausalLM(hf_config(config))
    state = {
        name: torch.tensor(sabotage(name, tensor))
        for name, tensor in hf_state(config, params).items()
    }
    model.load_state_dict(state, strict=True)
    return model


def check_close(ours, theirs, what: str) -> None:
    """Raises unless the largest difference is within TOLERANCE of the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: shapes {ours.shape} and {theirs.shape}"
    scale = np.abs(theirs).max()
    difference = np.abs(ours - theirs).max() / scale
    assert difference <= TOLERANCE, (
        f"{what}: differs by {difference:.1e} of the largest, {scale:.1e}"
    )


def check_equal(ours, theirs) -> None:
    """Raises unless two trees are equal to the bit."""
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


apply = jax.jit(neox.apply, static_argnums=0)


def check_logits(config: NeoxConfig, params, model, tokens, mask) -> None:
    ours, _ = apply(config, params, tokens)
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(mask))
    check_close(np.asarray(ours)[mask], theirs.logits.numpy()[mask], "logits")


def make_batch(tokens, mask) -> dict[str, np.ndarray]:
    """The batch of our loss: each token predicts the next one."""
    return {
        "inputs": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "weights": mask[:, 1:].astype(np.float32),
        "num_bytes": np.full(len(tokens), 100, np.int32),
    }


def torch_loss(model, tokens, mask):
    """Mean loss over the real tokens; the shift of the labels is transformers' own."""
    labels = torch.tensor(np.where(mask, tokens, IGNORED)).long()
    return model(
        input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(mask), labels=labels
    ).loss


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.value_and_grad, argnums=1)
def loss_and_gradients(config: NeoxConfig, params, batch):
    loss_sum, weight = neox.loss_sum_and_weight(config, params, batch, jax.random.key(0))
    return loss_sum / weight


def check_gradients(config: NeoxConfig, params, batch, model, tokens, mask) -> None:
    """Compares the loss and every gradient, each relative to its own largest element."""
    ours, gradients = loss_and_gradients(config, params, batch)
    theirs = torch_loss(model, tokens, mask)
    model.zero_grad()
    theirs.backward()
    check_close(ours, theirs.detach(), "loss")
    named = dict(model.named_parameters())
    for name, gradient in hf_state(config, gradients).items():
        check_close(gradient, named[name].grad, f"gradient of {name}")


def adamw(model, optimizer, decays=lambda name: "norm" not in name and not name.endswith("bias")):
    """torch's AdamW with GPT-NeoX's two groups, of an OptimizerConfig."""
    groups = [
        {"params": [p for n, p in model.named_parameters() if decays(n)]},
        {"params": [p for n, p in model.named_parameters() if not decays(n)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=optimizer.learning_rate,
        betas=(optimizer.b1, optimizer.b2),
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
    )
