"""Cleans one document: rules edit its text in order, filters say whether it stays.

`clean` is a pure function of a text and `Options`; it knows nothing of files, other documents or
engines, so every engine gives the same result. A rule edits and never drops, a filter drops and
never edits: the report can say of each what it did. Duplicates are found by the engine.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from polyglot_jax.corpus import kinds, pii
from polyglot_jax.corpus.characters import (
    collapse_blanks,
    collapse_empty_lines,
    compose,
    remove_invisible,
    strip_line_tails,
    unify_line_ends,
)
from polyglot_jax.corpus.markdown import strip_markdown

Rule = Callable[[str], str]
PERSONAL_DATA = "personal_data"  # the last rule, the only one with options

RULES: tuple[tuple[str, Rule], ...] = (
    ("line_ends", unify_line_ends),
    ("invisible", remove_invisible),
    ("compose", compose),
    ("markdown", strip_markdown),
    ("blanks", collapse_blanks),
    ("line_tails", strip_line_tails),
    ("empty_lines", collapse_empty_lines),
)
_FORMATS = {"markdown": ("markdown",)}  # rules of some formats only


@dataclass(frozen=True, kw_only=True)
class Options:
    """What cleaning does. Characters are Unicode characters; None turns a filter off."""

    without: tuple[str, ...] = ()  # names of rules to leave out
    pii: tuple[str, ...] = ("rrn", "acc", "tel")  # types to mask
    pii_style: str = "token"
    min_chars: int = 50


@dataclass(frozen=True)
class Cleaned:
    """A cleaned document and what happened to it."""

    text: str
    changed: tuple[str, ...] = ()  # rules that changed the text, in order
    dropped: str | None = None  # the filter that drops it
    pii: dict[str, int] = field(default_factory=dict)  # masked, by type
    kind: str = ""
    reasons: tuple[str, ...] = ()  # why it is of that kind


FILTERS: tuple[tuple[str, Callable[[str, Options], bool]], ...] = (
    ("empty", lambda text, options: not text.strip()),
    ("short", lambda text, options: len(text) < options.min_chars),
)


def clean(text: str, options: Options, *, format: str = "text", source: str = "") -> Cleaned:
    """Applies the rules in order, then the filters.

    Args:
      text: any text without lone surrogates.
      options: what to do.
      format: "text", "markdown" or "html".
      source: name of the document's source, a hint for its kind.
    """
    changed = []
    for name, rule in rules_of(options, format):
        before, text = text, rule(text)
        if text != before:
            changed.append(name)
    masked, found = pii.mask(text, options.pii, options.pii_style)
    if masked != text:
        text = masked
        changed.append(PERSONAL_DATA)
    dropped = next((name for name, drops in FILTERS if drops(text, options)), None)
    kind, reasons = ("", ()) if dropped else kinds.label(text, source)
    return Cleaned(text, tuple(changed), dropped, dict(found), kind, tuple(reasons))


def rules_of(options: Options, format: str) -> tuple[tuple[str, Rule], ...]:
    """Returns the rules that a document of a format goes through, personal data apart."""
    return tuple(
        (name, rule)
        for name, rule in RULES
        if name not in options.without and format in _FORMATS.get(name, (format,))
    )


def explain(text: str, options: Options, *, format: str = "text") -> list[tuple[str, str, str]]:
    """Returns (rule, text before, text after) for each rule that changes the text, in order."""
    steps = []
    for name, rule in rules_of(options, format):
        before, text = text, rule(text)
        if text != before:
            steps.append((name, before, text))
    masked, _ = pii.mask(text, options.pii, options.pii_style)
    return [*steps, (PERSONAL_DATA, text, masked)] if masked != text else steps


_MIN_BOILERPLATE_CHARS = 30
_CODE_END = tuple("{}[](),;:=>\\")


def boilerplate_key(line: str) -> str | None:
    """Returns what makes two lines the same boilerplate, or None for a line that can be none.

    Headings and short lines are structure and may repeat; so may lines of code, which make no
    sense with lines missing.
    """
    key = " ".join(line.split())
    if len(key) < _MIN_BOILERPLATE_CHARS or key.startswith("#") or key.endswith(_CODE_END):
        return None
    return key
