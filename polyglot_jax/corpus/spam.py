"""Lines that belong to the page and not to its text: sharing, copyright, reporters' sign-offs.

The original cut the text at the first phrase that looked like one, and a document that mentioned an
address lost its rest. Here only whole lines go, each by itself, and only lines that say nothing
else; a sentence *about* copyright or sharing is text.
"""

import re

_LONGEST = 150  # characters; longer lines are prose

# Words of menus. A line of nothing else is one if it has two, of which one is strong.
_STRONG = (
    "공유하기|바로가기|카카오톡|카카오스토리|페이스북|트위터|네이버블로그|네이버밴드|URL복사|"
    "주소복사|구독하기|인쇄하기|스크랩|글자크기|글씨크기|본문듣기|회원가입|로그인|맨위로|좋아요"
)
_WEAK = (
    "SNS|공유|밴드|라인|블로그|인쇄|프린트|메일|이메일|URL|복사|추천|비추천|싫어요|댓글|댓글쓰기|신고|"
    "신고하기|목록|이전글|다음글|이전|다음|검색|메뉴|홈|닫기|열기|더보기|펼치기|접기|크게|작게|보통|"
    "가|구독|핀터레스트|인스타그램|링크|글 요소|기사|저장|보내기|facebook|twitter|kakao|line|band"
)
_SEPARATORS = r"[\s\d|/·ㆍ,:>()\[\]+-]"
_MENU = re.compile(rf"(?:{_SEPARATORS}|{_STRONG}|{_WEAK})+", re.IGNORECASE)
_MENU_WORD = re.compile(rf"(?P<strong>{_STRONG})|{_WEAK}", re.IGNORECASE)
_EMAIL = r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
_REPORTER = (
    r"[가-힣]{2,4}\s?(?:선임|수석|수습|인턴|객원|전문|의학|온라인)?\s?(?:기자|특파원|앵커|PD)"
)
_OWNER = r"(?:저작권자|copyrights?|ⓒ|©|\(c\))"
_LINES = re.compile(
    "|".join(
        (
            # share and go-to lines
            r"(?:이\s?(?:기사|글|페이지)를?\s*|SNS\s*(?:로\s*)?|글\s*)?공유하기(?:\s*글\s*요소)?",
            r"(?:본문|메뉴|검색|주메뉴|하단)\s*(?:내용\s*)?(?:으로\s*)?(?:바로\s?가기|건너뛰기)",
            r"(?:페이지\s*)?맨\s?위로(?:\s*(?:이동|가기))?|글(?:자|씨)\s*크기\s*(?:조절|조정|변경)?",
            r"[▶☞▷►■◆◇→]\s*.{0,60}(?:구독하기|구독|바로가기|제보하기)",
            r"(?:기사\s*)?제보(?:하기|는|[\s:]).{0,60}(?:@\S+|카카오톡.{0,30}|\d{3,4}-\d{4})",
            # copyright lines: nothing follows but what belongs to them
            rf"(?:{_OWNER}.{{0,80}})?.{{0,40}}무단\s?(?:전재|복제|배포|도용|사용)"
            r"[\s,·ㆍ/-]*(?:및|와|과|또는)?\s*(?:(?:재배포|배포|복제|전재|수집|재가공|AI\s?학습)"
            r"[\s,·ㆍ/-]*(?:및|와|과|또는|이용|활용)?\s*)*(?:행위)?[을를]?\s*금지(?:합니다|함)?",
            r".{0,100}all\s+rights?\s+reserved",
            r"저작권자\s*[:：ⓒ©(].{0,60}",
            r"copyrights?\s*(?:[ⓒ©]|\(c\)|\d{4}).{0,80}",
            r"[ⓒ©]\s*[\w.'&-]+(?:\s+[\w.'&-]+){0,3}",
            # sign-offs, known by brackets or an address: "역시 기자" is a comment
            rf"(?:[가-힣]{{2,10}}\s*[=/|]\s*)?{_REPORTER}\s*[/|,=·]?\s*{_EMAIL}",
            rf"[\[(<【/]\s*(?:[가-힣A-Z0-9=·\s]{{2,20}}[\])】]?\s*)?{_REPORTER}(?:\s*{_EMAIL})?",
            # dates of an article
            r"(?:기사\s*)?(?:입력|등록|송고|승인|발행)(?:\s*(?:일시?|시간|날짜))?\s*[:：]?\s*"
            r"\d{4}\s*[.년/-]\s*\d{1,2}\s*[.월/-][\s\d.:/년월일시분오전후|~-]*"
            r"(?:(?:최종\s*)?(?:수정|갱신|업데이트)[\s\d.:/년월일시분오전후|~-]*)?",
        )
    ),
    re.IGNORECASE,
)
_FOOTER_FIELD = re.compile(
    "(?:상호|대표(?:이사|자)?|사업자\\s?등록\\s?번호|통신판매업|등록번호|등록일|발행인|편집인|청소년\\s?보호|"
    "개인정보\\s?(?:보호|관리)|주소|전화|팩스|TEL|FAX|이메일|제호|발행일)\\s*[:：]"
)
_FOOTER_FIELDS = 4  # a line with fewer is an address, which the original took for a footer
# A line without any of these is none of the above; they are looked for in the whole text first.
_HINT = re.compile(
    "공유|바로 ?가기|건너뛰|맨 ?위로|글자|글씨|구독|제보|금지|저작권자|ⓒ|©|"
    "reserved|Reserved|RESERVED|copyright|Copyright|COPYRIGHT|기자|특파원|앵커|PD|입력|등록|송고|승인|"
    "발행|카카오|페이스북|트위터|URL|인쇄|스크랩|본문듣기|로그인|회원가입|좋아요|블로그|밴드"
)


def remove_page_lines(text: str) -> str:
    """Removes lines of menus, sharing, copyright, sign-offs, article dates and site footers."""
    pieces, position, found = [], 0, _HINT.search(text)
    while found:
        start = text.rfind("\n", 0, found.start()) + 1
        end = (text.find("\n", start) + 1) or len(text)
        if end - start <= _LONGEST and is_page_line(text[start:end].removesuffix("\n")):
            pieces.append(text[position:start])
            position = end
        found = _HINT.search(text, end)
    return "".join([*pieces, text[position:]]) if pieces else text


def is_page_line(line: str) -> bool:
    """Whether a line is of the page around a text and says nothing else."""
    bare = line.strip(" \t\u00a0*#_>-=~.<]」』【】")
    if not bare:
        return False
    if _LINES.fullmatch(bare):
        return True
    if _MENU.fullmatch(bare):
        words = {match[0]: match["strong"] for match in _MENU_WORD.finditer(bare)}
        return len(words) > 1 and any(words.values())  # not "좋아요 좋아요"
    if "등록" in bare:
        fields = {match[0] for match in _FOOTER_FIELD.finditer(bare)}
        return len(fields) >= _FOOTER_FIELDS
    return False


# Sites for gambling, escorts and fake goods. The original dropped a document for one of 37 words,
# and with it reports and petitions about them; here several must stand together.
_SPAM_WORDS = (
    ("카지노 바카라 토토 먹튀 슬롯 홀덤 룰렛 파워볼 유흥 레플리카", "사이트"),
    ("카지노 바카라 토토 놀이터 오피 건마", "추천"),
    ("비아그라 시알리스", "구매"),
    ("비아그라 시알리스", "판매"),
    ("소액결제 상품권 신용카드", "현금화"),
    ("온라인카지노 사설토토 먹튀검증 안전놀이터 메이저놀이터 꽁머니 첫충", ""),
    ("출장안마 출장샵 출장마사지 출장만남 조건만남 정품비아그라 폰테크 작업대출 무직자대출", ""),
)
_ADVERTISED = re.compile("|".join(w + end for words, end in _SPAM_WORDS for w in words.split()))


def advertised_words(text: str) -> int:
    """Returns how many different words of spam sites a text has."""
    return len(set(_ADVERTISED.findall(text)))
