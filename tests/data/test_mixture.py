"""The mixture: every window once, exact weights, and nothing but (plan, step) decides a batch."""

import hashlib
import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from polyglot_jax.config import DataPhase, SourceConfig
from polyglot_jax.data.cycle import cycle_of
from polyglot_jax.data.mixture import Mixture, open_plan
from tests.data.made import HELD_OUT, SHARDS, WINDOWS, T, plan, stream_of, write_source


def rows(mixture: Mixture, start: int, end: int) -> list[tuple[int, int, int]]:
    """Returns (source, epoch, window) of every row of the steps, in order."""
    return [tuple(row) for s in range(start, end) for row in mixture.examples_at(s).tolist()]


# ---- epochs


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_every_window_of_an_epoch_once_on_any_number_of_hosts(
    sources: dict[str, SourceConfig], hosts: int
) -> None:
    mixture = open_plan(plan(DataPhase(sources=(sources["ko"],))), batch_size=4)
    stream = stream_of("ko", "train", SHARDS["ko"])
    expected = [stream[k * T : k * T + T + 1].tolist() for k in range(WINDOWS["ko"])]
    seen: list[list[int]] = []
    for step in range(13):  # 13 batches of 4 are 4 epochs of 13 windows
        batch_rows: dict[int, list[int]] = {}
        for host in range(hosts):
            mine = range(4)[host::hosts]
            batch = mixture.read(mixture.examples_at(step)[list(mine)])
            for row, inputs, targets in zip(mine, batch["inputs"], batch["targets"], strict=True):
                assert inputs[1:].tolist() == targets[:-1].tolist()
                batch_rows[row] = [*inputs.tolist(), int(targets[-1])]
        seen += [batch_rows[row] for row in range(4)]
    for epoch in range(4):
        assert sorted(seen[epoch * 13 : (epoch + 1) * 13]) == sorted(expected)


def test_windows_rebuild_the_stream(sources: dict[str, SourceConfig]) -> None:
    for name in SHARDS:
        mixture = open_plan(plan(DataPhase(sources=(sources[name],))), batch_size=1)
        stream = stream_of(name, "train", SHARDS[name])
        found = np.full(stream.size, -1)
        for step in range(WINDOWS[name]):
            examples = mixture.examples_at(step)
            batch = mixture.read(examples)
            start = int(examples[0, 2]) * T
            found[start : start + T] = batch["inputs"][0]
            found[start + 1 : start + T + 1] = batch["targets"][0]
        length = WINDOWS[name] * T + 1
        assert stream.size - length < T
        np.testing.assert_array_equal(found[:length], stream[:length])


def test_batches_have_the_promised_form(sources: dict[str, SourceConfig]) -> None:
    mixture = open_plan(plan(DataPhase(sources=tuple(sources.values()))), batch_size=6)
    batch = mixture.read(mixture.examples_at(3))
    assert {key: (v.shape, v.dtype.name) for key, v in batch.items()} == {
        "inputs": ((6, T), "int32"),
        "targets": ((6, T), "int32"),
        "weights": ((6, T), "float32"),
        "num_bytes": ((6,), "int32"),
    }
    assert (batch["weights"] == 1).all()
    np.testing.assert_array_equal(batch["num_bytes"], (batch["targets"] % 5).sum(axis=1))


def orders(mixture: Mixture, epochs: int) -> dict[tuple[int, int], list[int]]:
    """Returns the windows of each (source, epoch) in the order in which they are drawn."""
    found: dict[tuple[int, int], list[int]] = {}
    for source, epoch, window in rows(mixture, 0, 40 * epochs):
        found.setdefault((source, epoch), []).append(window)
    return {key: windows for key, windows in found.items() if key[1] < epochs}


def test_orders_differ_between_epochs_sources_and_seeds(tmp_path: Path) -> None:
    SHARDS["same"], HELD_OUT["same"] = SHARDS["ko"], HELD_OUT["ko"]
    config = tuple(write_source(tmp_path, name) for name in ("ko", "same"))
    found = [
        order
        for seed in (0, 1)
        for order in orders(
            open_plan(plan(DataPhase(sources=config, seed=seed)), batch_size=2), epochs=3
        ).values()
    ]
    del SHARDS["same"], HELD_OUT["same"]
    assert len(found) == 12
    assert all(sorted(order) == list(range(13)) for order in found)
    assert len({tuple(order) for order in found}) == 12


def test_order_of_examples_is_frozen(sources: dict[str, SourceConfig]) -> None:
    """A resumed run relies on this order: if it changes, so must the fingerprint's form."""
    mixture = open_plan(plan(DataPhase(sources=(sources["ko"], sources["web"]))), batch_size=4)
    digest = hashlib.sha256(json.dumps(rows(mixture, 0, 50)).encode()).hexdigest()
    assert digest[:16] == "f5c04ff7f4095a47"


# ---- weights


@pytest.mark.parametrize(
    "weights",
    [(1.0,), (0.7, 0.3), (1 / 3, 2 / 3), (5, 3, 1, 1, 1, 1, 1), (1,) * 9, (0.001, 0.333, 0.666)],
)
def test_weights_are_met_within_one_example_at_every_prefix(weights: tuple[float, ...]) -> None:
    cycle = cycle_of(weights)
    shares = np.array(weights) / sum(weights)
    counts = np.zeros(len(weights))
    worst = 0.0
    for k in range(2 * len(cycle) + 5):
        source, earlier = cycle.locate(k)
        assert earlier == counts[source] == cycle.turns(k, source)
        counts[source] += 1
        worst = max(worst, np.abs(counts - (k + 1) * shares).max())
    assert worst < 1 - 1e-9
    assert np.abs(np.array(cycle.parts) / len(cycle) - shares).max() < 1e-12


@pytest.mark.parametrize("weights", [(0.123456789, 1.0), (123_456_789.0, 987_654_321.0)])
def test_weights_without_a_short_cycle_are_refused(weights: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"round them, for example to \[11., 8"):
        cycle_of(weights)


def test_mixture_follows_weights_and_not_their_order(sources: dict[str, SourceConfig]) -> None:
    ko, law = replace(sources["ko"], weight=0.7), replace(sources["law"], weight=0.3)
    one = open_plan(plan(DataPhase(sources=(ko, law))), batch_size=5)
    two = open_plan(plan(DataPhase(sources=(law, ko))), batch_size=5)
    assert [s for s, _, _ in rows(one, 0, 20)].count(0) == 70
    assert rows(one, 0, 20) == rows(two, 0, 20)
    assert one.fingerprint() == two.fingerprint()


# ---- steps


def test_random_access_equals_iteration_and_resuming_anywhere(
    sources: dict[str, SourceConfig],
) -> None:
    mixture = open_plan(plan(DataPhase(sources=tuple(sources.values()))), batch_size=6)
    whole = list(mixture.batches(0, 20))
    assert len(whole) == 20
    for step in (19, 3, 11, 0):
        fresh = open_plan(mixture.data, batch_size=6)
        resumed = next(iter(fresh.batches(step, 20)))
        direct = fresh.read(fresh.examples_at(step))
        for key, values in whole[step].items():
            np.testing.assert_array_equal(resumed[key], values)
            np.testing.assert_array_equal(direct[key], values)
    halves = [list(mixture.batches(0, 20, rows)) for rows in (slice(0, 3), [3, 4, 5])]
    for batch, first, second in zip(whole, *halves, strict=True):
        for key, values in batch.items():
            np.testing.assert_array_equal(np.concatenate([first[key], second[key]]), values)


def test_far_steps_cost_no_more(sources: dict[str, SourceConfig]) -> None:
    mixture = open_plan(plan(DataPhase(sources=tuple(sources.values()))), batch_size=64)
    examples = mixture.examples_at(10**12)
    assert examples.shape == (64, 3)
    assert examples[:, 1].min() > 10**12


def test_closing_batches_ends_the_threads(sources: dict[str, SourceConfig]) -> None:
    mixture = open_plan(plan(DataPhase(sources=(sources["ko"],))), batch_size=4)
    before = set(threading.enumerate())
    batches = mixture.batches(0, 1000)
    next(batches)
    assert set(threading.enumerate()) > before
    batches.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(threading.enumerate()) == before


def test_damage_reaches_the_reader_of_batches(tmp_path: Path) -> None:
    config = write_source(tmp_path, "law")
    file = tmp_path / "law" / "train" / "shard-0" / "tokens" / "c" / "0"
    values = bytearray(file.read_bytes())
    values[0] ^= 1
    file.write_bytes(values)
    mixture = open_plan(plan(DataPhase(sources=(config,))), batch_size=4)
    with pytest.raises(ValueError, match="shard-0/tokens is damaged"):
        list(mixture.batches(0, 3))


def test_epochs_are_counted_exactly(sources: dict[str, SourceConfig]) -> None:
    ko, law = replace(sources["ko"], weight=3), replace(sources["law"], weight=1)
    mixture = open_plan(plan(DataPhase(sources=(ko, law))), batch_size=6)
    for step in (0, 1, 7, 40):
        drawn = rows(mixture, 0, step)
        for i, name in enumerate(("ko", "law")):
            of_source = [(epoch, window) for source, epoch, window in drawn if source == i]
            assert len(set(of_source)) == len(of_source)
            assert mixture.epochs_at(step)[name] == len(of_source) / WINDOWS[name]
            assert not of_source or of_source[-1][0] == (len(of_source) - 1) // WINDOWS[name]


# ---- phases


def test_sources_go_on_where_the_phase_before_left_them(sources: dict[str, SourceConfig]) -> None:
    ko, law, web = (sources[name] for name in ("ko", "law", "web"))
    phases = (
        DataPhase(sources=(ko, law)),
        DataPhase(from_step=7, sources=(law, replace(web, weight=0.5))),
        DataPhase(from_step=11, sources=(web, ko)),
    )
    mixture = open_plan(plan(*phases), batch_size=3)
    first_alone = open_plan(plan(phases[0]), batch_size=3)
    assert rows(mixture, 0, 7) == rows(first_alone, 0, 7)
    assert {source for source, _, _ in rows(mixture, 7, 11)} == {1, 2}
    assert {source for source, _, _ in rows(mixture, 11, 30)} == {0, 2}
    alone = {
        i: rows(open_plan(plan(DataPhase(sources=(source,))), batch_size=1), 0, 60)
        for i, source in enumerate((ko, law, web))
    }
    drawn = rows(mixture, 0, 30)
    for i in range(3):
        of_source = [(epoch, window) for source, epoch, window in drawn if source == i]
        assert of_source == [row[1:] for row in alone[i][: len(of_source)]]
        name = ("ko", "law", "web")[i]
        assert mixture.epochs_at(30)[name] == len(of_source) / WINDOWS[name]
    assert mixture.epochs_at(9)["ko"] == mixture.epochs_at(7)["ko"] == 11 / 13


def test_skipped_batches_are_never_trained_on(sources: dict[str, SourceConfig]) -> None:
    both = (sources["ko"], sources["law"])
    plain = open_plan(plan(DataPhase(sources=both)), batch_size=3)
    skipping = open_plan(plan(DataPhase(sources=both, skipped=((2, 4), (4, 5), (7, 9)))), 3)
    kept = [0, 1, 5, 6, 9, 10, 11]
    for step, number in enumerate(kept):
        np.testing.assert_array_equal(skipping.examples_at(step), plain.examples_at(number))
        assert skipping.epochs_at(step + 1) == plain.epochs_at(number + 1)
    then = DataPhase(from_step=4, sources=(sources["ko"],))
    after = open_plan(plan(skipping.data.plan[0], then), batch_size=3)
    drawn = [row[1:] for row in rows(plain, 0, 7) if row[0] == 0]
    alone = [
        row[1:] for row in rows(open_plan(plan(then.__class__(sources=then.sources)), 1), 0, 40)
    ]
    assert [row[1:] for row in rows(after, 4, 6)] == alone[len(drawn) : len(drawn) + 6]


# ---- what cannot be mixed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer_sha256": "0" * 64}, "different tokenizers"),
        ({"separator_id": 5}, "ends documents with id 5"),
        ({"source": "ko"}, "same name"),
        ({"held_out_fraction": 0.2}, r"law/train holds out 0\.2 .*ko/train 0\.1: .*--held_out_f"),
    ],
)
def test_sources_that_do_not_fit_are_refused(
    sources: dict[str, SourceConfig], tmp_path: Path, changes: dict, message: str
) -> None:
    other = write_source(tmp_path, "law", **changes)
    with pytest.raises(ValueError, match=message):
        open_plan(plan(DataPhase(sources=(sources["ko"], other))), batch_size=2)


def test_plans_that_do_not_fit_are_refused(
    sources: dict[str, SourceConfig], tmp_path: Path
) -> None:
    ko = sources["ko"]
    with pytest.raises(ValueError, match=r"too few for one window of data.seq_len \+ 1 = 54"):
        open_plan(plan(DataPhase(sources=(ko,)), seq_len=53), batch_size=2)
    open_plan(plan(DataPhase(sources=(ko,)), seq_len=52), batch_size=2)
    with pytest.raises(ValueError, match=r"plan\.1\.seed=5: source 'ko' goes on"):
        open_plan(plan(DataPhase(sources=(ko,)), DataPhase(from_step=3, seed=5, sources=(ko,))), 2)
    changed = write_source(tmp_path, "ko", seed=8)
    with pytest.raises(ValueError, match="both named 'ko' but hold different tokens"):
        open_plan(plan(DataPhase(sources=(ko,)), DataPhase(from_step=3, sources=(changed,))), 2)
    with pytest.raises(ValueError, match=r"nowhere/train/manifest\.json is missing"):
        open_plan(plan(DataPhase(sources=(SourceConfig(path=str(tmp_path / "nowhere")),))), 2)
