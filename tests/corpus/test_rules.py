"""Cleaning rules: lines stay lines, twice is once, and the original's bugs stay away."""

import re
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyglot_jax.corpus.markdown import strip_markdown
from polyglot_jax.corpus.rules import (
    ORIGINAL,
    RULES,
    Format,
    Options,
    boilerplate_key,
    clean,
    why_dropped,
)

STEADY = settings(deadline=None, derandomize=True, database=None, max_examples=300)
OPTIONS = Options(min_chars=1, without=("personal_data",))
# Those that read one language and write another are not: `&lt;b>` in a page is the text `<b>`.
STEADY_RULES = [rule for rule in RULES if rule[0] not in ("markdown", "html_page")]


def cleaned(text: str, format: Format = "text") -> tuple[str, list[str]]:
    result = clean(text, OPTIONS, format=format)
    return result.text, list(result.changed)


# Dense in what the rules act on, next to anything at all.
NOISE = " \t\n\r\x00\x0b\x0c\x85\u2028\u200b\u200d\ufeff\u00a0\u3000\u3164\u0301\u2329\ufdd0"
NOISE += "가각\u1100\u1161\u11a8ㅋa1.😀❤\ufe0f\U0001f3fb"
TEXT = st.text(st.sampled_from(NOISE) | st.characters(exclude_categories=["Cs"]), max_size=60)


MARKUP = ["**", "`", "[", "](x)", "![", "<b>", "</b>", "<br/>", "<td>", "</td>", "|", "\\", "\\["]
MARKUP += ["<!--", "-->", "{/*", "*/}", "```", "~~~", "---", ">"]
MARKUP += ['<Callout title="', '" content="', '" />', "<Tab\n", "\n/>", "\n", "\n\n", "title: 제목"]
MARKUP += ["](<a b> )", '](x "y")', "](a\\\n", "<br\n/>", "<https://x.kr>", "<Tab ", "text={", "}"]
HTML = [
    "<p>",
    "</p>",
    "<div class='a'>",
    "</div>",
    "<script>",
    "</script>",
    "<pre>",
    "</pre>",
    "<li>",
]
HTML += [
    "<code>",
    "</code>",
    "<script>\n</script>",
    "<tr>",
    "<td>",
    "<nav>",
    "</nav>",
    "<img src='",
    "&lt;",
    "&gt;",
    "&amp;",
]
HTML += ["&nbsp;", "&#10;", "<", ">", "](http://x.kr)", "](/x)", 'class="x">', "공유하기", "\u3000"]
HTML += [
    "ㅋㅋㅋㅋ",
    "!!!!",
    "~~~~",
    "=" * 90,
    "<|tel|>",
    "List<A>",
    "<제목>",
    "[홍길동 기자]",
    "태그",
]
MARKED_UP = st.lists(st.sampled_from(MARKUP + HTML), max_size=25).map("".join)


@pytest.mark.parametrize(("name", "rule"), STEADY_RULES)
@STEADY
@given(text=TEXT | MARKED_UP)
def test_each_rule_applied_twice_is_once_and_adds_nothing(
    name: str, rule: Callable[[str], str], text: str
) -> None:
    once = rule(text)
    assert rule(once) == once
    assert len(once) <= len(text) or name == "compose"  # NFC takes a few apart, as U+0958


@STEADY
@given(text=TEXT | MARKED_UP)
def test_cleaning_is_idempotent_and_composed(text: str) -> None:
    once, _ = cleaned(text)
    assert cleaned(once) == (once, [])
    assert unicodedata.is_normalized("NFC", once)
    assert not re.search("\n{3}|[ \t](\n|\\Z)|\\A\n|\n\\Z|[\r\x00\u200b\ufdd0]", once)


def numbered(parts: list[str]) -> str:
    """Puts a word that names its line after every part."""
    lines, line = [], ""
    for part in parts:
        for i, piece in enumerate(part.split("\n")):
            if i:
                lines.append(line)
                line = ""
            line += f"{piece}낱{len(lines)}말"
    return "\n".join([*lines, line])


@STEADY
@given(parts=st.lists(st.sampled_from(MARKUP + HTML), max_size=25))
def test_no_line_ever_holds_words_of_two_lines(parts: list[str]) -> None:
    text = numbered(parts)
    for result in (cleaned(text)[0], cleaned(text, "markdown")[0], strip_markdown(text)):
        for line in result.split("\n"):
            assert len(set(re.findall("낱([0-9]+)말", line))) <= 1, line


@STEADY
@given(lines=st.lists(st.text("가나 \t\u3000ab1", max_size=8), max_size=8))
def test_non_empty_lines_all_survive(lines: list[str]) -> None:
    words = [line.split() for line in lines if line.strip()]
    once = cleaned("\n".join(lines))[0]
    assert [line.split() for line in once.split("\n") if line] == words


@pytest.mark.parametrize(
    "text",
    [
        "첫 문단.\n\n둘째 문단.",
        "영화ㅋㅋㅋ 재밌다",
        "1000000원 aaaa",
        "010-1234-5678, 02-123-4567, 110-123-456789, 2023-10-31, 2022-0101-1234",
        "https://x.kr/a?b=1",
        "주소: 서울시 강남구",
        "가격은 123456789원",
        "안녕하세요.\n저는 *학생*; 입니다 = #1\n\n끝.",
        "이 영화는 정말 정말 정말 좋다 아아아아아아 하하하하하",
        "x < y 그리고 a > b, Vec<String>, a<b, <|tel|>, <제목>, a?b=1&lt=2, AT&T",
        "가운데 글\n---\n~~~~\n====\n***\n끝",
        "카지노에 대한 기사이다.\n저작권 문제: 무단전재와 재배포를 금지한다는 조항",
        "  들여쓰기\n\t탭\t칸",
        "가족 👨\u200d👩\u200d👧 하트 ❤\ufe0f",
    ],
)
def test_what_the_original_broke_stays_as_it_is(text: str) -> None:
    assert cleaned(text) == (text, [])


def test_plain_rules() -> None:
    raw = "\ufeff\u1112\u1161\u11ab글\r\n가\u200b나\x00  다\u3000라 \t마\u00a0바 "
    raw += "\n\n\n\n\u2028끝\u200d\x0c"
    assert cleaned(raw) == (
        "한글\n가나 다 라\t마 바\n\n끝",
        ["line_ends", "invisible", "compose", "blanks", "line_tails", "empty_lines"],
    )


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("---\ntitle: '안내'\ntags:\n  - a\n---\n\n본문", "# 안내\n\n\n본문"),
        ("---\n본문에 있는 줄\n---", "---\n본문에 있는 줄\n---"),
        ("[문서](https://x.kr/a_(b)?c=1#d)를 보세요", "문서를 보세요"),
        ("[\\[노트\\] 보기↗](https://x.kr)", "[노트] 보기↗"),
        ("[![그림](a.png)](b) ![](<a b.png>)끝", " 끝"),
        ("목록[1]과 (괄호)", "목록[1]과 (괄호)"),
        ("**굵은** 2 * 3 ** 4 **`코드`**", "굵은 2 * 3 ** 4 `코드`"),
        ("`<b>` ``[a](`b`)``와 <b>굵게</b>", "`<b>` ``[a](`b`)``와 굵게"),
        ("pay\\_method \\<주문\\> C:\\dir", "pay_method <주문> C:\\dir"),
        ("줄\\\n바꿈", "줄\n바꿈"),
        (
            "&quot;가&#x20;나&quot; &lt;b&gt;&nbsp;&#10;`&amp;` &nix; A&B;",
            '"가 나" <b>  `&amp;` &nix; A&B;',
        ),
        ('<Callout content="내용\n둘째" title="제목" />', "\n제목\n내용\n둘째\n"),
        ('## <Highlight text="본인인증" />', "## 본인인증"),
        ('<div class="hint" data-style="info">이 글은</div>', "이 글은"),
        ('<div class="tabs-content" data-title="요청">', "요청"),
        ("<td>카드</td><td>계좌</td>", "카드\n계좌"),
        ("가<br/>나\n| 가<br>나 |", "가\n나\n| 가 나 |"),
        ("<Show when={a > {b: 1}.b}>안</Show>", "안"),
        ("가<!-- 주석\n둘 -->나 <https://x.kr>", "가\n나 https://x.kr"),
        ("가 < 나 > 다, 1 <2> 3", "가 < 나 > 다, 1 <2> 3"),
        ("(관련 이미지 첨부)", ""),
        (
            "글\n```js title='x'\n// **[a](b)**\n<div>\n```\n**글**",
            "글\n// **[a](b)**\n<div>\n글",
        ),
        ("````\n```\n안\n````\n밖", "```\n안\n밖"),
    ],
)
def test_markdown(markdown: str, text: str) -> None:
    assert strip_markdown(markdown) == text


@pytest.mark.parametrize(
    "unit", ["<a ", "[", "`", "**a ", "<!-- ", "{", "<a b={", "{/* ", '<a b="', "![", "\\", "> "]
)
def test_hostile_text_takes_no_longer_than_other_text(unit: str) -> None:
    # A quadratic expression would need minutes for 200 kB.
    strip_markdown(unit * (200_000 // len(unit)))
    cleaned(" " * 100_000 + "x" + "\u3000 " * 50_000 + "x")


def test_boilerplate_is_prose_of_some_length() -> None:
    line = "이 문서는 결제 연동을 준비하는 개발자를 위한 안내 문서입니다."
    assert boilerplate_key(f"  {line}") == line
    for other in (
        "감사합니다.",
        f"## {line}",
        'channelKey: "{콘솔 내 연동 정보의 채널키를 입력}",',
    ):
        assert boilerplate_key(other) is None


PROSE = "정부는 국민청원에 대한 답변에서 모두가 문서를 읽게 공개하기로 하였습니다. " * 2


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (" \u200b\n\t", "empty"),
        ("짧은 글", "short"),
        (PROSE, None),
        (PROSE * 2000, "long"),
        ("가나다라마바사아자차카타파하 " * 10, "word_length"),
        ("나 는 너 와 함 께 " * 10, "word_length"),
        ("이것은... 무엇일까… #태그 그리고 " * 5, "symbols"),
        ("*첫째 항목이며 이것은 목록이다\n·둘째 항목이며 이것은 목록이다\n" * 3, "bullets"),
        ("무엇인가 하려는 것이었는데 " * 4 + "소식이 없었던 것이다…", "ellipses"),
        ("This document is written in English only, without any Hangul. 끝", "hangul"),
        (f"{PROSE} 카지노사이트 바카라사이트 토토사이트 먹튀검증", "advertising"),
        (f"{PROSE} 카지노사이트를 단속해 달라는 청원", None),
    ],
)
def test_filters_with_the_original_numbers(text: str, name: str | None) -> None:
    assert clean(text, ORIGINAL).dropped == name
    if name not in ("empty", "short", "advertising"):
        assert clean(text, Options()).dropped is None


def test_why_dropped_names_value_and_limit() -> None:
    assert why_dropped("가" * 30, Options()) == ("short", 30, 50)
    assert why_dropped("가 " * 30, ORIGINAL) == ("word_length", 1.0, 3)
    with pytest.raises(ValueError, match="no cleaning rule 'htm'; there are line_ends, "):
        Options(without=("htm",))


def test_clean_tells_each_step() -> None:
    text = "\ufeff<p>첫  문단ㅋㅋㅋㅋㅋ</p>\r\n공유하기"
    steps = clean(text, OPTIONS).steps
    assert [name for name, _, _ in steps] == [
        "line_ends",
        "invisible",
        "blanks",
        "html",
        "repeats",
        "page_lines",
        "empty_lines",
    ]
    assert steps[0][1] == text
    assert [before for _, before, _ in steps[1:]] == [after for _, _, after in steps[:-1]]
    assert steps[-1][2] == clean(text, OPTIONS).text == "첫 문단ㅋㅋㅋ"
    without = Options(without=("html", "personal_data"), min_chars=1)
    assert "<p>" in clean(text, without).text
