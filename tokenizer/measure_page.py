"""Shows what `tokenizer.measure` found: one table for terminal and page, plots, coloured cuts."""

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from polyglot_jax import report
from tokenizer.vocabulary_use import is_text, show

# Verbs that contract, compounds, loan words, digits, Hanja, rare syllables, code.
EXAMPLES = (
    "아버지가 방에 들어가셨다.",
    "한국어 형태소 분석기를 사용하지 않고 추론합니다.",
    "정부는 오늘 국무회의에서 새로운 정책을 발표했습니다.",
    "인공지능 스타트업이 2023년에 1,250억 원을 투자받았다.",
    "나는 학교에 갔다.\n그리고 밥을 먹었었다ㅋㅋㅋ",
    "뷁! 大韓民國의 쀼웨를 café에서 봤어요.",
    "def hello(name):\n    return f'안녕, {name}'",
)

Examples = Sequence[tuple[str, Sequence[bytes], Sequence[Sequence[bytes]]]]
_COLOURS = ("#cfe8ff", "#ffe3b8", "#d6f2d0", "#f6d2e4", "#e3dcfa")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


ROWS: tuple[tuple[str, Callable[[Any], str]], ...] = (
    ("ids", lambda r: f"{r['vocabulary']['ids']:,}"),
    ("bytes per token", lambda r: _number(r["bytes_per_token"])),
    ("tokens per eojeol", lambda r: _number(r["tokens_per_eojeol"])),
    ("characters per token", lambda r: _number(r["characters_per_token"])),
    (
        "morpheme boundaries that are token boundaries",
        lambda r: _percent(r["morphemes"]["all"]["recall"]),
    ),
    *(
        (
            f"\u2003{where}: {name}",
            lambda r, e=region, n=name: _percent(r["morphemes"][e][n.lower()]),
        )
        for region, where in (("eojeol", "inside eojeols"), ("hangul", "between syllables"))
        for name in ("recall", "precision", "F1")
    ),
    *(
        (
            f"gold, {where}: {name}",
            lambda r, e=region, n=name: _percent(r["gold"] and r["gold"][e][n.lower()]),
        )
        for region, where in (("eojeol", "inside eojeols"), ("hangul", "between syllables"))
        for name in ("recall", "precision", "F1")
    ),
    ("tokens that are no whole characters", lambda r: _percent(r["use"]["byte_fallback_tokens"])),
    ("\u2003bytes of text in them", lambda r: _percent(r["use"]["byte_fallback_bytes"])),
    ("syllables that are tokens, of 11,172", lambda r: f"{r['vocabulary']['syllables']:,}"),
    ("\u2003of the 2,350 of KS X 1001", lambda r: f"{r['vocabulary']['syllables_ks_x_1001']:,}"),
    ("learnt tokens", lambda r: f"{r['vocabulary']['learnt_tokens']:,}"),
    ("\u2003never used in this text", lambda r: _percent(r["use"]["never_used_share"])),
    ("\u2003not UTF-8", lambda r: f"{r['vocabulary']['not_utf8']:,}"),
    ("\u2003unreachable", lambda r: f"{r['vocabulary']['unreachable']:,}"),
    ("documents that do not come back", lambda r: f"{r['not_lossless_documents']:,}"),
    ("MB/s, 1 thread", lambda r: f"{r['mb_per_second']:.2f}"),
)


def _rows(measured: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (label, *(cell(result) for result in measured["tokenizers"]))
        for label, cell in ROWS
        if measured["gold"] or not label.startswith("gold")
    ]


def terminal_table(measured: dict[str, Any]) -> str:
    """Returns the table of all figures as lines of text, a column for each tokenizer."""
    header = ("", *(result["name"] for result in measured["tokenizers"]))
    rows = [header, *_rows(measured)]
    widths = [max(map(_columns, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell + " " * (width - _columns(cell))
            if not i
            else " " * (width - _columns(cell)) + cell
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _columns(text: str) -> int:
    """Returns the columns of a terminal that a text takes: Hangul takes two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def page(measured: dict[str, Any], used: Sequence[np.ndarray], examples: Examples) -> str:
    """Returns the whole page.

    Args:
      measured: the content of measure.json.
      used: for each tokenizer int[ids], how often each id occurred.
      examples: texts, with their morphemes and each tokenizer's tokens.
    """
    text, gold = measured["text"], measured["gold"]
    names = [result["name"] for result in measured["tokenizers"]]
    about = (
        f"{text['documents']:,} documents, {text['bytes']:,} bytes, {text['eojeols']:,} eojeols."
        + f" Morphemes by {measured['segmenter']}."
        + (
            f" Gold morphemes: {gold['sentences']:,} sentences, {gold['words']:,} words, of which "
            f"{gold['contracted_words']:,} are contracted and left out."
            if gold
            else ""
        )
    )
    table = report.table(("", *names), _rows(measured))
    return report.page(
        "Tokenizers, measured",
        about,
        table,
        report.section("How to read it", *_NOTES),
        report.section("Length and morphemes", report.image(_trade_off(measured), _TRADE_OFF)),
        report.section("Use of the vocabulary", report.image(_ranks(names, used), _RANKS)),
        report.section(
            "The same sentences", *_cut_examples(measured["segmenter"], names, examples)
        ),
        report.section("Tokens of no use", *_waste(measured)),
        report.section("Losslessness", *_failures(measured)),
    )


_NOTES = (
    "Bytes per token: the longer the tokens, the shorter the sequences. Recall is the share of "
    "morpheme boundaries that are token boundaries, precision the share of token boundaries that "
    "are morpheme boundaries. Single bytes as tokens would have a recall of 100 %, so read recall, "
    "precision and length together.",
    "Boundaries everywhere are mostly blanks and punctuation, which the pre-tokenizer cuts at "
    "whatever was learnt. Those between Hangul syllables are the vocabulary's own.",
    "A token that was never used may serve another text. An unreachable one serves none.",
)
_TRADE_OFF = (
    "Left: agreement with morphemes between Hangul syllables against bytes per token, both better "
    "where larger. Right: what it is made of, and the same for gold morphemes."
)
_RANKS = "How often each token occurs, by rank; a curve that falls early leaves tokens unused"


def _trade_off(measured: dict[str, Any]) -> Any:
    drawn, (left, right) = report.figure(1, 2, width=10, height=4.4)
    results = measured["tokenizers"]
    for i, result in enumerate(results):
        f1 = result["morphemes"]["hangul"]["f1"]
        if f1 is not None:
            left.scatter(result["bytes_per_token"], 100 * f1, s=60, color=f"C{i}")
    left.set_xlabel("bytes per token")
    left.set_ylabel("F1 between syllables, %")
    left.margins(0.25)
    left.grid(alpha=0.3)
    kinds = [("morphemes", "recall"), ("morphemes", "precision")]
    kinds += [("gold", "recall"), ("gold", "precision")] if measured["gold"] else []
    width = 0.8 / len(results)
    for i, result in enumerate(results):
        heights = [100 * (result[kind]["hangul"][name] or 0) for kind, name in kinds]
        right.bar(np.arange(len(kinds)) + i * width, heights, width, label=result["name"])
    right.set_xticks(
        np.arange(len(kinds)) + 0.4 - width / 2, [f"{kind}\n{name}" for kind, name in kinds]
    )
    right.set_ylabel("between syllables, %")
    drawn.legend(loc="outside upper center", ncols=len(results))
    return drawn


def _ranks(names: Sequence[str], used: Sequence[np.ndarray]) -> Any:
    drawn, axis = report.figure(width=8, height=4)
    for name, counts in zip(names, used, strict=True):
        ordered = np.sort(counts)[::-1]
        axis.plot(np.arange(1, ordered.size + 1), np.maximum(ordered, 0.5), label=name)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("rank of the token")
    axis.set_ylabel("occurrences (0 drawn at 0.5)")
    axis.legend()
    axis.grid(alpha=0.3)
    return drawn


def _cut_examples(segmenter: str, names: Sequence[str], examples: Examples) -> list[Markup]:
    parts = [Markup("<p class='note'>Grey numbers: tokens that share one character.</p>")]
    for text, morphemes, cuts in examples:
        rows = [(segmenter, len(morphemes), coloured(morphemes))]
        rows += [
            (name, len(tokens), coloured(tokens)) for name, tokens in zip(names, cuts, strict=True)
        ]
        parts.append(report.table(("", "pieces", text), rows))
    return parts


def coloured(tokens: Sequence[bytes]) -> Markup:
    """Returns HTML with a colour for each token; those of one character stand together."""
    spans, held = [], []
    for token in tokens:
        held.append(token)
        if is_text(b"".join(held)):
            spans.append(held)
            held = []
    spans += [held] if held else []
    return Markup("").join(
        Markup('<span style="background:{}">{}{}</span>').format(
            _COLOURS[i % len(_COLOURS)],
            show(b"".join(parts)).replace(" ", "\u00a0").replace("\n", "↵"),
            Markup("<sub style='color:#888'>{}</sub>").format(len(parts)) if len(parts) > 1 else "",
        )
        for i, parts in enumerate(spans)
    )


def _waste(measured: dict[str, Any]) -> list[Markup]:
    rows = [
        (
            result["name"],
            " · ".join(result["vocabulary"]["unreachable_examples"]) or "none",
            " · ".join(result["use"]["never_used_examples"]) or "none",
            result["vocabulary"]["longest_token"],
        )
        for result in measured["tokenizers"]
    ]
    header = ("", "unreachable (the first)", "never used in this text (the first)", "longest")
    return [report.table(header, rows)]


def _failures(measured: dict[str, Any]) -> list[str]:
    rows = [
        (result["name"], failure)
        for result in measured["tokenizers"]
        for failure in result["failures"]
    ]
    return [report.table(("", "document"), rows) if rows else "Every document comes back whole."]
