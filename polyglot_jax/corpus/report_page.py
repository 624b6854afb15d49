"""`report.json` of a corpus as a page, `report.html`, on which a person sees what was done."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from etils import epath
from markupsafe import Markup

from polyglot_jax import files
from polyglot_jax import report as pages
from polyglot_jax.corpus import difference, pii, rules, stats
from polyglot_jax.corpus.report_plots import by_size, draw_fates, draw_lengths, drop_names
from polyglot_jax.corpus.stats import Example, Source, Stats

# GB of text of each source of the original, 863 together (arXiv 2306.02254, table 1).
ORIGINAL_SIZES = {
    "Korean blog posts": 682.3,
    "Korean news": 87.0,
    "Modu corpus": 26.4,
    "Korean patents": 19.0,
    "Korean Q & A": 18.1,
    "KcBERT": 12.7,
    "Korean fiction": 6.1,
    "Korean online comments": 4.2,
    "Korean Wikipedia": 1.4,
    "6 smaller ones": None,
}
ABOUT = {
    "line_ends": "CR LF, U+2028 and other line separators become a newline",
    "invisible": "control and zero-width characters go",
    "compose": "Unicode NFC; jamo that stand alone become letters",
    "blanks": "a run of blanks becomes one; indentation stays",
    "markdown": "Markdown and MDX markup goes",
    "html_page": "an HTML page becomes its text",
    "html": "HTML tags and entities in a text go",
    "fragments": "halves of tags, link targets and embedded images go",
    "repeats": "ㅋㅋㅋㅋㅋ becomes ㅋㅋㅋ, !!!!! becomes !!!",
    "page_lines": "lines of menus, sharing, copyright and sign-offs go",
    "line_tails": "blanks at line ends go",
    "empty_lines": "at most one empty line in a row",
    "personal_data": "personal data is masked",
    "boilerplate": "lines that many documents of a source share stay once",
    "empty": "nothing is left",
    "short": "fewer characters than --min_chars",
    "long": "more characters than --max_chars",
    "word_length": "mean characters per word out of bounds",
    "symbols": "too many words with ellipses or #",
    "bullets": "too many lines begin with a bullet",
    "ellipses": "too many lines end in an ellipsis",
    "hangul": "too little Hangul",
    "advertising": "several words of spam sites",
    "duplicate": "equal to another document but for case, width and blanks",
    "near_duplicate": "nearly equal to another document",
    "contaminated": "shares text with evaluation files",
}
_MASKS = re.compile(f"({'|'.join(map(re.escape, pii.MASKS.values()))}|<\\|\\w+_(?:start|end)\\|>)")
_STYLE = Markup("""<style>
details { margin: .4rem 0; } summary { cursor: pointer; } .example { margin: .5rem 0 .9rem; }
.example pre { margin: .2rem 0; max-height: 18rem;
overflow-y: auto; } .id { color: #555; font-size: .85rem; overflow-wrap: anywhere; }
nav a { margin-right: 1rem; } .tiles { display: flex; flex-wrap: wrap; gap: 1rem; }
.tiles div { background: #f6f6f6; padding: .6rem 1rem; } .tiles b { display: block;
font-size: 1.4rem; }
</style>""")


def write(report: dict[str, Any], directory: epath.PathLike) -> None:
    """Writes `report.html` into a directory.

    Args:
      report: the contents of `report.json`. Read are `stats` (`stats.to_json`), and where present
        `options` (a dict), `inputs` (dicts with `file`, `source`, `licence`, `category`, `weight`),
        `near_duplicates` (`{"documents": int, "clusters": int, "sizes": {size: clusters},
        "examples": [[{"id", "source", "text"}, ...], ...]}`, the first of a cluster stays),
        `contamination` (`{"documents": int, "by_file": {file: documents},
        "examples": [{"id", "source", "file", "ngram"}]}`), `rejects`
        (`[{"file", "row", "reason"}]`, the first ten).
    """
    found = stats.from_json(report["stats"])
    total = stats.together(found.sources.values())
    parts = [
        _STYLE,
        _summary(found, total),
        _sources(found, total, report.get("inputs", [])),
        _drops(found, total),
        _changes(found, total),
        _personal_data(found),
        pages.section("Lengths", draw_lengths(found)),
        _duplicates(found, total, report.get("near_duplicates")),
        _contamination(report["contamination"]) if "contamination" in report else Markup(""),
        _kinds(found),
        _rejects(found, report.get("rejects", [])),
        _original(found),
        _options(report.get("options", {})),
    ]
    files.write(epath.Path(directory) / "report.html", pages.page("Corpus report", *parts))


def _summary(found: Stats, total: Source) -> Markup:
    tiles = [
        (f"{total.documents_in:,}", "documents read"),
        (
            f"{total.documents_out:,}",
            f"written ({_share(total.documents_out, total.documents_in)})",
        ),
        (_size(total.bytes_in), "of text read"),
        (_size(total.bytes_out), f"written ({_share(total.bytes_out, total.bytes_in)})"),
        (f"{total.dropped['duplicate']:,}", "exact duplicates"),
        (f"{sum(total.pii.values()):,}", "personal data masked"),
        (f"{sum(found.rejected.values()):,}", "rejected lines"),
    ]
    shown = Markup("").join(Markup("<div><b>{}</b>{}</div>").format(*tile) for tile in tiles)
    return Markup('<div class="tiles">{}</div>').format(shown)


def _sources(found: Stats, total: Source, inputs: list[dict[str, Any]]) -> Markup:
    about: dict[str, dict[str, Any]] = {}
    for one in inputs:
        about.setdefault(one.get("source") or "", one)
    rows = []
    for name, source in [*by_size(found), ("together", total)]:
        named = about.get(name, {})
        rows.append(
            (
                name,
                named.get("category") or "",
                named.get("licence") or "",
                source.documents_in,
                source.documents_out,
                _share(source.documents_out, source.documents_in),
                _size(source.bytes_in),
                _size(source.bytes_out),
                _share(source.bytes_out, source.bytes_in),
            )
        )
    header = ("source", "category", "licence", "read", "written", "", "text read", "written", "")
    table = pages.table(_without_empty(header, rows), _without_empty_rows(rows))
    return pages.section("Sources", table, draw_fates(found))


def _without_empty(header: Sequence[str], rows: list[tuple[Any, ...]]) -> list[str]:
    return [h for i, h in enumerate(header) if any(row[i] for row in rows)]


def _without_empty_rows(rows: list[tuple[Any, ...]]) -> list[list[Any]]:
    kept = [i for i in range(len(rows[0])) if any(row[i] for row in rows)]
    return [[row[i] for i in kept] for row in rows]


def _drops(found: Stats, total: Source) -> Markup:
    names = drop_names(found)
    if not names:
        return pages.section("Dropped documents", "None.")
    sources = [name for name, source in by_size(found) if source.dropped]
    rows = [
        (
            rule,
            ABOUT.get(rule, ""),
            total.dropped[rule],
            _share(total.dropped[rule], total.documents_in),
            _size(total.dropped_bytes[rule]),
        )
        for rule in names
    ]
    by_source = [(n, *(found.sources[n].dropped[rule] for rule in names)) for n in sources]
    return pages.section(
        "Dropped documents",
        pages.table(("rule", "why", "documents", "", "text"), rows),
        pages.table(("source", *names), by_source, "By source"),
        *(
            _details(f"{rule}: {total.dropped[rule]:,} documents", _drop_example(found, rule))
            for rule in names
        ),
    )


def _drop_example(found: Stats, rule: str) -> Iterator[Markup]:
    for source, example in _examples(found, "drop_examples", rule):
        why = f" – {example.after} stays" if "duplicate" in rule and example.after else ""
        yield Markup(
            '<div class="example"><div class="id">{} · {}{}</div><pre>{}</pre></div>'
        ).format(source, example.id, why, example.before)


def _changes(found: Stats, total: Source) -> Markup:
    order = [*rules.NAMES, *sorted(set(total.changed) - set(rules.NAMES))]
    names = [rule for rule in order if total.changed[rule]]
    if not names:
        return pages.section("Changed documents", "None.")
    rows = [
        (
            rule,
            ABOUT.get(rule, ""),
            total.changed[rule],
            _share(total.changed[rule], total.documents_in),
        )
        for rule in names
    ]
    return pages.section(
        "Changed documents",
        pages.table(("rule", "what it does", "documents", ""), rows),
        *(
            _details(f"{rule}: {total.changed[rule]:,} documents", _change_example(found, rule))
            for rule in names
        ),
    )


def _change_example(found: Stats, rule: str) -> Iterator[Markup]:
    for source, example in _examples(found, "change_examples", rule):
        parts = list(difference.pieces(example.before, example.after))
        cut = example.before.endswith("…") and example.after.endswith("…")
        while cut and len(parts) > 2 and parts[-1][1] == "…" and parts[-2][0] != "same":
            del parts[-2]  # one side shows more of the same text
        if rule == rules.PERSONAL_DATA:  # both sides are masked
            parts = [
                ("new" if i % 2 else "same", part)
                for i, part in enumerate(_MASKS.split(example.after))
            ]
        shown = Markup("").join(_shown(kind, text) for kind, text in parts)
        yield Markup(
            '<div class="example"><div class="id">{} · {}</div><pre>{}</pre></div>'
        ).format(source, example.id, shown)


def _shown(kind: difference.Kind, text: str) -> Markup:
    if kind == "same":
        return Markup("{}").format(difference.printable(text))
    tag = "del" if kind == "gone" else "ins"
    return Markup("<{0}>{1}</{0}>").format(tag, difference.visible(text))


def _personal_data(found: Stats) -> Markup:
    types = sorted({type_ for source in found.sources.values() for type_ in source.pii})
    if not types:
        return pages.section("Personal data", "None was found, or none was looked for.")
    rows = [(n, *(s.pii[t] for t in types)) for n, s in by_size(found) if s.pii]
    return pages.section(
        "Personal data", pages.table(("source", *types), rows, "Values that were masked, by type")
    )


def _duplicates(found: Stats, total: Source, near: dict[str, Any] | None) -> Markup:
    rows = [
        (
            name,
            source.dropped["duplicate"],
            _share(source.dropped["duplicate"], source.documents_in),
            source.dropped["near_duplicate"],
            _share(source.dropped["near_duplicate"], source.documents_in),
        )
        for name, source in [*by_size(found), ("together", total)]
        if source.dropped["duplicate"] or source.dropped["near_duplicate"]
    ]
    parts: list[str] = [pages.table(("source", "exact", "", "near", ""), rows)] if rows else []
    if near is None:
        parts.append("Near-duplicates were not looked for.")
    else:
        parts.append(
            f"{near['documents']:,} documents nearly equal an earlier one, in {near['clusters']:,} "
            "clusters."
        )
        sizes = sorted((int(size), n) for size, n in near["sizes"].items())
        parts.append(pages.table(("documents in a cluster", "clusters"), sizes))
        parts += [
            _details(
                f"cluster of {len(cluster)}: {cluster[0]['id']} stays",
                (
                    Markup('<div class="id">{} · {}</div><pre>{}</pre>').format(
                        one["source"], one["id"], one["text"]
                    )
                    for one in cluster
                ),
            )
            for cluster in near["examples"]
        ]
    return pages.section("Duplicates", *parts)


def _contamination(found: dict[str, Any]) -> Markup:
    by_file = sorted(found["by_file"].items())
    shown = [(e["source"], e["id"], e["file"], e["ngram"]) for e in found["examples"]]
    return pages.section(
        "Overlap with evaluation files",
        f"Documents that share an n-gram with a file: {found['documents']:,}.",
        pages.table(("file", "documents"), by_file),
        pages.table(("source", "document", "file", "shared"), shown, "Examples"),
    )


def _kinds(found: Stats) -> Markup:
    kinds = sorted({kind for source in found.sources.values() for kind in source.kinds if kind})
    rows = [(n, *(s.kinds[k] for k in kinds)) for n, s in by_size(found) if s.kinds]
    return pages.section("Kinds of documents written", pages.table(("source", *kinds), rows))


def _rejects(found: Stats, first: list[dict[str, Any]]) -> Markup:
    if not found.rejected:
        return pages.section("Rejected lines", "None.")
    rows = [(one["file"], one["row"], one["reason"]) for one in first]
    return pages.section(
        "Rejected lines",
        pages.table(("reason", "lines"), found.rejected.most_common()),
        pages.table(("file", "line", "reason"), rows, "The first; all are in rejects/"),
    )


def _original(found: Stats) -> Markup:
    ours = [(n, f"{s.bytes_out / 1e9:.3f}") for n, s in by_size(found) if s.documents_out]
    theirs = [(name, str(size) if size else "< 1 each") for name, size in ORIGINAL_SIZES.items()]
    rows = [
        (*(ours[i] if i < len(ours) else ("", "")), *(theirs[i] if i < len(theirs) else ("", "")))
        for i in range(max(len(ours), len(theirs)))
    ]
    return pages.section(
        "Sizes by source, beside the original's",
        pages.table(("source", "GB", "source of Polyglot-Ko", "GB"), rows),
    )


def _options(options: dict[str, Any]) -> Markup:
    rows = [(name, "off" if value is None else str(value)) for name, value in options.items()]
    return pages.section("Options", pages.table(("option", "value"), rows))


def _examples(found: Stats, which: str, rule: str) -> list[tuple[str, Example]]:
    of_all = [
        (example, name)
        for name, source in found.sources.items()
        for example in getattr(source, which).get(rule, ())
    ]
    return [(name, example) for example, name in sorted(of_all)[: stats.EXAMPLES]]


def _details(title: str, parts: Iterable[Markup]) -> Markup:
    return Markup("<details><summary>{}</summary>{}</details>").format(
        title, Markup("").join(parts)
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count} B"
