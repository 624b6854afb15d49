"""Health in whole runs: the trainer says it, records it, and acts."""

import json
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from polyglot_jax import checkpoint, selection
from polyglot_jax.data.encode import encode
from polyglot_jax.data.mixture import Mixture
from polyglot_jax.health.monitor import Monitor
from polyglot_jax.health.rewind import Rewind
from polyglot_jax.signals import Stop
from polyglot_jax.train import train
from tests.data.made import write_parquet, write_tokenizer
from tests.runs import ROOT, experiment, finish, records, start

SETS = (
    *("model.num_layers=2", "model.d_model=64", "model.num_heads=2", "model.d_ff=256"),
    *("model.vocab_size=384", "model.max_seq_len=64", "data.seq_len=32"),
    *("train.batch_size=8", "train.log_every=1", "train.eval_every=20", "train.eval_sequences=32"),
    *("train.checkpoint_every=20", "optimizer.learning_rate=4e-3"),
)
WORDS = ("나라", "사람", "학교", "하늘", "바다", "마음", "시간", "아침", "저녁", "친구", "노래")


def shards(root: Path, documents: int) -> Path:
    """Writes sentences of random words: what can be learnt is the words, the rest by heart only."""
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=40)) for _ in range(documents)]
    write_parquet(root / "documents.parquet", texts)
    tokenizer = write_tokenizer(root / "tokenizer.json")
    encode(
        str(root / "documents.parquet"),
        str(tokenizer),
        str(root / "shards"),
        source="small",
        held_out_fraction=0.3,
    )
    return root / "shards"


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory):
    return shards(tmp_path_factory.mktemp("small"), 16)


def settings(shards: Path, steps: int, *more: str) -> list[str]:
    return [*SETS, f"data.plan.0.sources.0.path={shards}", f"train.steps={steps}", *more]


@pytest.mark.slow
def test_a_corpus_learnt_by_heart(small_corpus, tmp_path):
    """The story of the report: past the epoch the loss plunges, and someone has to go back."""
    workdir = tmp_path / "run"
    sets = settings(small_corpus, 240, "health.on_plunge=stop", "health.probe_every=40")
    sets.append('health.probe_prompts=["","나"]')
    code, output = finish(start(workdir, sets))
    assert code == 1, output
    (alarm,) = (line for line in output.splitlines() if "ALARM" in line)
    (record,) = (r for r in records(workdir) if "health/plunge_growth" in r)
    held_out = {r["step"]: r["held_out/loss"] for r in records(workdir) if "held_out/loss" in r}
    losses = {r["step"]: r["train/loss"] for r in records(workdir) if "train/loss" in r}
    tagged = checkpoint.find_step(workdir, "before_plunge")
    assert f"the last checkpoint before it, {tagged}, is tagged @before_plunge" in alarm
    assert tagged == record["health/plunge_since"]
    assert 0 < record["step"] - tagged <= 40
    # The checkpoint is as good on other text as any; where of two held-out documents the loss is
    # lowest differs from one processor to another. At the alarm the data is known by heart.
    assert held_out[tagged] < 1.1 * min(held_out.values())
    end = record["step"]
    loss = np.mean([losses[step] for step in range(end - 9, end + 1)])
    assert loss < 0.85 * held_out[end]
    epochs = {r["step"]: r["train/epoch/small"] for r in records(workdir) if "train/loss" in r}
    assert epochs[record["step"]] > 1
    error = output.splitlines()[-1]
    assert error.startswith(f"error: stopped after step {record['step']} by health.on_plunge")
    assert any(
        r["step"] == 40 and 0 <= r.get("probe/repetition", -1) <= 1 for r in records(workdir)
    )

    code, output = finish(start(workdir, sets))
    assert code == 1
    assert output.splitlines()[-1].startswith("error: this run has plunged and was stopped")
    assert selection.read_tags(workdir) == {"before_plunge": tagged}


SPIKING = """
import runpy
import sys

import numpy as np

from polyglot_jax.config import load_experiment
from polyglot_jax.data.mixture import Mixture, open_plan

sets = {sets!r}
e = load_experiment("ko_tiny", sets)
bad = open_plan(e.data, e.train.batch_size).examples_at(90)
read = Mixture.read

def spoilt(self, examples):
    batch = read(self, examples)
    if any((row == bad).all(axis=1).any() for row in examples):  # at whatever step it is read
        batch["targets"] = np.random.default_rng(0).integers(
            300, 384, batch["targets"].shape, dtype=np.int32
        )
    return batch

Mixture.read = spoilt
given = ["--experiment=ko_tiny", "--workdir={workdir}", *("--set=" + s for s in sets)]
sys.argv[1:] = [*given, *{flags!r}]
runpy.run_module("polyglot_jax.train", run_name="__main__")
"""


def start_with_a_spike(workdir: Path, sets: list[str], *flags: str) -> subprocess.Popen:
    """Starts the program on data of which one batch, the 91st, is noise."""
    return subprocess.Popen(
        [sys.executable, "-c", SPIKING.format(sets=sets, workdir=workdir, flags=flags)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["skip", "rewind"])
def test_a_batch_that_spikes(policy, small_corpus, tmp_path):
    sets = settings(small_corpus, 110, f"health.on_spike={policy}", "train.eval_every=none")
    code, output = finish(start_with_a_spike(tmp_path / "run", sets))
    assert code == 0, output
    assert "skipped 1 update, the last 91: loss and gradient norm more than 6" in output
    steps = [r["step"] for r in records(tmp_path / "run") if "train/loss" in r]
    assert steps == list(range(1, 111))
    spikes = [r for r in records(tmp_path / "run") if "health/last_spike" in r]
    metadata = checkpoint.read_metadata(tmp_path / "run", 110)
    skipped = metadata["data"]["plan"][0]["skipped"]
    if policy == "skip":
        assert [(r["step"], r["health/last_spike"]) for r in spikes] == [(91, 91)]
        assert skipped == []
        return
    assert spikes == []  # it never was
    assert skipped == [[80, 91]]
    assert json.loads((tmp_path / "run" / "rewinds.json").read_text()) == [
        {"step": 80, "spike": 91, "phases": 1}
    ]
    assert "step      80  again, without the data up to step 91" in output
    (record,) = (r for r in records(tmp_path / "run") if "health/rewound_from" in r)
    assert record == {"step": 81, "health/rewound_from": 91}
    code, output = finish(start(tmp_path / "run", [*sets, "train.steps=115"]))
    assert code == 0, output  # the plan that was skipped is still the same plan


def signalled_at(step: int, monkeypatch) -> None:
    """As with several processes: the service says it with that step alone."""
    monkeypatch.setattr(
        Stop, "requested", lambda self, now: signal.SIGTERM if now == step else None
    )


@pytest.mark.slow
def test_a_signal_in_the_step_of_a_rewind_ends_the_run(tiny_shards, tmp_path, monkeypatch):
    def update(self, step, values):
        if step == 5:
            self.rewind = Rewind(step=3, spike=5, phases=1)

    monkeypatch.setattr(Monitor, "update", update)
    signalled_at(5, monkeypatch)
    ended = train(experiment(tiny_shards), epath.Path(tmp_path), 8)
    assert ended is signal.SIGTERM
    assert json.loads((tmp_path / "rewinds.json").read_text()) == [
        {"step": 3, "spike": 5, "phases": 1}
    ]


def spoil(step: int, monkeypatch) -> None:
    """Makes the loss of one step not finite, by its data."""
    batches = Mixture.batches

    def spoilt(self, start, end, rows):
        for number, batch in enumerate(batches(self, start, end, rows), start + 1):
            factor = np.float32(np.nan if number == step else 1)
            yield batch | {"weights": batch["weights"] * factor}

    monkeypatch.setattr(Mixture, "batches", spoilt)


def test_a_bad_batch_in_the_last_step_costs_nothing_else(tiny_shards, tmp_path, monkeypatch):
    """The step that it belongs to is skipped; what was learnt before it is saved."""
    spoil(4, monkeypatch)
    train(experiment(tiny_shards, "train.checkpoint_every=9"), epath.Path(tmp_path), 4)
    assert checkpoint.latest_step(tmp_path) == 4
    assert {"step": 4, "health/nonfinite": 1} in records(tmp_path)


def test_a_model_that_its_own_update_broke_is_not_saved(tiny_shards, tmp_path, capsys):
    """No loss of training has told of it yet; restarts would never get past such a checkpoint."""
    sets = ("optimizer.learning_rate=1e30", "optimizer.warmup_fraction=0")
    every = ("train.checkpoint_every=1", "train.eval_every=none")
    with pytest.raises(FloatingPointError, match=r"step 2: the held-out loss is not finite"):
        train(experiment(tiny_shards, *sets, *every), epath.Path(tmp_path), 2)
    assert checkpoint.latest_step(tmp_path) is None
    assert "step       1  held-out loss is nan: not saved" in capsys.readouterr().out


def test_a_failing_run_finishes_the_checkpoint_under_way(tiny_shards, tmp_path, monkeypatch):
    """With several processes the exit would cut it off, and it may take minutes to write."""
    monkeypatch.setattr(checkpoint.integrity, "seal", slowly(checkpoint.integrity.seal))

    def update(self, step, values):
        if step == 4:
            raise FloatingPointError("no sense in going on")

    monkeypatch.setattr(Monitor, "update", update)
    with pytest.raises(FloatingPointError, match="no sense"):
        train(experiment(tiny_shards), epath.Path(tmp_path), 8)
    assert checkpoint.latest_step(tmp_path) == 3


def slowly(work):
    def slow(*args):
        time.sleep(1)
        return work(*args)

    return slow


def flags_of_two() -> list[tuple[str, ...]]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        coordinator = f"--coordinator=127.0.0.1:{s.getsockname()[1]}"
    return [(coordinator, "--num_processes=2", f"--process_id={i}") for i in range(2)]


@pytest.mark.slow
def test_two_processes_rewind_together(small_corpus, tmp_path):
    more = ("health.on_spike=rewind", "train.eval_every=none", "mesh.data=1", "mesh.fsdp=2")
    sets = settings(small_corpus, 96, *more, "model.num_layers=1", "train.eval_sequences=8")
    flags = flags_of_two()
    processes = [start_with_a_spike(tmp_path / "run", sets, *its) for its in flags]
    for code, output in [finish(process) for process in processes]:
        assert code == 0, output
    assert checkpoint.read_metadata(tmp_path / "run", 96)["data"]["plan"][0]["skipped"] == [
        [80, 91]
    ]


@pytest.mark.slow
def test_two_processes_probe_and_compare(small_corpus, tmp_path):
    """Texts are drawn from parameters that no process has whole, and told by one."""
    more = ("mesh.data=1", "mesh.fsdp=2", "health.probe_every=5", "health.replicas_every=5")
    small = ("model.num_layers=1", "train.eval_sequences=8", 'health.probe_prompts=["","나","가"]')
    sets = settings(small_corpus, 10, *more, *small)
    processes = [start(tmp_path / "run", sets, *flags) for flags in flags_of_two()]
    for process in processes:
        code, output = finish(process)
        assert code == 0, output
    probes = [r["step"] for r in records(tmp_path / "run") if "probe/repetition" in r]
    assert probes == [5, 10]
