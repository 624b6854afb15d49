"""Markdown and MDX to text: the markup goes, the prose stays where it stood.

Prose is scanned once from left to right by one expression whose alternatives are the kinds of
markup; inline code is one of them, so nothing inside it is touched. Headings, lists, tables and
inline code keep their marks: they read well as text. Code blocks lose only their fences.
"""

import html
import re

_FRONT_MATTER = re.compile(
    r"\A---[ \t]*\n(\w[\w-]*:.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.M | re.S
)
_TITLE = re.compile(r"^title:[ \t]*(?![>|][-+]?[ \t]*$)(.+?)[ \t]*$", re.M)
_FENCE = re.compile(r"[ \t]*(`{3,}(?=[^`]*$)|~{3,})(.*)")

_BRACES = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*+\})*+\}"  # a JSX expression, three levels deep
_ATTRIBUTE = (
    r"\s+(?P<attribute>[A-Za-z:_][A-Za-z0-9:_-]*)"
    rf"""(?:=(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|{_BRACES}))?"""
)
_ATTRIBUTES = re.sub(r"\?P<\w+>", "?:", _ATTRIBUTE)
_LINK_TARGET = r'\((?:<[^<>\n]*>|(?:[^()\s\\]|\\[^\n]|\([^()\s]*\))*+)(?:[ \t]+"[^"\n]*")?\)'
# The look ahead says nothing new, but spares most characters the tries of all alternatives.
_MARKUP = re.compile(
    rf"""(?=[`<{{!\[*&\\])(?:
    (?P<code>(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n[ \t]*\n).)+?(?<!`)(?P=ticks)(?!`))
    |(?P<comment><!--(?:(?!<!--|-->).)*+-->|\{{/\*(?:(?!\{{/\*|\*/\}}).)*+\*/\}})
    |(?P<autolink><(?P<url>(?:https?://|mailto:)[^\s<>]+|[\w.+-]+@[\w.-]+)>)
    |(?P<tag><(?P<slash>/?)(?:(?P<name>[A-Za-z][A-Za-z0-9.-]*)
        (?P<attributes>(?:{_ATTRIBUTES})*+)\s*(?P<closed>/?))?>)
    |(?P<image>!\[(?:\\.|[^\[\]\\\n])*+\]{_LINK_TARGET})
    |(?P<link>\[(?P<label>(?:\\.|!?\[(?:\\.|[^\[\]\\])*+\](?:{_LINK_TARGET})?|[^\[\]\\])*+)\]
        {_LINK_TARGET})
    |(?P<bold>\*\*(?=\S)(?P<strong>(?:[^*\n]|\*(?!\*)|\n(?![ \t]*\n))+)(?<=\S)\*\*)
    |(?P<entity>&(?:\#[0-9]+|\#x[0-9A-Fa-f]+|[A-Za-z][A-Za-z0-9]*);)
    |(?P<escape>\\(?P<mark>[!-/:-@\[-`{{-~]|$)))""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_ATTRIBUTE_PARTS = re.compile(_ATTRIBUTE)
_SHOWN = ("title", "data-title", "label", "text", "content", "description")  # in reading order
_LINE_TAGS = frozenset(("p", "div", "li", "td", "th", "tr", "summary", "details"))
# What an exporter leaves of a picture.
_PICTURE_NOTE = re.compile(r"^[ \t]*\((?:관련 )?이미지 첨부(?::[^()\n]*)?\)[ \t]*$", re.M)


def strip_markdown(text: str) -> str:
    """Removes front matter (but its title), fences, link targets, images, tags and bold marks.

    Entities outside of code become the characters they stand for. The tag of a component leaves
    those of its attributes that a reader would see. No line is joined with another. Not idempotent
    by nature: `\\[x\\](y)` means the text `[x](y)`, a link to whoever reads it as Markdown again.
    """
    title = ""
    if match := _FRONT_MATTER.match(text):
        if found := _TITLE.search(match[1]):
            title = f"# {_unquote(found[1])}\n\n"
        text = text[match.end() :]
    pieces: list[str] = []
    prose: list[str] = []
    fence = None
    for line in text.split("\n"):
        match = _FENCE.match(line)
        if fence is None and match:
            pieces += [_strip_prose("\n".join(prose))] if prose else []
            prose, fence = [], match[1]
        elif fence is None:
            prose.append(line)
        elif match and match[1].startswith(fence) and not match[2].strip():
            fence = None
        else:
            pieces.append(line)
    pieces += [_strip_prose("\n".join(prose))] if prose else []
    return title + "\n".join(pieces)


def _unquote(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1].replace("''", "'").replace('\\"', '"')
    return value


def _strip_prose(text: str) -> str:
    return _MARKUP.sub(_replace, _PICTURE_NOTE.sub("", text))


def _replace(match: re.Match[str]) -> str:
    kind = match.lastgroup
    if kind == "code":
        return match[0]
    if kind == "autolink":
        return match["url"]
    if kind == "tag":
        return _replace_tag(match)
    if kind == "link":
        return _strip_prose(match["label"])
    if kind == "bold":
        return _strip_prose(match["strong"])
    if kind == "entity":
        character = html.unescape(match[0])
        return character if character.isprintable() else " "
    if kind == "escape":
        return match["mark"]
    return "\n" if "\n" in match[0] else ""  # a comment or an image


def _replace_tag(match: re.Match[str]) -> str:
    text, end, name = match.string, match.end(), match["name"] or ""
    values = {
        part["attribute"]: part["double"] or part["single"] or ""
        for part in _ATTRIBUTE_PARTS.finditer(match["attributes"] or "")
    }
    # The title of an HTML element is a tooltip; that of a component is a heading.
    names = _SHOWN if name[:1].isupper() else ("data-title",)
    shown = "\n".join(_strip_prose(values[key]) for key in names if values.get(key))
    if "\n" in match[0]:
        return f"\n{shown}\n"
    if shown:
        return shown if match["closed"] or text[end : end + 1] in ("\n", "") else f"{shown}\n"
    name = name.lower()
    ends_line = name in ("br", "hr") or (match["slash"] and name in _LINE_TAGS)
    if not ends_line or text[end : end + 1] in ("\n", ""):
        return ""
    start_of_line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
    return " " if start_of_line.lstrip().startswith("|") else "\n"
