"""HTML to text, by a real parser; and the HTML that is left in text, without harm to the text.

A page goes to the parser (lexbor, the HTML5 algorithm) nearly as it is. In a text the parser would
take `List<String>`, `a<b` or an unclosed `<script>` in a sentence for markup, and lose all behind
it: there, only what is without doubt a tag of HTML reaches the parser, and all else is escaped
before and comes back as it was.
"""

import html
import itertools
import re
from collections.abc import Iterator
from html.entities import html5

from selectolax.lexbor import LexborHTMLParser, LexborNode

from polyglot_jax.corpus.characters import PASSES, repair

# Those dropped are never prose. One that is not closed stays text: the parser would drop the rest.
_ELEMENTS = {
    kind: frozenset(names.split())
    for kind, names in (
        (
            "paragraph",
            "p h1 h2 h3 h4 h5 h6 blockquote pre table ul ol dl hr section article header footer "
            "main aside figure form fieldset x-paragraph",
        ),
        (
            "line",
            "div li tr dt dd br address center caption figcaption legend details summary option "
            "html body thead tbody tfoot x-line",
        ),
        ("cell", "td th x-cell"),
        ("formatting", "a b big code em font i nobr s small strike strong tt u"),
        (
            "inline",
            "abbr acronym bdi bdo cite data del dfn img input ins kbd label map mark meter o:p "
            "output picture progress q samp source span sub sup time var video audio wbr area base "
            "link meta embed param track col colgroup canvas dialog head",
        ),
        (
            "dropped",
            "script style nav noscript noembed noframes template svg math iframe object button "
            "select textarea title",
        ),
        ("void", "area base br col embed hr img input link meta param source track wbr"),
        ("closed by others", "p li dt dd td th tr thead tbody tfoot option body html head"),
    )
}
_PARAGRAPHS, _LINES, _CELLS = (_ELEMENTS[kind] for kind in ("paragraph", "line", "cell"))
_FORMATTING, _DROPPED = _ELEMENTS["formatting"], _ELEMENTS["dropped"]
_INLINE = _FORMATTING | _ELEMENTS["inline"]
_KNOWN = _PARAGRAPHS | _LINES | _CELLS | _INLINE | _DROPPED
_NOT_COUNTED = _ELEMENTS["void"] | _ELEMENTS["closed by others"]
# The parser's time grows with depth times length: 1 MB of "<div>" would take it minutes.
_DEEPEST = 200

_ATTRIBUTES = r"""(?:\s+[a-zA-Z_:@][\w:.-]*+(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s"'<>]++))?)*+"""
_PIECE = re.compile(
    rf"""(?P<code>^[ \t]*(?P<fence>`{{3,}}|~{{3,}})[^`\n]*\n
            (?:(?![ \t]*(?P=fence)).*\n)*+[ \t]*(?P=fence)[ \t]*$
        |(?<!`)(?:`[^`\n]++`|``(?:[^`\n]|`(?!`))++``)(?!`))
    |(?P<comment><!--(?s:(?!<!--|-->).)*+-->|<!doctype\b[^<>]*>)
    |<(?P<slash>/?)(?P<name>[a-zA-Z][a-zA-Z0-9:]*+)(?P<attributes>{_ATTRIBUTES})\s*+(?P<end>/?)>
    |(?P<entity>&(?:\#[0-9]{{1,7}}|\#[xX][0-9a-fA-F]{{1,6}}|[A-Za-z][A-Za-z0-9]{{1,31}});)
    |[<&]""",
    re.VERBOSE | re.MULTILINE | re.IGNORECASE,
)
_OPENING = re.compile(r"<(!--|(/?)([a-zA-Z][a-zA-Z0-9]*+))")
_PAGE = re.compile(r"\s*<(?:!doctype\s+html|html)\b[^<>]*>", re.IGNORECASE)
# Without any of these its lines are all the structure that it has: text between what is left of a
# page's first and last tags.
_BREAK = re.compile(r"<(?:p|br|hr|div|li|tr|td|h[1-6]|article|section|pre)\b", re.IGNORECASE)
_MARKUP = re.compile(r"\A\s*<|</(?:html|body|div|p|table|td|ul)\s*>", re.IGNORECASE)
_NESTED_AMPERSANDS = re.compile(r"&(?:amp;)+(?=(?:#[0-9]+|#[xX][0-9a-fA-F]+|[A-Za-z]\w*);)")
_MENTION = re.compile(r"""["'’”)\]]?\s?(?:태그|요소|엘리먼트|속성|tag|element)""", re.IGNORECASE)
_SPACE = re.compile(r"[ \t\n\r\f]+")


def strip_page(text: str) -> str:
    """Returns the text of an HTML page: blocks become lines, its own line ends mean nothing.

    Scripts, styles, navigation and controls are dropped; `<pre>` keeps its lines. The cells of a
    row are separated by tabs, list items start with "- ", and code is in backticks or fences.
    """
    last = _last_ends(text)
    depth = 0

    def guard(match: re.Match[str]) -> str:
        nonlocal depth
        if match[1] == "!--":
            return match[0] if last.get("!--", -1) > match.start() else "&lt;!--"
        slash, name = match[2], match[3].lower()
        if name in _DROPPED and not slash and last.get(name, -1) < match.start():
            return "&lt;" + match[0][1:]
        if name in _NOT_COUNTED:
            return match[0]
        depth += -1 if slash else 1
        if depth + bool(slash) > _DEEPEST:
            return "<wbr" if name in _INLINE else "<br"
        # The parser opens formatting elements again in every block behind an unclosed one.
        return f"<{slash}x-{name}" if name in _FORMATTING else match[0]

    return _render(_OPENING.sub(guard, text), page=True)


def _last_ends(text: str) -> dict[str, int]:
    """Returns where the last end of each dropped element, and of a comment, begins."""
    lower = text.lower()
    ends = {name: lower.rfind(f"</{name}") for name in _DROPPED}
    return {**ends, "!--": lower.rfind("-->")}


def strip_tags(text: str) -> str:
    """Removes the HTML that is left in a text and decodes its entities; keeps its line ends.

    A text has HTML if it has a tag with attributes, a closing tag, `<br>` or a comment; single bare
    tags are not enough (`<b>`), nor are tags that the text speaks of ("the <p> tag"). Code in
    backticks or fences is left alone. What entities stand for may be HTML again, and is removed.
    """
    for _ in range(PASSES):
        if "<" not in text and "&" not in text:
            break
        before, text = text, _strip_once(text)
        if text == before:
            break
    return text


def _strip_once(text: str) -> str:
    is_page = bool(_PAGE.match(text))
    if is_page and _BREAK.search(text):
        return strip_page(text)
    text = _NESTED_AMPERSANDS.sub("&", text)
    matches = list(_PIECE.finditer(text))
    tags = [match for match in matches if _is_tag(match)]
    about_html = any(_MENTION.match(text, match.end()) for match in tags)
    if about_html or not (is_page or any(_is_evidence(match) for match in matches)):
        return _decode(text, matches)
    return _render("".join(_for_parser(text, matches)), page=False)


def _is_tag(match: re.Match[str]) -> bool:
    name = match["name"]
    if name is None or name.lower() not in _KNOWN:
        return False
    # `List<A>` is a type; `<A HREF=...>` is a link.
    before = match.string[match.start() - 1 : match.start()]
    is_type = len(name) == 1 and name.isupper() and before.isascii() and before.isalnum()
    return not (is_type and not match["slash"] and not match["attributes"])


def _is_evidence(match: re.Match[str]) -> bool:
    if match["comment"] is not None:
        return True
    return _is_tag(match) and (
        bool(match["slash"]) or "=" in match["attributes"] or match["name"].lower() in ("br", "hr")
    )


def _for_parser(text: str, matches: list[re.Match[str]]) -> Iterator[str]:
    """Yields the text with its sure tags, of which only those are left that shape the text."""
    last = _last_ends(text) | {"pre": text.lower().rfind("</pre")}
    codes = _short_codes(matches)
    position = depth = 0
    for match in matches:
        yield text[position : match.start()]
        position = match.end()
        if match["entity"] is not None and _is_entity(match[0]):
            yield match[0]
        elif match["comment"] is None and not _is_tag(match):
            yield html.escape(match[0], quote=False)
        elif "\n" in match[0]:  # or two lines would become one
            kind = "x-paragraph" if "\n\n" in match[0] else "x-line"
            yield f"<{kind}></{kind}>"
        elif match["comment"] is None:
            slash, name = match["slash"], match["name"].lower()
            if name in _DROPPED or name == "pre":
                depth += -1 if slash else 1
                closed = bool(slash) or last[name] > match.start()
                if closed and depth + bool(slash) <= _DEEPEST:
                    yield f"<{slash}{name}>"
                elif not closed:
                    yield html.escape(match[0], quote=False)
            elif name == "code":
                yield "`" if match.start() in codes else ""
            elif name == "li" and not slash:
                yield "<x-item></x-item>"
            elif name in _CELLS:
                yield "" if slash else "<x-cell></x-cell>"
            elif name in _PARAGRAPHS:
                yield "<x-paragraph></x-paragraph>"
            elif name in _LINES:
                yield "<br>" if name == "br" else "<x-line></x-line>"
    yield text[position:]


def _short_codes(matches: list[re.Match[str]]) -> set[int]:
    """Returns where the tags begin of each `<code>` whose `</code>` is the next tag of its line."""
    tags = [match for match in matches if match["name"]]
    found: set[int] = set()
    for first, second in itertools.pairwise(tags):
        if (first["name"].lower(), first["slash"]) != ("code", ""):
            continue
        inside = first.string[first.end() : second.start()]
        if second[0].lower() == "</code>" and not set(inside) & {"`", "\n"}:
            found |= {first.start(), second.start()}
    return found


def _decode(text: str, matches: list[re.Match[str]]) -> str:
    pieces, position = [], 0
    for match in matches:
        if match["entity"] is not None and _is_entity(match[0]):
            pieces += [text[position : match.start()], html.unescape(match[0])]
            position = match.end()
    return repair("".join([*pieces, text[position:]])) if pieces else text


def _is_entity(entity: str) -> bool:
    return entity[1] == "#" or entity[1:] in html5


class _Lines:
    """Text as it is written, which knows how many line ends are due before the next of it."""

    def __init__(self, page: bool) -> None:
        self.pieces: list[str] = []
        self._page = page  # blanks and line ends of the source are all one blank
        self._due = 0
        self._ends = 2  # line ends that the text so far ends with; the start of the text needs none
        self._mark = ""  # of a list item, due before its text

    def end_line(self, count: int) -> None:
        self._due = max(self._due, count)

    def break_line(self) -> None:
        self._due = max(self._due, self._ends) + 1

    def start_item(self) -> None:
        self.end_line(1)
        self._mark = "- "

    def end_item(self) -> None:
        self.end_line(1)
        self._mark = ""

    def start_cell(self) -> None:
        if not self._due and not self._ends:
            self.pieces.append("\t")

    def write(self, text: str, *, verbatim: bool = False) -> None:
        if self._page and not verbatim:
            text = _SPACE.sub(" ", text)
            if self._due or self._ends:
                text = text.removeprefix(" ")
        if not text:
            return
        bare = text.lstrip(" \t\n")
        if not bare:
            self._ends += text.count("\n")
            self.pieces.append(text)
            return
        first = text[: len(text) - len(bare)].count("\n")
        self.pieces += ["\n" * max(0, self._due - self._ends - first), self._mark, text]
        tail = text[len(text.rstrip(" \t\n")) :]
        self._due, self._ends, self._mark = 0, tail.count("\n"), ""


def _render(markup: str, *, page: bool) -> str:
    """Walks over the parsed tree and writes its text."""
    out = _Lines(page)
    node: LexborNode | None = LexborHTMLParser(markup).root
    depth_of_pre = 0
    while node is not None:
        name = node.tag
        if name == "-text":
            out.write(node.text_content or "", verbatim=depth_of_pre > 0)
        elif name in _DROPPED or name == "head":
            if not page and "\n" in (node.html or ""):
                out.end_line(1)
        else:
            _enter(out, node, depth_of_pre)
            depth_of_pre += name == "pre"
            if node.child is not None:
                node = node.child
                continue
            depth_of_pre -= name == "pre"
            _leave(out, node, depth_of_pre)
        while node is not None and node.next is None:
            node = node.parent
            if node is not None:
                depth_of_pre -= node.tag == "pre"
                _leave(out, node, depth_of_pre)
        node = node.next if node is not None else None
    return repair("".join(out.pieces))


def _enter(out: _Lines, node: LexborNode, depth_of_pre: int) -> None:
    name = node.tag
    if name in _PARAGRAPHS:
        out.end_line(2)
        if name == "pre" and not depth_of_pre and _needs_fence(node):
            out.write("```\n", verbatim=True)
    elif name == "br":
        out.break_line()
    elif name in ("li", "x-item"):
        out.start_item()
    elif name in _CELLS:
        out.start_cell()
    elif name in _LINES:
        out.end_line(1)
    elif name == "x-code" and not depth_of_pre:
        out.write("`")


def _leave(out: _Lines, node: LexborNode, depth_of_pre: int) -> None:
    name = node.tag
    if name in _PARAGRAPHS:
        if name == "pre" and not depth_of_pre and _needs_fence(node):
            out.end_line(1)
            out.write("```", verbatim=True)
        out.end_line(2)
    elif name == "li":
        out.end_item()
    elif name in _LINES and name != "br":
        out.end_line(1)
    elif name == "x-code" and not depth_of_pre:
        out.write("`")


def _needs_fence(pre: LexborNode) -> bool:
    """Whether a preformatted text would be taken for markup by whoever reads the text."""
    return bool({"<", "&"} & set(pre.text(deep=True)))
