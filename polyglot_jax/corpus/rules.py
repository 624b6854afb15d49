"""Cleans one document: rules edit its text in order, filters say whether it stays.

`clean` is a pure function of a text and `Options`; it knows nothing of files, other documents or
engines, so every engine gives the same result. A rule edits and never drops, a filter drops and
never edits: the report can say of each what it did. Duplicates are found by the engine.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from polyglot_jax.corpus import filters, kinds, pii
from polyglot_jax.corpus.characters import (
    collapse_blanks,
    collapse_empty_lines,
    compose,
    remove_invisible,
    shorten_repeats,
    strip_line_tails,
    unify_line_ends,
)
from polyglot_jax.corpus.fragments import remove_fragments
from polyglot_jax.corpus.html import strip_page, strip_tags
from polyglot_jax.corpus.markdown import strip_markdown
from polyglot_jax.corpus.spam import advertised_words, remove_page_lines

Format = Literal["text", "markdown", "html"]
Rule = Callable[[str], str]
PERSONAL_DATA = "personal_data"  # the last rule, the only one with options

RULES: tuple[tuple[str, Rule], ...] = (
    ("line_ends", unify_line_ends),
    ("invisible", remove_invisible),
    ("compose", compose),
    ("blanks", collapse_blanks),
    ("markdown", lambda text: collapse_blanks(strip_markdown(text))),
    ("html_page", strip_page),
    ("html", strip_tags),
    ("fragments", remove_fragments),
    ("repeats", shorten_repeats),
    ("page_lines", remove_page_lines),
    ("line_tails", strip_line_tails),
    ("empty_lines", collapse_empty_lines),
)
# The formats of rules that are not for all. What is Markdown by name has had its HTML removed.
_FORMATS: dict[str, tuple[Format, ...]] = {
    "markdown": ("markdown",),
    "html_page": ("html",),
    "html": ("text", "html"),
    "fragments": ("text", "html"),
}
NAMES = (*(name for name, _ in RULES), PERSONAL_DATA)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What cleaning does. A filter whose limit is None is off; docs/rules.md gives the reasons."""

    without: tuple[str, ...] = ()  # names of rules to leave out
    pii: tuple[str, ...] = pii.DEFAULT_TYPES  # types of personal data to mask
    pii_style: Literal["token", "tag"] = "token"
    min_chars: int = 50
    max_chars: int | None = None
    min_word_chars: float | None = None  # mean characters per word between blanks
    max_word_chars: float | None = None
    max_symbol_share: float | None = None  # words that hold an ellipsis or #
    max_bullet_share: float | None = None  # lines that begin with a bullet
    max_ellipsis_share: float | None = None  # lines that end in an ellipsis
    min_hangul_share: float | None = None  # of the characters that are not blank
    max_advertised_words: int | None = 3  # different words of spam sites

    def __post_init__(self) -> None:
        for name in self.without:
            if name not in NAMES:
                raise ValueError(f"no cleaning rule {name!r}; there are {', '.join(NAMES)}")
        pii.find("", self.pii, self.pii_style)  # raises where a type or the style is unknown


# The numbers of the original's Korean job (EleutherAI/dps, configs/korean_job.yaml).
ORIGINAL = Options(
    max_chars=100_000,
    min_word_chars=3,
    max_word_chars=10,
    max_symbol_share=0.1,
    max_bullet_share=0.9,
    max_ellipsis_share=0.3,
    min_hangul_share=0.25,
)


@dataclass(frozen=True)
class Cleaned:
    """A cleaned document and what happened to it."""

    text: str
    # (rule, text before, text after) of each rule that changed the text, in order
    steps: tuple[tuple[str, str, str], ...] = ()
    dropped: str | None = None  # the filter that drops it
    pii: dict[str, int] = field(default_factory=dict)  # masked, by type
    kind: str = ""
    reasons: tuple[str, ...] = ()  # why it is of that kind

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the rules that changed the text, in order."""
        return tuple(name for name, _, _ in self.steps)


Measure = Callable[[str], float]
# Name, measure, and the options (or a number) below and above which a document is dropped.
FILTERS: tuple[tuple[str, Measure, str | int | None, str | None], ...] = (
    ("empty", lambda text: len(text.strip()), 1, None),
    ("short", len, "min_chars", None),
    ("long", len, None, "max_chars"),
    ("word_length", filters.mean_word_length, "min_word_chars", "max_word_chars"),
    ("symbols", filters.symbol_share, None, "max_symbol_share"),
    ("bullets", filters.bullet_share, None, "max_bullet_share"),
    ("ellipses", filters.ellipsis_share, None, "max_ellipsis_share"),
    ("hangul", filters.hangul_share, "min_hangul_share", None),
    ("advertising", advertised_words, None, "max_advertised_words"),
)


def why_dropped(text: str, options: Options) -> tuple[str, float, float] | None:
    """Returns the first filter that drops a cleaned text, what it measured and its limit."""
    for name, measure, below, above in FILTERS:
        low = getattr(options, below) if isinstance(below, str) else below
        high = getattr(options, above) if above else None
        if low is None and high is None:
            continue
        value = measure(text)
        if low is not None and value < low:
            return name, value, low
        if high is not None and value > high:
            return name, value, high
    return None


def clean(text: str, options: Options, *, format: Format = "text", source: str = "") -> Cleaned:
    """Applies the rules in order, then the filters.

    Args:
      text: any text without lone surrogates.
      options: what to do.
      format: what the text is written in. A text may hold HTML all the same.
      source: name of the document's source, a hint for its kind.
    """
    steps = []
    for name, rule in rules_of(options, format):
        before, text = text, rule(text)
        if text != before:
            steps.append((name, before, text))
    masked, found = mask(text, options)
    if masked != text:
        steps.append((PERSONAL_DATA, text, masked))
        text = masked
    dropped = why_dropped(text, options)
    if dropped:
        return Cleaned(text, tuple(steps), dropped[0], dict(found))
    kind, reasons = kinds.label(text, source)
    return Cleaned(text, tuple(steps), None, dict(found), kind, tuple(reasons))


@cache
def rules_of(options: Options, format: Format) -> tuple[tuple[str, Rule], ...]:
    """Returns the rules that a document of a format goes through, personal data apart."""
    return tuple(
        (name, rule)
        for name, rule in RULES
        if name not in options.without and format in _FORMATS.get(name, (format,))
    )


def mask(text: str, options: Options) -> tuple[str, Counter[str]]:
    """Masks personal data as the options ask, and returns the text and the counts by type."""
    if PERSONAL_DATA in options.without:
        return text, Counter()
    return pii.mask(text, options.pii, options.pii_style)


MIN_BOILERPLATE_CHARS = 30
_CODE_END = tuple("{}[](),;:=>\\")


def boilerplate_key(line: str) -> str | None:
    """Returns what makes two lines the same boilerplate, or None for a line that can be none.

    Headings and short lines are structure and may repeat; so may lines of code, which make no
    sense with lines missing.
    """
    key = " ".join(line.split())
    if len(key) < MIN_BOILERPLATE_CHARS or key.startswith("#") or key.endswith(_CODE_END):
        return None
    return key
