"""Going back before a spike: which batches are left out, and how often."""

import pytest

from polyglot_jax.config import DataConfig, DataPhase, SourceConfig
from polyglot_jax.data.mixture import skip
from polyglot_jax.health import rewind
from polyglot_jax.health.rewind import Rewind, without

SOURCES = (SourceConfig(path="a"),)


def plan(*phases):
    made = (DataPhase(from_step=f, sources=SOURCES, skipped=tuple(s)) for f, *s in phases)
    return DataConfig(plan=tuple(made))


@pytest.mark.parametrize(
    ("before", "rewinds", "after"),
    [
        ([(0,)], [], [(0,)]),
        ([(0,)], [(100, 130)], [(0, (100, 130))]),
        ([(0, (10, 20))], [(100, 130)], [(0, (10, 20), (110, 140))]),
        ([(0,)], [(100, 130), (100, 110)], [(0, (100, 140))]),  # the next batches spike too
        ([(0,)], [(100, 130), (150, 170)], [(0, (100, 130), (180, 200))]),
        ([(0, (105, 110))], [(100, 130)], [(0, (100, 135))]),
        ([(0,), (50,)], [(100, 130)], [(0,), (50, (50, 80))]),
        ([(0,), (110,)], [(100, 130)], [(0, (100, 110)), (110, (0, 20))]),
        ([(0,), (200,)], [(100, 130)], [(0, (100, 130)), (200,)]),
    ],
)
def test_what_is_left_out(before, rewinds, after):
    made = [Rewind(step=step, spike=spike, phases=len(before)) for step, spike in rewinds]
    assert without(plan(*before), made) == plan(*after)


def test_a_phase_that_is_appended_later_has_nothing_to_leave_out():
    """The run stopped between checkpoint and spike, and goes on with other data from there."""
    rewinds = [Rewind(step=100, spike=130, phases=1)]
    alone = without(plan((0,)), rewinds)
    assert without(plan((0,), (110,)), rewinds).plan == (*alone.plan, *plan((110,)).plan)


def test_the_past_stays_and_the_future_is_new():
    skipped = without(plan((0, (10, 20))), [Rewind(step=100, spike=130, phases=1)]).plan[0].skipped
    old = [skip(step, [(10, 20)]) for step in range(200)]
    new = [skip(step, skipped) for step in range(200)]
    assert new[:100] == old[:100]
    assert new[100] == old[129] + 1  # the batch after the spike's


def test_recorded_and_no_more_than_three_times(tmp_path):
    assert rewind.read(tmp_path) == []
    rewinds = [Rewind(step=10, spike=15 + i, phases=1) for i in range(4)]
    for made in rewinds[:3]:
        rewind.begin(tmp_path, made)
    assert rewind.read(tmp_path) == rewinds[:3]
    rewind.begin(tmp_path, Rewind(step=20, spike=25, phases=1))
    with pytest.raises(FloatingPointError, match="back to the checkpoint of step 10 3 times"):
        rewind.begin(tmp_path, rewinds[3])


def test_other_processes_know_what_process_0_has_read(tmp_path, monkeypatch):
    """One that does not see the newest file yet would train on other data."""
    monkeypatch.setattr(rewind.jax, "process_index", lambda: 1)
    told = {"step": 80, "spike": 91, "phases": 1}
    monkeypatch.setattr(rewind.distributed, "agreed", lambda value: [told])
    assert rewind.read(tmp_path) == [Rewind(**told)]


def test_a_record_of_before_phases_were_counted_concerns_all(tmp_path):
    (tmp_path / "rewinds.json").write_text('[{"step": 100, "spike": 130}]')
    skipped = [phase.skipped for phase in without(plan((0,), (110,)), rewind.read(tmp_path)).plan]
    assert skipped == [((100, 110),), ((0, 20),)]


@pytest.mark.parametrize(
    "text",
    [
        "[",
        '[{"step": 1, "spike": 2, "phases": 0}]',
        '[{"step": 1}]',
        '{"a": 1}',
        '[{"step": 1, "spike": "x"}]',
    ],
)
def test_a_spoilt_file_is_one_line(tmp_path, text):
    (tmp_path / "rewinds.json").write_text(text)
    with pytest.raises(ValueError, match=r"rewinds\.json"):
        rewind.read(tmp_path)
