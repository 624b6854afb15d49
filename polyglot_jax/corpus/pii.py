"""Personal data in Korean text: found, and masked or tagged, match by match.

Documents without a long number are let through by one search. Elsewhere each start of a digit group
is tried against the shapes of `pii_rules`, left to right; what stands before a candidate is read as
it will be written, masks included. Masking a masked text therefore changes nothing. Numbers of a
type that is not asked for still count as what they are: a card number never becomes an account.
"""

import re
from collections import Counter, deque
from collections.abc import Collection, Sequence

from polyglot_jax.corpus.pii_rules import EMAIL, IP, NUMBERS, PASSPORT, WINDOW, Found, Rule

# What stands for each type. The vocabulary of Polyglot-Ko has tokens for the first three; the other
# types become plain words, which a tokenizer without such tokens can read too.
MASKS = {
    "rrn": "<|rrn|>",
    "acc": "<|acc|>",
    "tel": "<|tel|>",
    "email": "[이메일]",
    "card": "[카드번호]",
    "passport": "[여권번호]",
    "brn": "[사업자등록번호]",
    "ip": "[IP주소]",
}
TYPES = tuple(MASKS)
DEFAULT_TYPES = ("rrn", "acc", "tel")
STYLES = ("token", "tag")

_DIGIT, _MASK = "0-9０-９", "*＊xXｘＸ●○◯"
# Each of these means the ASCII character at its place; one for one, so that positions stay.
_FOLD = dict(
    zip(
        "０１２３４５６７８９‐‑‒–—―−－ㅡ～∼．ㆍ・•‧（）／＿＋：＝＠＊●○◯ｘＸ\u00a0\u3000",
        "0123456789---------~~.····()/_+:=@****xX  ",
        strict=True,
    )
)
_FOLDED = re.compile(f"[{re.escape(''.join(_FOLD))}]")
# At least nine digits or mask signs that few characters separate: no shorter number is personal.
_MAYBE_NUMBER = re.compile(rf"[{_DIGIT}](?:[^\n{_DIGIT}{_MASK}]{{0,4}}[{_DIGIT}{_MASK}]){{8}}")
_CLUSTER = re.compile(r"[0-9](?:[-. ()/_~·]{0,4}[0-9*xX]){8,}")
_GROUP = re.compile("(?<![0-9])[0-9]")
_OPENED = re.compile(r"[(+]{1,2}\Z")
_LOCAL_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}\Z")
_WORD = re.compile("(?<![A-Za-z0-9])[A-Za-z0-9]")
# The lookbehind comes second: a pattern that begins with a character is searched for faster.
_IPV4 = re.compile(r"[0-9](?<![0-9.].)(?=[0-9]{0,2}(?:\.[0-9]{1,3}){3})")
_IPV6 = re.compile(r"[23](?<![\w:].)(?=[0-9a-f]{3}:)")
_PASSPORT = re.compile("[MSRGDmsrgd](?<![A-Za-z0-9].)(?=[0-9]{3})")
_TAGGED = re.compile(rf"<\|({'|'.join(TYPES)})_start\|>[^<\n]{{1,80}}<\|\1_end\|>")

Span = tuple[int, int, str]  # start, end, type


def mask(
    text: str, types: Collection[str] = DEFAULT_TYPES, style: str = "token"
) -> tuple[str, Counter[str]]:
    """Replaces personal data of these types by MASKS, or wraps it in tags.

    Args:
      text: any text.
      types: some of TYPES.
      style: "token", or "tag", which keeps the data: `<|tel_start|>010-1234-5678<|tel_end|>`.

    Returns:
      The text, and how many spans of each type it held.

    Raises:
      ValueError: if a type or the style is unknown.
    """
    pieces, done = [], 0
    spans = find(text, types, style)
    for start, end, type in spans:
        pieces += [text[done:start], _written(text[start:end], type, style)]
        done = end
    return "".join([*pieces, text[done:]]), Counter(type for _, _, type in spans)


def find(text: str, types: Collection[str] = DEFAULT_TYPES, style: str = "token") -> list[Span]:
    """Returns the spans that `mask` replaces, in order and apart from each other."""
    if unknown := sorted(set(types) - set(TYPES)):
        raise ValueError(f"personal data of type {unknown[0]!r} is unknown; use {', '.join(TYPES)}")
    if style not in STYLES:
        raise ValueError(f"style {style!r} of personal data is unknown; use {' or '.join(STYLES)}")
    if not _has_candidates(text, types):
        return []
    folded = _FOLDED.sub(lambda match: _FOLD[match[0]], text)
    tagged = deque(match.span() for match in _TAGGED.finditer(folded) if style == "tag")
    spans = []
    done, written = 0, ""  # where the last number ends, and what the output ends with there
    for start, rules in _starts(folded, types):
        while tagged and tagged[0][1] <= start:
            tagged.popleft()
        if start < done or (tagged and tagged[0][0] < start):
            continue
        left = (written + folded[max(done, start - WINDOW) : start])[-WINDOW:]
        for rule in rules:
            match = rule.shape.match(folded, start)
            if match and (found := Found(match, left)).free() and rule.holds(found):
                done, kept = match.end(), match[0]
                if rule.type in types:
                    spans.append((start, done, rule.type))
                    kept = _written(kept, rule.type, style)
                written = (left + kept)[-WINDOW:]
                break
    return spans


def _written(value: str, type: str, style: str) -> str:
    return MASKS[type] if style == "token" else f"<|{type}_start|>{value}<|{type}_end|>"


def _has_candidates(text: str, types: Collection[str]) -> bool:
    return bool(
        _MAYBE_NUMBER.search(text)
        or ("email" in types and ("@" in text or "＠" in text))
        or ("ip" in types and (text.count(".") + text.count("．") > 2 or text.count(":") > 1))
        or ("passport" in types and re.search(f"[{_DIGIT}]{{3}}", text))
    )


def _starts(folded: str, types: Collection[str]) -> list[tuple[int, Sequence[Rule]]]:
    """Returns where personal data may begin, in order, and the rules to try there."""
    starts: list[tuple[int, Sequence[Rule]]] = []
    if "email" in types:
        for match in re.finditer("@", folded):
            local = _LOCAL_PART.search(folded, max(0, match.start() - 64), match.start())
            if local:  # or from a later word on, where another address has taken the first
                words = _WORD.finditer(folded, *local.span())
                starts += [(word.start(), (EMAIL,)) for word in words]
    if "ip" in types:
        for first in (_IPV4, _IPV6):
            starts += [(match.start(), (IP,)) for match in first.finditer(folded)]
    if "passport" in types:
        starts += [(match.start(), (PASSPORT,)) for match in _PASSPORT.finditer(folded)]
    for cluster in _CLUSTER.finditer(folded):
        for group in _GROUP.finditer(folded, *cluster.span()):
            start = group.start()
            opened = _OPENED.search(folded, max(0, start - 2), start)
            if opened:
                starts += [(at, NUMBERS) for at in range(opened.start(), start)]
            starts.append((start, NUMBERS))
    return sorted(starts, key=lambda start: start[0])  # stable: an address comes before its digits
