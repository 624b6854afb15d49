"""A stand-in is a program of that name, first on PATH, that writes down how it was called."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Returns make(name, body); its calls are read from tmp_path / name.log, a line each."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name: str, body: str = "") -> Path:
        log = tmp_path / f"{name}.log"
        program = folder / name
        program.write_text(f"#!/bin/bash\nprintf '%s\\x1f' \"$@\" $'\\n' >>{log}\n{body}\n")
        program.chmod(0o755)
        return log

    return make
