"""The sample corpus without the network: the wheel is made here."""

import hashlib
import io
import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from polyglot_jax.corpus import sample

FILES = {
    "b.md": "나",
    "a/한.md": "가\n",
    "v1-docs-full.md": "x",
    "schema/c.md": "x",
    "d.png": "x",
}


@pytest.fixture
def wheel_bytes() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("portone_mcp_server/readme.md", "x")
        for name, text in FILES.items():
            archive.writestr(sample.DOCS + name, text)
    return buffer.getvalue()


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, wheel_bytes: bytes) -> list[list[str]]:
    """Puts a pip in place that delivers the wheel, and returns the list of its commands."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        (Path(command[command.index("-d") + 1]) / "sample.whl").write_bytes(wheel_bytes)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sample.subprocess, "run", run)
    return calls


def test_fetched_once_in_sorted_order(
    tmp_path: Path, pip: list[list[str]], wheel_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "WHEEL_SHA256", hashlib.sha256(wheel_bytes).hexdigest())
    output = tmp_path / "new" / "sample.jsonl"
    sample.write(output)
    assert [json.loads(line) for line in output.read_text("utf-8").splitlines()] == [
        {"text": "가\n", "source": "portone", "id": "a/한.md"},
        {"text": "나", "source": "portone", "id": "b.md"},
    ]
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    monkeypatch.setattr(sample, "JSONL_SHA256", digest)
    sample.write(output)
    assert len(pip) == 1
    output.write_text("damaged")
    sample.write(output)
    assert len(pip) == 2
    assert hashlib.sha256(output.read_bytes()).hexdigest() == digest
    assert [f.name for f in output.parent.iterdir()] == ["sample.jsonl"]


def test_another_wheel_is_refused(tmp_path: Path, pip: list[list[str]]) -> None:
    with pytest.raises(ValueError, match=r"has sha256 .* make quickstart CORPUS=path\.jsonl"):
        sample.write(tmp_path / "s.jsonl")
    assert not list(tmp_path.iterdir())
    assert "--no-deps" in pip[0]


def test_no_network_is_one_line_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching dist\n")
    monkeypatch.setattr(sample.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValueError, match=r"No matching dist\); .*CORPUS=path\.jsonl"):
        sample.download(str(tmp_path))
