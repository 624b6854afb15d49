"""Generation: the cache changes nothing, rows are alone in their batch, and texts end where due."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyglot_jax import checkpoint, generate
from polyglot_jax.config import NeoxConfig
from polyglot_jax.models import neox
from polyglot_jax.sampling import Sampling
from polyglot_jax.vocabulary import make_vocabulary
from tests.tiny_tokenizer import train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY = make_vocabulary(train_tokenizer().to_str().encode(), "tiny")
NUM_TOKENS = len(VOCABULARY.token_bytes)
CONFIG = NeoxConfig(
    vocab_size=NUM_TOKENS + 20,  # padded
    num_layers=2,
    d_model=48,
    num_heads=3,
    d_ff=80,
    rotary_pct=0.5,
    max_seq_len=256,
    compute_dtype="float32",
)
GREEDY = Sampling(temperature=0)
WARM = Sampling(temperature=1.0, top_k=50, top_p=0.9, repetition_penalty=1.1)
PROMPTS = ["호랑이는 떡을 좋아했습니다. " * 6, "옛날", "", "담배를 피우던 시절"]  # 93 tokens to 1


@pytest.fixture(scope="module")
def params():
    """Weights of standard deviation 0.25, norm scales around 1: greedy texts that vary."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: neox.init(CONFIG, jax.random.key(0)))

    def draw(path, x):
        mean = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(mean + 0.25 * rng.standard_normal(x.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def tokens_of(params, prompts, n, sampling=GREEDY, seed=0, num_tokens=NUM_TOKENS, config=CONFIG):
    """Returns the tokens drawn, [B, n]."""
    steps = generate.decode(
        config,
        params,
        prompts,
        max_new_tokens=n,
        num_tokens=num_tokens,
        sampling=sampling,
        seed=seed,
    )
    return np.stack(list(steps), axis=1)


def texts_of(params, prompts, n=24, vocabulary=VOCABULARY, **arguments):
    arguments = {"sampling": WARM} | arguments
    return generate.generate(CONFIG, params, vocabulary, prompts, max_new_tokens=n, **arguments)


def test_greedy_decoding_is_the_argmax_of_the_full_forward(params) -> None:
    prompts = [VOCABULARY.encode(prompt) for prompt in PROMPTS]
    assert {len(ids) > generate.BUCKET for ids in prompts} == {True, False}
    new = tokens_of(params, prompts, 30)
    assert min(len(set(drawn.tolist())) for drawn in new) > 5
    for ids, drawn in zip(prompts, new, strict=True):
        tokens = np.zeros((1, 160), np.int32)  # padded on the right, which causality hides
        tokens[0, : len(ids) + 30] = [*ids, *drawn]
        logits, _ = jax.jit(neox.apply, static_argnums=0)(CONFIG, params, tokens)
        predicted = np.argmax(logits[0, len(ids) - 1 : len(ids) + 29, :NUM_TOKENS], axis=-1)
        np.testing.assert_array_equal(drawn, predicted)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_decoding_equals_transformers(params, penalty: float) -> None:
    import torch

    from tests.oracle import make_model

    rng = np.random.default_rng(1)  # long and random, so that the penalty meets the prompt too
    prompts = [rng.integers(4, CONFIG.vocab_size, n).tolist() for n in (180, 64, 2)]
    sampling = Sampling(temperature=0, repetition_penalty=penalty)
    ours = tokens_of(params, prompts, 20, sampling, num_tokens=CONFIG.vocab_size)
    model = make_model(CONFIG, params).eval()
    model.generation_config.eos_token_id = None
    for ids, drawn in zip(prompts, ours, strict=True):
        theirs = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones((1, len(ids)), dtype=torch.int64),
            max_new_tokens=20,
            do_sample=False,
            repetition_penalty=penalty,
            pad_token_id=0,
        )
        np.testing.assert_array_equal(drawn, theirs[0, len(ids) :])


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_a_text_does_not_depend_on_the_rest_of_the_batch(params, sampling: Sampling) -> None:
    together = texts_of(params, ["옛날", *PROMPTS[:3]], sampling=sampling)
    assert texts_of(params, ["옛날"], sampling=sampling) == together[:1]


def test_the_seed_and_the_row_decide_what_is_drawn(params) -> None:
    first = texts_of(params, ["옛날", "옛날"], seed=1)
    assert first == texts_of(params, ["옛날", "옛날"], seed=1)
    assert first[0] != first[1]
    assert set(first).isdisjoint(texts_of(params, ["옛날", "옛날"], seed=2))


def test_padding_of_the_vocabulary_is_never_drawn(params) -> None:
    favoured = dict(params, embed_out={"kernel": params["embed_out"]["kernel"].at[:, -20:].mul(9)})
    prompts = [VOCABULARY.encode(prompt) for prompt in PROMPTS]
    for sampling in (GREEDY, WARM):
        assert tokens_of(favoured, prompts, 20, sampling).max() < NUM_TOKENS
        unmasked = tokens_of(favoured, prompts, 20, sampling, num_tokens=CONFIG.vocab_size)
        assert unmasked.max() >= NUM_TOKENS


def test_compiled_once_for_all_steps_and_similar_prompts(params) -> None:
    config = dataclasses.replace(CONFIG, max_seq_len=255)  # not compiled by any other test
    compiled = [f._cache_size() for f in (generate.prefill, generate.decode_step)]
    for length, n in ((1, 5), (30, 60), (64, 3)):
        tokens_of(params, [[5] * length, [6]], n, config=config)
    after = [f._cache_size() for f in (generate.prefill, generate.decode_step)]
    assert after == [n + 1 for n in compiled]


def test_a_row_ends_at_end_of_text_and_the_others_go_on(params) -> None:
    prompts = [prompt or "떡" for prompt in PROMPTS]  # the empty one would encode otherwise
    drawn = tokens_of(params, [VOCABULARY.encode(prompt) for prompt in prompts], 24)
    end = int(drawn[0, 7])
    ending = dataclasses.replace(VOCABULARY, end_of_text=end)
    pieces = list(
        generate.stream(CONFIG, params, ending, prompts, max_new_tokens=24, sampling=GREEDY)
    )
    expected = [ids[: ids.index(end)] if end in ids else ids for ids in drawn.tolist()]
    for row, ids in enumerate(expected):
        raw = b"".join(VOCABULARY.token_bytes[i] for i in ids)
        whole = raw.decode(errors="replace")
        text = "".join(piece[row] for piece in pieces)
        assert whole.startswith(text)
        assert len(whole) - len(text) <= 1  # an unfinished character
    assert len(expected[0]) <= 7
    assert len(pieces) == min(24, max(len(ids) for ids in expected) + 1)


def test_stop_strings_end_their_row_only(params) -> None:
    whole = texts_of(params, PROMPTS, sampling=GREEDY)
    stop = whole[0][4:7]
    cut = texts_of(params, PROMPTS, sampling=GREEDY, stop=[stop])
    assert cut == [text.split(stop)[0] for text in whole]
    assert len(cut[0]) <= 4


def test_the_stream_is_the_text(params) -> None:
    pieces = list(
        generate.stream(
            CONFIG, params, VOCABULARY, PROMPTS, max_new_tokens=24, sampling=WARM, seed=3
        )
    )
    assert ["".join(row) for row in zip(*pieces, strict=True)] == texts_of(params, PROMPTS, seed=3)


def test_only_matrices_are_cast_and_nothing_changes(params) -> None:
    config = dataclasses.replace(CONFIG, compute_dtype="bfloat16")
    cast = generate.inference_params(config, params)
    dtypes = {jax.tree_util.keystr(path): x.dtype for path, x in jax.tree.leaves_with_path(cast)}
    assert all((x == jnp.float32) == ("norm" in name) for name, x in dtypes.items())
    tokens = np.array([VOCABULARY.encode(PROMPTS[0])], np.int32)
    apply = jax.jit(neox.apply, static_argnums=0)
    np.testing.assert_array_equal(apply(config, cast, tokens)[0], apply(config, params, tokens)[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 250}, "prompt 1 has 93 tokens.*max_new_tokens=250.* 256 .*at most 163"),
        ({"prompts": ["", "담배 " * 300]}, "prompt 2 has .* tokens.* 256 .*; shorten the prompt$"),
        ({"n": 0}, "max_new_tokens=0: must be at least 1"),
        ({"seed": -1}, "seed=-1"),
        ({"stop": ["가", ""]}, "stop: the empty string"),
        (
            {"vocabulary": make_vocabulary(train_tokenizer(400).to_str().encode(), "")},
            "the tokenizer has .* tokens.* another model",
        ),
    ],
    ids=["room", "no room", "no tokens", "seed", "stop", "tokenizer"],
)
def test_bad_requests_are_one_line(params, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        texts_of(params, **{"prompts": PROMPTS} | arguments)
    assert "\n" not in str(error.value)


def test_the_last_token_that_fits(params) -> None:
    n = CONFIG.max_seq_len - len(VOCABULARY.encode("옛날"))
    pieces = generate.stream(
        CONFIG, params, VOCABULARY, ["옛날"], max_new_tokens=n, sampling=GREEDY
    )
    assert len(list(pieces)) == n


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory, params):
    """The workdir of the model, as a training run leaves it."""
    workdir = tmp_path_factory.mktemp("workdir")
    checkpoint.save_params(workdir, CONFIG, params)
    train_tokenizer().save(str(workdir / "tokenizer.json"))
    return workdir


def run_program(*flags):
    return subprocess.run(
        [sys.executable, "-m", "polyglot_jax.generate", *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_program_prints_prompt_and_text(params, model_dir) -> None:
    done = run_program(f"--model={model_dir}", "--prompt=옛날", "--max_new_tokens=8", "--seed=5")
    assert (done.returncode, done.stderr) == (0, "")
    (text,) = texts_of(params, ["옛날"], n=8, sampling=Sampling(), seed=5)
    assert done.stdout == f"옛날{text}\n"


def test_the_program_takes_several_prompts(params, model_dir) -> None:
    done = run_program(
        *(f"--model={model_dir}", "--prompt=옛날", "--prompt=", "--max_new_tokens=8"),
        *("--temperature=1", "--top_k=50", "--top_p=0.9", "--repetition_penalty=1.1"),
    )
    first, second = texts_of(params, ["옛날", ""], n=8)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"--- 1 of 2 ---\n옛날{first}\n--- 2 of 2 ---\n{second}\n"


def test_the_program_fails_on_one_line(model_dir) -> None:
    done = run_program(f"--model={model_dir}", "--prompt=옛날", "--max_new_tokens=1000")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: prompt 1 has ")
