"""Whose turn it is: weights of sources as an exact, repeating order of examples.

Grain's own mix drifts from the weights: it truncates them to hundredths of the smallest, and with
three sources or more its rounding adds up. Here the weights become whole turns of a finite cycle.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

_LONGEST_CYCLE = 100_000  # examples after which the weights are met exactly


@dataclass(frozen=True)
class Cycle:
    """The order in which sources take turns, for as many examples as it takes to be exact.

    After any k examples a source has had more than k * share - 1 turns and fewer than
    k * share + 1.
    """

    parts: tuple[int, ...]  # turns of each source in a cycle
    source: np.ndarray  # int[cycle]: whose turn it is
    earlier: np.ndarray  # int[cycle + 1, sources]: the turns of each source before

    def __len__(self) -> int:
        return sum(self.parts)

    def locate(self, k: int) -> tuple[int, int]:
        """Returns the source of example k and how many examples it had before."""
        source = int(self.source[k % len(self)])
        return source, self.turns(k, source)

    def turns(self, k: int, source: int) -> int:
        """Returns how many of the first k examples are of a source."""
        cycles, rest = divmod(k, len(self))
        return cycles * self.parts[source] + int(self.earlier[rest, source])


def cycle_of(weights: Sequence[float]) -> Cycle:
    """Returns the cycle of positive weights.

    Turn j of a source with share p/n may be taken from example floor(j * n / p) on and is due
    before example ceil((j + 1) * n / p). Serving the earliest deadline first meets them all: the
    Pfair theorem (Baruah et al., Algorithmica 15, 1996).

    Raises:
      ValueError: the weights are no ratio of numbers small enough for a cycle to be written out.
    """
    fractions = [Fraction(weight).limit_denominator(_LONGEST_CYCLE) for weight in weights]
    scale = math.lcm(*(fraction.denominator for fraction in fractions))
    whole = [int(fraction * scale) for fraction in fractions]
    parts = tuple(part // math.gcd(*whole) for part in whole)
    total = sum(parts)
    exact = all(float(f) == w for f, w in zip(fractions, weights, strict=True))
    if not exact or total > _LONGEST_CYCLE:
        close = [max(1, round(1000 * weight / sum(weights))) for weight in weights]
        raise ValueError(
            f"weights {list(weights)}: their ratio takes more than {_LONGEST_CYCLE:,} examples to "
            f"be met exactly; round them, for example to {close}"
        )
    source = np.zeros(total, np.int32)
    earlier = np.zeros((total + 1, len(parts)), np.int64)
    taken = [0] * len(parts)
    for k in range(total):
        _, turn = min(
            (-(-(taken[i] + 1) * total // part), i)
            for i, part in enumerate(parts)
            if taken[i] * total < (k + 1) * part
        )
        taken[turn] += 1
        source[k] = turn
        earlier[k + 1] = taken
    return Cycle(parts, source, earlier)
