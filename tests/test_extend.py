"""Vocabulary extension: new tokens are really given, old ones keep ids, rows and logits."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from polyglot_jax import extend, hf_config
from polyglot_jax.data.documents import token_table, tokenizer_for_documents
from tests.oracle import check_equal, random_params, tiny
from tests.tiny_tokenizer import SPECIAL_TOKENS, TEXT, train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
MASKS = ("<|acc|>", "<|tel|>", "<|rrn|>")
WORDS = [" 호랑이가", "호랑이가", "담배담배담배", " 이야기꾼", "뷁", "ㅋㅋㅋㅋ", "hello"]


def tiny_json(vocab_size: int = 290) -> bytes:
    """Polyglot-Ko's layout: masks outside the BPE's own vocabulary, after it."""
    tokenizer = train_tokenizer(vocab_size)
    tokenizer.add_special_tokens(list(MASKS))
    return tokenizer.to_str().encode()


OLD = tokenizer_for_documents(tiny_json(), "old")
EXTENSION = extend.extend_tokenizer(tiny_json(), "x", WORDS, ["<|user|>", "<|bot|>"])
NEW = tokenizer_for_documents(EXTENSION.tokenizer_json, "new")
IN_CHAT = Tokenizer.from_str(EXTENSION.tokenizer_json.decode())  # as transformers: specials parsed


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def cuts(tokenizer: Tokenizer, text: str) -> set[int]:
    table = token_table(tokenizer, "x")
    return set(itertools.accumulate(len(table[i]) for i in ids(tokenizer, text)))


def test_each_word_is_one_new_token() -> None:
    for word in WORDS:
        (i,) = ids(NEW, word)
        assert EXTENSION.first_id <= i < EXTENSION.num_tokens
        assert EXTENSION.pieces[i - EXTENSION.first_id] == tuple(ids(OLD, word))
        assert NEW.decode([i]) == word
    assert "뷁" in NEW.decode(ids(NEW, "옛날 뷁은"))
    assert ids(NEW, "뷁")[0] in ids(NEW, "가뷁나")  # inside a word too, as its bytes stay apart


def test_old_ids_keep_their_meaning() -> None:
    old, new = (t.get_vocab(with_added_tokens=True) for t in (OLD, NEW))
    assert old.items() <= new.items()
    assert EXTENSION.first_id == len(old) == 293
    assert sorted(set(new.values()) - set(old.values())) == [*range(293, EXTENSION.num_tokens)]
    assert NEW.get_vocab_size() == EXTENSION.num_tokens
    # The masks are outside the BPE's vocabulary: there they would be numbered by its size.
    assert ids(NEW, "".join(MASKS)) == [290, 291, 292]
    assert IN_CHAT.encode("<pad><|endoftext|>").ids == [0, 2]


@given(
    st.lists(st.sampled_from([*WORDS, *MASKS, "<|user|>", TEXT]) | st.text(max_size=6)).map(
        lambda parts: "".join(parts).encode(errors="ignore").decode()
    )
)
def test_a_text_is_cut_as_before_and_then_joined(text: str) -> None:
    assert cuts(NEW, text) <= cuts(OLD, text)
    table = token_table(NEW, "x")
    assert b"".join(table[i] for i in ids(NEW, text)).decode() == text
    assert NEW.decode(ids(NEW, text), skip_special_tokens=False) == text


def test_special_tokens_are_parsed_only_when_asked() -> None:
    (user, bot) = (EXTENSION.num_tokens - 2, EXTENSION.num_tokens - 1)
    assert IN_CHAT.encode("<|user|><|bot|>").ids == [user, bot]
    assert not {user, bot} & set(ids(NEW, "<|user|><|bot|>"))
    assert EXTENSION.pieces[-2] == tuple(ids(OLD, "<|user|>"))


def test_steps_are_counted() -> None:
    merges = len(json.loads(EXTENSION.tokenizer_json)["model"]["merges"])
    before = len(json.loads(tiny_json())["model"]["merges"])
    assert merges - before == EXTENSION.words + EXTENSION.steps == len(EXTENSION.pieces) - 2
    assert EXTENSION.words == len(WORDS)
    # 담배 repeats: both its pairs are joined at once, and only then the three.
    assert EXTENSION.steps < sum(max(0, len(ids(OLD, word)) - 2) for word in WORDS)
    assert f"{EXTENSION.words} words, {EXTENSION.steps} steps" in EXTENSION.summary()


def test_merges_of_both_spellings() -> None:
    values = json.loads(tiny_json())
    values["model"]["merges"] = [" ".join(pair) for pair in values["model"]["merges"]]
    spelt = extend.extend_tokenizer(json.dumps(values).encode(), "x", WORDS)
    tokenizer = tokenizer_for_documents(spelt.tokenizer_json, "new")
    assert [ids(tokenizer, word) for word in WORDS] == [ids(NEW, word) for word in WORDS]


def test_the_tokens_of_another_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    text = "대한민국의 국민은 법률이 정하는 바에 의하여 권리를 가진다. 국민은 법률을 지킨다. "
    other = train_tokenizer(280)
    other.train_from_iterator([text] * 2, trainer_of(380))
    other.save(str(path))
    words = extend.read_words(path)
    assert " 국민은" in words
    assert not set(words) & set(SPECIAL_TOKENS)
    extension = extend.extend_tokenizer(tiny_json(), "x", words, skip_unusable=True)
    new = tokenizer_for_documents(extension.tokenizer_json, "new")
    for word in words:
        assert len(ids(new, word)) == 1
    assert extension.known > 100  # bytes and common syllables
    assert len(ids(new, text)) < len(ids(OLD, text)) / 3


def trainer_of(vocab_size: int):
    from tokenizers import pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet)


def test_words_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(" 인공지능\r\n인공지능\n\n인공지능\n가\u2028나".encode())
    assert extend.read_words(path) == [" 인공지능", "인공지능", "가\u2028나"]
    path.write_bytes(b"\n\n")
    with pytest.raises(ValueError, match=r"words\.txt holds no words"):
        extend.read_words(path)
    path.write_bytes(b"a\xff")
    with pytest.raises(ValueError, match="not UTF-8 at byte 2"):
        extend.read_words(path)
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match=r"bad\.json: not a tokenizer\.json"):
        extend.read_words(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("words", "specials", "message"),
    [
        (["두 낱말"], [], r"^x: '두 낱말' can be no token, since its pre-tokenizer cuts it; "),
        (["가"], ["<|tel|>"], r"special token '<\|tel\|>' is there already"),
        (["가"], ["<|a|>", "<|a|>"], "named twice"),
        (["가"], ["나"], r"special token '나' must look like <\|user\|>"),
        (["a"], [], "nothing to add; 1 words are tokens already"),
    ],
)
def test_what_cannot_be_added(words: list[str], specials: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extend.extend_tokenizer(tiny_json(), "x", words, specials)


def test_words_of_another_tokenizer_that_cannot_be_added_are_counted() -> None:
    extension = extend.extend_tokenizer(tiny_json(), "x", ["두 낱말", "낱말"], skip_unusable=True)
    assert (extension.words, extension.unusable) == (1, 1)
    assert "left out 1 never given by a text" in extension.summary()


def test_words_end_where_the_ids_do() -> None:
    words = ["나라", "가나", "다라마", "나다"]
    whole = extend.extend_tokenizer(tiny_json(), "x", words, ["<|a|>"])
    assert whole.words == 4
    for most in range(294, whole.num_tokens + 2):
        try:
            part = extend.extend_tokenizer(tiny_json(), "x", words, ["<|a|>"], most_ids=most)
        except ValueError as error:
            assert "nothing to add" in str(error)  # noqa: PT017
            continue
        assert part.num_tokens <= most
        new = tokenizer_for_documents(part.tokenizer_json, "x")
        assert [len(ids(new, word)) == 1 for word in words] == [
            n < part.words for n in range(len(words))
        ]
    assert part.num_tokens == whole.num_tokens


def test_program_extends_a_tokenizer_alone(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(tiny_json())
    (tmp_path / "words.txt").write_text("나라\n")
    command = [sys.executable, "-m", "polyglot_jax.extend", f"--tokenizer={tmp_path}/t.json"]
    command += [f"--new_tokens={tmp_path}/words.txt", f"--output={tmp_path}/longer.json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "longer.json: " in done.stdout
    assert len(ids(Tokenizer.from_file(f"{tmp_path}/longer.json"), "나라")) == 1
    done = subprocess.run([*command, "--vocab_size=293"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "the next does not fit 293 ids" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --new_tokens or --special_token"),
        (("--special_token=[INST]", "--output={}"), "is a directory"),
        (("--special_token=[INST]", "--tokenizer={}/no.json"), "no.json: not a tokenizer.json"),
    ],
)
def test_program_refuses_in_one_line(tmp_path: Path, arguments: tuple[str], message: str) -> None:
    (tmp_path / "t.json").write_bytes(tiny_json())
    (tmp_path / "no.json").write_text("words")
    command = [sys.executable, "-m", "polyglot_jax.extend", f"--tokenizer={tmp_path}/t.json"]
    command += [f"--output={tmp_path}/longer.json", *(a.format(tmp_path) for a in arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert message in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["no.json", "t.json"]


def test_the_mark_of_an_editor_is_no_part_of_a_word(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_bytes("\ufeff인공\r\n지능\r\n".encode())
    assert extend.read_words(tmp_path / "words.txt") == ["인공", "지능"]


def test_a_tokenizer_that_normalizes_is_refused() -> None:
    values = json.loads(tiny_json()) | {"normalizer": {"type": "NFC"}}
    with pytest.raises(ValueError, match="it has a normalizer"):
        extend.extend_tokenizer(json.dumps(values).encode(), "x", ["낱말"])


# ---- rows


@pytest.mark.parametrize(
    ("tokens", "rows", "expected"), [(300, 384, 384), (385, 384, 512), (300, 293, 384)]
)
def test_padding_is_used_first(tokens: int, rows: int, expected: int) -> None:
    assert extend.padded(tokens, rows) == expected


@pytest.mark.parametrize("rows", [293, 300, 384])
def test_rows(rows: int) -> None:
    params = random_params(tiny(vocab_size=rows))
    new = extend.extend_params(params, EXTENSION)
    first, end = EXTENSION.first_id, EXTENSION.num_tokens
    for old_VD, new_VD in (
        (params["embed_in"], new["embed_in"]),
        (params["embed_out"]["kernel"].T, new["embed_out"]["kernel"].T),
    ):
        assert new_VD.shape == (384, old_VD.shape[1])
        assert new_VD.dtype == np.float32
        np.testing.assert_array_equal(new_VD[:first], old_VD[:first])
        for i, pieces in enumerate(EXTENSION.pieces, first):
            np.testing.assert_allclose(
                new_VD[i], old_VD[list(pieces)].mean(0), rtol=1e-5, atol=1e-6
            )
        unused = old_VD[end:] if rows == 384 else old_VD[first:] if rows == 300 else old_VD
        if rows == 384:
            np.testing.assert_array_equal(new_VD[end:], unused)
        else:
            np.testing.assert_allclose(new_VD[-1], unused.mean(0), rtol=1e-5, atol=1e-6)
    others = [{k: v for k, v in tree.items() if "embed" not in k} for tree in (params, new)]
    check_equal(*others)


# ---- the published one


def test_the_published_tokenizer_extended(shared_data: Path) -> None:
    path = shared_data / "polyglot_tokenizer" / "tokenizer.json"
    words = [" 인공지능", " 스타트업", "ㅋㅋㅋㅋ", " 형태소", "습니다만", " 초거대언어모델"]
    extension = extend.extend_tokenizer(path.read_bytes(), "x", words, ["<|user|>"])
    assert extension.first_id == 30_003
    assert extend.padded(extension.num_tokens, 30_080) == 30_080  # padding has room
    old = tokenizer_for_documents(path.read_bytes(), "old")
    new = tokenizer_for_documents(extension.tokenizer_json, "new")
    assert ids(new, "".join(MASKS)) == [30_000, 30_001, 30_002]
    for word in words:
        assert len(ids(new, word)) == 1
    for text in ("아버지가 방에 들어가셨다.", " 예", " 아니오", "2023년 English don't\n"):
        assert ids(new, text) == ids(old, text)
    assert extension.known == sum(len(ids(old, word)) == 1 for word in words)
    assert hf_config.token_ids(json.loads(extension.tokenizer_json), "x")["<|rrn|>"] == 30_002
