"""One document explained: each rule's effect, why it is dropped, and where it is not found."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyglot_jax.corpus import difference
from polyglot_jax.corpus.explain import explain
from polyglot_jax.corpus.rules import Options

TEXT = (
    "\ufeff<p>첫  문단ㅋㅋㅋㅋㅋ 010-2345-6789</p>\r\n" + "바뀌지 않는 긴 글. " * 20 + "\n공유하기"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    lines = [{"text": TEXT, "id": "x"}, {"text": "짧다\x1b[31m"}, {"text": 3}, {"text": "가" * 60}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_each_rule_is_shown_with_what_it_changes(file: Path) -> None:
    shown = explain(f"{file}:1", Options(), color=False)
    assert shown.startswith(f"{file}:1, {len(TEXT)} characters, as text, id x\n")
    names = [line.split()[1].rstrip(":") for line in shown.split("\n") if line.startswith("== ")]
    assert names[:4] == ["line_ends", "invisible", "blanks", "html"]
    for part in ("[-⟨U+FEFF⟩-]", "[-<p>-]첫 문단", "ㅋㅋㅋ[-ㅋㅋ-]", "[-공유하기-]", "{+<|tel|>+}"):
        assert part in shown
    assert "kept: " in shown
    assert "바뀌지 않는 긴 글. " * 5 not in shown  # what stays is shortened
    colored = explain(str(file), Options(), color=True)
    assert "\x1b[9;31m공유하기\x1b[0m" in colored
    assert "[-" not in colored


def test_why_it_is_dropped_and_what_is_none(file: Path) -> None:
    assert "dropped: short (6, the limit is 50)" in explain(f"{file}:2", Options())
    assert "\x1b[31m" not in explain(f"{file}:2", Options(), color=False)
    assert "no rule changes it" in explain(f"{file}:4", Options())
    for place, message in [
        (f"{file}:3", "a.jsonl:3: text is a int"),
        (f"{file}:9", "no document begins there"),
        (f"{file}x:1", "it is FILE:LINE"),
    ]:
        with pytest.raises(ValueError, match=message):
            explain(place, Options())


@settings(deadline=None, derandomize=True, database=None)
@given(st.text("ab가 \n1.", max_size=30), st.text("ab가 \n1.", max_size=30))
def test_the_pieces_of_a_difference_are_both_texts(before: str, after: str) -> None:
    parts = list(difference.pieces(before, after))
    assert "".join(text for kind, text in parts if kind != "new") == before
    assert "".join(text for kind, text in parts if kind != "gone") == after


def test_a_large_difference_is_shown_as_a_whole() -> None:
    before, after = "가 " * 10_000 + "끝", "나 " * 10_000 + "끝"
    assert [kind for kind, _ in difference.pieces(before, after)] == ["gone", "new", "same"]
