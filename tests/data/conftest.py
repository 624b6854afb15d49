"""The made-up sources and documents as fixtures."""

from pathlib import Path

import pytest

from polyglot_jax.config import SourceConfig
from tests.data.made import SHARDS, TEXTS, write_parquet, write_source, write_tokenizer


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SourceConfig]:
    root = tmp_path_factory.mktemp("sources")
    return {name: write_source(root, name) for name in SHARDS}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three Parquet files, an empty document and a duplicate among them."""
    folder = tmp_path / "documents"
    folder.mkdir()
    write_parquet(folder / "b.parquet", TEXTS[:90])
    write_parquet(folder / "a.parquet", ["", *TEXTS[90:], TEXTS[0]])
    write_parquet(folder / "c.parquet", [])
    (folder / "report.json").write_text("{}")
    return folder


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return write_tokenizer(tmp_path / "tokenizer.json")
