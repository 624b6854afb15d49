"""Runs and data in a bucket, and one that errors for a while: it is asked again, later and later,
until it answers."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts
from etils import epath

from polyglot_jax import lock
from polyglot_jax.data import shards
from tests.faults.bucket import Bucket, serve
from tests.runs import ROOT, assert_same_run, finish, settings


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as patch, serve() as made:
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", made.url)
        yield made


@pytest.fixture
def empty(bucket: Bucket):
    bucket.objects.clear()
    bucket.failures = bucket.requests = 0
    return bucket


def test_shards_are_read_when_the_bucket_is_back(empty, tmp_path: Path):
    tokens = np.arange(100_000).astype(np.uint16)
    shards.write_shard(tmp_path, "shard-00000", tokens, np.array([tokens.size]), 0)
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        empty.objects[f"ko/{path.relative_to(tmp_path)}"] = 1, path.read_bytes()
    spec = shards._spec(epath.Path("gs://data/ko/shard-00000/tokens"), "uint16", tokens.size)
    empty.failures = 2
    array = ts.open(spec, open=True).result()
    assert empty.failures == 0
    empty.failures = 1
    np.testing.assert_array_equal(array[70_000:70_100].read().result(), tokens[70_000:70_100])
    assert empty.failures == 0


def test_the_lock_of_a_bucket_outlives_its_errors(empty):
    """The conditional writes are the bucket's own here; see test_two_trainers for the rest."""
    workdir = epath.Path("gs://data/run")
    store = ts.KvStore.open(f"{workdir}/").result()
    empty.failures = 1
    with lock._in_store(store, workdir, beat=0.1, silence=2.0) as still_ours:
        empty.failures = 2
        time.sleep(0.3)
        second = lock._in_store(store, workdir, beat=0.1, silence=10.0)
        with pytest.raises(ValueError, match=r"gs://data/run is in use by process"), second:
            pass
        still_ours()
        assert empty.failures == 0
    assert "run/lock" not in empty.objects


# ---- whole runs, as programs: TensorStore and gcsfs see the bucket by the environment


@pytest.fixture
def place(empty, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", empty.url)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "test")
    return empty


def begin(shards: Path, *sets: str, flags: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [sys.executable, "-m", "polyglot_jax.train", "--experiment=ko_tiny"]
    items = [f"--set={item}" for item in settings(shards, *sets)]
    return subprocess.Popen(
        [*command, "--workdir=gs://data/run", *items, *flags],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def wait_for(bucket: Bucket, process: subprocess.Popen, part: str) -> None:
    while process.poll() is None and not any(part in name for name in list(bucket.objects)):
        time.sleep(0.001)


def copied(bucket: Bucket, to: Path) -> Path:
    for name, (_, content) in bucket.objects.items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes(content)
    return to / "run"


def test_a_run_in_a_bucket_that_errors_for_a_while_is_killed_and_goes_on(
    place, whole_run, tiny_shards, tmp_path
):
    process = begin(tiny_shards)
    wait_for(place, process, "checkpoints/3/")
    place.failures = 2
    wait_for(place, process, "checkpoints/9/")
    process.kill()
    assert finish(process)[0] == -signal.SIGKILL
    assert place.failures == 0
    del place.objects["run/lock"]  # it would be waited for, for 90 s
    code, output = finish(begin(tiny_shards))
    assert code == 0, output
    assert "from step" in output
    assert_same_run(copied(place, tmp_path), whole_run, tiny_shards)


@pytest.mark.slow
def test_a_damaged_checkpoint_in_a_bucket_is_set_aside(place, whole_run, tiny_shards, tmp_path):
    assert finish(begin(tiny_shards, flags=("--steps=15",)))[0] == 0
    (data, *_) = (name for name in place.objects if name.startswith("run/checkpoints/15/state/d/"))
    generation, content = place.objects[data]
    place.objects[data] = generation, content[:-5]
    code, output = finish(begin(tiny_shards))
    assert code == 0, output
    assert "checkpoint 15 is damaged" in output
    assert "moved to gs://data/run/damaged/15.0" in output
    assert_same_run(copied(place, tmp_path), whole_run, tiny_shards)
    arguments = ("--to=hf", "--checkpoint=gs://data/run@best", f"--output={tmp_path / 'hf'}")
    command = [sys.executable, "-m", "polyglot_jax.convert", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / "hf" / "model.safetensors").exists()


@pytest.mark.slow
def test_two_trainers_and_a_signal_in_a_bucket(place, tiny_shards):
    first = begin(tiny_shards, "train.steps=2000", "train.eval_every=none")
    wait_for(place, first, "checkpoints/6/")
    code, output = finish(begin(tiny_shards))
    assert code == 1
    assert "gs://data/run is in use by process" in output
    first.terminate()
    code, output = finish(first)
    assert code == 128 + signal.SIGTERM, output
    assert "is saved" in output
    assert "run/lock" not in place.objects
