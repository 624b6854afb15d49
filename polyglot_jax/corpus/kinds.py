"""The four kinds of documents of the Polyglot-Ko report, as a label with reasons.

The report (arXiv 2306.02254, section on data) tells apart data that is available for training, data
that needs context to be understood, data that contains hate speech, and data of NLP tasks, which
must be kept from evaluation; it does not say how. Here each kind has a few rules that a reader can
check, tuned to leave a document "usable" when in doubt. They find what is blatant;
docs/document_kinds.md states how much they miss. A trained classifier can take their place.
"""

import importlib
import re
import statistics
from collections.abc import Callable, Sequence

KINDS = ("usable", "context", "hate", "task")

Classifier = Callable[[Sequence[str]], Sequence[str]]

# Every alternative of these two begins with a letter and looks behind only then: `re` skips what
# holds none of the first letters, and is ten times faster than with one lookbehind in front.
# Terms that degrade people by group, or name a person an animal or a cripple: two points each.
_SLURS = re.compile(
    "한남(?:충|들|놈|새끼|유충)|한녀(?<![가-힣]한녀)|김치녀|된장녀|맘충|급식충|일베충|똥꼬충|메갈(?!로)"
    "|꼴페미|페미(?:나치|충|년|들)|쿵쾅이|쿵쾅쿵쾅|피싸개|틀딱|개독(?!서)|좌빨|좌좀|수꼴|토착왜구|문재앙"
    "|쥐박이|닭그네|전라디언|절라도|쪽바리|쪽빠리|짱깨|짱꼴|똥남아|조센징|깜둥이|튀기새끼|개돼지|계집년"
    "|화냥년|병신(?!년|월|일)|ㅂㅅ|빙신|찐따|기레기|기더기|약쟁이"
    r"|미친\s?년|쌍년|썅년|걸레년|저년(?<![가-힣]저년)(?=[이은을의아들])|그년(?<![가-힣]그년)(?=[이은을의아들])"
    # not the young of animals, which are called so too
    "|새[끼키](?:(?<=[개씹]..)|(?<=[개씹] ..)"
    "|(?<=[이저그애]..)(?<![가-힣]...)|(?<=[이저그애] ..)(?<![가-힣]....))"
    r"(?!\s?(?:고양이|강아지|곰|호랑이|사자|돼지|양|염소|손가락|발가락|줄))"
)
# Curses and insults, common in anger without hate: one point each.
_INSULTS = re.compile(
    "씨발|씨팔|씨빨|씨벌|시발(?<![가-힣]시발)(?![점역지택])|ㅅㅂ|ㅆㅂ|지랄|ㅈㄹ|좆|존나(?<![가-힣]존나)|ㅈㄴ"
    "|염병|엠병|니미|느금|극혐|역겹|역겨|처먹|쳐먹|꽃뱀|계집|면상|찌질|대가리|아가리|주둥이|닥쳐|닥치고"
    "|꺼져라|뒤[져진]라|뒈[져질]|정신병자|또라이|똘아이|돌아이|쓰레기(?:들|새|같|네|야)|미친놈|노처녀"
    "|벌레[들같]|빨갱이|매국노|양아치"
)
_MIN_POINTS, _CHARS_PER_POINT = 2, 75  # an article that quotes a slur is not hate speech

# Not ">", which quotes in e-mail but sets off notes in Markdown.
_REPLY = re.compile(r"\s*(?:└|↳|ㄴ(?![가-힣ㄱ-ㅎ])|@[\w가-힣]|(?:re|답글|답장)\s?:)", re.IGNORECASE)
_CHATTY = re.compile(r"ㅋㅋ|ㅎㅎ|ㅠ|ㅜㅜ|\^\^|[가-힣](?:~|!!|\?\?|\.\.|;;)|[ㄱ-ㅎ]{2}|♡|👍")
_POINTING = re.compile(r"(?:위|아래|앞|첨부된?)의?\s?(?:글|사진|그림|링크|댓글|영상)")
_SENTENCE_END = re.compile(r"(?:[다요까죠네오음함됨임]|[.?!])[\"'”’)\]]*\s*\Z")

_QUESTION = re.compile(
    r"\s*(?:질문|문제|물음|질의|답변|정답|대답|해설|보기|[QA]|[문답])\s?[0-9]*\s?[.:)]|\s*[①②③④⑤]",
    re.IGNORECASE,
)
_INSTRUCTION = re.compile(
    r"^#{1,4}\s?(?:명령어|지시|질문|답변|입력|출력|응답|instruction|input|response)\s?:",
    re.IGNORECASE | re.MULTILINE,
)
_ENTRY = re.compile(
    r"\s*[가-힣]+[0-9]*\s?(?:\[[^\]]*\]|\([^)]*\))?\s?"
    r"(?:[「\[(<](?:명|동|형|부|대|관|감|수|조)(?:사|용사|명사|형사|탄사)?[」\])>])"
)
_BENCHMARK = re.compile(
    r"(?<![a-z])(?:klue|kobest|korquad|nsmc|kor_?nli|kor_?sts|3i4k|parakqc|beep|kmmlu|haerae)"
    r"(?![a-z])",
    re.IGNORECASE,
)


def label(text: str, source: str = "") -> tuple[str, tuple[str, ...]]:
    """Returns the kind of a document (one of KINDS) and the reasons for it.

    Of several that apply, hate speech goes before task data and that before context.
    """
    for kind, reasons in (
        ("hate", _hate(text)),
        ("task", _task(text, source)),
        ("context", _context(text)),
    ):
        if reasons:
            return kind, reasons
    return "usable", ()


def _hate(text: str) -> tuple[str, ...]:
    slurs, insults = len(_SLURS.findall(text)), len(_INSULTS.findall(text))
    points = 2 * slurs + insults
    if points < _MIN_POINTS or points * _CHARS_PER_POINT < len(text):
        return ()
    return (f"{slurs} slurs and {insults} insults in {len(text)} characters",)


def _task(text: str, source: str) -> tuple[str, ...]:
    reasons = []
    if match := _BENCHMARK.search(source):
        reasons.append(f"source of the benchmark {match[0]}")
    if (count := len(_INSTRUCTION.findall(text))) >= 2:
        reasons.append(f"{count} headings of instruction data")
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) >= 4:
        for name, share, least in (
            ("questions and answers", _share(_QUESTION, lines), 0.4),
            ("dictionary entries", _share(_ENTRY, lines), 0.4),
            ("tab-separated rows", _table_share(lines), 0.9),
        ):
            if share >= least:
                reasons.append(f"{share:.0%} of the lines are {name}")
    return tuple(reasons)


def _context(text: str) -> tuple[str, ...]:
    lines = [line for line in text.split("\n") if line.strip()]
    reasons = []
    if len(lines) >= 3 and (share := _share(_REPLY, lines)) >= 0.3:
        reasons.append(f"{share:.0%} of the lines are replies")
    if len(lines) >= 6 and statistics.median(map(len, lines)) < 80:
        share = sum(bool(_CHATTY.search(line)) for line in lines) / len(lines)
        if share >= 0.3:
            reasons.append(f"{share:.0%} of the short lines are chat or comments")
    if len(text) < 200 and (match := _POINTING.search(text)):
        reasons.append(f"short, and points to what is not there: {match[0]}")
    if len(text) < 100 and not any(_SENTENCE_END.search(line) for line in lines):
        reasons.append("short, without a whole sentence")
    return tuple(reasons)


def _share(pattern: re.Pattern[str], lines: Sequence[str]) -> float:
    return sum(bool(pattern.match(line)) for line in lines) / len(lines)


def _table_share(lines: Sequence[str]) -> float:
    """Share of lines with as many tabs as most lines have, of those that have any."""
    tabs = statistics.mode(line.strip().count("\t") for line in lines)
    return sum(line.strip().count("\t") == tabs for line in lines) / len(lines) if tabs else 0.0


def resolve(name: str) -> Classifier:
    """Imports the classifier that `module:function` names; what it gives is checked.

    Raises:
      ValueError: if there is no such module or function, and later if it gives another number of
        labels than there are documents, or one that is not in KINDS.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"classifier {name!r}: write it as module:function")
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        raise ValueError(f"classifier {name!r}: {error}; is it on PYTHONPATH?") from error
    if not callable(found):
        raise ValueError(f"classifier {name!r}: {module} has no function {function!r}")

    def checked(texts: Sequence[str]) -> list[str]:
        kinds = list(found(texts))
        if len(kinds) != len(texts):
            raise ValueError(f"{name} gave {len(kinds)} labels for {len(texts)} documents")
        if unknown := sorted({str(kind) for kind in kinds} - set(KINDS)):
            raise ValueError(f"{name} gave {unknown[0]!r}; the kinds are {', '.join(KINDS)}")
        return kinds

    return checked
