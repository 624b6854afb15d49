"""The same tasks on a Ray cluster: the bytes of the local runner, also if a node dies meanwhile."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.corpus.corpora import LONG, digests, run, write

pytestmark = [
    pytest.mark.slow,
    # Of Ray itself: sockets and log files that it leaves to the garbage collector.
    pytest.mark.filterwarnings("default"),
]
EVERYTHING: dict[str, Any] = {"near_duplicates": 0.8, "unit_bytes": 20_000}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yields a cluster of two nodes of one CPU each on this machine."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    small = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=small)
    made.add_node(num_cpus=1, object_store_memory=100 << 20)
    made.wait_for_nodes()
    yield made
    made.shutdown()


def test_a_node_dies_and_the_bytes_are_the_local_ones(cluster: Any, tmp_path: Path) -> None:
    for f in range(6):
        lines = [
            {"text": f"{LONG} {f}-{i % 90} " + f"{i * 7919 % 1000} 번 " * 60} for i in range(200)
        ]
        write(tmp_path / f"raw/{f}.jsonl", lines)
    run([str(tmp_path / "raw")], tmp_path / "local", **EVERYTHING)
    (node,) = [n for n in cluster.list_all_nodes() if n is not cluster.head_node]
    killed = threading.Event()

    def kill() -> None:
        while not list((tmp_path / ".ray.work").glob("clean/*.json")):
            time.sleep(0.01)
        cluster.remove_node(node, allow_graceful=False)
        killed.set()

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    run(
        [str(tmp_path / "raw")],
        tmp_path / "ray",
        name="ray",
        ray_address=cluster.address,
        **EVERYTHING,
    )
    thread.join(10)
    assert killed.is_set()
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")


def test_the_error_of_a_task_is_raised_as_it_is(cluster: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"text": None}, {"text": LONG}])
    where = {"name": "ray", "ray_address": cluster.address}
    with pytest.raises(ValueError, match=r"^more than 0 rejects \(--max_rejects\), the last: .*:1"):
        run([str(path)], tmp_path / "out", max_rejects=0, **where)
    assert run([str(path)], tmp_path / "out", **where)["counts"]["written"] == 1
