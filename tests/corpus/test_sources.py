"""Sources: what a sources file says of them, and what it must not say."""

import json
from pathlib import Path
from typing import Any

import pytest

from polyglot_jax.corpus import sources
from tests.corpus.corpora import LONG, rows, run, write

TOML = """
[[source]]
name = "petitions"
input = ["{root}/p/*.jsonl"]
weight = 2
licence = "KOGL Type 1"
category = "petition"
text_field = "body"
"""


def test_sources_are_named_mapped_and_reported(tmp_path: Path) -> None:
    write(tmp_path / "p/a.jsonl", [{"body": LONG, "source": "own", "id": 3}])
    write(tmp_path / "b.jsonl", [{"text": LONG + "!", "source": "own"}])
    (tmp_path / "s.toml").write_text(TOML.format(root=tmp_path))
    report = run(
        [str(tmp_path / "b.jsonl")], tmp_path / "out", sources_file=str(tmp_path / "s.toml")
    )
    assert [(row["id"], row["source"]) for row in rows(tmp_path / "out")] == [
        ("b.jsonl:1", "own"),
        ("3", "petitions"),
    ]
    assert {key: value for key, value in report["inputs"][1].items() if key != "sha256"} == {
        **{"file": "p/a.jsonl", "source": "petitions", "weight": 2},
        **{"licence": "KOGL Type 1", "category": "petition"},
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "a", "input": "x"}, "source 1: input = 'x' is of the wrong type"),
        ({"name": "a"}, "source 1 needs a name and an input"),
        ({"name": "a", "inputs": ["x"]}, "unknown key inputs; known: name, .*text_field"),
        ({"name": "a", "input": ["nowhere/*"]}, "nowhere/.*: no file matches"),
        ({"name": "a", "input": ["ROOT/b.jsonl"]}, "b.jsonl of source a is an input already"),
        (3, "no list of sources named source"),
    ],
)
def test_what_is_no_sources_file(tmp_path: Path, entry: Any, message: str) -> None:
    path = write(tmp_path / "b.jsonl", [{"text": LONG}])
    text = json.dumps({"source": [entry]}).replace("ROOT", str(tmp_path))
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        sources.find([str(path)], str(tmp_path / "s.json"))
    (tmp_path / "s.toml").write_text("[[source")
    with pytest.raises(ValueError, match=r"s\.toml: "):
        sources.find([], str(tmp_path / "s.toml"))
