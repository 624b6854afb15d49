"""A tiny GPT-NeoX with a real tokenizer, random or a little trained, as an HF directory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_model(
    path: Path, tokenizer_json: Path, positions: int, texts: Sequence[str] = ()
) -> None:
    """Writes a model whose choices differ clearly; its vocabulary is padded to 30,080.

    Args:
      texts: to train on, each for one step; its weights begin small then.
    """
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    config = GPTNeoXConfig(
        vocab_size=30_080,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=positions,
        rotary_pct=0.5,
        use_parallel_residual=True,
        initializer_range=0.02 if texts else 0.3,
        bos_token_id=2,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPTNeoXForCausalLM(config)
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_json), bos_token=end, eos_token=end, pad_token=end
    )
    _train(model, [tokenizer(text)["input_ids"] for text in texts])
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def _train(model: Any, texts: Sequence[list[int]]) -> None:
    import torch

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for ids in texts:
        batch = torch.tensor([ids])
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
