"""Texts that the model writes to fixed prompts during training, and whether they repeat themselves.

Runs have been given up because their texts fell apart while the loss looked fine. The probe draws
with the sampling that users get by default, not greedily: greedy texts of good models loop too.

Suffixes: R rows (one a prompt), T tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from polyglot_jax.config import NeoxConfig
from polyglot_jax.generate import decode_all
from polyglot_jax.mesh import replicated
from polyglot_jax.sampling import Sampling
from polyglot_jax.vocabulary import TextStream, Vocabulary

TOKENS, LEAST = 64, 16  # of each text, and where the prompts leave less room
LONGEST_LOOP = 16  # tokens
ROUNDS = 3  # a loop that has gone round so often is one
COLLAPSED, SOUND = 0.5, 0.25  # repetition that is an alarm, once it had been below the other


def jit_probe(
    model: NeoxConfig, mesh: Mesh, shardings: Any, vocabulary: Vocabulary, prompts: Sequence[str]
) -> Any:
    """Returns the compiled params -> tokens_RT, the same whole array on every host.

    Args:
      shardings: the tree of the parameters' shardings.
    Raises:
      ValueError: the prompts leave no room for the texts.
    """
    encoded = [vocabulary.encode(prompt) for prompt in prompts]
    room = model.max_seq_len - max(map(len, encoded))
    if room < LEAST:
        raise ValueError(
            f"health.probe_prompts: the longest has {model.max_seq_len - room} tokens, and its "
            f"text needs {LEAST} of model.max_seq_len={model.max_seq_len} too; shorten it, or "
            "--set health.probe_every=none"
        )
    # A row for each part of the batch axes: activations are cut along them.
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = [encoded[i % len(encoded)] for i in range(-(-len(encoded) // parts) * parts)]

    def probe(params: Any) -> jax.Array:
        tokens_RT = decode_all(
            model,
            params,
            rows,
            max_new_tokens=min(TOKENS, room),
            num_tokens=len(vocabulary.token_bytes),
            sampling=Sampling(),
            seed=0,
        )
        return tokens_RT[: len(encoded)]

    return jax.jit(probe, in_shardings=(shardings,), out_shardings=replicated(mesh))


def measure(tokens_RT: np.ndarray) -> dict[str, float]:
    """Returns what the texts say of the model, each between 0 and 1.

    repetition  share of a text's 4-grams that stand in it before (seq-rep-4 of Welleck et al.,
                arXiv 1908.04319), over all texts
    distinct_2  different pairs of tokens by pairs, over all texts (Li et al., arXiv 1510.03055)
    looping     share of the texts that end in a loop
    """
    rows = tokens_RT.tolist()
    fours = [_ngrams(row, 4) for row in rows]
    pairs = [pair for row in rows for pair in _ngrams(row, 2)]
    return {
        "repetition": 1 - sum(len(set(grams)) for grams in fours) / sum(map(len, fours)),
        "distinct_2": len(set(pairs)) / len(pairs),
        "looping": sum(map(is_looping, rows)) / len(rows),
    }


def is_looping(tokens: Sequence[int]) -> bool:
    """Returns whether a text ends in the same up to 16 tokens three times."""
    return any(
        all(tokens[-i] == tokens[-i - period] for i in range(1, (ROUNDS - 1) * period + 1))
        for period in range(1, min(LONGEST_LOOP, len(tokens) // ROUNDS) + 1)
    )


def has_collapsed(records: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether the last probe is the first that repeats itself after one that did not.

    A model that has just begun to learn repeats its few words too: that is no collapse.
    """
    values = [r["probe/repetition"] for r in records if "probe/repetition" in r]
    is_sound = False
    has_fallen = False
    for value in values:
        has_fallen = is_sound and value > COLLAPSED
        is_sound = not has_fallen and (is_sound or value < SOUND)
    return has_fallen


def text_of(vocabulary: Vocabulary, tokens: Sequence[int]) -> str:
    """Returns a text in one line, up to its end."""
    stream = TextStream(vocabulary)
    return " ".join("".join(stream.push(token) for token in tokens).split())


def _ngrams(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))
