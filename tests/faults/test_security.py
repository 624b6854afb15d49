"""Files are data: none is executed, none is looked for elsewhere, and no secret gets into one.

docs/security.md says where the boundaries lie; these tests hold them.
"""

import ast
import gzip
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath
from safetensors.numpy import save_file

from polyglot_jax import checkpoint, convert
from polyglot_jax.config import model_from_dict
from polyglot_jax.hf_weights import to_hf
from polyglot_jax.train import train
from tests.oracle import hf_config
from tests.runs import ROOT, experiment
from tests.test_structure import PACKAGES, imports, module_name

# ---- nothing that is read is executed


@pytest.fixture(scope="module")
def one_of_each(tmp_path_factory, whole_run, tiny_shards) -> Path:
    """Returns a folder with a file of every kind that we read."""
    root = tmp_path_factory.mktemp("each")
    shutil.copytree(tiny_shards, root / "shards")
    shutil.copytree(whole_run, root / "run")
    (root / "run" / "tags.json").write_text('{"good": 24}')
    metadata, params = checkpoint.restore_params(whole_run)
    model = model_from_dict(metadata["model"])
    (root / "hf").mkdir()
    save_file(dict(to_hf(model, params)), root / "hf" / "model.safetensors")
    settings = hf_config(model).to_dict() | {
        # What transformers would fetch and run if it were told to trust it.
        "auto_map": {"AutoModelForCausalLM": "evil--modeling.Evil"},
        "trust_remote_code": True,
    }
    (root / "hf" / "config.json").write_text(json.dumps(settings))
    (root / "hf" / "modeling.py").write_text("raise SystemExit('remote code ran')")
    documents, tasks = root / "documents", root / "tasks"
    documents.mkdir()
    line = json.dumps({"text": "학교에 갔다.", "source": "s", "id": "1"}, ensure_ascii=False)
    for name in ("a.jsonl", "b.txt", "c.md", "d.html"):
        (documents / name).write_text(line + "\n")
        (documents / f"{name}.gz").write_bytes(gzip.compress(line.encode()))
        packed = pa.compress(line.encode(), codec="zstd", asbytes=True)
        (documents / f"{name}.zst").write_bytes(packed)
    table = pa.table({"text": ["학교에 갔다."], "source": ["s"], "id": ["1"]})
    pq.write_table(table, documents / "e.parquet")
    with pa.ipc.new_file(documents / "f.arrow", table.schema) as writer:
        writer.write_table(table)
    tasks.mkdir()
    (tasks / "a.jsonl").write_text(line + "\n")
    (tasks / "b.json").write_text(f"[{line}]")
    (tasks / "c.tsv").write_text("text\tid\n학교\t1\n")
    pq.write_table(table, tasks / "d.parquet")
    return root


def audited(root: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.audited", str(root), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_readers_execute_nothing_and_stay_in_their_place(one_of_each):
    assert audited(one_of_each) == [""]


def test_the_audit_can_fail(one_of_each):
    seen = audited(one_of_each, "--sabotage")
    assert any(line.startswith("pickle.find_class") for line in seen)
    assert "open /etc/hostname" in seen


class Evil:
    def __reduce__(self):
        return os.mkdir, ("was-executed",)


def test_a_pickle_in_the_place_of_weights_is_refused(one_of_each, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hf = shutil.copytree(one_of_each / "hf", tmp_path / "hf")
    model = convert.read_hf_config(hf)
    (hf / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "model.safetensors"):
        (hf / name).write_bytes(pickle.dumps(Evil()))
        with pytest.raises(ValueError, match=r"pickles are not read|is not whole"):
            convert.load_hf(hf, model)
    assert not Path("was-executed").exists()


# ---- nothing leads out of a directory


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "sub/x.safetensors"])
def test_an_index_names_files_beside_it_only(one_of_each, tmp_path, name):
    hf = shutil.copytree(one_of_each / "hf", tmp_path / "hf")
    shutil.move(hf / "model.safetensors", tmp_path / "model.safetensors")
    index = {"weight_map": {"gpt_neox.embed_in.weight": name}}
    (hf / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="which is not a file beside it"):
        convert.load_hf(hf, convert.read_hf_config(hf))


# ---- what the code itself may not contain

EXECUTES = ("pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "yaml")
RUNS_CODE = {  # the experiments of a clone and of --experiment=FILE.py are programs
    "polyglot_jax/config.py": {"exec_module"},
}


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_unpickles_or_runs_what_it_reads(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        check_code(path)


def check_code(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    for name in imports(source, module_name(path)):
        assert name.split(".")[0] not in EXECUTES, name
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        called = ast.unparse(call.func)
        keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
        own = RUNS_CODE.get(str(path.relative_to(ROOT)), set())
        assert called not in ("eval", "exec", "compile", "__import__", "torch.load"), called
        assert called.split(".")[-1] not in {"exec_module", "extractall"} - own, called
        assert keywords.get("allow_pickle", "False") == "False", called
        assert keywords.get("shell", "False") == "False", called
        assert keywords.get("trust_remote_code", "False") == "False", called
        if called.endswith("from_pretrained") and "benchmarks" not in path.parts:
            assert keywords.get("trust_remote_code") == "False", called


# ---- secrets


def test_no_secret_of_the_environment_is_written(tiny_shards, tmp_path, monkeypatch, capfd):
    secrets = {
        "HF_TOKEN": "hf_Uf3aSecretOfATest",
        "AWS_SECRET_ACCESS_KEY": "wJalrSecretOfATest",
        "WANDB_API_KEY": "4f1cSecretOfATest",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    train(experiment(tiny_shards), epath.Path(tmp_path / "run"), 1)
    out, err = capfd.readouterr()
    written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not re.search(b"SecretOfATest", b"".join([*written, out.encode(), err.encode()]))
