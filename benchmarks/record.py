"""Where results go: rows as JSON lines, and dated sections of benchmarks/RESULTS.md."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polyglot_jax import files

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Appends one JSON line and forces it to the disk: a crash later loses nothing measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def commit() -> str:
    """Returns the short git commit, with "-dirty" where tracked files differ, or "unknown"."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def command(module: str) -> str:
    """Returns the command line of this program as one would type it."""
    return " ".join(["python -m", module, *sys.argv[1:]])


def versions(*names: str) -> dict[str, str]:
    """Returns the versions of the installed distributions among `names`."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu() -> str:
    """Returns the model of the CPU and the number of its cores this process may use."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return f"{model}, {cores()} cores"


def cores() -> int:
    """Returns the number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table; None becomes a dash.

    >>> print(table(["a", "b"], [[1.5, None]]))
    | a | b |
    | --- | --- |
    | 1.5 | – |
    """

    def line(cells: Sequence[Any]) -> str:
        texts = ("–" if cell is None else str(cell).replace("|", "\\|") for cell in cells)
        return "| " + " | ".join(texts) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])


def section(title: str, facts: Mapping[str, str], body: str) -> str:
    """Returns a Markdown section: heading, one line a fact, and the body."""
    lines = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    return f"## {title}\n\n{lines}\n\n{body}\n"


def append_section(text: str, path: Path = RESULTS, retire: str | None = None) -> None:
    """Appends a section to the results; the old file stays whole until the new one is.

    Args:
      retire: lines that begin so held the section's place and go.
    """
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    kept = "\n".join(line for line in lines if retire is None or not line.startswith(retire))
    files.write(path, f"{kept}\n\n{text}")
