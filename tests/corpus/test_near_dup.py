"""Near duplicates: what is joined, what is not, and that a crowd of equals costs no square."""

import time
from pathlib import Path

import numpy as np
import pytest

from polyglot_jax.corpus import near_dup
from polyglot_jax.corpus.near_dup import bands_for, shingles, signature
from tests.corpus.corpora import LONG, rows, run, write


def test_bands_find_nearly_all_pairs_at_the_threshold() -> None:
    assert bands_for(0.8) == (18, 7)
    for threshold in (0.3, 0.5, 0.7, 0.8, 0.9, 1.0):
        bands, size = bands_for(threshold)
        assert bands * size == near_dup.HASHES
        assert 1 - (1 - threshold**size) ** bands >= 0.95


def test_signatures_are_the_same_wherever_they_are_made() -> None:
    # Values that were recorded once: they must outlive versions and platforms.
    assert shingles("동해 물과", "characters").tolist() == [2065452840]
    assert signature(shingles(LONG, "characters"))[:3].tolist() == [74592983, 219689436, 33204819]
    assert np.array_equal(shingles("가 나 다", "characters"), shingles("가나다", "characters"))
    assert not np.array_equal(shingles("가 나 다", "words"), shingles("가나다", "words"))


def test_the_estimate_is_near_the_similarity() -> None:
    rng = np.random.default_rng(0)
    for similarity in (0.2, 0.5, 0.8, 0.95):
        shared = int(2000 * similarity)
        values = rng.choice(2**32, 4000 - shared, replace=False).astype(np.uint64)
        first, second = values[:2000], values[2000 - shared :]
        true = shared / (4000 - shared)
        estimate = np.mean(signature(first) == signature(second))
        assert abs(estimate - true) < 4 * np.sqrt(true * (1 - true) / near_dup.HASHES)


@pytest.mark.parametrize("unit", ["characters", "words"])
def test_one_of_each_cluster_stays_and_it_is_the_first(tmp_path: Path, unit: str) -> None:
    bodies = [
        "".join(chr(0xAC00 + (i * 31 + j * 577) % 9000) for j in range(300)) for i in range(5)
    ]
    bodies = [" ".join(b[i : i + 3] for i in range(0, 300, 3)) for b in bodies]
    lines = [{"text": f"{body} {suffix}"} for suffix in ("하나", "둘둘", "셋셋") for body in bodies]
    path = write(tmp_path / "a.jsonl", [*lines, lines[0], lines[0]])
    report = run([str(path)], tmp_path / "out", near_duplicates=0.8, shingles=unit, unit_bytes=2000)
    # Of identical texts one stays: the original's rule dropped all of them.
    assert [row["text"] for row in rows(tmp_path / "out")] == [f"{body} 하나" for body in bodies]
    assert report["counts"]["duplicate"] == 2
    found = report["near_duplicates"]
    assert (found["documents"], found["clusters"], found["sizes"]) == (10, 5, {"3": 5})
    assert [len(cluster) for cluster in found["examples"]] == [3] * 5
    assert {cluster[0]["id"] for cluster in found["examples"]} == {
        f"a.jsonl:{i}" for i in range(1, 6)
    }
    examples = report["stats"]["sources"]["a"]["drop_examples"]["near_duplicate"]
    assert {e["after"] for e in examples} == {f"a.jsonl:{i}" for i in range(1, 6)}


def test_short_and_unlike_texts_stay(tmp_path: Path) -> None:
    lines = [{"text": text} for text in ("가", "나", "가나", "다라", "마바사아자", "아자차카")]
    path = write(tmp_path / "a.jsonl", lines)
    run([str(path)], tmp_path / "out", min_chars=1, near_duplicates=0.5)
    assert len(rows(tmp_path / "out")) == 6


def test_a_band_of_many_is_compared_in_linear_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polyglot_jax.corpus import records
    from polyglot_jax.corpus.plan import Job
    from polyglot_jax.corpus.rules import Options

    count = 100_000
    job = Job(work=str(tmp_path), options=Options(), near_duplicates=0.8)
    for folder in ("signatures", "bands", "pairs", "near"):
        (tmp_path / folder).mkdir()
    values = np.zeros((count, near_dup.HASHES), "<u2")
    values[count // 2 :] = 1  # a second crowd in the same band, unlike the first
    signatures = np.empty(count, near_dup.SIGNATURE)
    signatures["values"] = values
    records.write(job.path("signatures", "u"), signatures, np.arange(count), count)
    bands = np.empty(count, near_dup.BAND)
    bands["hash"], bands["doc"] = 7, np.arange(count)
    records.write_by_hash(job.path("bands", "u"), bands)
    monkeypatch.setattr(near_dup, "_MEMBERS", 1000)  # the band is larger and stays whole
    start = time.monotonic()
    near_dup.pairs_of_bucket(job, ["u"], 0, 1)
    near_dup.cluster(job, ["u"], 1)
    assert time.monotonic() - start < 10
    drops = records.read(job.path("near", "0000"), near_dup.dedup.DROP, 0, 1)
    assert len(drops) == count - 2
    assert set(drops["first_doc"]) == {0, count // 2}
