"""HF directories: loaded by transformers, made and read by the program, described by a card."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer

from polyglot_jax import checkpoint, convert, hf_config, hf_weights
from polyglot_jax.config import load_experiment
from polyglot_jax.data.manifest import Manifest, Shard, write_manifest
from polyglot_jax.selection import Keep
from polyglot_jax.step import init_state
from tests.oracle import check_equal, check_logits, make_model, ragged_tokens, random_params, tiny

ROOT = Path(__file__).resolve().parents[1]
TEXT = "한국어 텍스트를 생성합니다.\n둘째 줄: 값은 3.14 😀"
CONFIG = tiny(vocab_size=384)
TOO_LARGE = '{"model": {"vocab": {"<|endoftext|>": 384}}, "added_tokens": []}'
NO_HEADS = json.dumps(hf_config.config_to_hf(CONFIG, "float32", 2) | {"num_attention_heads": 0})
METADATA = {"step": 0, "git_commit": "abc", "versions": {"jax": "0"}}


@pytest.fixture(scope="module")
def tokenizer_json(tmp_path_factory):
    """A byte-level tokenizer with Polyglot-Ko's special tokens at their places."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<eos>", "<|endoftext|>", "<|sep|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    tokenizer.add_special_tokens(["<|acc|>", "<|tel|>", "<|rrn|>"])
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


@pytest.fixture
def directory(tmp_path, params, tokenizer_json):
    path = tmp_path / "model"
    convert.save_hf(path, CONFIG, params, tokenizer_json, "float32", METADATA)
    return path


def test_what_a_directory_holds(directory, params):
    assert sorted(path.name for path in directory.iterdir()) == [
        *("README.md", "config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    ]
    check_equal(convert.load_hf(directory, CONFIG), params)


# ---- transformers loads it


def test_transformers_loads_and_generates(directory, params, tokenizer_json):
    (directory / "model.safetensors").unlink()
    hf_weights.write_weights(directory, CONFIG, params, "float32", max_file_bytes=50_000)
    model, notes = AutoModelForCausalLM.from_pretrained(
        directory, attn_implementation="eager", output_loading_info=True
    )
    assert not any(notes.values())
    check_logits(CONFIG, params, model, *ragged_tokens(CONFIG))

    tokenizer = AutoTokenizer.from_pretrained(directory)
    inputs = tokenizer(TEXT, return_tensors="pt")
    assert sorted(inputs) == ["attention_mask", "input_ids"]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|endoftext|>", "<|endoftext|>")
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert output.shape[1] > inputs["input_ids"].shape[1]
    assert model.generation_config.eos_token_id == model.generation_config.pad_token_id == 2


@pytest.mark.parametrize("text", [TEXT, "e\u0301 \u1112\u1161\u11ab", "a  b\t\n\n", "<|tel|>x"])
def test_transformers_tokenizer_is_ours(directory, tokenizer_json, text):
    theirs, ours = (
        AutoTokenizer.from_pretrained(directory),
        Tokenizer.from_file(str(tokenizer_json)),
    )
    assert theirs(text)["input_ids"] == ours.encode(text).ids
    assert theirs.decode(theirs(text)["input_ids"]) == text


def test_transformers_parses_special_tokens_unless_told_otherwise(directory):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    text = "가<|endoftext|>나<|sep|>"
    parsed = tokenizer(text)["input_ids"]
    assert [i for i in parsed if i < 4] == [2, 3]  # as chat templates need
    plain = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert not [i for i in plain if i < 4]
    assert tokenizer.decode(parsed) == tokenizer.decode(plain) == text
    assert tokenizer.decode(parsed, skip_special_tokens=True) == "가나"


def test_transformers_adds_and_tidies_nothing(directory):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert tokenizer("")["input_ids"] == []
    assert tokenizer("가")["input_ids"] == tokenizer("가", add_special_tokens=False)["input_ids"]
    assert tokenizer.clean_up_tokenization_spaces is False
    text = "쉼표 , 마침표 . isn 't ?"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.model_max_length == CONFIG.max_seq_len
    assert tokenizer.chat_template is None
    batch = tokenizer(["가", "나 다 라"], padding=True)
    assert batch["input_ids"][0][-1] == tokenizer.pad_token_id == 2
    assert batch["attention_mask"][0][-1] == 0


def test_a_chat_template_of_a_checkpoint(workdir, tmp_path):
    template = "{% for m in messages %}{{ m['content'] }}<|sep|>{% endfor %}"
    (tmp_path / "chat.jinja").write_text(template)
    arguments = ("--to=hf", f"--checkpoint={workdir}", f"--output={tmp_path / 'hf'}")
    done = run(*arguments, f"--chat_template={tmp_path / 'chat.jinja'}")
    assert (done.returncode, done.stderr) == (0, "")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "가"}], return_dict=False)
    assert ids == [*tokenizer("가")["input_ids"], 3]


def test_what_transformers_saves_is_read(tmp_path, params):
    make_model(CONFIG, params).save_pretrained(tmp_path, max_shard_size="60KB")
    config = convert.read_hf_config(tmp_path)
    assert dataclasses.replace(config, compute_dtype="float32") == CONFIG
    check_equal(convert.load_hf(tmp_path, config), params)


def test_published_tokenizer(shared_data, tmp_path):
    source = shared_data / "polyglot_tokenizer" / "tokenizer.json"
    config = tiny(vocab_size=30_080)
    convert.save_hf(tmp_path / "hf", config, random_params(config), source, "float32", METADATA)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    ids = [1972, 348, 2831, 483, 1496, 316, 301, 1203, 284, 295, 536, 283, 23868, 2136, 17]
    assert tokenizer("한국어 형태소 분석기를 사용하지 않고 추론합니다.")["input_ids"] == ids
    assert tokenizer.eos_token_id == 2


# ---- what does not fit is refused


def test_another_model_is_refused(directory):
    other = dataclasses.replace(CONFIG, rotary_pct=0.25)
    with pytest.raises(ValueError, match=r"model\.rotary_pct=0\.25, .* have 0\.5; set model\.rot"):
        convert.load_hf(directory, other)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, "no tokenizer.json in"),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0}}, "added_tokens": []}', "no token '<|end"),
        ("tokenizer.json", TOO_LARGE, "has ids up to 384, but the model only 384 rows"),
        ("config.json", "[]", "holds no JSON object but a list"),
        ("config.json", NO_HEADS, "num_attention_heads must be positive, not 0"),
    ],
)
def test_a_wrong_file_is_found_before_the_weights_are_read(
    directory, tmp_path, name, content, message
):
    (directory / "model.safetensors").unlink()
    (directory / name).unlink()
    if content is not None:
        (directory / name).write_text(content)
    done = run("--to=orbax", f"--hf={directory}", f"--output={tmp_path / 'x'}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert message in done.stderr


@pytest.mark.parametrize(("content", "message"), [(None, "no tokenizer.json in"), ("{}", "is not")])
def test_the_tokenizer_is_checked_before_a_checkpoint_is_restored(tmp_path, content, message):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)  # restoring it would fail
    if content is not None:
        (tmp_path / "run" / "tokenizer.json").write_text(content)
    done = run("--to=hf", f"--checkpoint={tmp_path / 'run'}", f"--output={tmp_path / 'x'}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert message in done.stderr
    assert "tokenizer.json" in done.stderr


def test_another_tokenizer_is_refused(tmp_path, tokenizer_json, params):
    small = tiny(vocab_size=256)
    with pytest.raises(ValueError, match=r"ids up to 302, but the model only 256"):
        convert.save_hf(tmp_path / "hf", small, params, tokenizer_json, "float32", METADATA)
    tokenizer_json = tmp_path / "tokenizer.json"
    tokenizer_json.write_text('{"model": {"vocab": {"a": 0}}, "added_tokens": []}')
    with pytest.raises(ValueError, match=r"no token '<\|endoftext\|>'"):
        convert.save_hf(tmp_path / "hf", CONFIG, params, tokenizer_json, "float32", METADATA)
    assert not (tmp_path / "hf").exists()


def test_a_failed_write_leaves_nothing(tmp_path, params, tokenizer_json):
    params = dict(params)
    del params["embed_out"]
    with pytest.raises(KeyError):
        convert.save_hf(tmp_path / "hf", CONFIG, params, tokenizer_json, "float32", METADATA)
    assert not list(tmp_path.iterdir())


# ---- the programs, and what they read


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, tokenizer_json):
    """A training run of two checkpoints, which differ."""
    path = tmp_path_factory.mktemp("run")
    experiment = dataclasses.replace(load_experiment("ko_tiny", ["data.seq_len=64"]), model=CONFIG)
    manager = checkpoint.open_manager(path, Keep(newest=2))
    for step in (1, 2):
        state = jax.jit(init_state, static_argnums=0)(experiment, random_params(CONFIG, step))
        checkpoint.save(manager, state, checkpoint.make_metadata(experiment, step, {}))
    checkpoint.finish(manager)
    (path / "config.json").write_text("{}")
    (path / "metrics.jsonl").write_text(
        '{"step": 1, "held_out/bits_per_byte": 1.5}\n{"step": 2, "held_out/bits_per_byte": 1.7}\n'
    )
    (path / "tokenizer.json").write_bytes(tokenizer_json.read_bytes())
    return path


def run(*arguments):
    command = [sys.executable, "-m", "polyglot_jax.convert", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_program_both_ways(workdir, tmp_path):
    hf, orbax = tmp_path / "hf", tmp_path / "orbax"
    for arguments in (
        ("--to=hf", f"--checkpoint={workdir}@1", f"--output={hf}"),
        ("--to=orbax", f"--hf={hf}", f"--output={orbax}"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
    assert "| steps | 1 of " in (hf / "README.md").read_text()
    at = ((f"{workdir}@1", 1), (f"{workdir}@best", 1), (hf, 1), (orbax, 1), (workdir, 2))
    for path, step in at:
        model, params, tokenizer = convert.load_model(path)
        assert dataclasses.replace(model, compute_dtype="float32") == CONFIG
        assert tokenizer.read_bytes() == (workdir / "tokenizer.json").read_bytes()
        check_equal(params, random_params(CONFIG, step))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to=hf", "--checkpoint={workdir}", "--output={tmp}"), "exists; name a new directory"),
        (("--to=hf", "--checkpoint={workdir}@7", "--output={tmp}/x"), "there are 1, 2"),
        (("--to=hf", "--checkpoint={workdir}@beast", "--output={tmp}/x"), "no such tag"),
        (("--to=hf", "--checkpoint={tmp}", "--output={tmp}/x"), "no complete checkpoint in"),
        (("--to=orbax", "--hf={tmp}", "--output={tmp}/x"), "no config.json in"),
        (("--to=orbax", "--hf=gs://b/x", "--output={tmp}/x"), "transformers are read locally only"),
        (("--to=orbax", "--hf={tmp}", "--output=gs://b/x"), "gs://b/x: converted to local dir"),
        (("--to=orbax", "--output={tmp}/x"), "give --to=hf --checkpoint"),
    ],
)
def test_program_refuses(workdir, tmp_path, arguments, message):
    done = run(*(argument.format(workdir=workdir, tmp=tmp_path) for argument in arguments))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_load_model_of_neither(tmp_path):
    with pytest.raises(ValueError, match="is neither a directory that transformers loads"):
        convert.load_model(tmp_path)


# ---- the card


def test_model_card(directory, params):
    card = (directory / "README.md").read_text()
    assert "# model\n" in card
    assert f"| parameters | {sum(x.size for x in jax.tree.leaves(params)):,} |" in card
    assert "| `<|tel|>` | 301 | phone number |" in card
    assert "masked with them is not recorded" in card
    assert "2306.02254" in card
    assert "| code | abc |" in card


def test_model_card_lists_the_sources(tmp_path, params, tokenizer_json):
    shard = Shard(name="00000", documents=7, tokens=1234, bytes=5678, sha256="0" * 64)
    news = Manifest(
        **{"source": "news", "split": "train", "tokenizer_sha256": "0" * 64, "vocab_size": 303},
        **{"separator_id": 2, "dtype": "uint16", "seed": 0, "shards": (shard,)},
        held_out_fraction=0.01,
    )
    (tmp_path / "shards" / "train").mkdir(parents=True)
    write_manifest(tmp_path / "shards" / "train", news)
    reached = {"news": news.fingerprint(), "blogs": "since deleted"}
    plan = [
        {"from_step": 0, "manifests": reached},
        {"from_step": 100, "manifests": {"later": "not yet read"}},
    ]
    data = {"plan": plan}
    sets = [f"data.plan.0.sources.0.path={tmp_path / 'shards'}"]
    experiment = load_experiment("ko_tiny", [*sets, "train.batch_size=16", "data.seq_len=256"])
    metadata = checkpoint.make_metadata(experiment, 100, data)
    convert.save_hf(tmp_path / "hf", CONFIG, params, tokenizer_json, "float32", metadata)
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "| news | 7 | 1,234 | 5,678 |" in card
    assert "later" not in card
    assert "| blogs | not at hand | not at hand | not at hand |" in card
    assert f"| tokens | {100 * 16 * 256:,} |" in card
    assert str(tmp_path) not in card  # nobody's paths are published


def test_of_several_chat_templates_one_must_be_named(directory, tmp_path):
    old = shutil.copytree(directory, tmp_path / "old")
    settings = json.loads((old / "tokenizer_config.json").read_text())
    settings["chat_template"] = [{"name": "default", "template": "{{ messages }}"}]
    (old / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="several chat templates; give one by --chat_template"):
        convert._read_template(None, str(old))
