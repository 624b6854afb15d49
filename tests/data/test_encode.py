"""The encoder: what it writes, that nothing but its inputs decides it, and what it refuses."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tokenizers import Tokenizer

from polyglot_jax.corpus import readers
from polyglot_jax.data import spill
from polyglot_jax.data.manifest import Manifest, read_manifest, write_manifest
from polyglot_jax.data.shards import open_split, read_token_bytes, verify
from tests.data.made import SPECIAL, TEXTS, run, write_parquet, write_tokenizer

REPO = Path(__file__).resolve().parents[2]
DATA = REPO.parent / "shared" / "data"


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def decoded(output: Path, split: str) -> list[str]:
    """Returns the texts of a split, in its order."""
    store = open_split(output / split)
    (stream,) = store.read([0], [store.num_tokens])
    tokenizer = Tokenizer.from_file(str(output / "tokenizer.json"))
    ends = store.document_ends().astype(np.int64)
    docs = np.split(stream, ends)[:-1]
    assert all(doc[-1] == store.manifest.separator_id for doc in docs)
    return [tokenizer.decode(doc[:-1].tolist(), skip_special_tokens=False) for doc in docs]


def test_every_document_once_shuffled_and_split_by_text(
    corpus: Path, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "shards"
    run(corpus, tokenizer, output, processes=2)
    assert "1 empty documents passed over" in capsys.readouterr().out
    verify(output)
    assert (output / "tokenizer.json").read_bytes() == tokenizer.read_bytes()
    assert not (output / "_work").exists()
    train, held_out = decoded(output, "train"), decoded(output, "held_out")
    assert sorted(train + held_out) == sorted([*TEXTS, TEXTS[0]])
    assert train != sorted(train, key=TEXTS.index)
    assert not set(train) & set(held_out)
    assert 5 < len(held_out) < 45
    manifests = [read_manifest(output / split) for split in ("train", "held_out")]
    assert len(manifests[0].shards) > 5
    assert sum(m.documents for m in manifests) == len(TEXTS) + 1
    assert sum(m.bytes for m in manifests) == sum(len(t.encode()) for t in [*TEXTS, TEXTS[0]])
    assert manifests[0].vocab_size == 258 + len(SPECIAL)
    before = tree(output)
    run(corpus, tokenizer, output)
    assert capsys.readouterr().out == f"{output} is complete: nothing to do\n"
    assert tree(output) == before


def test_the_bytes_depend_on_the_seed_not_on_the_processes(
    corpus: Path, tokenizer: Path, tmp_path: Path
) -> None:
    run(corpus, tokenizer, tmp_path / "one", processes=1)
    run(corpus, tokenizer, tmp_path / "three", processes=3)
    assert tree(tmp_path / "one") == tree(tmp_path / "three")
    run(corpus, tokenizer, tmp_path / "seed", seed=1)
    for split in ("train", "held_out"):
        one, seed = decoded(tmp_path / "one", split), decoded(tmp_path / "seed", split)
        assert one != seed
        assert sorted(one) == sorted(seed)


def test_a_single_file_gives_the_same_order(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    rows = [json.dumps({"text": t, "id": i}) for i, t in enumerate([*TEXTS, TEXTS[0]])]
    lines = ("\ufeff" + "\n".join(rows) + "\n\n").encode()
    (tmp_path / "docs.jsonl.gz").write_bytes(gzip.compress(lines))
    run(corpus, tokenizer, tmp_path / "parquet")
    run(tmp_path / "docs.jsonl.gz", tokenizer, tmp_path / "gz", processes=2)
    one, two = tree(tmp_path / "parquet"), tree(tmp_path / "gz")
    assert one.pop("encode.json") != two.pop("encode.json")
    assert one == two


def test_small_runs_merge_to_the_same_bytes(
    corpus: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spill_and_merge(output: Path) -> dict[str, bytes]:
        job = spill.Job(
            files=tuple(str(file) for file in readers.find_files(str(corpus))),
            tokenizer=str(tokenizer),
            output=str(output),
            seed=3,
            held_out_fraction=0.1,
            dtype="uint16",
        )
        (output / "_work").mkdir(parents=True)
        for i in range(len(job.files)):
            spill.spill_file(job, i)
        for i in range(3):
            spill.merge_shard(job, "train", i, 3)
        return tree(output / "train")

    whole = spill_and_merge(tmp_path / "whole")
    monkeypatch.setattr(spill, "_RUN_TOKENS", 500)
    monkeypatch.setattr(spill, "_BATCH_BYTES", 300)
    assert spill_and_merge(tmp_path / "runs") == whole
    assert len(list((tmp_path / "runs" / "_work").glob("00000-*-train.docs"))) > 5
    monkeypatch.setattr(spill, "_RUN_TOKENS", 2**25)
    monkeypatch.setattr(spill, "_RUN_DOCUMENTS", 10)
    assert spill_and_merge(tmp_path / "short") == whole
    assert len(list((tmp_path / "short" / "_work").glob("00000-*-train.docs"))) > 5


def overwrite_in_place(file: Path, values: bytes) -> None:
    """Changes a file's bytes, and nothing that the encoder knows a file by."""
    stat = file.stat()
    file.write_bytes(values)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("moment", ["file-0000?.json", "train-0000?.json"])
def test_killed_and_run_again_ends_in_the_same_bytes(
    corpus: Path, tokenizer: Path, tmp_path: Path, moment: str
) -> None:
    output = tmp_path / "killed" / "tiny"
    command = [
        *(sys.executable, "-m", "polyglot_jax.data.encode"),
        *(f"--input={corpus}", f"--tokenizer={tokenizer}", f"--output={output}"),
        *("--held_out_fraction=0.1", "--shard_tokens=1500", "--processes=2"),
    ]
    process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.DEVNULL)
    while not list(output.glob(f"_work/{moment}")):
        assert process.poll() is None
        time.sleep(0.001)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    files = sorted(corpus.glob("*.parquet"))
    whole = {}
    for ok in output.glob("_work/file-*.json"):
        file = files[int(ok.stem.removeprefix("file-"))]
        whole[file] = file.read_bytes()
        overwrite_in_place(file, b"x" * len(whole[file]))  # reading it again would fail
    assert whole
    subprocess.run(command, cwd=REPO, check=True, stdout=subprocess.DEVNULL)
    for file, values in whole.items():
        overwrite_in_place(file, values)
    run(corpus, tokenizer, tmp_path / "whole")
    assert tree(output) == tree(tmp_path / "whole")


def test_a_finished_task_is_not_done_again(tokenizer: Path, tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", TEXTS)
    job = spill.Job(
        files=(str(tmp_path / "a.parquet"),),
        tokenizer=str(tokenizer),
        output=str(tmp_path / "out"),
        seed=3,
        held_out_fraction=0.1,
        dtype="uint16",
    )
    job.path("").mkdir(parents=True)
    spill.spill_file(job, 0)
    spill.merge_shard(job, "train", 0, 1)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    spill.spill_file(job, 0)
    spill.merge_shard(job, "train", 0, 1)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before


def test_other_settings_or_inputs_are_refused(
    corpus: Path, tokenizer: Path, tmp_path: Path
) -> None:
    output = tmp_path / "shards"
    run(corpus, tokenizer, output)
    before = tree(output)
    with pytest.raises(ValueError, match=r"seed, shard_tokens changed.*another --output"):
        run(corpus, tokenizer, output, seed=5, shard_tokens=9)
    write_tokenizer(tmp_path / "other.json", [*SPECIAL, "<x>"])
    with pytest.raises(ValueError, match="tokenizer_sha256 changed"):
        run(corpus, tmp_path / "other.json", output)
    write_parquet(corpus / "d.parquet", ["more"])
    with pytest.raises(ValueError, match="files, inputs changed"):
        run(corpus, tokenizer, output)
    (output / "encode.json").write_text('{"se')
    with pytest.raises(ValueError, match="other settings"):
        run(corpus, tokenizer, output)
    (output / "encode.json").unlink()
    with pytest.raises(ValueError, match=r"no encode\.json"):
        run(corpus, tokenizer, output)
    before.pop("encode.json")
    assert tree(output) == before


def test_a_kill_between_the_manifests_leaves_nothing_to_train_on(
    corpus: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "shards"

    def write_one(split_dir: Path, manifest: Manifest) -> None:
        write_manifest(split_dir, manifest)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("polyglot_jax.data.encode.write_manifest", write_one)
        with pytest.raises(KeyboardInterrupt):
            run(corpus, tokenizer, output)
    open_split(output / "held_out")
    with pytest.raises(ValueError, match=r"train/manifest\.json is missing"):
        open_split(output / "train")
    run(corpus, tokenizer, output)
    verify(output)


@pytest.mark.parametrize("lost", ["train/shard-00001/tokens", "token_bytes"])
def test_damage_of_a_complete_output_is_said(
    corpus: Path, tokenizer: Path, tmp_path: Path, lost: str
) -> None:
    run(corpus, tokenizer, tmp_path / "shards")
    (tmp_path / "shards" / lost / "c" / "0").unlink()
    with pytest.raises(ValueError, match=f"{lost}/c/0 is missing; delete the directory"):
        run(corpus, tokenizer, tmp_path / "shards")


def test_a_foreign_work_folder_is_left_alone(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "shards" / "_work").mkdir(parents=True)
    (tmp_path / "shards" / "_work" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds _work but no encode\.json"):
        run(corpus, tokenizer, tmp_path / "shards")
    assert tree(tmp_path / "shards") == {"_work/thesis.txt": b"mine"}


def test_a_mended_file_is_read_again_and_no_other(tokenizer: Path, tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    rows = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    for name, part in zip("abc", (rows[:90], rows[90:150], rows[150:]), strict=True):
        (folder / f"{name}.jsonl").write_text("".join(part))
    good = (folder / "c.jsonl").read_bytes()
    (folder / "c.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"c\.jsonl, line 1"):
        run(folder, tokenizer, tmp_path / "mended")
    assert (tmp_path / "mended" / "_work" / "file-00000.json").exists()
    (folder / "c.jsonl").write_bytes(good)
    (folder / "b.jsonl").write_text("".join(rows[90:140]))  # done, and shorter now
    a = (folder / "a.jsonl").read_bytes()
    overwrite_in_place(folder / "a.jsonl", b"x" * len(a))
    run(folder, tokenizer, tmp_path / "mended")
    overwrite_in_place(folder / "a.jsonl", a)
    run(folder, tokenizer, tmp_path / "whole")
    assert tree(tmp_path / "mended") == tree(tmp_path / "whole")
    os.utime(folder / "b.jsonl", (1, 1))
    with pytest.raises(ValueError, match=r"\(inputs changed\)"):
        run(folder, tokenizer, tmp_path / "whole")


def test_documents_that_lose_text_are_counted(
    tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = json.loads(tokenizer.read_bytes())
    split = {"type": "Split", "pattern": {"String": "\u0cf1"}, "behavior": "Removed"}
    values["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [split | {"invert": False}, values["pre_tokenizer"]],
    }
    tokenizer.write_text(json.dumps(values))
    write_parquet(tmp_path / "a.parquet", [*TEXTS, "가\u0cf1나", "\u0cf1"])
    run(tmp_path / "a.parquet", tokenizer, tmp_path / "out")
    assert "2 documents lost some of their text to the tokenizer" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "encode.json").read_text())
    assert (record["lossy"], record["empty"]) == (2, 1)


def test_empty_split_names_a_fraction_that_works(tokenizer: Path, tmp_path: Path) -> None:
    output = tmp_path / "shards"
    file = tmp_path / "docs.jsonl"
    file.write_text('{"text": "하나"}\n{"text": "둘"}\n{"text": "셋"}\n')
    for fraction, split in ((1e-9, "held_out"), (1 - 1e-9, "train")):
        with pytest.raises(ValueError, match=f"no document in {split}; use --held_out") as error:
            run(file, tokenizer, output, held_out_fraction=fraction)
    run(file, tokenizer, output, held_out_fraction=float(str(error.value).rsplit("=", 1)[1]))
    verify(output)
    file.write_text('{"text": "하나"}\n{"text": "하나"}\n{"text": ""}\n')
    with pytest.raises(ValueError, match="two different documents are needed"):
        run(file, tokenizer, tmp_path / "two")


def test_program_errors_are_one_line(tokenizer: Path, tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", TEXTS)
    output = f"--output={tmp_path}/out"
    for flags, message in (
        ([f"--input={tmp_path}/no", f"--tokenizer={tokenizer}", output], "no: no file matches"),
        ([f"--input={tmp_path}/a.parquet", f"--tokenizer={tmp_path}/none", output], "/none"),
        ([f"--input={tmp_path}"], "--tokenizer"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "polyglot_jax.data.encode", *flags],
            cwd=REPO,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONWARNINGS": "error"},
        )
        assert done.returncode != 0
        assert done.stderr.count("\n") == 1
        assert message in done.stderr
        assert not (tmp_path / "out").exists()


def test_published_tokenizer_on_real_documents(tmp_path: Path) -> None:
    tokenizer = DATA / "polyglot_tokenizer" / "tokenizer.json"
    if not tokenizer.exists():
        pytest.skip(f"needs the published tokenizer at {tokenizer}")
    with gzip.open(DATA / "petitions_ko" / "petitions.jsonl.gz", "rt") as file:
        lines = [next(file) for _ in range(60)]
    (tmp_path / "docs.jsonl").write_text("".join(lines))
    run(tmp_path / "docs.jsonl", tokenizer, tmp_path / "out")
    texts = [json.loads(line)["text"] for line in lines]
    assert sorted(decoded(tmp_path / "out", "train") + decoded(tmp_path / "out", "held_out")) == (
        sorted(texts)
    )
    sizes = read_token_bytes(tmp_path / "out", 30_003)
    store = open_split(tmp_path / "out" / "train")
    (stream,) = store.read([0], [store.num_tokens])
    assert store.manifest.separator_id == 2
    assert sizes[stream].sum() == store.manifest.bytes
