"""Plots of `report.html`: what became of the documents, and how long they are."""

from collections import Counter

import matplotlib
from markupsafe import Markup

from polyglot_jax import report as pages
from polyglot_jax.corpus import stats
from polyglot_jax.corpus.stats import Source, Stats

_MOST_PANELS = 11  # sources with a histogram of their own, the largest


def draw_fates(found: Stats) -> Markup:
    """Draws what share of each source's documents was written, and dropped by which rule."""
    names = [name for name, source in by_size(found) if source.documents_in][::-1]
    fates = [r for r in drop_names(found) if any(found.sources[n].dropped[r] for n in names)]
    drawn, axis = pages.figure(width=9, height=1.2 + 0.32 * len(names))
    left = [0.0] * len(names)
    colors = ["#3b7d4f", *matplotlib.colormaps["tab20"].colors]  # type: ignore[attr-defined]
    for i, fate in enumerate(["written", *fates]):
        sources = [found.sources[name] for name in names]
        counts = [s.documents_out if fate == "written" else s.dropped[fate] for s in sources]
        shares = [100 * n / s.documents_in for n, s in zip(counts, sources, strict=True)]
        axis.barh(names, shares, left=left, label=fate, color=colors[i % len(colors)])
        left = [a + b for a, b in zip(left, shares, strict=True)]
    axis.set_xlabel("share of the documents read (%)")
    axis.set_xlim(0, 100)
    axis.margins(y=0.01)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return pages.image(drawn, "What became of the documents of each source")


def draw_lengths(found: Stats) -> Markup:
    """Draws the lengths of the documents of each source, as read and as written."""
    total = stats.together(found.sources.values())
    panels = [("together", total)] if len(found.sources) > 1 else []
    panels += [(n, s) for n, s in by_size(found) if s.documents_in][:_MOST_PANELS]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns) if panels else 1
    drawn, axes = pages.figure(
        rows, max(1, columns), width=9, height=2.3 * rows, sharex=True, squeeze=False
    )
    used = [bits for _, source in panels for bits in (*source.lengths_in, *source.lengths_out)]
    bits = range(min(used, default=0), max(used, default=0) + 1)
    for axis, (name, source) in zip(axes.flat, panels, strict=False):
        axis.bar([b - 0.2 for b in bits], [source.lengths_in[b] for b in bits], 0.4, label="read")
        axis.bar(
            [b + 0.2 for b in bits], [source.lengths_out[b] for b in bits], 0.4, label="written"
        )
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    for axis in axes[-1]:
        ticks = list(bits)[:: max(1, len(bits) // 6)]
        axis.set_xticks(ticks, [_count(1 << b) for b in ticks])
        axis.set_xlabel("characters, less than", fontsize=8)
    axes.flat[0].legend(fontsize=7)
    return pages.image(drawn, "Documents by length, in powers of two")


def by_size(found: Stats) -> list[tuple[str, Source]]:
    """Returns the sources, those with the most text first."""
    return sorted(found.sources.items(), key=lambda item: (-item[1].bytes_in, item[0]))


def drop_names(found: Stats) -> list[str]:
    """Returns the rules that dropped documents, those that dropped the most first."""
    counts: Counter[str] = sum((s.dropped for s in found.sources.values()), Counter())
    return [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _count(n: int) -> str:
    for unit, shift in (("M", 20), ("k", 10)):
        if n >= 1 << shift:
            return f"{n >> shift}{unit}"
    return str(n)
