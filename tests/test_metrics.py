"""The record of a run: exact, resumable, and honest about what it does not know."""

import json
import re

import pytest
from etils import epath

from polyglot_jax import metrics
from polyglot_jax.curve import plot_run
from polyglot_jax.metrics import RunLog, read_metrics

VALUES = {
    "loss": 2.5,
    "weight": 100.0,
    "grad_norm": 0.5,
    "learning_rate": 1e-3,
    "bits_per_byte": 1.25,
}


def open_log(workdir, start_step=0):
    return RunLog(
        epath.Path(workdir),
        start_step=start_step,
        end_step=20,
        tokens_per_step=1000,
        flops_per_token=6_000_000,
    )


def record(workdir, steps, start_step=0):
    with open_log(workdir, start_step) as log:
        if not start_step:
            log.held_out(0, {"loss": 5.0, "bits_per_byte": 2.0})
        for step in steps:
            log.train(step, VALUES, {"ko": step / 10})


def test_lines_are_flat_and_prefixed(tmp_path):
    record(tmp_path, [1])
    first, second = read_metrics(tmp_path)
    assert first == {"step": 0, "held_out/loss": 5.0, "held_out/bits_per_byte": 2.0}
    assert second["step"] == 1
    assert second["train/loss"] == 2.5
    assert second["train/epoch/ko"] == 0.1
    assert any((tmp_path / "tensorboard").iterdir())


def test_resuming_drops_what_will_be_run_again(tmp_path):
    record(tmp_path, [1, 2, 3, 4])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "train/lo')  # cut off by a kill
    record(tmp_path, [3, 4, 5], start_step=2)
    assert [r["step"] for r in read_metrics(tmp_path)] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("line", [b"[1]", b"{}", b'{"step": "3"}', b"\x00\xff\x00", b"null"])
def test_resuming_drops_what_is_no_record(tmp_path, line):
    """A power cut may leave anything where the disk had not written yet."""
    record(tmp_path, [1, 2])
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    record(tmp_path, [3], start_step=2)
    assert [r["step"] for r in read_metrics(tmp_path)] == [0, 1, 2, 3]


def test_a_bucket_gets_the_whole_record_at_each_flush(tmp_path, monkeypatch):
    """It cannot append: what opens an object for that overwrites it."""
    monkeypatch.setattr(metrics.files, "is_remote", lambda path: True)
    record(tmp_path, [1, 2])
    with open_log(tmp_path, start_step=2) as log:
        log.train(3, VALUES, {"ko": 1.0})
        log.flush()
        log.train(4, VALUES, {"ko": 1.0})
        assert [r["step"] for r in read_metrics(tmp_path)] == [0, 1, 2, 3]
    assert [r["step"] for r in read_metrics(tmp_path)] == [0, 1, 2, 3, 4]


def test_a_record_that_is_gone_is_known_before_a_checkpoint_relies_on_it(tmp_path):
    with open_log(tmp_path, start_step=0) as log:
        log.flush()
        (tmp_path / "metrics.jsonl").unlink()
        with pytest.raises(OSError, match=r"metrics.jsonl: it was moved, deleted or changed"):
            log.flush()


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1" + "0" * 400, '"2"'])
def test_what_is_no_number_is_no_record(tmp_path, value):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "held_out/loss": {value}}}\n')
    with pytest.raises(ValueError, match="line 1: not a record of a step and its values"):
        read_metrics(tmp_path)


def test_other_processes_know_what_process_0_has_read(tmp_path, monkeypatch):
    """Their own look at the file may be older, and decisions are made from it."""
    record(tmp_path, [1, 2])
    told = [json.dumps({"step": 1, "held_out/loss": 2.0})]
    monkeypatch.setattr(metrics.jax, "process_index", lambda: 1)
    monkeypatch.setattr(metrics.distributed, "agreed", lambda value: told)
    assert open_log(tmp_path, start_step=2).records == [{"step": 1, "held_out/loss": 2.0}]


def test_starting_again_from_scratch_drops_everything(tmp_path):
    record(tmp_path, [1, 2])
    record(tmp_path, [1])
    assert [r["step"] for r in read_metrics(tmp_path)] == [0, 1]


def test_status_line_has_fixed_fields(tmp_path, capsys):
    record(tmp_path, [10])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "no peak FLOP/s is known for 'cpu': MFU is not reported"
    assert re.fullmatch(
        r"step +10/20  loss 2\.5000  bpb 1\.2500  lr 1\.00e-03  grad 0\.500  epoch 1\.00  "
        r"tok/s [\d,]+  mfu +-  eta \d+:\d\d:\d\d",
        lines[-1],
    )


def test_throughput_and_mfu_leave_pauses_out(tmp_path, monkeypatch):
    clock = iter([0.0, 1.0, 6.0, 10.0])
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(metrics, "peak_flops", lambda kind: 12_000_000_000.0)
    monkeypatch.setattr(metrics.jax, "device_count", lambda: 2)
    with open_log(tmp_path) as log:
        with log.pause():
            pass
        log.train(4, VALUES, {"ko": 0.0})
    (recorded,) = read_metrics(tmp_path)
    assert recorded["train/tokens_per_second"] == 4 * 1000 / 5
    assert recorded["train/mfu"] == pytest.approx(800 * 6_000_000 / (2 * 12_000_000_000))


def test_workdir_without_a_record(tmp_path):
    with pytest.raises(ValueError, match="is it the --workdir of a training run"):
        read_metrics(tmp_path)


def test_plot_shows_both_curves(tmp_path):
    record(tmp_path, range(1, 20))
    path = plot_run(tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().length > 10_000


def test_json_lines_are_whole_at_any_time(tmp_path):
    with open_log(tmp_path) as log:
        log.train(1, VALUES, {"ko": 0.0})
        assert json.loads((tmp_path / "metrics.jsonl").read_text())["step"] == 1
