"""Characters, fragments and lines of the page: what goes, and what looks like it and stays."""

import pytest

from polyglot_jax.corpus.characters import compose, remove_invisible, shorten_repeats
from polyglot_jax.corpus.fragments import remove_fragments
from polyglot_jax.corpus.spam import is_page_line, remove_page_lines

PAGE_LINES = [
    "공유하기",
    "글 공유하기",
    "SNS 공유하기",
    "페이스북 트위터 카카오톡 밴드 URL 복사",
    "본문 바로가기",
    "추천31 SNS 공유하기",
    "로그인 | 회원가입 | 검색",
    "<저작권자 ⓒ 가나 뉴스>",
    "※ 저작권자 ⓒ 가나뉴스. 무단 전재-재배포 금지",
    "무단전재 및 재배포 금지",
    "저작권자(c) 가나통신, 무단 전재-재배포, AI 학습 및 활용 금지",
    "Copyright ⓒ 2019 가나일보. All rights reserved.",
    "##### Copyright 2019 The Example Authors.",
    "ⓒ 가나통신",
    "홍길동 기자 hong@example.com",
    "[홍길동 기자]",
    "(서울=가나) 홍길동 기자",
    "[가나신문 홍길동 기자]",
    "▶ 포털에서 구독하기",
    "기사입력 2019.08.01 오전 10:00",
    "입력 : 2019-08-01 10:00 수정 2019-08-01 11:00",
    "상호: 가나 | 대표: 홍길동 | 사업자등록번호: 000-00-00000 | 주소: 서울시",
]
TEXT_LINES = [
    "주소: 서울시 강남구",
    "TEL: 02-000-0000",
    "지식을 공유하기",
    "팀원과 문서를 공유하기 위해서는 설정이 필요합니다.",
    "무단전재와 재배포를 금지한다는 조항이 문제가 되었다.",
    "데이터를 무단 복제하는 행위를 금지한다",
    "Copyright는 저작권을 뜻하는 말이다.",
    "ⓒ 표시는 저작권을 뜻합니다 그리고 이 문장은 더 이어집니다",
    "(c) 회원이 신청한 경우",
    "역시 기자",
    "나는 기자다",
    "홍길동 기자는 말했다.",
    "(서울=가나통신) 홍길동 기자 = 오늘 서울에서 행사가 열렸다.",
    "추천",
    "검색",
    "댓글",
    "좋아요",
    "카카오톡",
    "밴드 공유",
    "데이터 등록",
    "등록 2019년",
    "- 홈페이지",
    "페이스북은 트위터보다 크다",
    "좋아요 좋아요 좋아요",
    "※ 공고 제2026-0165호 기준이며 이후 지정 건은 부처 홈페이지",
    "- 필수 노출 사항: 상호명, 사업자등록번호, 대표자명, 전화번호, 주소",
]


@pytest.mark.parametrize("line", PAGE_LINES)
def test_lines_of_the_page_go_and_take_nothing_with_them(line: str) -> None:
    assert remove_page_lines(f"첫 줄\n{line}\n\n끝 줄") == "첫 줄\n\n끝 줄"
    prose = f"{'앞에 글이 길게 있고 나서 ' * 12}{line}"
    assert remove_page_lines(prose) == prose


@pytest.mark.parametrize("line", TEXT_LINES)
def test_lines_of_the_text_stay(line: str) -> None:
    assert not is_page_line(line)
    assert remove_page_lines(f"{line}\n{line}") == f"{line}\n{line}"


@pytest.mark.parametrize(
    ("text", "shorter"),
    [
        ("ㅋㅋㅋㅋㅋ", "ㅋㅋㅋ"),
        ("영화ㅋㅋㅋㅋ 재밌다ㅠㅠㅠㅠㅠㅠ", "영화ㅋㅋㅋ 재밌다ㅠㅠㅠ"),
        ("뭐!!!!!! 왜?!?!?!?!?! 음......", "뭐!!! 왜?!?!?! 음..."),
        (
            "ㅋㅎㅋㅎㅋㅎㅋㅎㅋㅎ 😂😂😂😂😂 ❤\ufe0f❤\ufe0f❤\ufe0f❤\ufe0f❤\ufe0f",
            "ㅋㅎㅋㅎㅋㅎ 😂😂😂 ❤\ufe0f❤\ufe0f❤\ufe0f",
        ),
        ("글\n" + "=" * 200 + "\n글", "글\n" + "=" * 80 + "\n글"),
        ("제1장 .......... 3", "제1장 ... 3"),
        ("아~~~~~~", "아~~~"),
    ],
)
def test_repeats(text: str, shorter: str) -> None:
    assert shorten_repeats(text) == shorter


@pytest.mark.parametrize(
    "text",
    [
        "영화ㅋㅋㅋ 재밌다",
        "1000000원 aaaa aaaaaaaa 0xffffffff 111111",
        "와아아아아아아 하하하하하하",
        "----------\n~~~~~~~~~~\n##########\n제목\n==========",
        "~~~~python\na\n~~~~",
        "((((()))))  [[[[[]]]]] {{{{{}}}}} \\\\\\\\\\ a____b",
    ],
)
def test_what_repeats_for_a_reason_stays(text: str) -> None:
    assert shorten_repeats(text) == text


@pytest.mark.parametrize(
    ("text", "composed"),
    [
        ("\u1112\u1161\u11ab글", "한글"),
        ("\u110f\u110f\u110f ㅋㅋ", "ㅋㅋㅋ ㅋㅋ"),
        ("줄\u115f인 것", "줄인 것"),
        ("그래ᆢ 맞다", "그래ᆢ 맞다"),  # the original deleted it, and all that is not composed
        ("나랏말\u110a\u119e미", "나랏말\u110a\u119e미"),
        ("ㄱㄴㄷ ㅏㅑ", "ㄱㄴㄷ ㅏㅑ"),
        ("e\u0301", "é"),
    ],
)
def test_jamo(text: str, composed: str) -> None:
    assert compose(text) == composed


def test_invisible_characters_go_but_not_those_of_emoji() -> None:
    assert remove_invisible("가\u200b나\x00다\ufeff라\u200d마\U0001ffff") == "가나다라마"
    assert remove_invisible("👨\u200d👩\u200d👧 가\n\t나") == "👨\u200d👩\u200d👧 가\n\t나"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("[문서](https://x.kr/a_(b)?c=1#d)를 보세요", "문서를 보세요"),
        ("![](http://x.kr/y.png)앞 [![그림](/a.png)](/b)뒤", "앞 뒤"),
        ("[[안](http://a.kr) 밖](#b \"제목\")", "안 밖"),
        ("끊긴 ](http://z.kr) 링크", "끊긴 링크"),
        ('그림 <img src="http://x.kr/y.jpg" wid', "그림 "),
        ('class="x" style="y">본문', "본문"),
        ("data:image/png;base64," + "A" * 50 + " 끝", " 끝"),
        ("[코드 `a[0]`](http://x.kr) 밖", "코드 `a[0]` 밖"),
    ],
)  # fmt: skip
def test_fragments(text: str, rest: str) -> None:
    assert remove_fragments(text) == rest


@pytest.mark.parametrize(
    "text",
    [
        "[전문개정 2007. 12. 21.](비영리 단체의 사업주가 이를 지킬 수 있도록)",
        "`[a](http://b.kr)` ``[a](/b)``",
        "```\n[a](http://x.kr)\n```",
        "https://x.kr/a?b=1 a[0](1) 목록[1]과 (괄호)",
        "x = 3 > 2, a <a = 1, class = 5",
    ],
)
def test_what_is_no_fragment_stays(text: str) -> None:
    assert remove_fragments(text) == text
