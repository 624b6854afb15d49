"""Held-out batches: every token predicted once, whatever the batch size."""

import numpy as np
import pytest

from polyglot_jax.config import DataPhase, SourceConfig
from polyglot_jax.data.held_out import open_held_out, open_held_outs, sources_since
from tests.data.made import HELD_OUT, T, plan, stream_of


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_every_held_out_token_is_predicted_once(
    sources: dict[str, SourceConfig], batch_size: int
) -> None:
    data = plan(DataPhase(sources=tuple(sources.values())))
    held_out = open_held_out(data, batch_size)
    streams = {name: stream_of(name, "held_out", sizes) for name, sizes in HELD_OUT.items()}
    predicted: list[int] = []
    num_bytes = 0
    batches = list(held_out.batches())
    assert len(batches) == held_out.num_batches
    for batch in batches:
        assert batch["inputs"].shape == batch["targets"].shape == (batch_size, T)
        predicted += batch["targets"][batch["weights"] > 0].tolist()
        num_bytes += int(batch["num_bytes"].sum())
    assert sorted(predicted) == sorted(t for stream in streams.values() for t in stream[1:])
    assert num_bytes == sum(int((stream[1:] % 5).sum()) for stream in streams.values())


def test_held_out_subset_is_in_proportion_and_rows_split_batches(
    sources: dict[str, SourceConfig],
) -> None:
    data = plan(
        DataPhase(sources=(sources["web"],)),
        DataPhase(from_step=3, sources=(sources["ko"], sources["law"])),
    )
    whole = open_held_out(data, 4)
    assert whole.examples[..., 0].tolist() == [[0, 1, 0, 1], [0, -1, -1, -1]]
    some = open_held_out(data, 4, max_windows=3)
    assert some.examples.tolist() == [[[0, 0], [1, 0], [0, 1], [-1, -1]]]
    (batch,) = some.batches()
    for rows in (slice(0, 2), [2, 3]):
        (part,) = some.batches(rows)
        for key, values in batch.items():
            np.testing.assert_array_equal(part[key], values[rows])
    assert batch["weights"].sum(axis=1).tolist() == [4, 4, 4, 0]


def test_each_phase_is_evaluated_on_its_own_sources(sources: dict[str, SourceConfig]) -> None:
    """Weights alone, and later phases, change nothing of what a step is evaluated on."""
    web, ko, law = (sources[name] for name in ("web", "ko", "law"))
    phases = (
        DataPhase(sources=(web, ko)),
        DataPhase(from_step=3, sources=(ko, SourceConfig(path=web.path, weight=7))),
        DataPhase(from_step=6, sources=(law,)),
        DataPhase(from_step=9, sources=(web, ko)),
    )
    data = plan(*phases)
    assert [sources_since(data, step) for step in (0, 1, 3, 4, 6, 7, 9, 10, 99)] == [
        *(0, 0, 0, 0, 0, 6, 6, 9, 9)
    ]
    held_outs = open_held_outs(data, 4)
    first = open_held_out(plan(phases[0]), 4)
    assert sorted(held_outs) == [0, 6, 9]
    np.testing.assert_array_equal(held_outs[0].examples, first.examples)
    assert [store.manifest.source for store in held_outs[6].sources] == ["law"]
    assert [store.manifest.source for store in held_outs[9].sources] == ["web", "ko"]
