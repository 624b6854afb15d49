"""Pages and plots: text is escaped, Korean has its glyphs, a file is whole or absent."""

import base64
import io
import re
import warnings

import pytest
from fontTools.ttLib import TTFont
from markupsafe import Markup

from polyglot_jax import report


def glyphs(page: str) -> set[str]:
    found = re.search(r"font/woff;base64,([^)]*)", page)
    assert found
    return {chr(c) for c in TTFont(io.BytesIO(base64.b64decode(found[1]))).getBestCmap()}


def test_a_page_carries_the_glyphs_that_it_shows_and_no_others() -> None:
    page = report.page("말뭉치", "뷁 漢字", report.section("표", report.table(["수"], [[1]])))
    assert glyphs(page) == set("말뭉치뷁漢字표수")
    assert "http" not in page


def test_text_is_escaped_and_markup_is_not() -> None:
    page = report.page("a<b", "x & y", report.table(["<i>"], [["<b>"], [Markup("<em>z</em>")]]))
    for part in ("a&lt;b", "x &amp; y", "&lt;i&gt;", "&lt;b&gt;", "<em>z</em>"):
        assert part in page


def test_columns_of_numbers_stand_right() -> None:
    table = report.table(["name", "n"], [["a", 1234567], ["b", "+0.5"], ["1c", None]])
    assert '<th class="number">n</th>' in table
    assert "<td>1c</td>" in table
    assert '<td class="number">1,234,567</td>' in table


def test_a_table_whose_rows_differ_in_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        report.table(["a", "b"], [["only one"]])


def test_plots_show_korean_without_a_missing_glyph() -> None:
    drawn, axis = report.figure()
    axis.plot([-1, 1])
    axis.set_title("한국어 언어 모델 − 뷁")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a glyph that no font has
        html = report.image(drawn, "그림")
    assert 'alt="그림"' in html
    assert "data:image/png;base64,iVBOR" in html
