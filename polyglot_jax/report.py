"""Pictures and pages for people who look before they read: plots and self-contained HTML.

Korean text needs a Korean font, which servers rarely have. Plots use NanumGothic (SIL Open Font
License) from a Python package, and a page carries the glyphs of that font that it shows, so neither
ever shows empty boxes.
"""

import base64
import importlib.util
import io
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from fontTools import subset
from markupsafe import Markup
from matplotlib import font_manager
from matplotlib.figure import Figure

STYLE = """
body { font: 15px/1.55 "Nanum page", system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: left;
  vertical-align: top; }
th { border-bottom: 2px solid #888; } td.number, th.number { text-align: right; }
caption { text-align: left; color: #555; padding-bottom: .4rem; }
.wide { overflow-x: auto; } figure { margin: 1rem 0; } img { max-width: 100%; height: auto; }
figcaption, .note { color: #555; } pre, code { font-family: "Nanum page", ui-monospace, monospace; }
pre { white-space: pre-wrap; background: #f6f6f6; padding: .6rem; }
ins { background: #d7f5dd; text-decoration: none; } del { background: #fbdcdc; }
"""


@cache
def korean_font() -> Path:
    """Returns the file of NanumGothic, which the package koreanize-matplotlib carries."""
    spec = importlib.util.find_spec("koreanize_matplotlib")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "fonts" / "NanumGothic.ttf"


@cache
def _use_korean_font() -> None:
    font_manager.fontManager.addfont(korean_font())
    # The second gives the signs that the first lacks.
    matplotlib.rcParams["font.family"] = ["NanumGothic", "DejaVu Sans"]


def figure(
    rows: int = 1, columns: int = 1, *, width: float = 8.0, height: float = 4.0, **subplots: Any
) -> tuple[Figure, Any]:
    """Returns an empty figure, in inches, and its axes as `Figure.subplots` gives them.

    It belongs to no window and to no list of open figures, so nothing need close it.
    """
    _use_korean_font()
    drawn = Figure(figsize=(width, height), layout="constrained")
    return drawn, drawn.subplots(rows, columns, **subplots)


def image(drawn: Figure, alt: str) -> Markup:
    """Returns a figure as HTML that carries its pixels; `alt` is its caption too."""
    data = base64.b64encode(png(drawn)).decode()
    return Markup(
        '<figure><img alt="{0}" src="data:image/png;base64,{1}"><figcaption>{0}</figcaption>'
        "</figure>"
    ).format(alt, data)


def table(
    header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str | None = None
) -> Markup:
    """Returns an HTML table; text is escaped, `Markup` is not, a column of numbers stands right.

    Numbers are shown as they are given, integers with commas: format floats before.
    """
    texts = [list(header)]
    texts += [[f"{v:,}" if isinstance(v, int) else "" if v is None else v for v in r] for r in rows]
    numbers = [
        all(_is_number(value) for value in column[1:]) for column in zip(*texts, strict=True)
    ]
    lines = Markup("\n").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup("<{0}{1}>{2}</{0}>").format(
                    "td" if i else "th", Markup(' class="number"' if number else ""), value
                )
                for value, number in zip(row, numbers, strict=True)
            )
        )
        for i, row in enumerate(texts)
    )
    title = Markup("<caption>{}</caption>").format(caption) if caption else ""
    return Markup('<div class="wide"><table>{}\n{}</table></div>').format(title, lines)


def _is_number(value: str) -> bool:
    return value in ("", "–") or value.lstrip("+-−±")[:1].isdigit()


def section(title: str, *parts: str) -> Markup:
    """Returns a heading and what stands under it; plain strings become paragraphs."""
    return Markup("<section><h2>{}</h2>\n{}</section>").format(title, _parts(parts))


def page(title: str, *parts: str) -> str:
    """Returns a whole HTML page that needs no other file; plain strings become paragraphs."""
    body = Markup("<h1>{}</h1>\n{}").format(title, _parts(parts))
    return Markup(
        '<!doctype html>\n<html lang="ko"><head><meta charset="utf-8"><title>{}</title>\n'
        '<meta name="viewport" content="width=device-width">\n<style>{}{}</style></head>\n'
        "<body>\n{}\n</body></html>\n"
    ).format(title, _font_face(str(body)), Markup(STYLE), body)


def _parts(parts: Iterable[str]) -> Markup:
    return Markup("\n").join(
        part if isinstance(part, Markup) else Markup("<p>{}</p>").format(part) for part in parts
    )


def _font_face(text: str) -> Markup:
    """Returns the CSS of a font of those glyphs outside ASCII that the text shows."""
    shown = {ord(c) for c in text if ord(c) > 127}
    options = subset.Options(flavor="woff", layout_features=[])
    options.drop_tables += [f"TSI{i}" for i in range(6)]  # sources of hints, of no use here
    with subset.load_font(str(korean_font()), options) as font:
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=shown)
        subsetter.subset(font)
        woff = io.BytesIO()
        subset.save_font(font, woff, options)
    return Markup(
        '@font-face {{ font-family: "Nanum page"; src: url(data:font/woff;base64,{}); }}'
    ).format(base64.b64encode(woff.getvalue()).decode())


def png(drawn: Figure) -> bytes:
    """Returns a figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, dpi=120, format="png")
    return buffer.getvalue()
