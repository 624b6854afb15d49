"""Data that is damaged, gone or changed: one line that names the file and the remedy."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from etils import epath

from polyglot_jax import checkpoint
from polyglot_jax.data.encode import encode
from polyglot_jax.data.manifest import SPLITS
from polyglot_jax.data.mixture import Mixture
from polyglot_jax.data.resume import check_same
from polyglot_jax.data.shards import open_split, verify
from polyglot_jax.train import train
from tests.data.made import write_parquet
from tests.runs import ROOT, STEPS, experiment, finish, settings, start


@pytest.fixture
def source(tiny_shards, tmp_path) -> Path:
    return shutil.copytree(tiny_shards, tmp_path / "shards")


def tokens_of(source: Path) -> Path:
    return source / "train" / "shard-00000" / "tokens" / "c" / "0"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)


def test_corrupt_shard(source, tmp_path):
    flip(tokens_of(source))
    with pytest.raises(ValueError, match=r"shards/train/shard-00000/tokens is damaged .*copy it"):
        train(experiment(source), epath.Path(tmp_path / "run"), STEPS)


def test_another_tokenizer_than_the_shards_were_written_with(source, tmp_path):
    """It would be copied to the workdir, and name other texts for the same ids ever after."""
    (source / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer.json is not the one that wrote train; del"):
        train(experiment(source), epath.Path(tmp_path / "run"), STEPS)
    (source / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer.json is missing; delete"):
        train(experiment(source), epath.Path(tmp_path / "run"), STEPS)
    assert not (tmp_path / "run").exists()


def test_shard_lost_in_mid_run(source, tmp_path, monkeypatch):
    right = Mixture.read

    def lose(self, examples):
        tokens_of(source).unlink(missing_ok=True)
        return right(self, examples)

    monkeypatch.setattr(Mixture, "read", lose)
    with pytest.raises(ValueError, match=r"shards/train/shard-00000/tokens is damaged .*copy it"):
        train(experiment(source), epath.Path(tmp_path / "run"), STEPS)


@pytest.mark.parametrize(
    ("was", "becomes", "message"),
    [
        ('"seed": 1234', '"seed": 1235', "manifest of source 'tiny' in data.plan.0: was"),
        ('"source": "tiny"', '"source": "renamed"', "source 'renamed' in data.plan.0: was absent"),
    ],
)
def test_other_data_than_the_run_began_with(whole_run, source, was, becomes, message):
    for split in SPLITS:
        manifest = source / split / "manifest.json"
        assert was in manifest.read_text()
        manifest.write_text(manifest.read_text().replace(was, becomes))
    with pytest.raises(ValueError, match=message) as error:
        train(experiment(source), epath.Path(whole_run), STEPS)
    assert "the data differs from what the checkpoint at step 24 was trained on" in str(error.value)


def test_another_held_out_split_than_the_run_began_with(whole_run, source):
    """Losses on it cannot be compared with those before: @best and the gap would be of both."""
    manifest = source / "held_out" / "manifest.json"
    text = manifest.read_text()
    content = json.loads(text)
    content["shards"][0]["sha256"] = "0" * 64
    manifest.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"held-out split of source 'tiny': was .*, is 0*"):
        train(experiment(source), epath.Path(whole_run), STEPS)
    for name, value in (("source", "x"), ("tokenizer_sha256", "0" * 64), ("seed", 5)):
        manifest.write_text(json.dumps(json.loads(text) | {name: value}))
        with pytest.raises(ValueError, match=r"held_out (is of another source|has [a-z0-9_]*=)"):
            train(experiment(source), epath.Path(whole_run), STEPS)


def test_a_checkpoint_that_does_not_name_its_held_out_splits_goes_on(whole_run, source):
    saved = checkpoint.read_metadata(whole_run, STEPS)["data"]
    current = saved | {"held_out": {"tiny": "0" * 64}}
    with pytest.raises(ValueError, match=r"'tiny': .*restore it, or start in a new --workdir"):
        check_same(saved, current, STEPS)
    del saved["held_out"]
    check_same(saved, current, STEPS)
    for spoilt in (None, 3):
        with pytest.raises(ValueError, match="does not say what data it was trained on"):
            check_same(spoilt, current, STEPS)


def test_a_new_source_in_mid_run_is_recorded(whole_run, tiny_shards, tmp_path):
    """A phase is appended; what the run has behind it stays in the plan and is compared."""
    texts = [f"{i}번째 새 문서입니다. " + "학교에 가자. " * (i % 5) for i in range(100)]
    write_parquet(tmp_path / "documents.parquet", texts)
    encode(
        str(tmp_path / "documents.parquet"),
        str(tiny_shards / "tokenizer.json"),
        str(tmp_path / "new"),
        source="new",
        held_out_fraction=0.1,
    )
    workdir = shutil.copytree(whole_run, tmp_path / "run")
    first = {"sources": [{"path": str(tiny_shards)}]}
    both = [{"path": str(tiny_shards), "weight": 1}, {"path": str(tmp_path / "new"), "weight": 3}]
    plan = [first, {"from_step": STEPS, "sources": both}]
    sets = [f"train.steps={STEPS + 2}", f"data.plan={json.dumps(plan)}"]
    train(experiment(tiny_shards, *sets), epath.Path(workdir), STEPS + 2)
    recorded = checkpoint.read_metadata(workdir, STEPS + 2)["data"]["plan"]
    assert [phase["from_step"] for phase in recorded] == [0, STEPS]
    assert recorded[1]["turns"] == {"new": 3, "tiny": 1}
    assert recorded[0] == checkpoint.read_metadata(workdir, STEPS)["data"]["plan"][0]
    with pytest.raises(ValueError, match=r"source 'new' in data.plan.1: was .*, is absent"):
        train(experiment(tiny_shards, sets[0]), epath.Path(workdir), STEPS + 2)


def test_verify_as_a_program(source):
    def run() -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "polyglot_jax.data.shards", f"--verify={source}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert run().stdout == f"{source} is whole\n"
    flip(tokens_of(source))
    done = run()
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {source}/train/shard-00000/tokens is damaged")
    assert done.stderr.count("\n") == 1


def test_a_link_out_of_the_source_is_refused(source, tmp_path):
    elsewhere = shutil.move(tokens_of(source), tmp_path / "elsewhere")
    tokens_of(source).symlink_to(elsewhere)
    with pytest.raises(ValueError, match=r"c/0 is a link that leads out of .*; copy the file"):
        open_split(source / "train")
    link = tmp_path / "link"
    tokens_of(source).unlink()
    shutil.copy(elsewhere, tokens_of(source))
    link.symlink_to(source)  # the directory itself may be one
    verify(link)


@pytest.mark.slow
def test_corrupt_shard_as_a_program(source, tmp_path):
    flip(tokens_of(source))
    code, output = finish(start(tmp_path / "run", settings(source)))
    assert code == 1
    assert output.splitlines()[-1].startswith(
        f"error: {source}/train/shard-00000/tokens is damaged"
    )
    assert "Traceback" not in output
