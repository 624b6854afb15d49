"""Repairs characters and blanks: one form for each, and lines that stay lines.

The original pipeline of Polyglot-Ko lost every newline to a `\\s+` rule. Here no rule joins two
non-empty lines, and applying one twice is applying it once.
"""

import re
import unicodedata

_BLANKS = (
    " \t\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f"
)
_BLANKS += "\u2800\u3000\u3164\uffa0"  # empty Braille cell, full-width space, Hangul fillers
_LINE_END = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # control characters but tab and line ends
    "\u00ad\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ufdd0-\ufdef" + "".join(chr(p << 16 | e) for p in range(17) for e in (0xFFFE, 0xFFFF)) + "]"
)
# A zero-width joiner is noise in Korean text but holds an emoji sequence together.
_EMOJI = "[\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff]"
_JOINER = re.compile(f"(?<!{_EMOJI})\u200d|\u200d(?!{_EMOJI})")
_BLANK_RUN = re.compile(f"(^)?(?:[{_BLANKS}]{{2,}}|[{_BLANKS[2:]}])", re.MULTILINE)


def unify_line_ends(text: str) -> str:
    """Turns every line and page separator into one newline character."""
    return _LINE_END.sub("\n", text)


def remove_invisible(text: str) -> str:
    """Removes control and zero-width characters, direction marks and noncharacters."""
    return _JOINER.sub("", _INVISIBLE.sub("", text))


def compose(text: str) -> str:
    """Unicode NFC: a Hangul syllable is one character, not two or three jamo."""
    return unicodedata.normalize("NFC", text)


def collapse_blanks(text: str) -> str:
    """Makes a run of blanks inside a line one blank (a tab if it holds one); keeps indentation."""

    def shrink(match: re.Match[str]) -> str:
        if match[1] is not None:
            return "".join(c if c == "\t" else " " for c in match[0])
        return "\t" if "\t" in match[0] else " "

    return _BLANK_RUN.sub(shrink, text)


def strip_line_tails(text: str) -> str:
    """Removes blanks at the ends of lines."""
    return "\n".join(line.rstrip(_BLANKS) for line in text.split("\n"))


def collapse_empty_lines(text: str) -> str:
    """Leaves at most one empty line in a row, and none at the start or end of the text."""
    return re.sub("\n{3,}", "\n\n", text).strip("\n")
