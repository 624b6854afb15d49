"""An HF directory with a longer vocabulary, as transformers sees it: old logits, new tokens."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from polyglot_jax import convert
from tests.oracle import check_logits, make_model, ragged_tokens, random_params, tiny
from tests.test_extend import MASKS, WORDS, tiny_json
from tests.tiny_tokenizer import TEXT

ROOT = Path(__file__).resolve().parents[1]
METADATA = {"step": 0, "git_commit": "abc", "versions": {"jax": "0"}}


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An HF directory, and the program's extension of it, with a chat template."""
    root = tmp_path_factory.mktemp("extend")
    config = tiny(vocab_size=384)
    (root / "tokenizer.json").write_bytes(tiny_json())
    convert.save_hf(
        *(root / "old", config, random_params(config), root / "tokenizer.json", "float32", METADATA)
    )
    (root / "words.txt").write_text("\n".join(WORDS * 2 + [chr(0xAC00 + i) for i in range(90)]))
    (root / "chat.jinja").write_text(CHAT)
    done = run(
        *("--to=hf", f"--hf={root / 'old'}", f"--output={root / 'new'}"),
        *(
            f"--new_tokens={root / 'words.txt'}",
            "--special_token=<|user|>",
            "--special_token=<|bot|>",
        ),
        f"--chat_template={root / 'chat.jinja'}",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "new tokens from id 293 on: " in done.stdout
    return root / "old", root / "new"


CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|bot|>{% endif %}"
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "polyglot_jax.convert", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_old_text_has_its_old_logits(directories: tuple[Path, Path]) -> None:
    old, new = map(convert.read_hf_config, directories)
    assert (old.vocab_size, new.vocab_size % 128) == (384, 0)
    assert new.vocab_size > old.vocab_size
    tokens_BT, mask_BT = ragged_tokens(tiny(vocab_size=293))  # ids that were tokens before
    model, notes = AutoModelForCausalLM.from_pretrained(
        directories[1], attn_implementation="eager", output_loading_info=True
    )
    assert not any(notes.values())
    params = convert.load_hf(directories[1], new)
    config = tiny(vocab_size=new.vocab_size)
    check_logits(config, params, model, tokens_BT, mask_BT)

    with torch.no_grad():
        before, after = (
            m(torch.tensor(tokens_BT), attention_mask=torch.tensor(mask_BT)).logits[..., :293]
            for m in (make_model(tiny(vocab_size=384), random_params(tiny(vocab_size=384))), model)
        )
    torch.testing.assert_close(after[torch.tensor(mask_BT)], before[torch.tensor(mask_BT)])


def test_what_transformers_makes_of_it(directories: tuple[Path, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directories[1])
    model = AutoModelForCausalLM.from_pretrained(directories[1])
    for word in WORDS:
        assert len(tokenizer(word)["input_ids"]) == 1
    assert tokenizer("".join(MASKS))["input_ids"] == [290, 291, 292]
    assert len(tokenizer) <= model.config.vocab_size
    chat = [{"role": "user", "content": "옛날 옛적에"}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    user, bot = tokenizer.convert_tokens_to_ids(["<|user|>", "<|bot|>"])
    assert (inputs["input_ids"][0, 0], inputs["input_ids"][0, -1]) == (user, bot)
    assert sorted(inputs) == ["attention_mask", "input_ids"]
    out = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert out.shape[1] > inputs["input_ids"].shape[1]
    assert tokenizer.decode(inputs["input_ids"][0], skip_special_tokens=True) == "옛날 옛적에"


def test_the_card_says_so(directories: tuple[Path, Path]) -> None:
    card = (directories[1] / "README.md").read_text()
    assert "made from `old` with polyglot-jax" in card
    assert "## Vocabulary extension" in card
    assert "have not been trained" in card
    assert "`<|user|>`, `<|bot|>`" in card
    assert "license: apache-2.0" not in card
    assert "Vocabulary extension" not in (directories[0] / "README.md").read_text()


def test_a_second_extension_keeps_the_template(directories: tuple[Path, Path], tmp_path) -> None:
    done = run(
        *("--to=hf", f"--hf={directories[1]}", f"--output={tmp_path / 'again'}"),
        *("--special_token=<|system|>", "--dtype=bfloat16"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    again = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert again.chat_template == CHAT
    before = AutoTokenizer.from_pretrained(directories[1])
    assert again("<|system|>")["input_ids"] == [len(before)]
    assert again(TEXT)["input_ids"] == before(TEXT)["input_ids"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to=hf", "--hf={old}"), "give --to=hf --checkpoint=WORKDIR, or"),
        (("--to=orbax", "--hf={old}", "--special_token=<a>"), "give --to=hf"),
        (("--to=hf", "--hf={old}", "--new_tokens={tmp}/none.txt"), "none.txt"),
        (("--to=hf", "--hf={old}", "--special_token=<|sep|>"), "'<|sep|>' is there already"),
        (("--to=hf", "--hf={old}", "--chat_template={old}/config.json"), "Jinja template of"),
    ],
)
def test_program_refuses(directories, tmp_path, arguments, message) -> None:
    arguments = (a.format(old=directories[0], tmp=tmp_path) for a in arguments)
    done = run(*arguments, f"--output={tmp_path / 'x'}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert message in done.stderr
    assert not list(tmp_path.iterdir())
