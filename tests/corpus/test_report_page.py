"""The report's page: all that happened is on it, in Korean, and it needs no other file."""

import re
from pathlib import Path
from typing import Any

from polyglot_jax.corpus import report_page, stats
from polyglot_jax.corpus.rules import FILTERS, NAMES, Options, clean
from polyglot_jax.corpus.stats import Stats

OPTIONS = Options(min_chars=20)


def report() -> dict[str, Any]:
    one = Stats()
    for i in range(30):
        source = "뉴스" if i % 3 else "댓글"
        text = (
            f"<p>{i}번째 <i>문서</i>이다.</p>\n재밌다ㅋㅋㅋㅋㅋ 문의는 010-2345-67{i:02d}로 & 끝."
        )
        text = "짧다 <b>" if i == 7 else text
        cleaned = clean(text, OPTIONS)
        one.read(source, f"a:{i}", text, cleaned, OPTIONS)
        if i in (3, 4):
            one.drop(source, f"a:{i}", "near_duplicate", cleaned.text, why="a:1")
        elif not cleaned.dropped:
            one.write(source, cleaned.text, cleaned.kind)
    one.reject("invalid JSON")
    return {
        "stats": stats.to_json(one),
        "options": {"min_chars": 20, "max_chars": None},
        "inputs": [{"file": "a.jsonl", "source": "뉴스", "licence": "CC BY 4.0", "weight": 1.0}],
        "near_duplicates": {
            "documents": 3,
            "clusters": 1,
            "sizes": {"3": 1},
            "examples": [[{"id": f"a:{i}", "source": "뉴스", "text": "<글>"} for i in (1, 3, 4)]],
        },
        "contamination": {
            "documents": 1,
            "by_file": {"BoolQ/dev.tsv": 1},
            "examples": [{"source": "뉴스", "id": "a:9", "file": "BoolQ/dev.tsv", "ngram": "열셋"}],
        },
        "rejects": [{"file": "a.jsonl", "row": 31, "reason": "invalid JSON: at character 1"}],
    }


def test_all_that_happened_is_on_one_page(tmp_path: Path) -> None:
    report_page.write(report(), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for part in (
        "뉴스",
        "CC BY 4.0",
        "near_duplicate: 2 documents",
        "a:1 stays",
        "<del>&lt;p&gt;</del>",
        "<del>ㅋㅋ</del>",
        "<ins>&lt;|tel|&gt;</ins>",
        "BoolQ/dev.tsv",
        "invalid JSON: at character 1",
        "682.3",
        "max_chars",
        "cluster of 3: a:1 stays",
    ):
        assert part in page, part
    assert "010-2345" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert page.count("<img ") == 2
    assert [f.name for f in tmp_path.iterdir()] == ["report.html"]


def test_a_report_of_little_has_a_page_too(tmp_path: Path) -> None:
    one = Stats()
    text = "사람이 읽을 수 있을 만큼 긴 글입니다."
    one.read("가", "1", text, clean(text, OPTIONS), OPTIONS)
    one.write("가", text, "usable")
    report_page.write({"stats": stats.to_json(one)}, tmp_path)
    assert "Near-duplicates were not looked for." in (tmp_path / "report.html").read_text()


def test_every_rule_and_filter_is_described() -> None:
    assert set(NAMES) | {name for name, *_ in FILTERS} <= set(report_page.ABOUT)
