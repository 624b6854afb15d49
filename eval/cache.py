"""Finished requests, kept in one append-only file: a killed evaluation goes on where it was.

The file is JSON lines, one finished request each, in the order they were finished:

    {"key": "9f…", "log_probs": [-3.5, -2.25], "greedy": [false, true], "context_kept": [17, 17]}
    {"key": "04…", "text": "그래서 집에 갔다."}

`key` is the first 32 hex digits of the SHA-256 of the JSON array [model.content_hash,
model.engine, "score", context, choices] or [model.content_hash, model.engine, "generate", prompt,
max_new_tokens, stop], written without spaces. So a file may serve any number of models and tasks,
and what is asked twice is computed once. Numbers are written so that they read back exactly. Of two
lines with one key the later counts. A last line without line break was torn when the process was
killed: it is cut off. The file belongs to one process at a time.
"""

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eval.request import Answer, Model, Request

FIELDS = ({"log_probs", "greedy", "context_kept"}, {"text"})  # of an entry, besides its key
LOG_EVERY = 30.0  # seconds between log lines where there is no terminal


class Cache:
    """The finished requests of a file, or of this process only where there is no path."""

    def __init__(self, path: Path | None = None) -> None:
        """Reads what is there.

        Raises:
          ValueError: a line other than a torn last one is no entry; file and line are named.
          OSError: the file cannot be read or made.
        """
        self._entries: dict[str, dict[str, Any]] = {}
        self._path = path
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0)
            whole = 0
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                try:
                    entry = json.loads(line)
                    key = entry.pop("key")
                except (ValueError, KeyError, TypeError, AttributeError):
                    entry = key = None
                if not isinstance(key, str) or set(entry) not in FIELDS:
                    raise ValueError(
                        f"{path}, line {number}: not a finished request; move the file away"
                    )
                self._entries[key] = entry
            file.truncate(whole)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._entries[key]

    def add(self, key: str, entry: dict[str, Any]) -> None:
        """Keeps an entry; once this returns, a killed process does not lose it."""
        self._entries[key] = entry
        if self._path is not None:
            with self._path.open("ab") as file:
                line = json.dumps({"key": key, **entry}, ensure_ascii=False) + "\n"
                file.write(line.encode())


def key_of(model: Model, kind: str, *content: Any) -> str:
    """Returns the key of a request, see the module's docstring."""
    text = json.dumps([model.content_hash, model.engine, kind, *content], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def score_all(
    model: Model, requests: Sequence[Request], cache: Cache, description: str
) -> list[Answer]:
    """Returns the answers in the order of the requests; computes those that the cache lacks.

    Args:
      description: what the progress is of, such as "kobest_copa, 5 shots".
    Raises:
      ValueError: see `Model.score`; or a log-probability is no number, of which any metric would
        still make one that looks like a score.
    """
    keys = [key_of(model, "score", r.context, r.choices) for r in requests]

    def compute(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, answer in model.score([requests[m] for m in missing]):
            if any(map(math.isnan, answer.log_probs)):
                raise ValueError(
                    f"{description}: the model's log-probabilities are NaN: its weights are "
                    f"broken, or too large for the precision of {model.engine!r}"
                )
            yield i, dict(vars(answer))

    _fill(cache, keys, compute, description)
    entries = (cache[key] for key in keys)
    return [Answer(**{name: tuple(values) for name, values in e.items()}) for e in entries]


def generate_all(
    model: Model,
    prompts: Sequence[tuple[int, ...]],
    cache: Cache,
    description: str,
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
) -> list[str]:
    """Returns the continuations in the order of the prompts; see `score_all`."""
    keys = [key_of(model, "generate", prompt, max_new_tokens, list(stop)) for prompt in prompts]

    def compute(missing: Sequence[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        chosen = [prompts[m] for m in missing]
        for i, text in model.generate(chosen, max_new_tokens=max_new_tokens, stop=stop):
            yield i, {"text": text}

    _fill(cache, keys, compute, description)
    return [cache[key]["text"] for key in keys]


def _fill(
    cache: Cache,
    keys: Sequence[str],
    compute: Callable[[Sequence[int]], Iterable[tuple[int, dict[str, Any]]]],
    description: str,
) -> None:
    """Computes the entries that are missing, each once, and shows how far it is."""
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    missing = sorted(i for key, i in first.items() if key not in cache)
    if not missing:
        return
    with tqdm(
        total=len(first), initial=len(first) - len(missing), desc=description, unit="item",
        disable=None, dynamic_ncols=True,
    ) as bar:  # fmt: skip
        start = shown = time.monotonic()
        for done, (i, entry) in enumerate(compute(missing), 1):
            cache.add(keys[missing[i]], entry)
            bar.update()
            now = time.monotonic()
            if bar.disable and (now - shown > LOG_EVERY or done == len(missing)):
                shown, rate = now, done / (now - start)
                left = (len(missing) - done) / rate
                print(
                    f"{description}: {len(first) - len(missing) + done:,} of {len(first):,}, "
                    f"{rate:.1f} items/s, {left:.0f} s left",
                    file=sys.stderr,
                )
