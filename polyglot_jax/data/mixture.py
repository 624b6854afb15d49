"""What the trainer reads: batches that are a pure function of (data plan, step).

Each source's token stream is cut into windows of seq_len + 1 tokens that share one token with the
next, so that every token but the first is predicted once an epoch. Grain shuffles each source's
windows anew in every epoch, mixes the sources and batches the *indices*; only then are the tokens
of a batch read, all at once. No iterator state exists: every host asks for step s and takes its
rows of the one global batch.

Shape legend: B rows, T tokens predicted per row.
"""

import contextlib
import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np
from etils import epath

from polyglot_jax.config import DataConfig, DataPhase
from polyglot_jax.data.cycle import Cycle, cycle_of
from polyglot_jax.data.manifest import Manifest
from polyglot_jax.data.shards import PendingRead, TokenStore, open_split, read_token_bytes

_PREFETCHED_BATCHES = 4

Rows = slice | Sequence[int]


@dataclass(frozen=True)
class Phase:
    """A phase of the plan with everything that its batches depend on."""

    config: DataPhase
    sources: tuple[int, ...]  # indices into Mixture.sources
    cycle: Cycle  # of those sources
    batches: Any  # grain.MapDataset of int64[B, 3]: source, epoch, window

    def batch_number(self, step: int) -> int:
        """Returns the number, within this phase, of the batch that `step` trains on."""
        return skip(step - self.config.from_step, self.config.skipped)


@dataclass(frozen=True)
class Mixture:
    """The batches of a data plan. Built by `open_plan`."""

    data: DataConfig
    batch_size: int
    sources: tuple[TokenStore, ...]  # train splits, in the order in which the plan brings them in
    phases: tuple[Phase, ...]
    token_bytes: np.ndarray  # uint16[V], UTF-8 bytes of text behind each id

    def examples_at(self, step: int) -> np.ndarray:
        """Returns int64[B, 3], the (source, epoch, window) of every row of a step's batch."""
        phase = [phase for phase in self.phases if phase.config.from_step <= step][-1]
        return phase.batches[phase.batch_number(step)]

    def read(self, examples: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the batch of some rows (b of B) of `examples_at`.

        Returns:
          inputs and targets int32[b, T], weights float32[b, T] of the targets' losses (ones), and
          num_bytes int32[b], the UTF-8 bytes of text behind the targets.

        Raises:
          ValueError: a shard is damaged.
        """
        length = self.data.seq_len
        reads = [
            self.sources[source].start_read(window * length, length + 1)
            for source, _, window in examples.tolist()
        ]
        return batch_of(reads, self.token_bytes, length)

    def batches(
        self, start_step: int, end_step: int, rows: Rows = slice(None)
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields `read(examples_at(step)[rows])` for the steps in order, reading ahead.

        Closing the generator ends the thread behind it.
        """
        batches = (
            grain.MapDataset.range(start_step, end_step)
            .map(lambda step: self.read(self.examples_at(step)[rows]))
            .to_iter_dataset(
                grain.ReadOptions(num_threads=2, prefetch_buffer_size=_PREFETCHED_BATCHES)
            )
        )
        with contextlib.closing(iter(batches)) as iterator:
            yield from iterator

    def epochs_at(self, step: int) -> dict[str, float]:
        """Returns, by source, how often its windows were drawn before `step`: 1.25 is an epoch
        and a quarter. Windows of skipped batches count: they will not come again in the epoch."""
        drawn = _drawn(self.phases, step, self.batch_size)
        return {
            store.manifest.source: drawn[i] / num_windows(store.manifest, self.data.seq_len)
            for i, store in enumerate(self.sources)
        }

    def fingerprint(self) -> dict[str, Any]:
        """Returns what decides the batches, as JSON values: see `polyglot_jax.data.resume`."""
        manifests = [store.manifest for store in self.sources]
        return {
            "tokenizer_sha256": manifests[0].tokenizer_sha256,
            "seq_len": self.data.seq_len,
            "batch_size": self.batch_size,
            "plan": [
                {
                    "from_step": phase.config.from_step,
                    "seed": phase.config.seed,
                    "skipped": [list(pair) for pair in phase.config.skipped],
                    "turns": {
                        manifests[i].source: turns
                        for i, turns in zip(phase.sources, phase.cycle.parts, strict=True)
                    },
                    "manifests": {
                        manifests[i].source: manifests[i].fingerprint() for i in phase.sources
                    },
                }
                for phase in self.phases
            ],
        }


def open_plan(data: DataConfig, batch_size: int) -> Mixture:
    """Opens every source of a validated data plan.

    Raises:
      ValueError: shards are missing or damaged; sources that cannot be mixed (tokenizers or
        held-out fractions differ, equal names, too short for one window); weights without an exact
        cycle; a source that goes on from an earlier phase with other data or another seed.
    """
    opened = {
        source.path: open_split(epath.Path(source.path) / "train")
        for phase in data.plan
        for source in phase.sources
    }
    check_mixable(list(opened.values()))
    for store in opened.values():
        if num_windows(store.manifest, data.seq_len) < 1:
            raise ValueError(
                f"{store.split_dir} has {store.num_tokens:,} tokens, too few for one window of "
                f"data.seq_len + 1 = {data.seq_len + 1:,}: leave it out or lower data.seq_len"
            )
    stores: dict[str, TokenStore] = {}  # by name
    seeds: dict[str, int] = {}
    phases: list[Phase] = []
    for i, config in enumerate(data.plan):
        where = f"data.plan.{i}"
        # By name, so that the order in which a plan lists its sources decides nothing.
        listed = sorted(config.sources, key=lambda source: opened[source.path].manifest.source)
        names = [opened[source.path].manifest.source for source in listed]
        if len(set(names)) < len(names):
            raise ValueError(f"{where}: two sources have the same name in {names}; {_RENAME}")
        for name, source in zip(names, listed, strict=True):
            store = opened[source.path]
            first = stores.setdefault(name, store)
            if first.manifest != store.manifest:
                raise ValueError(
                    f"{where}: {store.split_dir} and {first.split_dir} are both named {name!r} but "
                    f"hold different tokens; {_RENAME}"
                )
            if seeds.setdefault(name, config.seed) != config.seed:
                raise ValueError(
                    f"{where}.seed={config.seed}: source {name!r} goes on from a phase with seed "
                    f"{seeds[name]} and keeps its order; give both phases the same seed"
                )
        indices = tuple(list(stores).index(name) for name in names)
        cycle = cycle_of([source.weight for source in listed])
        drawn = _drawn(phases, config.from_step, batch_size)
        examples = [
            _examples(k, num_windows(stores[name].manifest, data.seq_len), config.seed, name)
            for k, name in zip(indices, names, strict=True)
        ]
        turns = _Turns(cycle, tuple(drawn[k] for k in indices))
        batches = grain.MapDataset.select_from_datasets(examples, turns).batch(batch_size)
        phases.append(Phase(config, indices, cycle, batches))
    return Mixture(
        data=data,
        batch_size=batch_size,
        sources=tuple(stores.values()),
        phases=tuple(phases),
        token_bytes=shared_token_bytes(list(stores.values())),
    )


_RENAME = "encode one of them with another --source"


def num_windows(manifest: Manifest, seq_len: int) -> int:
    """Returns how many whole windows of seq_len + 1 tokens a stream holds at stride seq_len."""
    return (manifest.tokens - 1) // seq_len


def check_mixable(stores: Sequence[TokenStore]) -> None:
    """Raises ValueError unless the sources share tokenizer, separator and held-out fraction."""
    first = stores[0]
    for store in stores:
        if store.manifest.tokenizer_sha256 != first.manifest.tokenizer_sha256:
            raise ValueError(
                f"{store.split_dir} and {first.split_dir} were encoded with different tokenizers "
                f"({store.manifest.tokenizer_sha256[:12]} and "
                f"{first.manifest.tokenizer_sha256[:12]}): encode one of them again"
            )
        if store.manifest.separator_id != first.manifest.separator_id:
            raise ValueError(
                f"{store.split_dir} ends documents with id {store.manifest.separator_id}, "
                f"{first.split_dir} with {first.manifest.separator_id}: encode one of them again"
            )
        if store.manifest.held_out_fraction != first.manifest.held_out_fraction:
            # A text that is in both would be held out of one and trained on in the other.
            raise ValueError(
                f"{store.split_dir} holds out {store.manifest.held_out_fraction} of its texts, "
                f"{first.split_dir} {first.manifest.held_out_fraction}: encode one of them again "
                "with the other's --held_out_fraction"
            )


def shared_token_bytes(stores: Sequence[TokenStore]) -> np.ndarray:
    """Returns uint16[V], the UTF-8 bytes behind each id, of sources with one tokenizer."""
    return read_token_bytes(stores[0].split_dir.parent, stores[0].manifest.vocab_size)


def batch_of(
    reads: Sequence[PendingRead | None], token_bytes: np.ndarray, seq_len: int
) -> dict[str, np.ndarray]:
    """Waits for windows of up to seq_len + 1 tokens. What is missing has id, weight and bytes 0."""
    tokens = np.zeros((len(reads), seq_len + 1), np.int32)
    weights_BT = np.zeros((len(reads), seq_len), np.float32)
    for row, read in enumerate(reads):
        if read is None:
            continue
        window = read.result()
        tokens[row, : window.size] = window
        weights_BT[row, : window.size - 1] = 1
    targets_BT = tokens[:, 1:]
    bytes_BT = np.where(weights_BT > 0, token_bytes[targets_BT], 0)
    return {
        "inputs": np.ascontiguousarray(tokens[:, :-1]),
        "targets": np.ascontiguousarray(targets_BT),
        "weights": weights_BT,
        "num_bytes": bytes_BT.sum(axis=1, dtype=np.int32),
    }


@dataclass(frozen=True)
class _Turns(grain.transforms.DatasetSelectionMap):
    """Example of a phase -> (which of its sources, which example of that source)."""

    cycle: Cycle
    starts: tuple[int, ...]  # examples that the sources gave to earlier phases

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> tuple[int, int]:
        source, turn = self.cycle.locate(index)
        return source, self.starts[source] + turn


def _examples(source: int, windows: int, seed: int, name: str) -> grain.MapDataset:
    """Returns the endless (source, epoch, window) of one source, shuffled within each epoch."""
    # Grain gives epoch e the seed `seed + e`, so near seeds would repeat each other's epochs.
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=4).digest()

    def example(index: int, window: int) -> np.ndarray:
        return np.array([source, index // windows, window], np.int64)

    shuffled = grain.MapDataset.range(windows).shuffle(seed=int.from_bytes(digest, "little"))
    return shuffled.repeat().map_with_index(example)


def skip(number: int, skipped: Sequence[Sequence[int]]) -> int:
    """Returns the number of batch `number` among those that are not in rising [first, end)s."""
    for first, end in skipped:
        if number >= first:
            number += end - first
    return number


def _drawn(phases: Sequence[Phase], step: int, batch_size: int) -> Counter[int]:
    """Returns, by source, the examples drawn (trained on or skipped) by the steps before `step`."""
    drawn: Counter[int] = Counter()
    ends = [phase.config.from_step for phase in phases[1:]] + [step]
    for phase, end in zip(phases, ends, strict=False):
        last = min(end, step) - 1
        if last >= phase.config.from_step:
            examples = (phase.batch_number(last) + 1) * batch_size
            for place, source in enumerate(phase.sources):
                drawn[source] += phase.cycle.turns(examples, place)
    return drawn
