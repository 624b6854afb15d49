"""What counts as personal data: a shape, free boundaries, and where that is not enough a label.

Every pattern is bounded in length and is tried at the start of a digit group only, so the work is
linear in the text. Decisions look at `left`, at most WINDOW characters of what stands before, and
at a few characters behind. docs/personal_data.md gives the reason of each pattern.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from polyglot_jax.corpus import pii_checks as checks

WINDOW = 40  # characters of context before a candidate

# Words that say what the number behind them is. The last one before a number counts.
_LABELS = re.compile(
    r"""(?P<other>주문|접수|거래\ ?번호|승인|관리\ ?번호|송장|운송|택배|등기|일련|상품|모델|부품
        |코드|시리얼|serial|isbn|issn|바코드|사번|학번|군번|특허|출원|상표|면허|허가|공고|고시|문서
        |사건|법인|쿠폰|우편\ ?번호|예약\ ?번호|파일|버전|version|빌드|릴리[스즈]|release|조회
        |타임스탬프|고객\ ?센터|글\ ?번호|지점|시각|이진수|oid|드라이버|(?<![a-z])v(?:er)?\.?$)
    |(?P<acc>계좌|구좌|은행(?!나무|잎|법)|뱅크|통장|입금|송금|예금|이체|농협|수협|신협|새마을|우체국
        |산림조합|증권(?!\ ?번호)|카뱅|케뱅|토뱅|(?<![a-z])bank(?![a-z])|account\ n(?:o\b|umber))
    |(?P<tel>전화|연락|휴대|폰|문자|팩스|문의|상담|카톡|예약|거부|[☎☏📞]|(?<!<\|)tel|phone|mobile
        |sms|fax|(?<![a-z])h\.?p(?![a-z])|(?<![a-z])[tfmhc](?=[.:\ ]))
    |(?P<rrn>주민|외국인|등록증|(?<!<\|)rrn|jumin)
    |(?P<card>카드|card|결제)
    |(?P<brn>사업자)
    |(?P<passport>여권|passport)
    |(?P<ip>(?<![a-z])ip(?!v6)|아이피|접속|ping|host|서버)""",
    re.IGNORECASE | re.VERBOSE,
)
# Letters may touch a number if they are one of these: Tel010-..., H.P.010-..., T:02-..., IP1.2.3.4,
# phone=01012345678
_PREFIX = re.compile(
    r"(?<![a-z])(?:ip|tel|fax|phone|mobile|sms|rrn|jumin|h\.?p|c\.?p|ph|[tfmphc])[.:=-]?\Z",
    re.IGNORECASE,
)
# Banks that are ordinary words as well: only directly beside a number of a bank's shape.
_BRAND = "국민|신한|우리|하나|기업|제일|씨티|대구|부산|경남|광주|전북|제주|산업|외환"
_BRAND_BEFORE = re.compile(rf"(?:{_BRAND})[)\]:, ]{{0,2}}\Z")
_ACC_AFTER = re.compile(
    rf"[ (\[/,]{{0,2}}(?:{_BRAND})|[^0-9<\[\n]{{0,10}}?"
    "(?:계좌|구좌|통장|예금주|은행(?!나무|잎|법)|뱅크|농협|수협|신협|새마을|우체국|카뱅|케뱅|토뱅)"
)
# Behind bare digits, where `우리` or `국민` would be the next word, and `농협` a shop's.
_BANK_AFTER = re.compile(
    rf" ?[(\[]? ?(?:(?:{_BRAND}|농협|수협|신협|새마을금고|우체국)(?:은행|[)\]]|\Z)"
    "|카뱅|카카오뱅크|케이뱅크|토스뱅크)"
)
_TEL_AFTER = re.compile(r"[^0-9<\[\n]{0,4}?(?:전화|연락|문의|문자|팩스)")
_RRN_AFTER = re.compile(r"[^0-9<\[\n]{0,4}?(?:주민|외국인)")
_UNIT = re.compile(r" ?(?:원|만|억|천|달러|엔|유로|건|개|명|주|회|호|조|%|번째|밀리초)")
_YEAR = re.compile("(?:19|20)[0-9]{2}-")  # also in flattened tables, `입금22004-11-08205,000,000원`
_PASSPORT_AFTER = re.compile(r"[^0-9<\[\n]{0,4}?(?:여권|passport)", re.IGNORECASE)

# A number glued to what follows; a mask's token or stand-in counts like the number it hides.
_MASKED = r"<\||\[[가-힣I]"
_GLUED = re.compile(rf"[0-9A-Za-z_]|[-.](?:[0-9]|{_MASKED})")
_GLUED_BARE = re.compile(r"\.[A-Za-z]|%")
_NEXT_COLUMN = re.compile(rf" (?:[0-9]|{_MASKED})")

# Lengths of the dash-separated groups of account numbers, and a bank that uses or used them.
_ACCOUNTS = {
    (2, 2, 6): "제주",
    (2, 6, 3): "씨티",
    (3, 2, 2, 7): "저축은행",
    (3, 2, 4, 3): "국민",
    (3, 2, 5, 1): "외환",
    (3, 2, 6): "신한, 농협, SC제일, 대구",
    (3, 2, 6, 1): "수협, 대구, 부산",
    (3, 2, 7): "경남, 전북, 산림조합",
    (3, 3, 6): "신한, 신협, 광주, 케이뱅크",
    (3, 4, 4, 2): "농협, 부산, 경남",
    (3, 4, 4, 3): "산업",
    (3, 6, 2, 3): "우리, 기업",
    (3, 6, 3): "하나, 씨티",
    (3, 6, 5): "하나",
    (3, 8, 3): "산업",
    (4, 2, 6): "농협",
    (4, 2, 6, 1): "새마을금고",
    (4, 2, 7): "카카오뱅크, 전북",
    (4, 3, 6): "우리, 광주",
    (4, 4, 4): "토스뱅크, 수협",
    (4, 4, 4, 1): "새마을금고",
    (5, 2, 6): "신협",
    (6, 2, 6): "국민, 농협, 우체국",
    (8, 2): "증권",
}


@dataclass(frozen=True)
class Found:
    """A candidate: where its shape stands in a text, and what stands before it."""

    match: re.Match[str]
    left: str

    @property
    def digits(self) -> str:
        """The digits and mask signs alone."""
        return re.sub(r"[^0-9*]", "", self.match[0])

    @property
    def bare(self) -> bool:
        """Whether nothing separates the digits."""
        return self.match[0].isdigit()

    @property
    def spaced(self) -> bool:
        """Whether only blanks separate the groups, as they do columns of a table."""
        return not self.bare and self.match[0].replace(" ", "").isdigit()

    @property
    def after(self) -> str:
        """The few characters behind the candidate."""
        return self.match.string[self.match.end() : self.match.end() + 16]

    def label(self, reach: int = 30) -> str | None:
        """What the last labelling word within `reach` characters says, or None."""
        kinds = [match.lastgroup for match in _LABELS.finditer(self.left[-reach:])]
        return kinds[-1] if kinds else None

    def free(self) -> bool:
        """Whether the candidate is no part of a longer number, word or path."""
        text, end = self.match.string, self.match.end()
        masked = text[end - 1] == "*"  # whatever follows, a masked number ends here
        if (not masked and _GLUED.match(text, end)) or (self.bare and _GLUED_BARE.match(text, end)):
            return False
        if self.spaced and (_NEXT_COLUMN.match(text, end) or re.search(r"[0-9] \Z", self.left)):
            return False
        touching, before = self.left[-1:], self.left[-2:-1]
        if touching.isascii() and touching.isalnum():
            return not touching.isdigit() and bool(_PREFIX.search(self.left))
        joins = "-._+#,/:=&%" if self.bare else "-._+"
        digit_joins = ":" if not self.bare else ""
        if touching and touching in joins and before.isascii() and before.isalnum():
            return bool(_PREFIX.search(self.left))
        return not (touching and touching in digit_joins and before.isdigit())


def _is_rrn(found: Found) -> bool:
    digits = found.digits
    front, century = digits[:6], digits[6]
    if not checks.is_birth(front, century) or checks.is_corporation(front, century):
        return False
    if "-" in found.match[0]:
        return found.label(10) != "other"
    label = found.label()
    if label == "rrn" or (label != "other" and _RRN_AFTER.match(found.after)):
        return True
    # Of the shapes with a dot or slash, one decimal fraction in ten would have the check digit.
    return (found.bare or found.spaced) and label != "other" and checks.has_rrn_digit(digits)


def _is_tel(found: Found) -> bool:
    digits, trunk = found.digits, found.match["trunk"]
    if set(digits) <= {"0", "1"}:  # a binary number, or a placeholder of zeros
        return False
    if trunk is None:  # +82
        return True
    number = found.match[0].partition(trunk)[2]
    if re.match("[^0-9]*0+[^0-9]", number):  # 010-000-1234 is a code of the tax office
        return False
    if trunk.startswith("01"):
        if not found.bare:
            return True
        if trunk == "010":
            return len(digits) == 11 and found.label(12) != "other"
    # 02110-1301 is a US postcode, 02/11050000 a path, 02 123 4567 columns of a table.
    glued = number[0].isdigit() or number[0] in "/_~"
    if not (glued or found.spaced) or (found.spaced and trunk in _OF_PERSONS and len(digits) > 10):
        return True
    label = found.label()
    return label == "tel" or (label != "other" and bool(_TEL_AFTER.match(found.after)))


def _is_card(found: Found) -> bool:
    return checks.has_luhn_digit(found.digits) and (not found.bare or found.label() == "card")


def _is_brn(found: Found) -> bool:
    grouped = not (found.bare or found.spaced)
    return checks.has_brn_digit(found.digits) and (grouped or found.label() == "brn")


def _is_acc(found: Found) -> bool:
    match, digits = found.match, found.digits
    after = found.after
    shape = tuple(len(group) for group in re.findall("[0-9]+", match[0]))
    known = found.bare or shape in _ACCOUNTS
    if not (known or ("-" in match[0] and 10 <= len(digits) <= 14)):
        return False
    if _UNIT.match(after) or checks.starts_with_date(digits) or len(set(digits)) == 1:
        return False
    if not known:  # banks have had more shapes than the table
        return found.label(10) == "acc" and not _YEAR.search(match[0])
    if found.bare:
        label = found.label(20)
        return label == "acc" or (label != "other" and bool(_BANK_AFTER.match(after)))
    if _BRAND_BEFORE.search(found.left):
        return True
    label = found.label()
    return label == "acc" or (label != "other" and bool(_ACC_AFTER.match(after)))


def _is_passport(found: Found) -> bool:
    return found.label() == "passport" or bool(_PASSPORT_AFTER.match(found.after))


def _is_ip(found: Found) -> bool:
    if not checks.is_public_ip(found.match[0]):
        return False
    label = found.label()
    octets = [int(part) for part in found.match[0].split(".") if part.isdigit()]
    # 1.2.3.4 and 3.2.1.4 number versions and headings; addresses of people have large octets.
    return label == "ip" or (label != "other" and (len(octets) != 4 or max(octets) >= 100))


@dataclass(frozen=True)
class Rule:
    """One type of personal data: a shape, tried at the start of a digit group, and a verdict."""

    type: str
    shape: re.Pattern[str]
    holds: Callable[[Found], bool]


_OF_PERSONS = ("070", *(f"050{n}" for n in range(2, 9)))  # rare as columns of tables, unlike 02
_DASH = "[ ]?-[ ]?"
_TEL_GAP = "(?:[ ]?-{1,2}[ ]?|[ ]?[./_~·][ ]?|[ ])?"
# 010-1234-5678, (02)123-4567, +82 (0)10 1234 5678, 02-123-4567~8
_TEL = rf"""
    (?:(?:\((?=[0-9]{{2,4}}\)))?(?P<trunk>01[016-9]|050[2-8]|0(?:2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|50|70|80))\)?
      |(?:\(\+82\)|\+82\)?|(?:00)?82(?=-))[-. ]{{0,2}}(?:\(0\)|0)?
       (?:1[016-9]|50[2-8]|2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|50|70|80))
    {_TEL_GAP}[0-9]{{3,4}}{_TEL_GAP}[0-9]{{4}}
    (?:~[0-9]{{1,4}}(?![-.0-9]|[ ][0-9]))?(?![0-9])"""
NUMBERS: Sequence[Rule] = (
    Rule(
        "rrn",
        re.compile(
            rf"[0-9]{{6}}(?:(?:[ ]?[-./_~·][ ]?| )?[0-9]{{7}}(?![0-9])"
            rf"|{_DASH}[0-9*][0-9*xX]{{5}}[*xX](?![*xX]))"
        ),
        _is_rrn,
    ),
    Rule(
        "card",
        re.compile(
            rf"(?:[3-69][0-9]{{3}}({_DASH}|[. ]|)[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}"
            rf"|3[47][0-9]{{2}}({_DASH}| |)[0-9]{{6}}\2[0-9]{{5}})(?![0-9])"
        ),
        _is_card,
    ),
    Rule("tel", re.compile(_TEL, re.VERBOSE), _is_tel),
    Rule("brn", re.compile(rf"[0-9]{{3}}({_DASH}| |)[0-9]{{2}}\1[0-9]{{5}}(?![0-9])"), _is_brn),
    Rule(
        "acc",
        re.compile(
            rf"(?:[0-9]{{10,14}}|[0-9]{{2,8}}({_DASH}|[. ])[0-9]{{1,8}}(?:\1[0-9]{{1,8}}){{0,3}})"
            r"(?![0-9])"
        ),
        _is_acc,
    ),
)
# These are looked for only when asked for; each with a sign without which the text holds none.
IP = Rule(
    "ip",
    re.compile(
        r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?!\.?[0-9])|[23][0-9a-f]{3}(?::[0-9a-f]{0,4}){2,7}(?![:\w]|<\|)"
    ),
    _is_ip,
)
PASSPORT = Rule(
    "passport",
    re.compile(r"[MSRGDmsrgd][0-9]{3}(?:[0-9]{5}|[A-Za-z][0-9]{4})(?![0-9A-Za-z])"),
    _is_passport,
)
_IN_URL = re.compile(r"://[^\s/]*\Z")  # https://user:password@host
EMAIL = Rule(
    "email",
    re.compile(
        r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,5}"
        r"(?!(?:png|jpe?g|gif|svg|webp|ico|js|css|html?)(?![A-Za-z]))[A-Za-z]{2,24}"
        # git@host.com:path is no mailbox, nor is what a path follows; a second address may.
        rf"(?![.:]?(?:[0-9A-Za-z@]|{_MASKED})|:&|/(?:{_MASKED}|[A-Za-z@](?![\w.%+-]{{0,63}}@)))"
    ),
    lambda found: not _IN_URL.search(found.left),
)
