"""A random GPT-NeoX of a blink, with a real tokenizer, as an HF directory."""

from pathlib import Path


def write_model(path: Path, tokenizer_json: Path, positions: int) -> None:
    """Writes weights far enough from zero that choices differ, vocabulary padded to 30,080."""
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
        initializer_range=0.3,
        bos_token_id=2,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        GPTNeoXForCausalLM(config).save_pretrained(path)
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_json), bos_token=end, eos_token=end, pad_token=end
    ).save_pretrained(path)
