"""Repairs characters and blanks: one form for each, and lines that stay lines.

The original pipeline of Polyglot-Ko lost every newline to a `\\s+` rule. Here no rule joins two
non-empty lines, and applying one twice is applying it once.
"""

import re
import unicodedata

_BLANKS = (
    " \t\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f"
)
_PRINTABLE_BLANKS = "\u2800\u3164\uffa0"  # an empty Braille cell and Hangul fillers
_BLANKS += "\u3000" + _PRINTABLE_BLANKS
_LINE_END = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # control characters but tab and line ends
    "\u00ad\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ufdd0-\ufdef" + "".join(chr(p << 16 | e) for p in range(17) for e in (0xFFFE, 0xFFFF)) + "]"
)
# A zero-width joiner is noise in Korean text but holds an emoji sequence together.
_EMOJI = "[\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff]"
_JOINER = re.compile(f"(?<!{_EMOJI})\u200d|\u200d(?!{_EMOJI})")
_CONJOINING = re.compile("[\u1100-\u11ff]")
_ANY_JAMO = "\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff"
_FILLER = re.compile(f"[\u115f\u1160]++(?![{_ANY_JAMO}])")  # stands for a letter of a syllable
_LONE_JAMO = re.compile(
    f"(?<![{_ANY_JAMO}])(?:[\u1100-\u1112]++|[\u1161-\u1175]++)(?![{_ANY_JAMO}])"
)
_LETTERS = {0x1100 + i: ord(c) for i, c in enumerate("ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ")}
_LETTERS |= {0x1161 + i: 0x314F + i for i in range(21)}
_BLANK_RUN = re.compile(f"[{_BLANKS}]{{2,}}|[{_BLANKS[2:]}]")
_PLAIN_RUN = re.compile("[ \t]{2,}")


# What people repeat for emphasis: not digits, letters, syllables, or marks of code and Markdown.
_LAUGHTER = "ㄱ-ㅎㅏ-ㅣ"
_EMPHASIS = "!?~.,;^…ㆍ·‥ᆢ？！～。♡♥★☆♪♬\U0001f300-\U0001f3fa\U0001f400-\U0001faff❤"
_REPEATS = re.compile(  # either of the next two, for one look at texts without any
    rf"([{_LAUGHTER}{_EMPHASIS}])(?:\1{{3}}|([{_LAUGHTER}{_EMPHASIS}\ufe0f])(?:\1\2){{3}})"
)
_REPEATED = re.compile(rf"([{_LAUGHTER}{_EMPHASIS}])\1{{3,}}")
_REPEATED_PAIR = re.compile(
    rf"(([{_LAUGHTER}{_EMPHASIS}])(?!\2)[{_LAUGHTER}{_EMPHASIS}\ufe0f])\1{{3,}}"
)
_LONGEST_RULE = 80  # characters of a line, the width that people type
_RULES = "-=_*~#+"
_RULE = re.compile(rf"^([ \t]*)([{_RULES}])\2{{{_LONGEST_RULE},}}$", re.MULTILINE)


def _is_plain(text: str) -> bool:
    """Whether a text has no control, format, separator or unassigned characters but LF and tab."""
    return text.replace("\n", "").replace("\t", "").isprintable()


def unify_line_ends(text: str) -> str:
    """Turns every line and page separator into one newline character."""
    return text if _is_plain(text) else _LINE_END.sub("\n", text)


def remove_invisible(text: str) -> str:
    """Removes control and zero-width characters, direction marks and noncharacters."""
    return text if _is_plain(text) else _JOINER.sub("", _INVISIBLE.sub("", text))


def compose(text: str) -> str:
    """Unicode NFC: a Hangul syllable is one character, not two or three jamo.

    Modern conjoining jamo that form no syllable become the letters that keyboards type (`ㅋㅋ`);
    jamo of old Hangul stay, among them `ᆢ`, which phones offer as an ellipsis.
    """
    text = unicodedata.normalize("NFC", text)
    if not _CONJOINING.search(text):
        return text
    return _LONE_JAMO.sub(lambda match: match[0].translate(_LETTERS), _FILLER.sub("", text))


def shorten_repeats(text: str) -> str:
    """Leaves three of a longer run of a jamo, mark or emoji (`ㅋㅋㅋㅋㅋ`, `!!!!!`) or two in turn.

    Lines of one repeated mark (`-----`) stay, cut to 80: they part sections, underline headings and
    fence code. Digits, Latin letters, syllables and brackets are never touched.
    """
    if any(mark * _LONGEST_RULE in text for mark in _RULES):
        text = _RULE.sub(lambda match: match[1] + match[2] * _LONGEST_RULE, text)
    if not _REPEATS.search(text):
        return text
    return _REPEATED_PAIR.sub(r"\1\1\1", _REPEATED.sub(_shorten, text))


def _shorten(match: re.Match[str]) -> str:
    if match[1] == "~":
        before = match.string[match.string.rfind("\n", 0, match.start()) + 1 : match.start()]
        if not before.strip(" \t"):
            return match[0]
    return match[1] * 3


def collapse_blanks(text: str) -> str:
    """Makes a run of blanks inside a line one blank (a tab if it holds one); keeps indentation."""
    if _is_plain(text) and not any(blank in text for blank in _PRINTABLE_BLANKS):
        return _PLAIN_RUN.sub(_shrink, text) if "  " in text or "\t" in text else text
    return _BLANK_RUN.sub(_shrink, text)


def _shrink(match: re.Match[str]) -> str:
    start = match.start()
    if not start or match.string[start - 1] == "\n":
        return "".join(c if c == "\t" else " " for c in match[0])
    return "\t" if "\t" in match[0] else " "


def strip_line_tails(text: str) -> str:
    """Removes blanks at the ends of lines."""
    return "\n".join(line.rstrip(_BLANKS) for line in text.split("\n"))


def collapse_empty_lines(text: str) -> str:
    """Leaves at most one empty line in a row, and none at the start or end of the text."""
    return (re.sub("\n{3,}", "\n\n", text) if "\n\n\n" in text else text).strip("\n")


PASSES = 10  # at most, of rules whose result may need them again; a text that needs more is made to


def repair(text: str) -> str:
    """All of the above for a text that a rule has changed: entities may stand for any character."""
    return collapse_blanks(compose(remove_invisible(unify_line_ends(text))))
