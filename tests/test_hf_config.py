"""config.json in every spelling that GPT-NeoX models were published with."""

import dataclasses
import re

import pytest
from transformers import GPTNeoXConfig

from polyglot_jax.config import load_experiment
from polyglot_jax.hf_config import config_from_hf, config_to_hf
from tests.oracle import tiny

PUBLISHED = {  # of the models' config.json: what differs between them
    "ko_1p3b": (2048, 24, 16, 8192, 0.5),
    "ko_3p8b": (3072, 32, 24, 12288, 0.5),
    "ko_5p8b": (4096, 28, 16, 16384, 0.25),
    "ko_12p8b": (5120, 40, 40, 20480, 0.5),
}
NOT_IN_HF = ("init", "compute_dtype", "attention", "remat")


def published(hidden, layers, heads, ff, rotary_pct):
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "bos_token_id": 0,
        "classifier_dropout": 0.1,
        "eos_token_id": 2,
        "hidden_act": "gelu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": ff,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048,
        "model_type": "gpt_neox",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_steps": "global_step301000",
        "rotary_emb_base": 10000,
        "rotary_pct": rotary_pct,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.29.2",
        "use_cache": True,
        "use_parallel_residual": True,
        "vocab_size": 30080,
    }


BASE = published(*PUBLISHED["ko_5p8b"])


def in_hf(config):
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in NOT_IN_HF}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_config_is_the_experiments(name):
    hf = published(*PUBLISHED[name])
    config = config_from_hf(hf)
    assert in_hf(config) == in_hf(load_experiment(name).model)
    written = config_to_hf(config, "float16", end_of_text=2)
    unwritten = ("num_steps", "transformers_version")
    assert {k: written[k] for k in hf if k not in unwritten} == {
        k: v for k, v in hf.items() if k not in unwritten
    }


def test_old_copies_lack_keys():
    absent = ("use_parallel_residual", "classifier_dropout", "tie_word_embeddings")
    old = {k: v for k, v in BASE.items() if k not in absent}
    assert config_from_hf(old) == config_from_hf(BASE)


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 0.5}},
        {"rope_theta": 500.0, "partial_rotary_factor": 0.5},
        {"rotary_emb_base": 500, "rotary_pct": 0.5, "rope_parameters": {"rope_theta": 500.0}},
    ],
)
def test_rotary_spellings(spelling):
    hf = {k: v for k, v in BASE.items() if k not in ("rotary_pct", "rotary_emb_base")} | spelling
    config = config_from_hf(hf)
    assert (config.rotary_base, config.rotary_pct) == (500.0, 0.5)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
@pytest.mark.parametrize("rotary_pct", [0.25, 0.5])
def test_round_trip(activation, rotary_pct):
    config = tiny(activation=activation, rotary_pct=rotary_pct, rotary_base=500.0)
    written = config_to_hf(config, "float32", end_of_text=2)
    assert in_hf(config_from_hf(written)) == in_hf(config)
    theirs = GPTNeoXConfig(**written)  # and transformers understands the same by it
    assert theirs.rope_parameters["partial_rotary_factor"] == rotary_pct
    assert theirs.rope_parameters["rope_theta"] == 500.0
    assert in_hf(config_from_hf(theirs.to_dict())) == in_hf(config)


@pytest.mark.parametrize("act", ["gelu_new", "gelu_pytorch_tanh", "gelu_fast"])
def test_spellings_of_tanh_gelu(act):
    assert config_from_hf(BASE | {"hidden_act": act}).activation == "gelu_tanh"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "x: model_type is 'llama'"),
        ({"use_parallel_residual": False}, "use_parallel_residual=False is not supported"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings=True is not supported"),
        ({"attention_bias": False}, "attention_bias=False is not supported"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling={'type': 'linear'} is not"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type='yarn' is not supported"),
        ({"quantization_config": {"bits": 4}}, "quantization_config={'bits': 4} is not"),
        ({"hidden_act": "relu"}, "hidden_act='relu' is not one of gelu, "),
        ({"hidden_size": None}, "hidden_size must be a number, not None"),
        ({"vocab_size": 1.5}, "vocab_size must be a number, not 1.5"),
        ({"num_attention_heads": 7}, "hidden_size=4096 is not divisible by num_attention_heads=7"),
        (
            {"rope_parameters": {"partial_rotary_factor": 0.5}},
            "rotary_pct=0.25, rope_parameters.partial_rotary_factor=0.5 contradict",
        ),
    ],
)
def test_unsupported_values_raise(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        config_from_hf(BASE | change, "x")
