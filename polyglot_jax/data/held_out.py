"""Evaluation batches: held-out windows of a phase's sources, the same at every call.

With all windows taken, each held-out token but the first of a source is predicted exactly once, so
losses summed over the batches are exact for the split whatever the batch size.
"""

import dataclasses
import heapq
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from etils import epath

from polyglot_jax.config import DataConfig
from polyglot_jax.data.manifest import REMEDY
from polyglot_jax.data.mixture import Mixture, Rows, batch_of, check_mixable, shared_token_bytes
from polyglot_jax.data.shards import PendingRead, TokenStore, open_split


@dataclass(frozen=True)
class HeldOut:
    """Held-out windows in batches of one size. Built by `open_held_out`."""

    seq_len: int
    sources: tuple[TokenStore, ...]
    token_bytes: np.ndarray  # uint16[V], UTF-8 bytes of text behind each id
    examples: np.ndarray  # int64[batches, B, 2]: source and window, -1 where a row is empty

    @property
    def num_batches(self) -> int:
        return len(self.examples)

    def batches(self, rows: Rows = slice(None)) -> Iterator[dict[str, np.ndarray]]:
        """Yields some rows of each batch, in the form of `Mixture.read`.

        Weights and bytes are 0 behind the end of a source, and in the empty rows of the last batch.
        """
        for examples in self.examples:
            reads = [self._start_read(*example) for example in examples[rows].tolist()]
            yield batch_of(reads, self.token_bytes, self.seq_len)

    def first_batch(self) -> Self:
        """Returns the first batch alone, as a small sample."""
        return dataclasses.replace(self, examples=self.examples[:1])

    def _start_read(self, source: int, window: int) -> PendingRead | None:
        if source < 0:
            return None
        store, start = self.sources[source], window * self.seq_len
        return store.start_read(start, min(self.seq_len + 1, store.num_tokens - start))


def sources_since(data: DataConfig, step: int) -> int:
    """Returns the step from which on the plan has the sources that update `step` is trained on.

    An evaluation after that update is of their held-out text: what a run records of a step does
    not depend on phases that are appended later. Evaluations of one such span can be compared.

    Args:
      data: a validated data plan.
      step: number of an update; 0, before the first, counts to it.
    """
    phases = [phase for phase in data.plan if phase.from_step < max(step, 1)]
    since = phases[-1]
    for phase in reversed(phases):
        if {s.path for s in phase.sources} != {s.path for s in since.sources}:
            break
        since = phase
    return since.from_step


def open_held_outs(
    data: DataConfig, batch_size: int, max_windows: int | None = None
) -> dict[int, HeldOut]:
    """Opens what `open_held_out` does for each of the plan's spans, by `sources_since`."""
    spans = {sources_since(data, phase.from_step + 1) for phase in data.plan}
    return {since: open_held_out(data, batch_size, max_windows, since) for since in sorted(spans)}


def held_out_fingerprints(held_outs: Mapping[int, HeldOut], data: Mixture) -> dict[str, str]:
    """Returns the fingerprint of each source's held-out split.

    Raises:
      ValueError: a split was not made together with the one that is trained on.
    """
    found = {}
    trained_on = {store.manifest.source: store for store in data.sources}
    for store in (store for held_out in held_outs.values() for store in held_out.sources):
        manifest = store.manifest
        train = trained_on.get(manifest.source)
        if train is None:
            raise ValueError(
                f"{store.split_dir} is of another source, {manifest.source!r}; {REMEDY}"
            )
        for name in ("tokenizer_sha256", "separator_id", "seed", "held_out_fraction"):
            is_so, should_be = getattr(manifest, name), getattr(train.manifest, name)
            if is_so != should_be:
                raise ValueError(
                    f"{store.split_dir} has {name}={is_so!r}, but {train.split_dir} {should_be!r}: "
                    f"they were not made together; {REMEDY}"
                )
        found[manifest.source] = manifest.fingerprint()
    return found


def open_held_out(
    data: DataConfig,
    batch_size: int,
    max_windows: int | None = None,
    from_step: int | None = None,
) -> HeldOut:
    """Opens the held-out splits of the sources of one phase.

    Args:
      data: a validated data plan.
      batch_size: rows of every batch.
      max_windows: how many windows are evaluated: the first ones of each source, in proportion to
        its size. None takes them all; a larger number extends the choice of a smaller one.
      from_step: of the phase; None is the last one.

    Raises:
      ValueError: shards are missing or damaged, or the sources' tokenizers or
        held-out fractions differ.
    """
    phases = [phase for phase in data.plan if from_step in (None, phase.from_step)]
    sources = tuple(
        open_split(epath.Path(source.path) / "held_out") for source in phases[-1].sources
    )
    check_mixable(sources)
    counts = [-(-(store.num_tokens - 1) // data.seq_len) for store in sources]

    def spread_out(i: int, n: int) -> Iterator[tuple[float, int, int]]:
        return (((k + 0.5) / n, i, k) for k in range(n))

    spread = heapq.merge(*(spread_out(i, n) for i, n in enumerate(counts)))
    chosen = [(i, k) for _, i, k in itertools.islice(spread, max_windows)]
    chosen += [(-1, -1)] * (-len(chosen) % batch_size)
    return HeldOut(
        seq_len=data.seq_len,
        sources=sources,
        token_bytes=shared_token_bytes(sources),
        examples=np.array(chosen, np.int64).reshape(-1, batch_size, 2),
    )
