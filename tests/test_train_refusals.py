"""What the training program refuses, each in one line and with nothing half-written."""

import re

import pytest
from etils import epath

from polyglot_jax import checkpoint
from polyglot_jax.config import model_from_dict
from polyglot_jax.train import train
from tests.runs import STEPS, experiment, finish, settings, start

# ---- refusing, in this process: cli.run makes one line of each (tests/test_cli.py)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.seed=1", "train.seed=1, but the checkpoint was trained with 0"),
        ("train.batch_size=16", "train.batch_size=16, but the checkpoint was trained with 24"),
        ("data.plan.0.seed=9", "seed"),
        ("train.eval_sequences=12", "train.eval_sequences=12, but the checkpoint was trained with"),
        ("data.seq_len=16", "seq_len: was 32, is 16"),
        ("model.d_ff=128", "model.d_ff=128, but the checkpoint was trained with 64"),
        ("optimizer.trainable=kernel", "optimizer.trainable='kernel', but"),
    ],
)
def test_another_run_in_the_workdir_is_refused(change, message, whole_run, tiny_shards):
    before = sorted(whole_run.rglob("*"))
    with pytest.raises(ValueError, match=message):
        train(experiment(tiny_shards, change), epath.Path(whole_run), STEPS)
    assert sorted(whole_run.rglob("*")) == before


def test_missing_shards(tmp_path):
    with pytest.raises(ValueError, match="no-such-shards"):
        train(experiment(tmp_path / "no-such-shards"), epath.Path(tmp_path / "run"), 1)
    assert not (tmp_path / "run").exists()


def test_vocabulary_smaller_than_the_tokenizers(tiny_shards, tmp_path):
    with pytest.raises(ValueError, match=r"model.vocab_size=128 is smaller than the tokenizer's"):
        train(experiment(tiny_shards, "model.vocab_size=128"), epath.Path(tmp_path / "run"), 1)
    assert not (tmp_path / "run").exists()


def test_mesh_that_does_not_fit(tiny_shards, tmp_path):
    bad = experiment(tiny_shards, "mesh.data=3")
    with pytest.raises(ValueError, match="does not fit 8 devices"):
        train(bad, epath.Path(tmp_path / "run"), 1)


@pytest.mark.parametrize(
    "sets", [("mesh.data=none", "train.batch_size=12"), ("train.accumulation=6",)]
)
def test_microbatch_that_the_mesh_does_not_divide(sets, tiny_shards, tmp_path):
    bad = experiment(tiny_shards, "mesh.data=none", *sets)
    with pytest.raises(ValueError, match=r"of the mesh .* does not divide"):
        train(bad, epath.Path(tmp_path / "run"), 1)
    assert not (tmp_path / "run").exists()


def test_steps_beyond_the_schedule(tiny_shards, tmp_path):
    with pytest.raises(ValueError, match=r"--steps=25 is beyond train\.steps=24"):
        train(experiment(tiny_shards), epath.Path(tmp_path / "run"), STEPS + 1)


def test_missing_weights_to_start_from(tiny_shards, tmp_path):
    bad = experiment(tiny_shards, f"train.init_from={tmp_path}/hf")
    with pytest.raises(ValueError, match=r"no config\.json"):
        train(bad, epath.Path(tmp_path / "run"), 1)
    assert not (tmp_path / "run").exists()


def test_converted_weights_are_no_run(whole_run, tiny_shards, tmp_path):
    metadata, params = checkpoint.restore_params(whole_run)
    checkpoint.save_params(tmp_path, model_from_dict(metadata["model"]), params)
    with pytest.raises(ValueError, match="holds converted weights, not a run"):
        train(experiment(tiny_shards), epath.Path(tmp_path), STEPS)


# ---- refusing, as a program


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--experiment=ko_tinny"], "unknown experiment 'ko_tinny'; did you mean ko_tiny?"),
        (["--set=train.stepz=3"], "--set train.stepz=3: unknown key 'stepz'; did you mean steps?"),
        (["--set=mesh.fsdp=8"], "mesh (data=None, fsdp=8, tensor=1) does not fit 1 devices"),
        (["--set=data.plan.0.sources.0.path=/no/shards"], "/no/shards"),
    ],
)
def test_bad_input_is_one_line(flags, message, tiny_shards, tmp_path):
    code, output = finish(start(tmp_path / "run", settings(tiny_shards), *flags))
    assert code == 1
    assert output.startswith("error: ")
    assert message in output
    assert output.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_loss_that_is_not_finite_is_one_line_and_not_saved(tiny_shards, tmp_path):
    """Skipped on the device, seen where a save is due, and given up after ten in a row."""
    diverges = ("optimizer.learning_rate=1e30", "optimizer.min_learning_rate=0")
    rare = ("optimizer.warmup_fraction=0", "train.log_every=20", "train.eval_every=none")
    sets = settings(tiny_shards, *diverges, *rare)
    code, output = finish(start(tmp_path / "run", sets))
    assert code == 1
    error = output.splitlines()[-1]
    assert re.match(r"error: step \d+: loss is nan; 1\d updates in a row skipped and no", error)
    assert checkpoint.latest_step(tmp_path / "run") is None


def test_workdir_that_cannot_be_made_is_one_line(tiny_shards, tmp_path):
    (tmp_path / "file").write_text("")
    code, output = finish(start(tmp_path / "file" / "run", settings(tiny_shards)))
    assert code == 1
    assert output.startswith("error: ")
    assert output.count("\n") == 1
