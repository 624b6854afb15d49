"""Broken code: what HTML and Markdown that were half removed, or never read, leave in a text."""

import re

from polyglot_jax.corpus.characters import PASSES, repair
from polyglot_jax.corpus.html import strip_tags

# A tag that its line ends in the middle of, and the end of one that began on a line that is gone.
_NAMES = "a|img|div|span|font|table|td|tr|iframe|embed|param|script|link|input|object|video"
_HALF_TAG = re.compile(rf"<(?:{_NAMES})\s+[a-zA-Z-]+=[^<>\n]*$", re.MULTILINE)
_ATTRIBUTE = (
    "(?:class|style|href|src|alt|id|width|height|target|rel|border|align|title|color|size|face)"
    r"""\s*=\s*(?:"[^"\n]*"|'[^'\n]*')"""
)
_TAG_END = re.compile(rf"^[ \t]*+(?:{_ATTRIBUTE}[ \t]*+)++/?>", re.MULTILINE)
_DATA_URI = re.compile(r"data:[a-z]+/[\w.+-]+;base64,[A-Za-z0-9+/=]{20,}")

_FENCE = re.compile(r"[ \t]*(?:`{3}|~{3})")
# Only a URL or path is a link's target: `[전문개정 2007](비영리 단체 ...)` is how laws are quoted.
_TARGET = r"(?:https?://|mailto:|/|\./|\.\./|#)(?:[^()\s]|\([^()\s]*\))*+(?:[ \t]+\"[^\"\n]*\")?"
_LINK_PART = re.compile(
    rf"(?P<code>(?<!`)(?:`[^`]++`|``(?:[^`]|`(?!`))++``)(?!`))|(?P<open>!?\[)"
    rf"|\](?P<target>\({_TARGET}\))?"
)


def remove_fragments(text: str) -> str:
    """Removes halves of HTML tags, embedded data, and Markdown's link targets and images.

    Of a link to a URL or path the words stay. Brackets before parentheses that hold anything else
    are text, and code in backticks or fences is left alone.
    """
    for _ in range(PASSES):
        before, text = text, _remove_once(text)
        if text == before:
            break
        # Without what stood between them two halves may be a tag.
        text = strip_tags(repair(text))
    return text


def _remove_once(text: str) -> str:
    if "=" in text and (">" in text or "<" in text):
        text = _TAG_END.sub("", _HALF_TAG.sub("", text))
    if ";base64," in text:
        text = _DATA_URI.sub("", text)
    if "](" in text:
        text = _remove_links(text)
    return text


def _remove_links(text: str) -> str:
    lines = text.split("\n")
    in_fence = False
    for i, line in enumerate(lines):
        if _FENCE.match(line):
            in_fence = not in_fence
        elif "](" in line and not in_fence:
            lines[i] = _remove_links_of_line(line)
    return "\n".join(lines)


def _remove_links_of_line(line: str) -> str:
    opened: list[re.Match[str]] = []
    removed: list[tuple[int, int]] = []
    for match in _LINK_PART.finditer(line):
        if match["open"]:
            opened.append(match)
        elif not match["code"]:
            opener = opened.pop() if opened else None
            if not match["target"]:
                continue
            if opener is None:
                removed.append(match.span())
            elif opener[0] == "![":
                removed.append((opener.start(), match.end()))
            else:
                removed += [opener.span(), match.span()]
    pieces, position = [], 0
    for start, end in sorted(removed):
        pieces.append(line[position : max(position, start)])
        position = max(position, end)
    return "".join([*pieces, line[position:]])
