"""SIGKILL at any moment: run again, a run ends bit for bit like one that nothing interrupted."""

import random

import pytest

from tests.runs import (
    Moment,
    assert_same_run,
    later,
    run_with_kills,
    settings,
    when_locked,
    when_recording,
    when_saving,
    when_step,
)


def test_killed_while_computing_saving_and_restoring(whole_run, tiny_shards, tmp_path):
    moments = [when_step(8), when_saving, when_locked]
    run_with_kills(tmp_path / "run", settings(tiny_shards), moments)
    assert_same_run(tmp_path / "run", whole_run, tiny_shards)


def when_computing(n: int) -> Moment:
    """Step n is done, by this process if no checkpoint of it was there."""
    return lambda *run: when_recording(*run) and when_step(n)(*run)


@pytest.mark.slow
def test_killed_at_twenty_moments(whole_run, tiny_shards, tmp_path):
    """In turn while it restores, starts its data and compiles, computes, and saves."""
    rng = random.Random(1)
    moments = []
    for step in (4, 8, 12, 16, 20):
        moments += [
            later(when_locked, rng.uniform(0, 0.5)),
            later(when_recording, rng.uniform(0, 2.0)),
            later(when_saving, rng.uniform(0, 0.05)),
            later(when_computing(step), rng.uniform(0, 0.05)),
        ]
    run_with_kills(tmp_path / "run", settings(tiny_shards), moments)
    assert_same_run(tmp_path / "run", whole_run, tiny_shards)
