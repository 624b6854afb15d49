"""HF directories: there and back to the bit, loaded by transformers, refused if wrong."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from oracle import check_logits, make_model, ragged_tokens, random_params, tiny
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer

from polyglot_jax import checkpoint, convert, hf_weights
from polyglot_jax.config import MeshConfig, load_experiment
from polyglot_jax.mesh import make_mesh
from polyglot_jax.step import abstract_state, init_state, shardings_of

ROOT = Path(__file__).resolve().parents[1]
TEXT = "한국어 텍스트를 생성합니다.\n둘째 줄: 값은 3.14 😀"
CONFIG = tiny(vocab_size=384)
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


def check_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def split_files(directory, params, max_file_bytes=50_000):
    (directory / "model.safetensors").unlink()
    hf_weights.write_weights(directory, CONFIG, params, "float32", max_file_bytes)
    return sorted(directory.glob("model-*.safetensors"))


def edit(file, change):
    """Rewrites a safetensors file with other tensors."""
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


# ---- there and back


def test_round_trip_is_exact(directory, params):
    assert sorted(path.name for path in directory.iterdir()) == [
        *("README.md", "config.json", "generation_config.json", "model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json"),
    ]
    check_equal(convert.load_hf(directory, CONFIG), params)


def test_several_files_with_an_index(directory, params):
    files = split_files(directory, params)
    assert len(files) > 2
    assert all(file.name.endswith(f"-of-{len(files):05d}.safetensors") for file in files)
    index = json.loads((directory / hf_weights.INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in jax.tree.leaves(params))
    check_equal(convert.load_hf(directory, CONFIG), params)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_is_read_as_float32(directory, params, dtype):
    def halve(tensors):
        for name in tensors:
            tensors[name] = tensors[name].astype(dtype)

    edit(directory / "model.safetensors", halve)
    rounded = jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), params)
    check_equal(convert.load_hf(directory, CONFIG), rounded)


def test_bfloat16_is_written(tmp_path, params, tokenizer_json):
    convert.save_hf(tmp_path / "bf16", CONFIG, params, tokenizer_json, "bfloat16", METADATA)
    rounded = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32), params)
    check_equal(convert.load_hf(tmp_path / "bf16", CONFIG), rounded)
    assert json.loads((tmp_path / "bf16" / "config.json").read_text())["dtype"] == "bfloat16"


def test_old_buffers_are_ignored(directory, params):
    def add(tensors):
        for name in ("bias", "masked_bias", "rotary_emb.inv_freq"):
            tensors[f"gpt_neox.layers.1.attention.{name}"] = np.ones(3, np.float32)

    edit(directory / "model.safetensors", add)
    check_equal(convert.load_hf(directory, CONFIG), params)


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2), (1, 4, 1), (4, 1, 2)])
def test_load_into_a_mesh(tmp_path, tokenizer_json, mesh):
    config = tiny(vocab_size=384, num_heads=4)
    params = random_params(config)
    convert.save_hf(tmp_path / "hf", config, params, tokenizer_json, "float32", METADATA)
    sizes = MeshConfig(data=mesh[0], fsdp=mesh[1], tensor=mesh[2])
    experiment = dataclasses.replace(load_experiment("ko_tiny"), model=config, mesh=sizes)
    devices = jax.devices()[: np.prod(mesh)]
    shardings = shardings_of(abstract_state(experiment, make_mesh(sizes, devices)).params)
    loaded = convert.load_hf(tmp_path / "hf", config, shardings)
    check_equal(loaded, params)
    assert jax.tree.map(lambda x: x.sharding, loaded) == shardings


class CountedTensor:
    """Stands for a tensor in a file; counts the elements that are read of it."""

    def __init__(self, array):
        self.array, self.elements = array, 0

    def __getitem__(self, index):
        self.elements += self.array[index].size
        return self.array[index]


def test_only_the_wanted_slice_is_read():
    config = tiny(num_heads=4)
    kernel = random_params(config)["layers"]["attention"]["query_key_value"]["kernel"][0]
    entry = hf_weights.TABLE["layers/attention/query_key_value/kernel"]
    tensor = CountedTensor(kernel.transpose(1, 2, 3, 0).reshape(-1, config.d_model))
    bounds = ((12, 24), (1, 3), (0, 3), (0, 12))
    block = hf_weights._read_block(tensor, config, entry, bounds)
    np.testing.assert_array_equal(block, kernel[12:24, 1:3])
    assert tensor.elements == kernel.size // 4 // 2


# ---- transformers loads it


def test_transformers_loads_and_generates(directory, params, tokenizer_json):
    split_files(directory, params)
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


# ---- what is wrong is refused, each by its own message


def drop(tensors):
    del tensors["embed_out.weight"]


def add(tensors):
    tensors["gpt_neox.layers.2.mlp.dense_4h_to_h.bias"] = np.ones(48, np.float32)


def reshape(tensors):
    tensors["embed_out.weight"] = tensors["embed_out.weight"].T.copy()


def retype(tensors):
    tensors["embed_out.weight"] = tensors["embed_out.weight"].astype(np.int8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"missing tensor embed_out\.weight of shape \(384, 48\) in .*model$"),
        (add, r"extra tensor gpt_neox\.layers\.2\S+ of shape \(48,\) in \S+/model\.safetensors"),
        (reshape, r"misshapen tensor embed_out\.weight in \S+: \(48, 384\), but .* \(384, 48\)"),
        (retype, r"embed_out\.weight in \S+ is I8"),
    ],
)
def test_wrong_tensors(directory, change, message):
    edit(directory / "model.safetensors", change)
    with pytest.raises(ValueError, match=message):
        convert.load_hf(directory, CONFIG)


IN_THE_MIDDLE = "gpt_neox.layers.0.attention.dense.bias"


def test_duplicate_tensor(directory, params):
    first, second, *_ = split_files(directory, params)
    name = "gpt_neox.embed_in.weight"
    edit(second, lambda tensors: tensors.update({name: load_file(first)[name]}))
    with pytest.raises(
        ValueError, match=r"duplicate tensor gpt_neox\.embed_in\S+: in .*1-of.*2-of"
    ):
        convert.load_hf(directory, CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop(IN_THE_MIDDLE), f"extra tensor {IN_THE_MIDDLE}: .* in no file"),
        (lambda m: m.update({"new": m["embed_out.weight"]}), "missing tensor new: .* no file"),
        (lambda m: m.update({"embed_out.weight": "model-9.safetensors"}), "does not exist"),
    ],
)
def test_index_that_does_not_fit_its_files(directory, params, change, message):
    split_files(directory, params)
    index = json.loads((directory / hf_weights.INDEX).read_text())
    change(index["weight_map"])
    (directory / hf_weights.INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        convert.load_hf(directory, CONFIG)


def test_damaged_files(directory):
    weights, index = directory / "model.safetensors", directory / hf_weights.INDEX
    index.write_text("[]")
    with pytest.raises(ValueError, match="holds both"):
        convert.load_hf(directory, CONFIG)
    whole = weights.read_bytes()
    weights.unlink()
    with pytest.raises(ValueError, match="has no weight_map"):
        convert.load_hf(directory, CONFIG)
    index.unlink()
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        convert.load_hf(directory, CONFIG)
    weights.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="is not whole; copy it again"):
        convert.load_hf(directory, CONFIG)


def test_pickles_are_refused(directory):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"pytorch_model\.bin: pickles are not read.*save_pretrain"
    ):
        convert.load_hf(directory, CONFIG)


def test_another_model_is_refused(directory):
    other = dataclasses.replace(CONFIG, rotary_pct=0.25)
    with pytest.raises(ValueError, match=r"model\.rotary_pct=0\.25, .* have 0\.5; set model\.rot"):
        convert.load_hf(directory, other)


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
    manager = checkpoint.open_manager(path, keep=2)
    for step in (1, 2):
        state = jax.jit(init_state, static_argnums=0)(experiment, random_params(CONFIG, step))
        checkpoint.save(manager, state, checkpoint.make_metadata(experiment, step, {}))
    checkpoint.finish(manager)
    (path / "config.json").write_text("{}")
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
    assert "| steps | 1 of 300 |" in (hf / "README.md").read_text()
    for path, step in ((f"{workdir}@1", 1), (hf, 1), (orbax, 1), (workdir, 2)):
        model, params, tokenizer = convert.load_model(path)
        assert dataclasses.replace(model, compute_dtype="float32") == CONFIG
        assert tokenizer.read_bytes() == (workdir / "tokenizer.json").read_bytes()
        check_equal(params, random_params(CONFIG, step))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to=hf", "--checkpoint={workdir}", "--output={tmp}"), "exists; name a new directory"),
        (("--to=hf", "--checkpoint={workdir}@7", "--output={tmp}/x"), "there are 1, 2"),
        (("--to=hf", "--checkpoint={tmp}", "--output={tmp}/x"), "no checkpoints in"),
        (("--to=orbax", "--hf={tmp}", "--output={tmp}/x"), "no config.json in"),
        (("--to=orbax", "--hf=gs://b/x", "--output={tmp}/x"), "read and written locally only"),
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
    assert "2306.02254" in card
    assert "| code | abc |" in card


def test_model_card_lists_the_sources(tmp_path, params, tokenizer_json):
    shards = tmp_path / "shards" / "train"
    shards.mkdir(parents=True)
    manifest = {"source": "news", "documents": 7, "tokens": 1234, "bytes": 5678}
    (shards / "manifest.json").write_text(json.dumps(manifest))
    sets = [f"data.plan.0.sources.0.path={tmp_path / 'shards'}"]
    metadata = checkpoint.make_metadata(load_experiment("ko_tiny", sets), 100, {})
    convert.save_hf(tmp_path / "hf", CONFIG, params, tokenizer_json, "float32", metadata)
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "| news | 7 | 1,234 | 5,678 |" in card
    assert f"| tokens | {100 * 16 * 256:,} |" in card
    assert str(tmp_path) not in card  # nobody's paths are published
