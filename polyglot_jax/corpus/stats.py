"""What happened to the documents of one task, and of all tasks together: counts and examples.

`Stats` of two tasks merge into those of both, in any order to the same result: counts add up, and
of the examples those stay whose hash of document and rule is smallest, which is a random sample
that no order of arrival can change.
"""

import hashlib
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from polyglot_jax.corpus import rules

EXAMPLES = 10  # of each rule and source
CONTEXT = 60  # characters shown before and after what changed
SNIPPET = 240  # characters at most of one side of an example


@dataclass(frozen=True, order=True)
class Example:
    """One document that a rule changed or dropped; `after` is empty if it was dropped."""

    order: int  # hash of document and rule: the smallest are shown
    id: str
    before: str
    after: str = ""


@dataclass
class Source:
    """The documents of one source."""

    documents_in: int = 0
    bytes_in: int = 0  # of UTF-8
    documents_out: int = 0
    bytes_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # documents by rule
    dropped_bytes: Counter[str] = field(default_factory=Counter)  # their raw text
    changed: Counter[str] = field(default_factory=Counter)  # documents by rule
    pii: Counter[str] = field(default_factory=Counter)  # masked values by type
    kinds: Counter[str] = field(default_factory=Counter)  # documents written by kind
    lengths_in: Counter[int] = field(default_factory=Counter)  # bit_length of characters
    lengths_out: Counter[int] = field(default_factory=Counter)
    drop_examples: dict[str, list[Example]] = field(default_factory=dict)
    change_examples: dict[str, list[Example]] = field(default_factory=dict)


class Stats:
    """Counts and examples by source. `id` is the document's, unique within its source."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}
        self.rejected: Counter[str] = Counter()  # by reason

    def read(
        self,
        source: str,
        id: str,
        text: str,
        cleaned: rules.Cleaned,
        options: rules.Options,
    ) -> None:
        """Counts a document that was read and what `rules.clean` made of it."""
        counts = self._source(source)
        counts.documents_in += 1
        counts.bytes_in += len(text.encode())
        counts.lengths_in[len(text).bit_length()] += 1
        counts.changed.update(cleaned.changed)
        counts.pii.update(cleaned.pii)
        key = document_key(id)
        for name, before, after in cleaned.steps:
            if _enters(counts.change_examples, name, _order(key, name)):
                shown = _around_change(before, after)
                # A report is shown to others: it holds no personal data that documents do not.
                shown = (rules.mask(shown[0], options)[0], rules.mask(shown[1], options)[0])
                _keep(counts.change_examples, name, Example(_order(key, name), id, *shown))
        if cleaned.dropped:
            self.drop(source, id, cleaned.dropped, cleaned.text)

    def change(self, source: str, id: str, rule: str, before: str, after: str) -> None:
        """Counts a change that another than `rules.clean` made, as of lines seen elsewhere."""
        counts = self._source(source)
        counts.changed[rule] += 1
        order = _order(document_key(id), rule)
        if _enters(counts.change_examples, rule, order):
            example = Example(order, id, *_around_change(before, after))
            _keep(counts.change_examples, rule, example)

    def drop(self, source: str, id: str, rule: str, text: str, *, why: str = "") -> None:
        """Counts a dropped document; `why` is shown, as the id of the copy that stays."""
        counts = self._source(source)
        counts.dropped[rule] += 1
        counts.dropped_bytes[rule] += len(text.encode())
        order = _order(document_key(id), rule)
        if _enters(counts.drop_examples, rule, order):
            _keep(counts.drop_examples, rule, Example(order, id, _cut(text, 0, len(text)), why))

    def write(self, source: str, text: str, kind: str) -> None:
        """Counts a document that is written."""
        counts = self._source(source)
        counts.documents_out += 1
        counts.bytes_out += len(text.encode())
        counts.lengths_out[len(text).bit_length()] += 1
        counts.kinds[kind] += 1

    def reject(self, reason: str) -> None:
        """Counts a line that is no document."""
        self.rejected[reason] += 1

    def _source(self, name: str) -> Source:
        return self.sources.setdefault(name, Source())


def merge(many: Iterable[Stats]) -> Stats:
    """Returns the statistics of all documents together; their order does not matter."""
    total = Stats()
    for stats in many:
        total.rejected += stats.rejected
        for name, source in stats.sources.items():
            _add(total._source(name), source)
    return total


def together(sources: Iterable[Source]) -> Source:
    """Returns the counts and examples of several sources as of one."""
    total = Source()
    for source in sources:
        _add(total, source)
    return total


def _add(total: Source, source: Source) -> None:
    for name, value in vars(source).items():
        ours = getattr(total, name)
        if name.endswith("_examples"):
            for rule, examples in value.items():
                ours[rule] = sorted({*ours.get(rule, ()), *examples})[:EXAMPLES]
        else:
            setattr(total, name, ours + value)


def to_json(stats: Stats) -> dict[str, Any]:
    """Returns plain dicts and lists, names sorted: equal statistics give equal bytes."""
    return {
        "sources": {name: _source_to_json(stats.sources[name]) for name in sorted(stats.sources)},
        "rejected": {reason: stats.rejected[reason] for reason in sorted(stats.rejected)},
    }


def from_json(record: dict[str, Any]) -> Stats:
    """The inverse of `to_json`."""
    stats = Stats()
    stats.rejected.update(record["rejected"])
    for name, values in record["sources"].items():
        source = stats._source(name)
        for key, value in values.items():
            ours = getattr(source, key)
            if isinstance(ours, int):
                setattr(source, key, value)
            elif key.endswith("_examples"):
                ours.update({rule: [Example(**e) for e in found] for rule, found in value.items()})
            elif key.startswith("lengths_"):
                ours.update({int(bits): n for bits, n in value.items()})
            else:
                ours.update(value)
    return stats


def _source_to_json(source: Source) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for key, value in vars(source).items():
        if isinstance(value, int):
            record[key] = value
        elif key.endswith("_examples"):
            record[key] = {rule: [asdict(e) for e in value[rule]] for rule in sorted(value)}
        else:
            record[key] = {str(name): value[name] for name in sorted(value) if value[name]}
    return record


def document_key(id: str) -> int:
    """Returns 32 random bits of a document: the same on every machine and in every run."""
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=4).digest(), "big")


def _order(key: int, rule: str) -> int:
    return key ^ zlib.crc32(rule.encode())


def _enters(examples: dict[str, list[Example]], rule: str, order: int) -> bool:
    kept = examples.get(rule, [])
    return len(kept) < EXAMPLES or order <= kept[-1].order


def _keep(examples: dict[str, list[Example]], rule: str, example: Example) -> None:
    examples[rule] = sorted({*examples.get(rule, ()), example})[:EXAMPLES]


def _around_change(before: str, after: str) -> tuple[str, str]:
    """Returns the part of two texts around where they first and last differ."""
    start = _shared(before, after)
    least = min(len(before), len(after)) - start
    same = _shared(before[::-1][:least], after[::-1][:least])
    begin = max(0, start - CONTEXT)
    return (
        _cut(before, begin, len(before) - same + CONTEXT),
        _cut(after, begin, len(after) - same + CONTEXT),
    )


def _shared(first: str, second: str) -> int:
    """Returns how many characters two texts begin with alike; by halves, as loops are slow."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _cut(text: str, begin: int, end: int) -> str:
    end = min(end, len(text), begin + SNIPPET)
    return ("…" if begin else "") + text[begin:end] + ("…" if end < len(text) else "")
