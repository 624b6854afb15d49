"""The monitor: from curves to lines, records, tags and the end of a run."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from etils import epath

from polyglot_jax import selection
from polyglot_jax.config import load_experiment
from polyglot_jax.health.monitor import Monitor
from polyglot_jax.health.rewind import Rewind
from polyglot_jax.metrics import RunLog, read_metrics
from tests.health.test_plunge import made

SOUND = {"nonfinite": 0, "nonfinite_in_a_row": 0, "spikes": 0, "last_spike": 0}


@pytest.fixture
def monitored(tmp_path):
    """Returns make(*overrides), a monitor with its log and workdir, and checkpoints 100, 200..."""
    opened = []

    def make(*sets, start_step=0):
        workdir = epath.Path(tmp_path)
        log = RunLog(
            workdir, start_step=start_step, end_step=2000, tokens_per_step=1, flops_per_token=1
        )
        opened.append(log.__enter__())
        experiment = load_experiment("ko_tiny", sets)
        seen: list[int] = []
        monitor = Monitor(experiment, workdir, log, SOUND, lambda: seen)
        return SimpleNamespace(monitor=monitor, log=log, workdir=workdir, saved=seen)

    yield make
    for log in opened:
        log.__exit__(None, None, None)


def replay(run, records):
    """Feeds a curve as the loop does; returns the steps at which the monitor wants an end."""
    ends = []
    for record in records:
        for name, value in record.items():
            if name != "step":
                prefix, _, short = name.partition("/")
                run.log.record(record["step"], prefix, {short: value})
        if "held_out/loss" in record:
            if run.monitor.held_out(record["step"]):
                ends.append(record["step"])
            run.saved.append(record["step"])
            del run.saved[:-3]
    return ends


def test_a_plunge_is_told_recorded_and_tagged(monitored, capsys):
    run = monitored()
    assert replay(run, made(1000, 0.0)) == []
    (alarm,) = (line for line in capsys.readouterr().out.splitlines() if "ALARM" in line)
    assert alarm.startswith("step   1,100  ALARM  the loss falls away from the held-out loss")
    assert alarm.endswith("the last checkpoint before it, 1,000, is tagged @before_plunge")
    (record,) = (r for r in read_metrics(run.workdir) if "health/plunge_since" in r)
    assert (record["step"], record["health/plunge_since"]) == (1100, 1000)
    assert selection.read_tags(run.workdir) == {"before_plunge": 1000}


def test_a_plunge_may_end_the_run_and_keeps_it_ended(monitored):
    run = monitored("health.on_plunge=stop")
    assert replay(run, made(1000, 0.0)) == [1100]
    with pytest.raises(ValueError, match=r"has plunged and was stopped; .*before_plunge"):
        monitored("health.on_plunge=stop", start_step=1100)
    monitored(start_step=1100)
    monitored("health.on_plunge=stop", start_step=1000)


def test_a_phase_that_has_not_begun_changes_nothing(monitored):
    plan = [{"sources": [{"path": "a"}]}, {"from_step": 100_000, "sources": [{"path": "b"}]}]
    sets = (f"data.plan={json.dumps(plan)}", "health.on_plunge=stop")
    assert replay(monitored(*sets), made(1000, 0.0)) == [1100]
    with pytest.raises(ValueError, match=r"has plunged and was stopped"):
        monitored(*sets, start_step=1100)


def test_a_second_plunge_does_not_give_up_the_checkpoint_before_the_first(monitored):
    run = monitored()
    selection.tag(run.workdir, "before_plunge", 300)
    replay(run, made(1000, 0.0))
    assert selection.read_tags(run.workdir) == {"before_plunge": 1000, "before_plunge_300": 300}


def test_the_checkpoint_before_a_plunge_is_there_when_the_alarm_comes(monitored, capsys):
    """Though more are saved between two evaluations than are kept as the newest."""
    run = monitored()
    keep = selection.Keep(newest=3, best=1, last_good=run.monitor.last_good)
    saved: list[int] = []
    for record in made(1050, 0.0):
        replay(run, [record])
        if record["step"] % 50 == 0 and "held_out/loss" not in record:
            saved.append(record["step"])
            infos = [SimpleNamespace(step=step) for step in saved]
            flags = keep.should_preserve(infos, context=None)
            saved = [step for step, flag in zip(saved, flags, strict=True) if flag]
            run.saved[:] = saved
    (alarm,) = (line for line in capsys.readouterr().out.splitlines() if "ALARM" in line)
    assert alarm.startswith("step   1,200")
    assert alarm.endswith("the last checkpoint before it, 1,000, is tagged @before_plunge")


def test_a_healthy_run_is_left_alone(monitored, capsys):
    run = monitored()
    assert replay(run, made(1000, 1.0)) == []
    assert "ALARM" not in capsys.readouterr().out
    assert selection.read_tags(run.workdir) == {}


def values(**changed):
    return {"loss": 2.0, "grad_norm": 1.0} | SOUND | changed


def test_skips_are_counted_and_said_once(monitored, capsys):
    run = monitored()
    run.monitor.update(10, values())
    run.monitor.update(20, values(nonfinite=2))
    run.monitor.update(30, values(nonfinite=2, spikes=1, last_spike=27))
    run.monitor.update(40, values(nonfinite=2, spikes=1, last_spike=27))
    assert [line for line in capsys.readouterr().out.splitlines() if "skipped" in line] == [
        "step      20  skipped 2 updates, loss or gradient not finite",
        "step      30  skipped 1 update, the last 27: loss and gradient norm more than 6 standard "
        "deviations above the steps before",
    ]
    assert read_metrics(run.workdir) == [
        {"step": 20, "health/nonfinite": 2},
        {"step": 30, "health/spikes": 1, "health/last_spike": 27},
    ]
    assert run.monitor.rewind is None


def test_only_what_makes_sense_of_text_is_saved(monitored, capsys):
    run = monitored()
    assert run.monitor.may_save(4, 3.5)
    assert not run.monitor.may_save(5, np.nan)
    assert capsys.readouterr().out.endswith("step       5  held-out loss is nan: not saved\n")
    assert read_metrics(run.workdir) == [{"step": 5, "health/not_saved": 1}]


def test_ten_updates_in_a_row_that_are_not_finite_end_the_run(monitored):
    run = monitored()
    run.monitor.update(1, values(nonfinite=9, nonfinite_in_a_row=9, loss=np.nan))
    with pytest.raises(FloatingPointError, match="step 2: grad_norm is inf; 10 updates in a row"):
        run.monitor.update(2, values(nonfinite=10, nonfinite_in_a_row=10, grad_norm=np.inf))
    run.monitor.update(3, values(nonfinite=10))
    over = values(nonfinite=25, nonfinite_in_a_row=15)  # finite ones at the end, skipped as well
    with pytest.raises(FloatingPointError, match=r"step 20: loss or grad.* 15 .* data of step 6"):
        run.monitor.update(20, over)
    for line in (run.workdir / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))


def test_a_rewind_needs_a_checkpoint(monitored, capsys):
    run = monitored("health.on_spike=rewind")
    run.monitor.update(30, values(spikes=1, last_spike=27))
    assert run.monitor.rewind is None
    assert "no checkpoint to go back to: skipped only" in capsys.readouterr().out
    run.saved += [40, 50]
    run.monitor.update(60, values(spikes=2, last_spike=55))
    assert run.monitor.rewind == Rewind(step=50, spike=55, phases=1)


def test_devices_that_differ_end_the_run(monitored):
    device = dataclasses.make_dataclass("Device", ["id", "process_index"], frozen=True)
    mesh = SimpleNamespace(devices=np.array([[[device(i, i // 2)]] for i in range(4)]))
    shardings = {}
    sums = np.zeros((4, 1, 1, 1), np.uint32)
    sums[3] = 1
    run = monitored()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polyglot_jax.health.replicas.cuts", lambda shardings: [()])
        run.monitor.compared(5, np.zeros_like(sums), mesh, shardings)
        with pytest.raises(FloatingPointError, match="from most others: 3 of process 1"):
            run.monitor.compared(5, sums, mesh, shardings)
