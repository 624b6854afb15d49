"""Two trainers on one workdir: the second is refused, a dead first one is not in the way."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tensorstore as ts
from etils import epath

from polyglot_jax import lock
from polyglot_jax.train import train
from tests.runs import ROOT, experiment, finish, settings, start, when_step

HOLD = (
    "import sys, time; from etils import epath; from polyglot_jax import lock\n"
    "with lock.only_trainer(epath.Path(sys.argv[1])):\n"
    "    print('held', flush=True); time.sleep(600)"
)


def test_the_second_is_refused_until_the_first_is_dead(tiny_shards, tmp_path):
    workdir = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(workdir)]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        owner = rf"process {first.pid} on \S+ since 20.* UTC"
        with pytest.raises(ValueError, match=rf"run is in use by {owner}; stop that one, or use"):
            train(experiment(tiny_shards), epath.Path(workdir), 1)
        assert [path.name for path in workdir.iterdir()] == ["lock"]
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    with lock.only_trainer(epath.Path(workdir)):
        pass  # the kernel freed it
    assert (workdir / "lock").read_text() == ""


def is_moved(workdir: Path) -> None:
    workdir.rename(workdir.with_name("elsewhere"))


def is_made_anew(workdir: Path) -> None:
    is_moved(workdir)
    workdir.mkdir()
    (workdir / "lock").touch()


@pytest.mark.parametrize("change", [is_moved, is_made_anew, lambda w: (w / "lock").unlink()])
def test_a_workdir_that_is_no_longer_ours_is_seen(tmp_path, change):
    """Without it two trainers would write there, or one where nobody looks."""
    workdir = tmp_path / "run"
    with lock.only_trainer(epath.Path(workdir)) as still_ours:
        still_ours()
        change(workdir)
        with pytest.raises(OSError, match=r"run/lock is no longer the file that this run holds"):
            still_ours()


@pytest.mark.parametrize("what", [".", "lock", "metrics.jsonl"])
def test_what_is_moved_in_mid_run_ends_it(what, tiny_shards, tmp_path):
    """Before anything is saved in a place that was made anew."""
    workdir = tmp_path / "run"
    process = start(workdir, settings(tiny_shards, "train.steps=2000", "train.eval_every=none"))
    while process.poll() is None and not when_step(4)(workdir, process):
        time.sleep(0.001)
    (workdir / what).resolve().rename(tmp_path / "elsewhere")
    code, output = finish(process)
    assert code == 1, output
    line = output.splitlines()[-1]
    assert line.startswith("error: ")
    assert "was moved" in line or "cannot write a checkpoint" in line
    assert "Traceback" not in output


def test_without_locks_the_later_trainer_keeps_the_workdir(tmp_path, monkeypatch):
    def no_locks(*unused: object) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    monkeypatch.setattr(lock, "_myself", iter(["process 1 on a", "process 2 on b"]).__next__)
    with lock.only_trainer(epath.Path(tmp_path)) as first:
        second = lock.only_trainer(epath.Path(tmp_path))
        still_ours = second.__enter__()
        with pytest.raises(OSError, match="was taken over by process 2 on b; nothing more"):
            first()
    still_ours()
    second.__exit__(None, None, None)


# ---- in a bucket: TensorStore's store in memory has the same conditional writes


@pytest.fixture
def store() -> ts.KvStore:
    return ts.KvStore.open({"driver": "memory", "path": "bucket/"}, context=ts.Context()).result()


def hold(store: ts.KvStore, silence: float = 0.5):
    return lock._in_store(store, epath.Path("gs://bucket/run"), beat=0.05, silence=silence)


def test_in_a_bucket_the_second_is_refused(store):
    with hold(store) as still_ours:
        with pytest.raises(ValueError, match=r"run is in use by process \d+ on"), hold(store):
            pass
        still_ours()
    assert store.read(lock.FILE).result().state == "missing"
    with hold(store):
        pass


def test_in_a_bucket_a_silent_owner_is_followed(store, capsys):
    store.write(lock.FILE, "process 1 on gone since then").result()
    begin = time.monotonic()
    with hold(store) as still_ours:
        assert time.monotonic() - begin >= 0.5
        still_ours()
    assert "last used by process 1 on gone since then; waiting" in capsys.readouterr().out


def test_in_a_bucket_an_owner_that_was_cut_off_saves_nothing_more(store):
    with hold(store) as still_ours:
        store.write(lock.FILE, "process 2 on other since now").result()
        with pytest.raises(OSError, match="was taken over by process 2 on other since now"):
            still_ours()
    assert store.read(lock.FILE).result().value == b"process 2 on other since now"


def test_a_bucket_that_fails_at_the_end_fails_no_run(store):
    class Failing:
        read = store.read

        def write(self, key, value, **kwargs):
            if value is None:
                raise ValueError("UNAVAILABLE")
            return store.write(key, value, **kwargs)

    with hold(Failing()):
        pass
    assert store.read(lock.FILE).result().state == "value"


def test_in_a_bucket_one_of_two_at_once_gets_it(store):
    """Both find nothing; the conditional write of the slower one fails."""
    barrier, outcomes = threading.Barrier(4), []

    def take(i: int) -> None:
        barrier.wait()
        try:
            with hold(store):
                outcomes.append("held")
                time.sleep(1.0)
        except ValueError:
            outcomes.append("refused")

    threads = [threading.Thread(target=take, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", "refused", "refused", "refused"]


def test_a_disk_without_locks_is_said(tmp_path: Path, monkeypatch, capsys):
    def none(file, operation) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", none)
    with lock.only_trainer(epath.Path(tmp_path)):
        pass
    assert "cannot be locked" in capsys.readouterr().err
