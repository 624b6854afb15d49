"""HTML: a page becomes its text, and a text loses its tags but nothing else."""

import time

import pytest

from polyglot_jax.corpus.html import strip_page, strip_tags
from polyglot_jax.corpus.rules import Options, clean


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("가<br>나<br/>\n다<br><br>라", "가\n나\n다\n\n라"),
        ("<p>첫 문단.</p><p>둘째 <b>굵게</b></p>", "첫 문단.\n\n둘째 굵게"),
        # The original wrote ** for <b> and then dropped the sentence that held a *.
        ("안녕하세요.\n<b>저</b>는 학생입니다.\n\n끝.", "안녕하세요.\n저는 학생입니다.\n\n끝."),
        ("<table><tr><td>가</td><td>나</td></tr><tr><td>1</td></tr></table>", "가\t나\n1"),
        ("<td>카드</td><td>계좌</td>", "카드\t계좌"),
        ("<ul><li>하나</li><li>둘</li></ul>", "- 하나\n- 둘"),
        ("글 <script>var a = '<b>';</script> 끝", "글 끝"),
        ("금액 </span> 2017.1", "금액 2017.1"),
        ("<a href='http://x.kr/?a=1&b=2'>링크</a> AT&T", "링크 AT&T"),
        ('<img src="x.jpg"\n alt="두 줄">글', "글"),
        ("<!-- 주석 -->글", "글"),
        ("a -&gt; b &quot;c&quot; &#44032;&#xB098; &hearts;", 'a -> b "c" 가나 ♥'),
        ("&amp;amp;lt;br&amp;gt;줄", "\n줄"),
        ("&#8203;&shy;가&#13;&#10;나", "가\n나"),
        ("<code>Vec&lt;T&gt;</code>를 <b>쓴다</b>", "`Vec<T>`를 쓴다"),
        ("<pre>&lt;div&gt;\n  글</pre>끝", "```\n<div>\n  글\n```\n\n끝"),
        (
            "List<A>와 a<b와 <제목>과 <|tel|>과 <b>굵게</b>",
            "List<A>와 a<b와 <제목>과 <|tel|>과 굵게",
        ),
        ("`<b>코드</b>`와 <b>글</b>\n```\n<div>\n```", "`<b>코드</b>`와 글\n```\n<div>\n```"),
        # What is not closed does not take the rest of the text with it.
        ("<br>글 <script> 뒤 <nav> 더 <!-- 끝", "\n글 <script> 뒤 <nav> 더 <!-- 끝"),
        ("<br><textarea>글 <title>뒤", "\n<textarea>글 <title>뒤"),
    ],
)
def test_tags_in_a_text(text: str, expected: str) -> None:
    assert strip_tags(text).strip(" ") == expected.strip(" ")
    assert strip_tags(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a < b 그리고 c > d, 1<2, x<y>z",
        "Vec<i> Map<String, List<T>> <T extends B>",
        "<제목> <|tel|> <-> <3 </3 <>",
        "글쓴이 <hong@example.com>, <https://x.kr>",
        "굵은 글은 <b> 로 쓴다.",
        "앞에 있는 <h1> 태그와 끝에 있는 </h1> 태그로 표시됩니다.",
        "`<br>`을 쓴다. ``a`<br>``",
        "```html\n<div class='a'>\n<br>\n```",
        "AT&T, a?b=1&lt=2&copy=3, &nix; &;",
        "if (a <b && c> d) { return; }",
    ],
)
def test_what_is_no_html_stays(text: str) -> None:
    assert strip_tags(text) == text


PAGE = """<!DOCTYPE html>
<html><head><title>제목</title><style>p { color: red }</style></head><body>
<nav><ul><li><a href="/">홈</a></li></ul></nav>
<h1>큰
제목</h1>
<p>첫 문단의
   둘째 줄 <b>굵게</b>, <i>기울임</i>.<p>둘째 문단<br>줄 바꿈
<ul><li>하나<li>둘</ul>
<table><tr><td>가<td>나</tr><tr><td>1</td><td>2</td></tr></table>
<pre>보존된
    줄</pre>
<pre><code>if a &lt; b:
    c()</code></pre>
<p><code>x&lt;y</code> 그리고 5 < 6</p>
<button>닫기</button><script>bad("</p>")</script>
</body></html>
"""
PAGE_TEXT = """큰 제목

첫 문단의 둘째 줄 굵게, 기울임.

둘째 문단
줄 바꿈

- 하나
- 둘

가\t나
1\t2

보존된
    줄

```
if a < b:
    c()
```

`x<y` 그리고 5 < 6"""


def test_page() -> None:
    lines = strip_page(PAGE).strip().split("\n")
    assert [line.rstrip() for line in lines] == PAGE_TEXT.split("\n")
    # A page is known in a text by its first tag.
    assert strip_tags(PAGE) == strip_page(PAGE)
    assert strip_tags(PAGE_TEXT) == PAGE_TEXT


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>앞<script>뒤<p>끝", "앞<script>뒤\n\n끝"),
        ("<p>앞<nav>메뉴<p>끝", "앞<nav>메뉴\n\n끝"),
        ("<p>앞<!-- 뒤<p>끝", "앞<!-- 뒤\n\n끝"),
        ("<p>앞</div></table>뒤</p>", "앞뒤"),
        ("<b>" * 1000 + "가" + "<div>" * 1000 + "나", "가나"),
    ],
)
def test_a_broken_page_loses_no_text(page: str, text: str) -> None:
    assert "".join(strip_page(page).split()) == "".join(text.split())


UNITS = '<div>|<b>|<b a=1>|<a |<p>|<nav>|<!--|</p>|<td>|&amp;|&lt;|<pre>|`|<a b="|<a b=\'<c d="'
UNITS += "|<li><ul>|<table>|<br>|<svg>|<select>|<script>|<b><p>|```\n|<code>|</div>|<i a=1>x<p>"
UNITS += "|```js\n<br>\n|![a](|](http://x|<img src='|class='a' |공유하기/|[가나 기자 "
UNITS += "|무단전재 및 |ㅋㅎ|\u1100"


@pytest.mark.parametrize("unit", UNITS.split("|"))
def test_hostile_text_takes_no_longer_than_other_text(unit: str) -> None:
    # A parser of 1 MB of unclosed <div> would take six minutes.
    text = unit * (120_000 // len(unit)) + "</nav></pre></svg></select></script></code>"
    start = time.process_time()
    strip_page(text)
    clean(text, Options(without=("personal_data",)))
    assert time.process_time() - start < 5


def test_an_empty_line_inside_a_comment_or_tag_stays_one() -> None:
    assert strip_tags("가<!--\n\n-->나<b\n>다</b>") == "가\n\n나\n다"


@pytest.mark.parametrize("before", ["<!DOCTYPE html>", "<html><body>", "<!doctype html>\n<html>"])
@pytest.mark.parametrize("after", ["", "</body></html>"])
def test_a_text_between_the_tags_of_a_page_keeps_its_lines(before: str, after: str) -> None:
    text = "첫 문단.\n둘째 줄.\n\n둘째 문단."
    assert strip_tags(f"{before}{text}{after}").strip() == text
