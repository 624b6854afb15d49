"""Fetches the sample corpus of the quickstart: Korean documentation of the payment service PortOne.

    python -m polyglot_jax.corpus.sample --output=sample.jsonl

The text is the Markdown inside one released wheel (Apache-2.0), pinned by its hash. The wheel is
read as a zip file and never installed.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from polyglot_jax import cli, files

PACKAGE = "portone-mcp-server==0.12.1"
WHEEL_SHA256 = "0d083c49afa16031c3fd7e77aff6de96c2f71134273c5600f67ce7c381b4a522"
DOCS = "portone_mcp_server/resources/docs/"
JSONL_SHA256 = "d9433c4682e0a740d08ff7f09eb1cf1279d7fc108167f0cba715dd46648481a0"
INSTEAD = "to use a corpus of your own: make quickstart CORPUS=path.jsonl"


def write(output: Path) -> None:
    """Writes the sample corpus as JSONL, unless it is there already.

    Raises:
      ValueError: the wheel cannot be fetched or is not the pinned one.
    """
    if output.exists() and hashlib.sha256(output.read_bytes()).hexdigest() == JSONL_SHA256:
        print(f"{output}: already there")
        return
    with tempfile.TemporaryDirectory() as folder:
        lines = list(jsonl_lines(download(folder)))
    output.parent.mkdir(parents=True, exist_ok=True)
    files.write(output, *lines)
    print(f"{output}: {len(lines)} documents of {PACKAGE}")


def download(folder: str) -> Path:
    """Downloads the wheel into `folder` with pip. Raises ValueError if it is not the pinned one."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--python-version", "3.12", "-d", folder]
    result = subprocess.run([*command, PACKAGE], capture_output=True, text=True, check=False)
    if result.returncode:
        reason = (result.stderr.strip() or "pip failed").splitlines()[-1]
        raise ValueError(f"cannot fetch {PACKAGE} ({reason}); {INSTEAD}")
    (wheel,) = Path(folder).glob("*.whl")
    check(wheel)
    return wheel


def check(wheel: Path) -> None:
    """Raises ValueError unless the wheel is the pinned one."""
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise ValueError(f"{wheel.name} has sha256 {found}, not {WHEEL_SHA256}; {INSTEAD}")


def jsonl_lines(wheel: Path) -> Iterator[str]:
    """Yields one JSON line {text, source, id} a document, in the order of their names."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            path = name.removeprefix(DOCS)
            if path == name or not name.endswith(".md") or name.endswith("-docs-full.md"):
                continue
            if path.startswith("schema/"):
                continue
            record = {"text": archive.read(name).decode("utf-8"), "source": "portone", "id": path}
            yield json.dumps(record, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "JSONL file to write.")
    flags.mark_flags_as_required(["output"])
    cli.run(lambda: write(Path(flags.FLAGS.output)))
