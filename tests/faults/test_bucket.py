"""A bucket that errors for a while: TensorStore asks again, later and later, until it answers."""

import time
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts
from etils import epath

from polyglot_jax import lock
from polyglot_jax.data import shards
from tests.faults.bucket import Bucket, serve


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
