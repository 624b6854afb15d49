"""Kinds of documents: each rule with a text it is for and one it must leave alone."""

import sys
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import kinds as benchmark
from polyglot_jax.corpus import kinds

STEADY = settings(deadline=None, derandomize=True, database=None, max_examples=200)
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
ARTICLE = "정부는 오늘 새 대책을 내놓았다. 전문가들은 효과가 있으리라고 보았다.\n" * 5
THREAD = (
    "이거 진짜 재밌다 ㅋㅋ\n나도 봤는데 별로..\n헐 대박\n언제 나온 거야~\n어제요!!\n감사합니다ㅠ"
)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (ARTICLE, "usable"),
        (THREAD, "context"),
        ("어제 글을 올렸습니다\n└ 그렇군요\n답이 왔나요?\nRe: 네", "context"),
        ("> 참고: 새 판에서 바뀌었습니다.\n> 설정을 보세요.\n설치하려면 내려받습니다.", "usable"),
        ("위 사진처럼 하시면 됩니다.", "context"),
        ("다음에 계속", "context"),
        ("다음 이야기는 내일 계속됩니다.", "usable"),
        ("이 병신 같은 놈", "hate"),
        ("야 씨발 지랄하지 마라", "hate"),
        (ARTICLE * 3 + "그는 병신이라는 욕을 들었다고 했다.", "usable"),
        ("새끼 고양이가 이 새끼 강아지와 놀고 있다. 청년들과 소년들이 보았다.", "usable"),
        ("병신년 새해가 밝았다. 한남동과 시발점, 시발역을 지났다.", "usable"),
        ("질문: 몇 시?\n답변: 세 시.\n질문: 어디?\n답변: 집.", "task"),
        ("하늘이 파랗다\t1\n비가 온다\t0\n눈이 온다\t1\n춥다\t0", "task"),
        ("### 명령어:\n번역하라\n\n### 응답:\n예", "task"),
        (
            "사과「명」 과일의 하나.\n먹다「동」 삼키다.\n곱다「형」 예쁘다.\n매우「부」 아주.",
            "task",
        ),
        ("표 하나.\n가\t나\n이렇게 본문이 이어진다.\n그리고 끝난다.", "usable"),
        ("", "context"),
    ],
)
def test_each_rule(text: str, kind: str) -> None:
    found, reasons = kinds.label(text)
    assert found == kind
    assert bool(reasons) == (kind != "usable")


def test_the_source_names_a_benchmark() -> None:
    assert kinds.label(ARTICLE, "data/nsmc/train") == (
        "task",
        ("source of the benchmark nsmc",),
    )
    assert kinds.label(ARTICLE, "insmcorp")[0] == "usable"


def test_hate_goes_before_tasks() -> None:
    assert kinds.label("이 병신아\t1\n저 병신아\t1\n그 병신아\t1\n한남충\t1")[0] == "hate"


@STEADY
@given(
    text=st.text(max_size=80) | st.lists(st.sampled_from(THREAD + "\t>"), max_size=40).map("".join)
)
def test_any_text_has_a_kind_and_a_reason_unless_usable(text: str) -> None:
    kind, reasons = kinds.label(text)
    assert kind in kinds.KINDS
    assert bool(reasons) == (kind != "usable")


def given_classifier(monkeypatch: pytest.MonkeyPatch, labels: list[str]) -> kinds.Classifier:
    module = types.ModuleType("given_classifier")
    monkeypatch.setattr(module, "classify", lambda texts: labels, raising=False)
    monkeypatch.setitem(sys.modules, "given_classifier", module)
    return kinds.resolve("given_classifier:classify")


def test_a_classifier_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given_classifier(monkeypatch, ["hate", "task"])(["a", "b"]) == ["hate", "task"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("module", "write it as module:function"),
        ("no_such_module:label", "No module named 'no_such_module'"),
        ("re:no_such_function", "re has no function 'no_such_function'"),
    ],
)
def test_a_wrong_classifier_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kinds.resolve(name)


def test_what_a_classifier_gives_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="classify gave 1 labels for 2 documents"):
        given_classifier(monkeypatch, ["usable"])(["a", "b"])
    with pytest.raises(ValueError, match="classify gave 'bad'; the kinds are usable"):
        given_classifier(monkeypatch, ["bad"])(["a"])


def test_hate_speech_is_found_seldom_but_surely() -> None:
    path = DATA / "korean_hate_speech" / "labeled__dev.tsv"
    if not path.exists():
        pytest.skip("the labelled comments of Korean HateSpeech are not beside this checkout")
    scores = benchmark.hate_scores(path)
    assert scores["precision_hate"] > 0.8
    assert scores["precision_hate_or_offensive"] > 0.95
    assert scores["recall_hate"] > 0.05
