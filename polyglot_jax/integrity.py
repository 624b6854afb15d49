"""Whether a checkpoint is still what was written: sizes at a glance, sha256 in full.

Orbax's arrays carry no checksum: a bit that flips in one is read back as another number. So each
step keeps `digests.json`, written when its other files are whole and before the step gets its name.
The one idea is that a step is judged without being loaded: a damaged one is known before an older,
good one could be given up for it.
"""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from polyglot_jax import files

FILE = "digests.json"
ITEMS = ("state", "metadata")  # of a step; what Orbax keeps beside them changes as it commits
_NAME = re.compile(rf"({'|'.join(ITEMS)})(/[A-Za-z0-9_.-]{{1,200}}){{1,9}}")
NEEDED = ("state/_METADATA", "state/manifest.ocdbt", "metadata/metadata")


def seal(step_dir: epath.Path) -> None:
    """Writes the sizes and sha256 of a step's files, which must be whole.

    A bucket keeps and compares checksums of its objects itself: of them only the size is written.

    Raises:
      OSError: a file cannot be read, or this one not be written.
    """
    names = _files(step_dir)
    with ThreadPoolExecutor(16) as pool:
        entries = dict(zip(names, pool.map(lambda n: _entry(step_dir / n), names), strict=True))
    files.write(step_dir / FILE, json.dumps({"files": entries}, indent=1))


def seal_unnamed(directory: epath.Path) -> None:
    """Seals the step that is being written: the one that Orbax has not committed yet."""
    numbered = (path for path in directory.iterdir() if path.name.split(".")[0].isdecimal())
    steps = [path for path in numbered if path.is_dir()]
    unnamed = [path for path in steps if not (path / "commit_success.txt").exists()]
    seal(max(unnamed, key=lambda path: files.stat(path).mtime))


def damage(step_dir: epath.Path, *, digests: bool = False) -> str | None:
    """Returns what is wrong with a step's files, None where nothing is.

    Steps of before there were digests, of format version 1, have none: of them only the files that
    no step can be without are looked for.

    Args:
      digests: read every file, instead of asking for its size only.
    Raises:
      OSError: a file is there and cannot be read, by its permissions say.
    """
    path = step_dir / FILE
    if _spoils_listing(step_dir / "_CHECKPOINT_METADATA"):
        return "_CHECKPOINT_METADATA is not Orbax's"
    if not path.exists():
        lost = [name for name in NEEDED if _size(step_dir / name) in (None, 0)]
        if not lost and _format_version(step_dir) > 1:
            return f"{FILE} is missing"
        return f"{lost[0]} is missing or empty" if lost else None
    try:
        entries: dict[str, dict[str, Any]] = json.loads(path.read_bytes())["files"]
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in entries.items()}
    except (
        IsADirectoryError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        return f"{FILE} is not what was written ({type(error).__name__})"
    if any(not _NAME.fullmatch(name) or ".." in name.split("/") for name in expected):
        return f"{FILE} names what is no file of a checkpoint"
    if not expected.keys() >= set(NEEDED):
        return f"{FILE} does not name all files"

    def wrong(name: str) -> str | None:
        size, sha256 = expected[name]
        found = _size(step_dir / name)
        if found is None:
            return f"{name} is missing"
        if found != size:
            return f"{name} has {found} bytes instead of {size}"
        if digests and sha256 is not None and _sha256(step_dir / name) != sha256:
            return f"{name} has another sha256 than when it was written"
        return None

    with ThreadPoolExecutor(16) as pool:
        return next(filter(None, pool.map(wrong, expected)), None)


def newest_good(
    directory: epath.Path, steps: Collection[int], *, digests: bool = False
) -> tuple[int | None, dict[int, str]]:
    """Returns the newest step that is not damaged, and what is wrong with each newer one.

    Raises:
      ValueError: there are steps, and all of them are damaged.
    """
    damaged: dict[int, str] = {}
    for step in sorted(steps, reverse=True):
        what = damage(directory / str(step), digests=digests)
        if what is None:
            return step, damaged
        damaged[step] = what
    if damaged:
        raise ValueError(
            f"no checkpoint in {directory} is whole; of the newest, {max(damaged)}, "
            f"{damaged[max(damaged)]}: copy one back, or use another --workdir"
        )
    return None, {}


def set_aside(directory: epath.Path, step: int, what: str) -> epath.Path:
    """Moves a step to the directory `damaged` beside `directory`; returns where it is now.

    Args:
      what: is wrong with it. It is written beside it; in a bucket, that makes the directory.
    """
    damaged = directory.parent / "damaged"
    damaged.mkdir(exist_ok=True)
    places = (damaged / f"{step}.{i}" for i in itertools.count())
    place = next(place for place in places if not place.exists())
    place.with_name(f"{place.name}.txt").write_text(f"{what}\n")
    return (directory / str(step)).rename(place)


def _spoils_listing(path: epath.Path) -> bool:
    """Returns whether Orbax, which writes it as it commits and can do without, refuses all steps
    for it: where it is JSON, but no object."""
    try:
        return not isinstance(json.loads(path.read_bytes()), dict)
    except (OSError, ValueError, RecursionError):
        return False


def _format_version(step_dir: epath.Path) -> int:
    try:
        return int(json.loads((step_dir / "metadata" / "metadata").read_bytes())["format_version"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return 0  # spoilt in other ways, which its reader tells


def _files(step_dir: epath.Path) -> list[str]:
    """Returns the files of a step's items, by their paths in it."""
    found: list[str] = []
    for item in ITEMS:
        folders = [step_dir / item]
        while folders:
            for path in folders.pop().iterdir():
                if path.is_dir():
                    folders.append(path)
                elif path.name != "commit_success.txt":  # Orbax writes it when it likes
                    found.append(os.fspath(path.relative_to(step_dir)))
    return sorted(found)


def _entry(path: epath.Path) -> dict[str, Any]:
    return {"bytes": _size(path), "sha256": None if files.is_remote(path) else _sha256(path)}


def _size(path: epath.Path) -> int | None:
    try:
        return files.stat(path).length
    except (FileNotFoundError, NotADirectoryError):
        return None


def _sha256(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
