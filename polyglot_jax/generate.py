"""Writes text with a trained model: a key-value cache, batches of unequal prompts, streaming.

    python -m polyglot_jax.generate --model=DIR --prompt='옛날 옛적에' [--prompt=... ...]

One pass over the prompts fills the cache, then one token per row and step is drawn. Shapes are
rounded up to buckets, so that a step is compiled once and serves all prompts of similar length.

Shape suffixes: B batch, P prompt columns, S cache columns, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from polyglot_jax import cli
from polyglot_jax.config import NeoxConfig
from polyglot_jax.convert import load_model
from polyglot_jax.models import neox
from polyglot_jax.models.neox import KVCache, Params
from polyglot_jax.sampling import Sampling, row_keys, sample
from polyglot_jax.vocabulary import TextStream, Vocabulary, load_vocabulary

BUCKET = 64  # columns


def generate(
    config: NeoxConfig,
    params: Params,
    vocabulary: Vocabulary,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    sampling: Sampling,
    stop: Sequence[str] = (),
    seed: int = 0,
) -> list[str]:
    """Returns the continuation of each prompt, without the prompt. See `stream`."""
    pieces = stream(
        config,
        params,
        vocabulary,
        prompts,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        stop=stop,
        seed=seed,
    )
    return ["".join(row) for row in zip(*pieces, strict=True)]


def stream(
    config: NeoxConfig,
    params: Params,
    vocabulary: Vocabulary,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    sampling: Sampling,
    stop: Sequence[str] = (),
    seed: int = 0,
) -> Iterator[list[str]]:
    """Yields, for each step, the next piece of each prompt's continuation (often empty).

    A row ends at `<|endoftext|>`, before the first stop string, or after max_new_tokens; the
    iteration ends with the last row. Special tokens other than `<|endoftext|>` show as their names.

    Args:
      prompts: plain text; the empty one starts a new document (see `Vocabulary.encode`).
      stop: strings that end a text and are cut off.
      seed: with a row's number in `prompts` and the step it decides what is drawn; the texts of
        the other prompts do not matter.
    Raises:
      ValueError: a prompt leaves no room for max_new_tokens, or an argument makes no sense.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}: must be at least 1")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed}: must be at least 0 and fit 32 bits")
    if "" in stop:
        raise ValueError("stop: the empty string would end every text before it begins")
    num_tokens = len(vocabulary.token_bytes)
    if num_tokens > config.vocab_size:
        raise ValueError(
            f"the tokenizer has {num_tokens} tokens, but the model only {config.vocab_size} rows: "
            "is it the tokenizer of another model?"
        )
    encoded = [vocabulary.encode(prompt) for prompt in prompts]
    for number, ids in enumerate(encoded, 1):
        if len(ids) + max_new_tokens > config.max_seq_len:
            raise ValueError(
                f"prompt {number} has {len(ids)} tokens, which with "
                f"max_new_tokens={max_new_tokens} is more than the {config.max_seq_len} "
                "the model can see; "
                f"{_room(config.max_seq_len - len(ids))}"
            )

    texts = [TextStream(vocabulary, stop) for _ in prompts]
    steps = decode(
        config,
        params,
        encoded,
        max_new_tokens=max_new_tokens,
        num_tokens=num_tokens,
        sampling=sampling,
        seed=seed,
    )
    for step, tokens_B in enumerate(steps, 1):
        last = step == max_new_tokens
        yield [text.push(int(i), last=last) for text, i in zip(texts, tokens_B, strict=True)]
        if all(text.done for text in texts):
            return


def _room(left: int) -> str:
    return f"ask for at most {left} or shorten the prompt" if left > 0 else "shorten the prompt"


def decode(
    config: NeoxConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    num_tokens: int,
    sampling: Sampling,
    seed: int,
) -> Iterator[np.ndarray]:
    """Yields tokens_B, int32, max_new_tokens times; who has enough stops iterating.

    Args:
      prompts: ids, at least one per row.
      num_tokens: ids from there on are padding of the vocabulary and never drawn.
    """
    params = inference_params(config, params)
    prompt_BP, mask_BS, seen_BV = _rows(config, prompts, max_new_tokens)
    cache = prefill(config, params, prompt_BP, mask_BS)
    tokens_B = jnp.array([ids[-1] for ids in prompts], jnp.int32)
    seen, keys_B = jnp.asarray(seen_BV), row_keys(seed, len(prompts))
    for step in range(max_new_tokens):
        logits_BV, cache = decode_step(config, params, cache, tokens_B)
        next_B, seen = sample(sampling, num_tokens, logits_BV, seen, keys_B, step)
        if step > 0:  # only now, with the next step dispatched, so that the device never idles
            yield np.asarray(tokens_B)
        tokens_B = next_B
    yield np.asarray(tokens_B)


def decode_all(
    config: NeoxConfig,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    num_tokens: int,
    sampling: Sampling,
    seed: int,
) -> jax.Array:
    """Returns tokens_BT, all that `decode` yields, as one computation to be jitted as a whole.

    So it runs on the parameters where training has them, over many hosts too.
    """
    params = inference_params(config, params)
    prompt_BP, mask_BS, seen_BV = map(jnp.asarray, _rows(config, prompts, max_new_tokens))
    keys_B = row_keys(seed, len(prompts))

    def one_more(carry: Any, step: jax.Array) -> tuple[Any, jax.Array]:
        cache, tokens_B, seen_BV = carry
        logits_BV, cache = decode_step(config, params, cache, tokens_B)
        next_B, seen_BV = sample(sampling, num_tokens, logits_BV, seen_BV, keys_B, step)
        return (cache, next_B, seen_BV), next_B

    last_B = jnp.array([ids[-1] for ids in prompts], jnp.int32)
    begin = prefill(config, params, prompt_BP, mask_BS), last_B, seen_BV
    _, tokens_TB = jax.lax.scan(one_more, begin, jnp.arange(max_new_tokens))
    return tokens_TB.T


def _rows(
    config: NeoxConfig, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns prompt_BP without the last token of each, mask_BS of `prefill`, and seen_BV."""
    B = len(prompts)
    P = _bucket(max(map(len, prompts)))
    prompt_BP = np.zeros((B, P), np.int32)
    mask_BS = np.ones((B, _bucket(P + max_new_tokens)), bool)
    seen_BV = np.zeros((B, config.vocab_size), bool)
    for row, (*ids, last) in enumerate(prompts):
        prompt_BP[row, P - len(ids) :] = ids
        mask_BS[row, : P - len(ids)] = False
        seen_BV[row, [*ids, last]] = True
    return prompt_BP, mask_BS, seen_BV


def _bucket(columns: int) -> int:
    return -(-columns // BUCKET) * BUCKET


@partial(jax.jit, static_argnums=0)
def prefill(
    config: NeoxConfig, params: Params, prompt_BP: jax.Array, mask_BS: jax.Array
) -> KVCache:
    """Returns the cache filled with all tokens of the prompts but the last of each.

    The last one is the first step's, so that no logits are computed here: of a long prompt they
    would be larger than the cache.

    Args:
      prompt_BP: ids, padded on the left.
      mask_BS: false on the padding, true on everything after it, free columns too.
    """
    _, cache = neox.apply(config, params, prompt_BP, neox.init_cache(config, mask_BS))
    assert cache is not None
    return cache


@partial(jax.jit, static_argnums=0, donate_argnames="cache")
def decode_step(
    config: NeoxConfig, params: Params, cache: KVCache, tokens_B: jax.Array
) -> tuple[jax.Array, KVCache]:
    """Returns the logits_BV that follow one more token per row, and the cache, which is donated."""
    logits_B1V, new_cache = neox.apply(config, params, tokens_B[:, None], cache)
    assert new_cache is not None
    return logits_B1V[:, 0], new_cache


def inference_params(config: NeoxConfig, params: Params) -> Params:
    """Returns the parameters on the device, all but the norms in the compute dtype.

    The model casts them at each use anyway, so the results are the same; but a step is as long as
    reading the parameters takes, and bfloat16 halves that.
    """

    def cast(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        is_norm = "norm" in jax.tree_util.keystr(path)
        return jnp.asarray(x, x.dtype if is_norm else config.compute_dtype)

    return jax.tree_util.tree_map_with_path(cast, params)


def main() -> None:
    values = flags.FLAGS
    sampling = Sampling(
        temperature=values.temperature,
        top_k=values.top_k,
        top_p=values.top_p,
        repetition_penalty=values.repetition_penalty,
    )
    config, params, tokenizer_path = load_model(values.model)
    prompts = values.prompt
    pieces = stream(
        config,
        params,
        load_vocabulary(tokenizer_path),
        prompts,
        max_new_tokens=values.max_new_tokens,
        sampling=sampling,
        stop=values.stop,
        seed=values.seed,
    )
    if values.stream and len(prompts) == 1:
        first, *_ = next(pieces)  # before the prompt is shown, so that an error stands alone
        print(prompts[0] + first, end="", flush=True)
        for (piece,) in pieces:
            print(piece, end="", flush=True)
        print()
        return
    steps = tqdm(pieces, total=values.max_new_tokens, unit="token", disable=None)
    texts = ["".join(row) for row in zip(*steps, strict=True)]
    for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True), 1):
        if len(prompts) > 1:
            print(f"--- {number} of {len(prompts)} ---")
        print(prompt + text)


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "HF directory, or WORKDIR[@STEP] of a training run.")
    flags.DEFINE_multi_string("prompt", None, "Text to go on with; may be repeated.")
    flags.DEFINE_integer("max_new_tokens", 128, "Tokens per text, at most.")
    flags.DEFINE_float("temperature", Sampling.temperature, "0 takes the likeliest token.")
    flags.DEFINE_integer("top_k", Sampling.top_k, "Draw from the k likeliest tokens.")
    flags.DEFINE_float("top_p", Sampling.top_p, "Draw from the likeliest, up to this probability.")
    flags.DEFINE_float("repetition_penalty", Sampling.repetition_penalty, "Above 1: repeat less.")
    flags.DEFINE_integer("seed", 0, "The same seed and prompts give the same texts.")
    flags.DEFINE_multi_string("stop", [], "Ends a text where it would appear; may be repeated.")
    flags.DEFINE_bool("stream", True, "Print a single text while it is being written.")
    flags.mark_flags_as_required(["model", "prompt"])
    cli.run(main)
