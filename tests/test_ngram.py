"""The byte 3-gram baseline against hand-computed values, and as a distribution."""

import math
import time

import numpy as np
import pytest

from eval import ngram

KOREAN = [
    "가나다라 마바사 아자차카 타파하",
    "가나다 라마바 사아자 차카타 파하",
    "나는 학교에 간다. 너도 간다.",
]


def conditional(model: ngram.NgramModel, u: int, v: int) -> np.ndarray:
    w = np.arange(ngram.SYMBOLS)
    return model.probabilities(np.full_like(w, u), np.full_like(w, v), w)


def test_hand_computed() -> None:
    # "aab": EEa, Eaa, aab, abE, each once. Distinct contexts: Ea, aa, ab, bE once each; so a twice,
    # b and E once as unigrams. All discounts are 1/2, there being too few counts to estimate them.
    model = ngram.fit(["aab"])
    a, b = ord("a"), ord("b")
    unigram_a = (2 + 3 / 257) / (4 + 3)
    unigram_b = (1 + 3 / 257) / (4 + 3)
    unigram_z = (3 / 257) / (4 + 3)
    assert model.unigram[[a, b, ord("z")]] == pytest.approx([unigram_a, unigram_b, unigram_z])
    # After a: a and b, 2 in all, and half of each freed.
    bigram_ab = (0.5 + 2 * 0.5 * unigram_b) / 2
    bigram_az = (2 * 0.5 * unigram_z) / 2
    assert model.bigram[a, [b, ord("z")]] == pytest.approx([bigram_ab, bigram_az])
    # After aa: b once. An unseen context is the bigram's.
    assert conditional(model, a, a)[b] == pytest.approx(0.5 + 0.5 * bigram_ab)
    assert conditional(model, b, a)[b] == pytest.approx(bigram_ab)


def test_bits_count_the_end_of_the_document() -> None:
    model = ngram.fit(["aab"])
    a, end = ord("a"), ngram.END
    p = conditional(model, end, end)[a] * conditional(model, end, a)[end]
    assert ngram.bits_per_byte(model, ["a"]) == pytest.approx(-math.log2(p))
    assert ngram.bits_per_byte(model, ["a", "a"]) == pytest.approx(-math.log2(p))


@pytest.mark.parametrize("documents", [["aab"], KOREAN, [""]])
def test_probabilities_sum_to_one_in_every_context(documents: list[str]) -> None:
    model = ngram.fit(documents)
    for u, v in [(ngram.END, ngram.END), (ngram.END, 0xEA), (0xEA, 0xB0), (0x20, 0xEA), (1, 2)]:
        probabilities = conditional(model, u, v)
        assert probabilities.min() > 0
        assert probabilities.sum() == pytest.approx(1)
    assert model.bigram.sum(axis=1) == pytest.approx(np.ones(ngram.SYMBOLS))


def test_discounts_follow_chen_and_goodman() -> None:
    counts = np.array([1] * 8 + [2] * 4 + [3] * 2 + [4, 9])
    y = 8 / (8 + 2 * 4)
    expected = [0, 1 - 2 * y * 4 / 8, 2 - 3 * y * 2 / 4, 3 - 4 * y * 1 / 2]
    assert ngram._discounts(counts) == pytest.approx(expected)
    freed = expected[1] * 8 + expected[2] * 4 + expected[3] * 4
    assert ngram._freed(counts, np.array(expected)) == pytest.approx(freed)


def synthetic(seed: int, documents: int) -> list[str]:
    """Words of a skewed vocabulary in random order: short-range structure like that of text."""
    rng = np.random.default_rng(seed)
    words = [
        "".join(chr(0xAC00 + c) for c in np.random.default_rng(i).integers(0, 500, 1 + i % 4))
        for i in range(300)
    ]
    weights = 1 / np.arange(1, 301)
    picks = rng.choice(300, (documents, 60), p=weights / weights.sum())
    return [" ".join(words[i] for i in row) for row in picks]


def test_interpolation_beats_its_parts() -> None:
    model = ngram.fit(synthetic(1, 4))
    held_out = synthetic(2, 10)
    u, v, w = (np.concatenate(x) for x in zip(*ngram._triples(held_out), strict=True))
    unigram, bigram = model.unigram[w], model.bigram[v, w]
    seen = model.counts[u, v, w] / np.maximum(model.totals[u, v], 1)
    interpolated = model.probabilities(u, v, w)

    def bits(p: np.ndarray) -> float:
        return float(-np.log2(p).mean())

    assert bits(interpolated) < bits(bigram) < bits(unigram) < math.log2(ngram.SYMBOLS)
    # The bare trigram meets what it has never seen; even the best share of the uniform
    # distribution for these very documents does not make up for the missing orders.
    assert (seen == 0).any()
    shares = np.linspace(0.001, 0.5, 50)
    best = min(bits((1 - share) * seen + share / ngram.SYMBOLS) for share in shares)
    assert bits(interpolated) < best


def test_no_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="no document"):
        ngram.fit([])
    with pytest.raises(ValueError, match="no text"):
        ngram.bits_per_byte(ngram.fit(["a"]), [""])


def test_three_megabytes_in_seconds() -> None:
    documents = synthetic(3, 5000)
    assert sum(len(text.encode()) for text in documents) > 2_000_000
    start = time.process_time()
    model = ngram.fit(documents)
    ngram.bits_per_byte(model, documents[:250])
    assert time.process_time() - start < 10
