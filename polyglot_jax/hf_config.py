"""The small JSON files of an HF directory: model, tokenizer and generation settings.

`config.json` has been spelt in several ways over the years. All of them are read; what is written
carries both the published spelling (rotary_pct, which vLLM and llama.cpp read) and that of
transformers 5 (rope_parameters). What the model cannot do raises with its name and value.
"""

from collections.abc import Mapping
from typing import Any

from polyglot_jax.config import NeoxConfig
from polyglot_jax.tokens import END_OF_TEXT

SAME = {  # NeoxConfig's name: HF's, with the type of both
    "vocab_size": ("vocab_size", int),
    "num_layers": ("num_hidden_layers", int),
    "d_model": ("hidden_size", int),
    "num_heads": ("num_attention_heads", int),
    "d_ff": ("intermediate_size", int),
    "max_seq_len": ("max_position_embeddings", int),
    "layer_norm_eps": ("layer_norm_eps", float),
}

# The only value we compute, and the one that an absent key stands for (transformers' default).
FIXED = {
    "use_parallel_residual": True,
    "attention_bias": True,
    "tie_word_embeddings": False,
    "rope_scaling": None,
    "quantization_config": None,
}

CHAT_TEMPLATE = "chat_template.jinja"  # where transformers looks for it

ACTIVATIONS = {  # HF's hidden_act: ours; the first of each kind is the one we write
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}


def config_from_hf(hf: Mapping[str, Any], where: str = "config.json") -> NeoxConfig:
    """Returns the model of a `config.json`; what HF does not know of keeps its default.

    Weights stored in float32 are computed in float32, those stored in half precision in bfloat16.

    Raises:
      ValueError: a key is missing, or has a value that this model cannot compute.
    """
    if hf.get("model_type") != "gpt_neox":
        raise ValueError(
            f"{where}: model_type is {hf.get('model_type')!r}; only 'gpt_neox' is supported"
        )
    for key, value in FIXED.items():
        if hf.get(key, value) != value:
            raise ValueError(f"{where}: {key}={hf[key]!r} is not supported, only {value!r}")
    act = hf.get("hidden_act", "gelu")
    if not isinstance(act, str) or act not in ACTIVATIONS:
        raise ValueError(f"{where}: hidden_act={act!r} is not one of {', '.join(ACTIVATIONS)}")
    values = {name: _number(hf, key, kind, where) for name, (key, kind) in SAME.items()}
    for name, (key, _) in SAME.items():
        if values[name] <= 0:
            raise ValueError(f"{where}: {key} must be positive, not {values[name]}")
    stored = hf.get("dtype", hf.get("torch_dtype"))  # the old name is on the published models
    config = NeoxConfig(
        **values | _rotary(hf, where),
        activation=ACTIVATIONS[act],
        compute_dtype="float32" if stored == "float32" else "bfloat16",
    )
    if config.d_model % config.num_heads:
        raise ValueError(
            f"{where}: hidden_size={config.d_model} is not divisible by "
            f"num_attention_heads={config.num_heads}"
        )
    return config


def _number(hf: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    value = hf.get(key)
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise ValueError(f"{where}: {key} must be a number, not {value!r}")
    try:
        return kind(value)
    except (OverflowError, ValueError):
        raise ValueError(f"{where}: {key} must be a finite number") from None


def _rotary(hf: Mapping[str, Any], where: str) -> dict[str, float]:
    """Reads the rotary embedding in whatever spelling, refusing spellings that disagree."""
    nested = hf.get("rope_parameters") or {}
    if not isinstance(nested, Mapping):
        raise ValueError(f"{where}: rope_parameters must be an object, not {nested!r}")
    if nested.get("rope_type", "default") != "default":
        raise ValueError(
            f"{where}: rope_parameters.rope_type={nested['rope_type']!r} is not supported, "
            "only 'default'"
        )
    spellings = {
        "rotary_pct": ("rotary_pct", "partial_rotary_factor", 0.25),
        "rotary_base": ("rotary_emb_base", "rope_theta", 10_000.0),
    }
    values = {}
    for name, (old, new, default) in spellings.items():
        places = ((old, hf, old), (new, hf, new), (new, nested, f"rope_parameters.{new}"))
        found = {shown: _number(at, key, float, where) for key, at, shown in places if key in at}
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{shown}={value}" for shown, value in found.items())
            raise ValueError(f"{where}: {listed} contradict each other")
        values[name] = next(iter(found.values()), default)
    return values


def config_to_hf(config: NeoxConfig, dtype: str, end_of_text: int) -> dict[str, Any]:
    """Returns `config.json` with the keys of the published models.

    Args:
      dtype: of the stored weights.
      end_of_text: id of <|endoftext|>.
    """
    act = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == config.activation)
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        **{key: getattr(config, name) for name, (key, _) in SAME.items()},
        "hidden_act": act,
        "rotary_pct": config.rotary_pct,
        "rotary_emb_base": config.rotary_base,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": config.rotary_base,
            "partial_rotary_factor": config.rotary_pct,
        },
        "use_parallel_residual": True,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "classifier_dropout": 0.1,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": 0,  # as published; never used
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "torch_dtype": dtype,  # read by transformers 4 and vLLM
        "dtype": dtype,  # by transformers 5
    }


def check_same(model: NeoxConfig, hf: NeoxConfig, where: str) -> None:
    """Raises ValueError that names the first field in which an experiment's model differs."""
    for name in (*SAME, "rotary_pct", "rotary_base", "activation"):
        ours, theirs = getattr(model, name), getattr(hf, name)
        if ours != theirs:
            raise ValueError(
                f"model.{name}={ours!r}, but the weights of {where} have {theirs!r}; "
                f"set model.{name}={theirs}"
            )


def tokenizer_config(max_seq_len: int) -> dict[str, Any]:
    """Returns `tokenizer_config.json`.

    Without model_input_names a PreTrainedTokenizerFast gives token_type_ids, which GPT-NeoX's
    generate refuses.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_seq_len,
    }


def generation_config(end_of_text: int) -> dict[str, Any]:
    """Returns `generation_config.json`."""
    return {"bos_token_id": 0, "eos_token_id": end_of_text, "pad_token_id": end_of_text}


def token_ids(tokenizer: Mapping[str, Any], where: str) -> dict[str, int]:
    """Returns {token: id} of a `tokenizer.json`.

    Raises:
      ValueError: it is no such file, or has no <|endoftext|>.
    """
    try:
        ids = dict(tokenizer["model"]["vocab"])
        ids |= {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{where} is not a tokenizer.json of the tokenizers library") from None
    if END_OF_TEXT not in ids:
        raise ValueError(f"{where} has no token {END_OF_TEXT!r}, which separates documents")
    return ids
