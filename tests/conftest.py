"""Devices, golden files and real data for all tests."""

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

# By config and not by XLA_FLAGS, so that programs which tests start see one device, as users do.
jax.config.update("jax_num_cpu_devices", 8)

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-goldens", action="store_true", help="rewrite tests/goldens instead of comparing"
    )


@pytest.fixture
def check_golden(pytestconfig: pytest.Config) -> Callable[[str, str], None]:
    """Returns check(name, text), which compares text with the file tests/goldens/<name>."""

    def check(name: str, text: str) -> None:
        path = ROOT / "tests" / "goldens" / name
        if pytestconfig.getoption("update_goldens"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        recorded = path.read_text(encoding="utf-8") if path.exists() else ""
        assert text == recorded, f"{name} changed; if it was meant: make goldens, and commit"

    return check


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Returns the folder of real Korean data beside the clone; skips where there is none."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no real data: the folder ../shared/data is not there")
    return path


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a source directory of some 20,000 tokens of Korean bytes; do not write to it."""
    from polyglot_jax.data.encode import encode
    from tests.data.made import write_parquet, write_tokenizer

    root = tmp_path_factory.mktemp("tiny")
    texts = [f"{i}번째 문서입니다. " + "나는 학교에 갔다. " * (i % 7) for i in range(150)]
    write_parquet(root / "documents.parquet", texts)
    encode(
        root / "documents.parquet",
        write_tokenizer(root / "tokenizer.json"),
        root / "shards",
        source="tiny",
        held_out_fraction=0.1,
        processes=1,
    )
    return root / "shards"


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory, tiny_shards: Path) -> Path:
    """Returns the workdir of a tiny run that nothing interrupted; do not write to it."""
    from tests.runs import finish, settings, start

    workdir = tmp_path_factory.mktemp("whole") / "run"
    code, output = finish(start(workdir, settings(tiny_shards)))
    assert code == 0, output
    return workdir
