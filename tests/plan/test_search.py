"""The search: candidates are valid, the fastest is first, and the compiler has the last word."""

import itertools
from typing import Any

import pytest

from polyglot_jax.config import load_experiment
from polyglot_jax.plan import search
from polyglot_jax.plan.hardware import GIB
from polyglot_jax.validation import validate
from tests.plan.made import made_plan, too_large, topology


def test_candidates_are_valid_and_the_fastest_first() -> None:
    made = search.candidates(load_experiment("ko_12p8b"), topology("v5e:16x16", 256))
    for candidate in made:
        validate(candidate.experiment)
        mesh = candidate.experiment.mesh
        assert mesh.data * mesh.fsdp * mesh.tensor == 256
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(made))


def test_xla_where_the_fast_kernel_does_not_take_the_heads() -> None:
    on_ampere = search.candidates(load_experiment("ko_5p8b"), topology("a100-80g:1x8", 8))
    on_hopper = search.candidates(load_experiment("ko_5p8b"), topology("h100:1x8", 8))
    assert {c.experiment.model.attention for c in on_ampere} == {"xla"}
    assert {c.experiment.model.attention for c in on_hopper} == {"auto"}


def test_tensor_stays_inside_a_node() -> None:
    made = search.candidates(load_experiment("ko_12p8b"), topology("h100:64x4", 256))
    assert {c.experiment.mesh.tensor for c in made} == {1, 2, 4}


def test_search_ends_with_the_first_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []

    def plan(experiment: Any, topology: Any) -> Any:
        compiled.append(experiment)
        return too_large(experiment, topology, GIB) if len(compiled) < 3 else made_plan()

    monkeypatch.setattr(search, "plan", plan)
    found = list(search.search(load_experiment("ko_1p3b"), topology("v5e:4x4", 16), tries=5))
    assert [p.fits for p in found] == [False, False, True]
    sizes = [search.estimate_bytes(e) for e in compiled]
    assert sizes[0] > sizes[1] > sizes[2]  # what did not fit corrects the estimates of the others


def test_hopeless_hardware_is_tried_once_at_its_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "plan", lambda e, t: too_large(e, t, 600 * GIB))
    (found,) = search.search(load_experiment("ko_40b"), topology("h200:1x1", 1))
    assert not found.fits


def test_what_does_not_fit_does_not_at_its_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []

    def plan(experiment: Any, topology: Any) -> Any:
        compiled.append(experiment)
        return too_large(experiment, topology, 1)

    monkeypatch.setattr(search, "plan", plan)
    where = topology("v5e:4x4", 16)
    assert len(list(search.search(load_experiment("ko_1p3b"), where, tries=2))) == 2
    made = search.candidates(load_experiment("ko_1p3b"), where)
    assert search.estimate_bytes(compiled[-1]) == min(c.bytes for c in made)


def test_a_candidate_that_the_compiler_fails_on_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[Any] = []

    def plan(experiment: Any, topology: Any) -> Any:
        compiled.append(experiment)
        if len(compiled) == 1:
            raise ValueError("the compiler of v5e:4x4 fails")
        return made_plan()

    monkeypatch.setattr(search, "plan", plan)
    (found,) = search.search(load_experiment("ko_1p3b"), topology("v5e:4x4", 16))
    assert found.fits
    assert compiled[0] != compiled[1]


def test_a_failure_of_the_compiler_is_not_a_lack_of_memory(monkeypatch: Any) -> None:
    where = topology("v5e:4x4", 16)
    made = sorted(search.candidates(load_experiment("ko_1p3b"), where), key=lambda c: c.bytes)
    compiled: list[Any] = []

    def plan(experiment: Any, topology: Any) -> Any:
        compiled.append(experiment)
        if experiment == made[0].experiment:
            raise ValueError("the compiler of v5e:4x4 fails")
        return too_large(experiment, topology, 1)

    monkeypatch.setattr(search, "plan", plan)
    assert len(list(search.search(load_experiment("ko_1p3b"), where, tries=2))) == 2
    assert compiled[-2:] == [made[0].experiment, made[1].experiment]  # the smallest that compiles


def test_large_microbatches_are_first_where_memory_allows() -> None:
    one = topology("h200:1x1", 1)
    first = search.candidates(load_experiment("ko_1p3b"), one)[0]
    assert first.experiment.train.accumulation == 1024 // search.LARGEST
    assert first.bytes < search.HEADROOM * one.hardware.usable
    by_accumulation = {
        c.experiment.train.accumulation: c.seconds
        for c in search.candidates(load_experiment("ko_1p3b"), one)
        if c.experiment.model.remat == "none"
    }
    # 896 sums less of 1.33e9 float32 gradients, read twice and written once at 4.8e12 bytes/s
    saved = by_accumulation[1024] - by_accumulation[128]
    assert saved == pytest.approx(896 * 12 * 1.3318e9 / 4.8e12, rel=1e-3)


def test_a_compiler_that_always_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []

    def plan(experiment: Any, topology: Any) -> Any:
        compiled.append(experiment)
        raise ValueError("the compiler of v5e:4x4 fails")

    monkeypatch.setattr(search, "plan", plan)
    with pytest.raises(ValueError, match="the compiler of v5e:4x4 fails"):
        list(search.search(load_experiment("ko_1p3b"), topology("v5e:4x4", 16)))
    assert len(compiled) == search.FAILURES


def test_no_mesh_for_an_odd_number_of_devices() -> None:
    with pytest.raises(ValueError, match="no mesh of 6 devices"):
        list(search.search(load_experiment("ko_1p3b"), topology("a100-80g:1x6", 6)))
