"""The mixture: every window once, exact weights, and nothing but (plan, step) decides a batch."""

import hashlib
import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from polyglot_jax.config import DataConfig, DataPhase, SourceConfig
from polyglot_jax.data.cycle import cycle_of
from polyglot_jax.data.held_out import open_held_out
from polyglot_jax.data.manifest import Manifest, write_manifest
from polyglot_jax.data.mixture import Mixture, open_plan
from polyglot_jax.data.resume import check_same
from polyglot_jax.data.shards import write_shard, write_token_bytes

T = 4
SHARDS = {"ko": [9, 30, 2, 12], "law": [41], "web": [7, 8, 6]}  # tokens by shard
HELD_OUT = {"ko": [4, 9], "law": [9], "web": [2]}
WINDOWS = {"ko": 13, "law": 10, "web": 5}


def stream_of(name: str, split: str, sizes: list[int]) -> np.ndarray:
    """Returns a source's tokens: unlike anywhere else, a separator (0) at the end of each shard."""
    rng = np.random.default_rng(len(name) + len(split))
    tokens = rng.integers(1, 1000, sum(sizes)).astype(np.uint16)
    tokens[np.cumsum(sizes) - 1] = 0
    return tokens


def write_source(root: Path, name: str, **changes: object) -> SourceConfig:
    write_token_bytes(root / name, np.arange(1000) % 5)
    for split, sizes in {"train": SHARDS[name], "held_out": HELD_OUT[name]}.items():
        tokens = np.split(stream_of(name, split, sizes), np.cumsum(sizes)[:-1])
        shards = [
            write_shard(root / name / split, f"shard-{i}", part, np.array([part.size]), part.size)
            for i, part in enumerate(tokens)
        ]
        manifest = Manifest(
            source=name,
            split=split,
            tokenizer_sha256=hashlib.sha256(b"{}").hexdigest(),
            vocab_size=1000,
            separator_id=0,
            dtype="uint16",
            seed=7,
            shards=tuple(shards),
        )
        write_manifest(root / name / split, replace(manifest, **changes))  # type: ignore[arg-type]
    return SourceConfig(path=str(root / name))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SourceConfig]:
    root = tmp_path_factory.mktemp("sources")
    return {name: write_source(root, name) for name in SHARDS}


def plan(*phases: DataPhase, seq_len: int = T) -> DataConfig:
    return DataConfig(seq_len=seq_len, plan=phases)


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


# ---- resuming


def saved_and_current(
    sources: dict[str, SourceConfig], data: DataConfig, batch_size: int = 2
) -> tuple[dict, dict]:
    saved = open_plan(plan(DataPhase(sources=(sources["ko"], sources["law"]))), 2).fingerprint()
    current = open_plan(data, batch_size).fingerprint()
    return json.loads(json.dumps(saved)), current


def test_the_same_plan_and_a_longer_one_resume(sources: dict[str, SourceConfig]) -> None:
    first = DataPhase(sources=(sources["ko"], sources["law"]))
    for step in (0, 1, 50):
        check_same(*saved_and_current(sources, plan(first)), step=step)
    later = DataPhase(from_step=50, sources=(sources["web"],))
    check_same(*saved_and_current(sources, plan(first, later)), step=50)
    check_same(*saved_and_current(sources, plan(first, later))[::-1], step=50)
    skipping = replace(first, skipped=((50, 60), (99, 100)))
    check_same(*saved_and_current(sources, plan(skipping)), step=50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skipped": ((49, 60),)}, r"data\.plan\.0\.skipped: was \[\], is \[\[49, 60\]\]"),
        ({"seed": 5}, r"data\.plan\.0\.seed: was 1234, is 5"),
        ({"sources": ("ko",)}, "source 'law' in data.plan.0: was [0-9a-f]{12}, is absent"),
        ({"sources": ("ko", "law", "web")}, "source 'web' in data.plan.0: was absent"),
        ({"weight": 2.0}, r'turns .*: was {"ko": 1, "law": 1}, is {"ko": 2, "law": 1}'),
        ({"seq_len": 5}, r"data\.seq_len: was 4, is 5"),
        ({"batch_size": 3}, r"train\.batch_size: was 2, is 3"),
        ({"from_step": 49}, r"data\.plan\.1\.from_step: was absent, is 49"),
    ],
)
def test_another_past_is_refused_by_name(
    sources: dict[str, SourceConfig], change: dict, message: str
) -> None:
    chosen = [sources[name] for name in change.get("sources", ("ko", "law"))]
    chosen[0] = replace(chosen[0], weight=change.get("weight", 1.0))
    phases = [
        DataPhase(
            sources=tuple(chosen),
            seed=change.get("seed", 1234),
            skipped=change.get("skipped", ()),
        )
    ]
    if "from_step" in change:
        phases.append(DataPhase(from_step=change["from_step"], sources=(sources["web"],)))
    data = plan(*phases, seq_len=change.get("seq_len", T))
    saved, current = saved_and_current(sources, data, change.get("batch_size", 2))
    with pytest.raises(ValueError, match=message) as error:
        check_same(saved, current, step=50)
    assert "append a phase from step 50 on" in str(error.value)


def test_another_tokenizer_or_manifest_is_refused_by_name(
    sources: dict[str, SourceConfig], tmp_path: Path
) -> None:
    for changes, message in (
        ({"tokenizer_sha256": "0" * 64}, "tokenizer: was 44136fa355b3, is 000000000000"),
        ({"seed": 8}, "manifest of source 'ko' in data.plan.0: was"),
    ):
        root = tmp_path / str(len(changes)) / next(iter(changes))
        root.mkdir(parents=True)
        data = plan(
            DataPhase(sources=tuple(write_source(root, name, **changes) for name in ("ko", "law")))
        )
        with pytest.raises(ValueError, match=message):
            check_same(*saved_and_current(sources, data), step=1)


# ---- evaluation


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
