"""The baseline of the quickstart: an interpolated byte 3-gram model, Kneser-Ney smoothed.

It predicts each byte, and the end of the document, from the two symbols before it. Orders 3 and 2
subtract a discount from every count and give the freed mass to the order below; orders 2 and 1
count distinct contexts in place of occurrences. Discounts are the three of "modified Kneser-Ney",
for counts of 1, 2 and more (Chen and Goodman, "An empirical study of smoothing techniques for
language modeling", TR-10-98, equation 26). Order 1 is mixed with the uniform distribution by Witten
and Bell's rule, so that no symbol is impossible.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

END = 256  # ends a document, and stands twice before its first byte
SYMBOLS = 257
_BATCH_DOCUMENTS = 1000

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NgramModel:
    """Counts of order 3 and the finished distributions of the orders below.

    Axes: U the symbol before the last, V the last symbol, W the next symbol, each of SYMBOLS.
    """

    counts: NDArray[np.uint32]  # [U, V, W]
    totals: Ints  # [U, V] occurrences of each context
    freed: Floats  # [U, V] mass that the discounts take from each context
    discounts: Floats  # of order 3, for counts of 0, 1, 2 and more
    bigram: Floats  # [V, W]
    unigram: Floats  # [W]

    def probabilities(self, u_N: Ints, v_N: Ints, w_N: Ints) -> Floats:
        """Returns P(w | u v) for N triples of symbols."""
        lower_N = self.bigram[v_N, w_N]
        count_N = self.counts[u_N, v_N, w_N]
        kept_N = count_N - self.discounts[np.minimum(count_N, 3)]
        total_N = self.totals[u_N, v_N]
        mixed_N = (kept_N + self.freed[u_N, v_N] * lower_N) / np.maximum(total_N, 1)
        return np.where(total_N > 0, mixed_N, lower_N)


def fit(documents: Iterable[str]) -> NgramModel:
    """Counts the documents and returns the model. Raises ValueError if there is none."""
    flat = np.zeros(SYMBOLS**3, np.uint32)
    for u_N, v_N, w_N in _triples(documents):
        index_N = (u_N * SYMBOLS + v_N) * SYMBOLS + w_N
        flat += np.bincount(index_N, minlength=len(flat)).astype(np.uint32)
    counts_UVW = flat.reshape(SYMBOLS, SYMBOLS, SYMBOLS)
    if not flat.any():
        raise ValueError("no document to fit the 3-gram model on")
    types_VW = np.count_nonzero(counts_UVW, axis=0)  # distinct symbols before v w
    types_W = np.count_nonzero(types_VW, axis=0)  # distinct symbols before w

    distinct = np.count_nonzero(types_W)
    unigram_W = (types_W + distinct / SYMBOLS) / (types_W.sum() + distinct)
    discounts = _discounts(types_VW)
    kept_VW = types_VW - discounts[np.minimum(types_VW, 3)]
    mixed_VW = kept_VW + _freed(types_VW, discounts)[:, None] * unigram_W
    totals_V1 = types_VW.sum(axis=1, keepdims=True)
    bigram_VW = np.where(totals_V1 > 0, mixed_VW / np.maximum(totals_V1, 1), unigram_W)

    discounts = _discounts(counts_UVW)
    return NgramModel(
        counts=counts_UVW,
        totals=counts_UVW.sum(axis=2, dtype=np.int64),
        freed=_freed(counts_UVW, discounts),
        discounts=discounts,
        bigram=bigram_VW,
        unigram=unigram_W,
    )


def bits_per_byte(model: NgramModel, documents: Iterable[str]) -> float:
    """Returns the bits of all symbols, document ends included, over the UTF-8 bytes of the text.

    Raises ValueError if the documents hold no byte.
    """
    bits, num_bytes = [], 0
    for u_N, v_N, w_N in _triples(documents):
        bits.append(float(-np.log2(model.probabilities(u_N, v_N, w_N)).sum()))
        num_bytes += int(np.count_nonzero(w_N != END))
    if not num_bytes:
        raise ValueError("no text to measure the 3-gram model on")
    return math.fsum(bits) / num_bytes


def _discounts(counts: NDArray[np.integer]) -> Floats:
    """Returns the discounts of counts of 0, 1, 2 and more; halves if the text is too small."""
    n1, n2, n3, n4 = (np.count_nonzero(counts == i) for i in (1, 2, 3, 4))
    if not (n1 and n2 and n3 and n4):
        return np.array([0, 0.5, 0.5, 0.5])
    y = n1 / (n1 + 2 * n2)
    discounts = [0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
    return np.clip(discounts, 0, [0, 1, 2, 3])


def _freed(counts: NDArray[np.integer], discounts: Floats) -> Floats:
    """Returns, for each context, what the discounts take from its counts (the last axis)."""
    below = [np.count_nonzero(counts == i, axis=-1) for i in (1, 2)]
    more = np.count_nonzero(counts > 2, axis=-1)
    return discounts[1] * below[0] + discounts[2] * below[1] + discounts[3] * more


def _triples(documents: Iterable[str]) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Yields u, v, w of consecutive symbols, a batch of documents at a time."""
    texts = iter(documents)
    while batch := list(itertools.islice(texts, _BATCH_DOCUMENTS)):
        rows = [np.frombuffer(text.encode(), np.uint8).astype(np.int64) for text in batch]
        padded = [np.concatenate([[END, END], row, [END]]) for row in rows]
        u_N, v_N, w_N = (
            np.concatenate([row[i : len(row) - 2 + i] for row in padded]) for i in range(3)
        )
        yield u_N, v_N, w_N
