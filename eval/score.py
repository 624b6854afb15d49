"""Log-probabilities of packed requests with a model of ours, on any mesh.

Two compiled functions: `hidden_states` of a batch, once a row length, and `head`, which makes
logits only of the columns that are scored, a fixed number at a time, whatever the rows hold. The
softmax is float32 over all columns of the vocabulary, its padding too, as the published numbers.

Shape suffixes: B rows, T columns, S columns seen, N all columns of a batch, D model, U scored
columns, P targets, V vocabulary.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from eval import pack
from eval.request import Answer, Request
from polyglot_jax.config import NeoxConfig
from polyglot_jax.mesh import batch_sharding
from polyglot_jax.models import neox
from polyglot_jax.models.neox import Params

VERSION = 1  # of everything here that can change a score: part of every cache key


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What decides speed and memory, and no result."""

    batch_tokens: int  # columns of a batch for each row group of the mesh
    head_columns: int  # scored columns in one product with the vocabulary


# A core's caches hold the activations of a thousand tokens; an accelerator needs more to be
# busy. The logits of 64 columns of 30,080 are 8 MB.
CPU = Sizes(batch_tokens=1024, head_columns=64)
ACCELERATOR = Sizes(batch_tokens=16384, head_columns=512)


@partial(jax.jit, static_argnums=0)
def hidden_states(
    config: NeoxConfig,
    params: Params,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    piece_BT: jax.Array,
    choice_BT: jax.Array,
) -> jax.Array:
    """Returns x of all columns, [B * T, D]. See `pack.Packed`."""
    T = tokens_BT.shape[1]
    same_piece = piece_BT[:, :, None] == piece_BT[:, None, :]
    to_context = choice_BT[:, None, :] == 0
    same_choice = choice_BT[:, :, None] == choice_BT[:, None, :]
    before = jnp.tri(T, dtype=bool)
    mask_BTS = same_piece & (to_context | same_choice) & before
    x_BTD = neox.hidden(config, params, tokens_BT, neox.Layout(positions_BT, mask_BTS))
    return x_BTD.reshape(-1, x_BTD.shape[-1])


@partial(jax.jit, static_argnums=0)
def head(
    config: NeoxConfig,
    params: Params,
    x_ND: jax.Array,
    scored_U: jax.Array,
    target_P: jax.Array,
    column_P: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Returns the log-probability of each target, and whether none is more probable."""
    logits_UV = neox.head(config, params, x_ND[scored_U])
    normalizer_U = jax.nn.logsumexp(logits_UV, axis=-1)
    best_U = jnp.argmax(logits_UV, axis=-1)
    log_probs_P = logits_UV[column_P, target_P] - normalizer_U[column_P]
    return log_probs_P, best_U[column_P] == target_P


def score(
    config: NeoxConfig, params: Params, requests: Sequence[Request], mesh: Mesh, sizes: Sizes
) -> Iterator[tuple[int, Answer]]:
    """Yields (index, answer) as requests are finished. See `eval.request.Model.score`.

    Args:
      params: on the mesh, as `step.abstract_params` lays them out.
    Raises:
      ValueError: see `pack.check`.
    """
    groups = mesh.shape["data"] * mesh.shape["fsdp"]
    batches = pack.plan(
        requests,
        config.max_seq_len,
        batch_tokens=sizes.batch_tokens * groups,
        row_multiple=groups,
        attention_weight=1 / (2.5 * config.d_model),  # timed at d_model 768 on a CPU
    )
    pieces_left = np.zeros(len(requests), int)
    for batch in batches:
        for row in batch.rows:
            for piece in row:
                pieces_left[piece.request] += 1
    sums: dict[int, list[list[Any]]] = {}
    running: deque[tuple[pack.Batch, pack.Packed, list[Any]]] = deque()

    def collect() -> Iterator[tuple[int, Answer]]:
        batch, packed, parts = running.popleft()
        for (request, choice), log_prob, is_best in zip(
            packed.owner_P, *_joined(parts), strict=True
        ):
            if request not in sums:
                sums[request] = [[0.0, True] for _ in requests[request].choices]
            sums[request][choice][0] += float(log_prob)
            sums[request][choice][1] &= bool(is_best)
        for piece in (piece for row in batch.rows for piece in row):
            pieces_left[piece.request] -= 1
            if pieces_left[piece.request] == 0:
                totals = sums.pop(piece.request)
                yield piece.request, _answer(requests[piece.request], totals, config.max_seq_len)

    for number, request in enumerate(requests):
        if not request.choices:
            yield number, Answer((), (), ())
    for batch in batches:
        packed = pack.build(batch, requests)
        running.append((batch, packed, _start(config, params, packed, mesh, sizes)))
        if len(running) > 1:  # one computes while the next is built
            yield from collect()
    while running:
        yield from collect()


def _start(
    config: NeoxConfig, params: Params, packed: pack.Packed, mesh: Mesh, sizes: Sizes
) -> list[Any]:
    """Dispatches a batch; returns (targets, log-probabilities, is best) of each use of the head."""
    with jax.set_mesh(mesh), jax.default_matmul_precision(_precision(config)):
        rows = (packed.tokens_BT, packed.positions_BT, packed.piece_BT, packed.choice_BT)
        x_ND = hidden_states(config, params, *jax.device_put(rows, batch_sharding(mesh)))
        parts = []
        for scored_U, targets, columns in head_parts(packed, sizes.head_columns):
            num = len(targets)
            targets_P = np.pad(targets, (0, 2 * sizes.head_columns - num))
            columns_P = np.pad(columns, (0, 2 * sizes.head_columns - num))
            scored_U = np.pad(scored_U, (0, sizes.head_columns - len(scored_U)))
            parts.append((num, *head(config, params, x_ND, scored_U, targets_P, columns_P)))
    return parts


def head_parts(
    packed: pack.Packed, head_columns: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (scored columns, targets, which column each follows), at most head_columns of the
    first and twice as many of the others; in order."""
    start, P = 0, len(packed.target_P)
    while start < P:
        first = packed.column_P[start]
        end = int(np.searchsorted(packed.column_P, first + head_columns))
        end = min(end, start + 2 * head_columns)
        columns = packed.column_P[start:end] - first
        scored = packed.scored_U[first : first + columns[-1] + 1]
        yield scored, packed.target_P[start:end], columns
        start = end


def _precision(config: NeoxConfig) -> str:
    """A GPU's products of float32 have 10 bits unless one asks for more."""
    return "highest" if config.compute_dtype == "float32" else "default"


def _joined(parts: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    host = [(num, np.asarray(a), np.asarray(b)) for num, a, b in parts]
    return (
        np.concatenate([a[:num] for num, a, _ in host]),
        np.concatenate([b[:num] for num, _, b in host]),
    )


def _answer(request: Request, sums: list[list[Any]], max_length: int) -> Answer:
    return Answer(
        log_probs=tuple(total for total, _ in sums),
        greedy=tuple(is_best for _, is_best in sums),
        context_kept=tuple(request.kept(i, max_length) for i in range(len(sums))),
    )
