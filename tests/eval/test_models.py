"""Models from every kind of directory give transformers' own log-probabilities and texts."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers

from eval import models
from eval.models import digest
from eval.request import Model, Request
from polyglot_jax import checkpoint, convert, provenance
from polyglot_jax.config import MeshConfig
from tests.oracle import random_params, tiny
from tests.tiny_tokenizer import train_tokenizer

TOKENIZER = train_tokenizer()
CONFIG = tiny(vocab_size=TOKENIZER.get_vocab_size())
REQUESTS = [
    Request((2, 50, 60, 70), ((80, 90), (81,), (82,))),
    Request(tuple(range(4, 94)), ((7,), (8, 9, 10), (11, 12))),
    Request((5,), ((6,) * 64,)),
]
SHAPE = {"vocab_size": CONFIG.vocab_size, "num_hidden_layers": 2, "num_attention_heads": 2}
OTHERS = {
    "gpt2": transformers.GPT2Config(
        vocab_size=CONFIG.vocab_size, n_layer=2, n_head=2, n_embd=32, n_positions=64
    ),
    "gptj": transformers.GPTJConfig(
        vocab_size=CONFIG.vocab_size, n_layer=2, n_head=2, n_embd=32, n_positions=64, rotary_dim=8
    ),
    "xglm": transformers.XGLMConfig(
        vocab_size=CONFIG.vocab_size, num_layers=2, attention_heads=2, d_model=32, ffn_dim=48,
        max_position_embeddings=64,
    ),
    "llama": transformers.LlamaConfig(
        **SHAPE, hidden_size=32, intermediate_size=48, max_position_embeddings=64
    ),
}  # fmt: skip


def write_tokenizer(directory: Path) -> None:
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    TOKENIZER.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda x: 0.5 * x, random_params(CONFIG))


@pytest.fixture(scope="module")
def hf_dir(tmp_path_factory, params) -> Path:
    root = tmp_path_factory.mktemp("neox")
    TOKENIZER.save(str(root / "tokenizer.json"))
    convert.save_hf(
        root / "model", CONFIG, params, root / "tokenizer.json", "float32", provenance.code()
    )
    return root / "model"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, params) -> Path:
    root = tmp_path_factory.mktemp("workdir")
    checkpoint.save_params(root, CONFIG, params)
    TOKENIZER.save(str(root / "tokenizer.json"))
    return root


@pytest.fixture(scope="module", params=sorted(OTHERS))
def other_dir(request, tmp_path_factory) -> Path:
    torch.manual_seed(0)
    config = OTHERS[request.param]
    config.eos_token_id, config.bos_token_id, config.pad_token_id = 2, 2, 2
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    directory = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(directory)
    write_tokenizer(directory)
    return directory


def check_scores(model: Model, directory: Path) -> None:
    """Each choice alone through transformers, without padding."""
    oracle = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    answers = dict(model.score(REQUESTS))
    assert model.max_length == 64
    for i, request in enumerate(REQUESTS):
        for number, choice in enumerate(request.choices):
            ids = (request.context + choice)[-65:]
            with torch.no_grad():
                logits = oracle(torch.tensor([ids[:-1]])).logits[0, -len(choice) :].double()
            log_probs = logits.log_softmax(-1).numpy()[range(len(choice)), choice]
            assert answers[i].log_probs[number] == pytest.approx(log_probs.sum(), abs=1e-4)
            assert answers[i].greedy[number] == (logits.argmax(-1).tolist() == list(choice))
            assert answers[i].context_kept[number] == len(ids) - len(choice)


def check_texts(model: Model, directory: Path) -> None:
    """Greedy, unequal prompts together, one longer than the model; then with a stop string."""
    oracle = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(4, CONFIG.vocab_size, n).tolist()) for n in (5, 90, 1)]
    texts = dict(model.generate(prompts, max_new_tokens=8, stop=[]))
    for i, prompt in enumerate(prompts):
        ids = list(prompt[-56:])
        for _ in range(8):
            with torch.no_grad():
                ids.append(int(oracle(torch.tensor([ids])).logits[0, -1].argmax()))
        drawn = ids[len(prompt[-56:]) :]
        drawn = drawn[: drawn.index(2)] if 2 in drawn else drawn
        theirs = TOKENIZER.decode(drawn, skip_special_tokens=False)
        # Bytes that are no whole character at the end: they may become one, or never.
        assert texts[i].rstrip("\ufffd") == theirs.rstrip("\ufffd")
    longest = max(range(3), key=lambda i: len(texts[i]))
    stop = texts[longest][2:4]
    stopped = dict(model.generate(prompts, max_new_tokens=8, stop=["없는 말", stop]))
    assert stopped == {i: text.split(stop)[0] for i, text in texts.items()}


def test_ours_by_jax(hf_dir: Path) -> None:
    model = models.load(hf_dir)
    assert model.engine == "jax-1 float32"
    assert model.end_of_text == 2
    check_scores(model, hf_dir)
    check_texts(model, hf_dir)


def test_ours_by_torch(hf_dir: Path) -> None:
    model = models.load(hf_dir, backend="torch")
    assert model.engine == "torch-1 float32"
    check_scores(model, hf_dir)
    check_texts(model, hf_dir)


def test_others_by_torch(other_dir: Path) -> None:
    model = models.load(other_dir)
    assert model.engine.startswith("torch")
    assert model.end_of_text == 2
    check_scores(model, other_dir)
    check_texts(model, other_dir)


def test_a_workdir_is_the_same_model(hf_dir: Path, workdir: Path) -> None:
    answers = dict(models.load(hf_dir).score(REQUESTS))
    assert dict(models.load(workdir).score(REQUESTS)) == answers
    assert dict(models.load(f"{workdir}@0").score(REQUESTS)) == answers
    with pytest.raises(ValueError, match="7"):
        models.load(f"{workdir}@7")


def test_on_a_mesh_and_in_bfloat16(hf_dir: Path, workdir: Path) -> None:
    exact = dict(models.load(hf_dir).score(REQUESTS))
    on_mesh = models.load(workdir, mesh=MeshConfig(fsdp=4))
    half = models.load(hf_dir, dtype="bfloat16")
    assert half.engine == "jax-1 bfloat16"
    texts = dict(models.load(hf_dir).generate([(5, 6), (7,)], max_new_tokens=5, stop=[]))
    assert dict(on_mesh.generate([(5, 6), (7,)], max_new_tokens=5, stop=[])) == texts
    for model, tolerance in ((on_mesh, 1e-5), (half, 5e-2)):
        for i, answer in model.score(REQUESTS):
            np.testing.assert_allclose(answer.log_probs, exact[i].log_probs, rtol=tolerance)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_special_tokens_are_neither_added_nor_read(hf_dir: Path, backend: str) -> None:
    tokenizer = models.load(hf_dir, backend=backend).tokenizer
    ids = tokenizer.encode("떡 <|endoftext|>")
    assert 2 not in ids
    assert tokenizer.decode(ids) == "떡 <|endoftext|>"
    assert tokenizer.encode("") == []


@pytest.mark.parametrize("name", ["merges.txt", "spiece.model", "config.json", "a.safetensors"])
def test_every_file_of_weights_and_tokenizer_is_in_the_hash(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"one")
    before = digest.of_hf(tmp_path)
    (tmp_path / name).write_bytes(b"two")
    assert digest.of_hf(tmp_path) != before


def test_the_hash_tells_models_apart(hf_dir: Path, workdir: Path, tmp_path: Path, params) -> None:
    first = models.load(hf_dir)
    assert first.content_hash == models.load(hf_dir, backend="torch").content_hash
    copy = tmp_path / "copy"
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    changed = {**params, "embed_out": {"kernel": params["embed_out"]["kernel"] * 2}}
    convert.save_hf(
        copy, CONFIG, changed, tmp_path / "tokenizer.json", "float32", provenance.code()
    )
    assert models.load(copy).content_hash != first.content_hash
    config = json.loads((copy / "config.json").read_text())
    before = models.load(copy).content_hash
    (copy / "config.json").write_text(json.dumps({**config, "rotary_emb_base": 10000.5}
        | {"rope_parameters": None}))  # fmt: skip
    assert models.load(copy).content_hash != before
    checkpoint.save_params(tmp_path / "run", dataclasses.replace(CONFIG), changed)
    TOKENIZER.save(str(tmp_path / "run" / "tokenizer.json"))
    assert models.load(tmp_path / "run").content_hash != models.load(workdir).content_hash


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path, params) -> None:
    checkpoint.save_params(tmp_path, CONFIG, params)
    train_tokenizer(CONFIG.vocab_size + 9).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="tokenizer of another model"):
        models.load(tmp_path)


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path, other_dir: Path) -> None:
    for path, backend in ((tmp_path, "auto"), (other_dir, "jax"), (tmp_path, "torch")):
        with pytest.raises(ValueError, match=str(path)) as error:
            models.load(path, backend=backend)
        assert "\n" not in str(error.value)
    write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(OTHERS["gpt2"].to_json_string())
    with pytest.raises(ValueError, match=r"cannot load it.*safetensors"):
        models.load(tmp_path, backend="torch")


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_prompts_that_make_no_sense(hf_dir: Path, backend: str) -> None:
    model = models.load(hf_dir, backend=backend)
    with pytest.raises(ValueError, match="max_new_tokens=64 leaves no room"):
        list(model.generate([(4,)], max_new_tokens=64, stop=[]))
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        list(model.generate([(4,), ()], max_new_tokens=4, stop=[]))


@pytest.mark.parametrize("content", ['{"model_type": ', "[]"])
def test_a_broken_configuration_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json is not the configuration of a model"):
        models.load(tmp_path)
