"""The program: same bytes for any number of processes, clear errors, nothing half-written."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from benchmarks import child, record
from benchmarks import tokenizer as tokenizer_benchmark
from tokenizer import bpe, selection
from tokenizer import train as training
from tokenizer.recipes import RECIPES

pytest.importorskip("MeCab", reason="MeCab is not installed (extra: tokenizer)")

REPOSITORY = Path(__file__).resolve().parents[2]
MULTILINGUAL = REPOSITORY.parent / "shared" / "data" / "multilingual"
KOREAN = [
    "한국어 형태소 분석기를 사용하지 않고 추론합니다.\n학습할 때만 형태소를 사용합니다.",
    "아버지가 방에 들어가셨다.  어머니는 부엌에서 저녁을 준비하셨다.",
    "나는 학교에 갔다.\n그리고 밥을 먹었다.\n친구는 집에 갔다.",
    "정부는 오늘 국무회의를 열고 새로운 정책을 발표했다. 회의에는 장관들이 참석했다.",
]


def write(source: Path, output: Path, vocab_size: int) -> None:
    recipe = dataclasses.replace(RECIPES["ko"], vocab_size=vocab_size)
    training.write([selection.Input("ko", str(source))], output, recipe)


def program(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tokenizer.train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)


def test_same_bytes_for_any_number_of_processes_and_loads_in_transformers(tmp_path: Path) -> None:
    corpus = tmp_path / "documents.jsonl"
    # More batches than one, so that their order can go wrong.
    texts = [f"{KOREAN[i % 4] * 20} {i}번째 문서입니다." for i in range(200)]
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for processes in (1, 2):
        result = program(
            f"--input={corpus}",
            f"--output={tmp_path}/{processes}/tokenizer.json",
            "--vocab_size=400",
            f"--processes={processes}",
        )
        assert result.returncode == 0, result.stderr
    for name in ("tokenizer.json", "tokenizer.meta.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert sorted(f.name for f in (tmp_path / "1").iterdir()) == [
        "tokenizer.json",
        "tokenizer.meta.json",
    ]
    meta = json.loads((tmp_path / "1/tokenizer.meta.json").read_text())
    assert (meta["documents"], meta["vocab_size"], meta["marker"]) == (len(texts), 400, "U+FDD0")
    assert set(meta["packages"]) == {"tokenizers", "mecab-python3"}
    assert meta["dictionaries"]["mecab-ko"]["version"] == "2.1.1.post2"
    assert len(meta["dictionaries"]["mecab-ko"]["sha256"]) == 64
    assert meta["recipe"]["segmenters"] == {"ko": "mecab-ko"}
    assert meta["sources"][0]["rate"] == 1.0

    transformers = pytest.importorskip("transformers")
    path = str(tmp_path / "1/tokenizer.json")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=path)
    ours = Tokenizer.from_file(path)
    for text in [*KOREAN, "A\u0cf1\ufdd0 don't <|endoftext|> 한"]:
        assert fast(text)["input_ids"] == ours.encode(text).ids
        decoded = fast.decode(ours.encode(text).ids, clean_up_tokenization_spaces=False)
        assert decoded == text


def test_errors_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    corpus = tmp_path / "documents.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in KOREAN))
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n')
    (tmp_path / "bad.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    output = tmp_path / "new" / "tokenizer.json"
    for source, target, size, message in [
        (corpus, output, 259, "--vocab_size=259: must be at least 260"),
        (tmp_path / "empty.jsonl", output, 300, "empty.jsonl holds no text"),
        (tmp_path / "bad.jsonl", output, 300, "bad.jsonl:2: invalid UTF-8"),
        (tmp_path / "none.jsonl", output, 300, "no file matches"),
        (corpus, corpus / "tokenizer.json", 300, "documents.jsonl"),
        (corpus, tmp_path, 300, "is a directory"),
    ]:
        with pytest.raises((ValueError, OSError), match=message):
            write(source, target, size)
        assert not output.parent.exists() or not list(output.parent.iterdir())
    result = program(f"--input={tmp_path}/none.jsonl", f"--output={output}")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_a_small_corpus_yields_a_smaller_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "documents.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in KOREAN))
    write(corpus, tmp_path / "tokenizer.json", 30_000)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    reached = tokenizer.get_vocab_size()
    assert f"the text yields only {reached - 3} ids" in capsys.readouterr().out
    assert [tokenizer.token_to_id(t) for t in bpe.PII_SPECIALS] == [*range(reached)][-3:]
    meta = json.loads((tmp_path / "tokenizer.meta.json").read_text())
    assert meta["vocab_size"] == reached - 3


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupt_ends_it_and_leaves_nothing(tmp_path: Path, processes: int) -> None:
    corpus = tmp_path / "documents.jsonl"
    corpus.write_text((json.dumps({"text": KOREAN[0] * 100}) + "\n") * 20_000)
    command = [sys.executable, "-m", "tokenizer.train", f"--processes={processes}"]
    command += [f"--input={corpus}", f"--output={tmp_path}/new/tokenizer.json"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as program:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("new/.*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does
        errors = program.communicate(timeout=30)[1]
    assert program.returncode == 130
    assert errors.endswith("interrupted\n")
    assert "Traceback" not in errors
    assert not list((tmp_path / "new").iterdir())


def test_a_pair_that_failed_half_way_is_no_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tmp_path / "in" / "documents.jsonl"
    corpus.parent.mkdir()
    corpus.write_text(json.dumps({"text": KOREAN[0]}) + "\n")
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == "tokenizer.json":
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write(corpus, tmp_path / "tokenizer.json", 300)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["in", "tokenizer.meta.json"]


def test_options_and_recipes_by_flag(tmp_path: Path) -> None:
    ko, en = tmp_path / "ko.jsonl", tmp_path / "en.jsonl"
    ko.write_text("".join(json.dumps({"text": text}) + "\n" for text in KOREAN))
    en.write_text((json.dumps({"text": "the words of the language"}) + "\n") * 50)
    output = tmp_path / "out" / "tokenizer.json"
    result = program(
        *["--recipe=east_asian", f"--input=ko={ko}", f"--input=en={en}", f"--output={output}"],
        *["--segmenter=ko=mecab-ko", "--segmenter=ja=none", "--source=en=0.5", "--vocab_size=300"],
        *["--whitespace_runs=3", "--nodigits", "--special_token=<|user|>", "--unmarked=0.1"],
        *["--sample_bytes=1000000", "--seed=3", "--alpha=1", "--processes=1"],
    )
    assert result.returncode == 0, result.stderr
    tokenizer = Tokenizer.from_file(str(output))
    assert tokenizer.token_to_id("<|user|>") == tokenizer.get_vocab_size() - 1
    assert tokenizer.token_to_id("   ") == tokenizer.token_to_id("<|rrn|>") + 1
    meta = json.loads(output.with_suffix(".meta.json").read_text())
    assert meta["recipe"]["whitespace_runs"] == 3
    assert meta["recipe"]["digits"] is False
    assert [meta[name] for name in ("seed", "sample_bytes")] == [3, 1_000_000]
    rates = {source["source"]: source["rate"] for source in meta["sources"]}
    assert rates == {"ko": 1.0, "en": 0.5}
    for arguments, message in [
        (["--recipe=east-asian"], "unknown --recipe 'east-asian'; did you mean east_asian?"),
        (["--recipe=romance"], f"--input={ko}: say its language, one of es, pt, fr, ro, it"),
        (["--segmenter=zh=jieba"], "unknown language in --segmenter=zh=jieba: 'zh'; known: ko"),
    ]:
        result = program(f"--input={ko}", f"--output={output}", "--processes=1", *arguments)
        assert result.returncode == 1
        assert result.stderr.startswith(f"error: {message}"), result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.skipif(not MULTILINGUAL.exists(), reason=f"no text at {MULTILINGUAL}")
def test_several_languages_in_one_vocabulary(tmp_path: Path) -> None:
    pytest.importorskip("unidic_lite", reason="unidic-lite is not installed")
    recipe = dataclasses.replace(RECIPES["east_asian"], vocab_size=3000)
    names = ["zh", "ja", "id", "vi", "th", "en"]
    inputs = [selection.Input(name, f"{MULTILINGUAL}/{name}.jsonl.gz") for name in names]
    output = tmp_path / "tokenizer.json"
    training.write(inputs, output, recipe, sample_bytes=700_000)
    meta = json.loads(output.with_suffix(".meta.json").read_text())
    assert 400_000 < meta["bytes"] < 900_000
    assert set(meta["dictionaries"]) == {"mecab-unidic"}  # nothing Korean was read
    tokenizer = Tokenizer.from_file(str(output))
    for text in ["モデルの学習", "模型的训练", "ภาษาไทย", "bahasa", "ngôn ngữ"]:
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids) == text
        assert len(ids) <= len(text.encode()) / 2


PETITIONS = MULTILINGUAL.parent / "petitions_ko" / "petitions.jsonl.gz"


@pytest.mark.slow
@pytest.mark.skipif(not PETITIONS.exists(), reason=f"no text at {PETITIONS}")
def test_memory_grows_little_with_the_corpus(tmp_path: Path) -> None:
    tenth, whole = tokenizer_benchmark.write_corpora([str(PETITIONS)], tmp_path, 12)
    few, many = (
        next(
            child.rows(
                "benchmarks.tokenizer:training",
                {"file": str(file), "vocab_size": 30_000, "processes": 1},
            )
        )
        for file in (tenth, whole)
    )
    assert many["bytes"] > 9 * few["bytes"]
    assert many["peak_mib"] < 1.5 * few["peak_mib"]


@pytest.mark.slow
@pytest.mark.skipif(not PETITIONS.exists(), reason=f"no text at {PETITIONS}")
def test_the_benchmark_runs_whole() -> None:
    before = record.RESULTS.read_bytes()
    command = [sys.executable, "-m", "benchmarks.tokenizer", "--smoke", "--megabytes=1"]
    done = subprocess.run(
        [*command, f"--input={PETITIONS}"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Two processes are" in done.stdout
    assert "Ten times the text takes" in done.stdout
    assert record.RESULTS.read_bytes() == before
