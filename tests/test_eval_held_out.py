"""Held-out evaluation from outside: the trainer's own numbers, for a workdir and for HF."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from eval.held_out import documents, evaluate_model, ngram_bits_per_byte
from polyglot_jax.config import override
from polyglot_jax.metrics import read_metrics
from polyglot_jax.train import train
from tests.data.made import write_tokenizer
from tests.runs import experiment

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, tiny_shards):
    """Two steps of training, with every held-out window evaluated."""
    path = tmp_path_factory.mktemp("run")
    e = override(experiment(tiny_shards), ["train.eval_sequences=10_000"])
    train(e, epath.Path(path), 2)
    return path


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_equals_what_the_trainer_recorded(workdir, tiny_shards):
    recorded = read_metrics(workdir)[-1]
    for batch_size in (4, 7):
        result = evaluate_model(str(workdir), str(tiny_shards), batch_size)
        assert result["tokens"] == recorded["held_out/tokens"]
        assert result["loss"] == pytest.approx(recorded["held_out/loss"], rel=1e-5)
        bits = result["loss"] * result["tokens"] / np.log(2) / result["bytes"]
        assert result["bits_per_byte"] == pytest.approx(bits)


def test_documents_are_the_texts_that_were_encoded(tiny_shards):
    texts = [t for split in ("train", "held_out") for t in documents(tiny_shards / split)]
    made = [f"{i}번째 문서입니다. " + "나는 학교에 갔다. " * (i % 7) for i in range(150)]
    assert sorted(texts) == sorted(made)


def test_baseline_knows_the_repeated_sentences(tiny_shards):
    assert 0 < ngram_bits_per_byte(str(tiny_shards)) < 1


def test_program_says_before_and_after_and_hf_agrees(workdir, tiny_shards, tmp_path):
    hf = tmp_path / "hf"
    converted = run("polyglot_jax.convert", "--to=hf", f"--checkpoint={workdir}", f"--output={hf}")
    assert converted.returncode == 0, converted.stderr
    result = run("eval.held_out", f"--model={workdir}", f"--data={tiny_shards}", "--baseline")
    assert result.returncode == 0, result.stderr
    before, after, baseline = result.stdout.splitlines()
    assert before.startswith(f"{workdir} at step 0: held-out loss 6.")
    assert "bits per byte (" in after
    assert baseline.startswith("byte 3-gram of the same training text")
    # the same weights, the same precision, another directory
    again = run("eval.held_out", f"--model={hf}", f"--data={tiny_shards}")
    assert again.stdout.split(":", 1)[1] == after.split(":", 1)[1] + "\n"


def test_another_tokenizer_is_one_line(workdir, tiny_shards, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    write_tokenizer(shards / "tokenizer.json", ["<|endoftext|>"])
    result = run("eval.held_out", f"--model={workdir}", f"--data={shards}")
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {shards} was encoded with another tokenizer.json")
    assert result.stderr.count("\n") == 1
