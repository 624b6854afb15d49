"""`report.json` of a corpus as a page, `report.html`, on which a person sees what was done."""

from typing import Any

from etils import epath


def write(report: dict[str, Any], directory: epath.PathLike) -> None:
    """Writes `report.html` into a directory.

    Args:
      report: the contents of `report.json`. Read are `stats` (`stats.to_json`), and where present
        `options` (a dict), `inputs` (dicts with `file`, `source`, `licence`, `category`, `weight`),
        `near_duplicates` (`{"documents": int, "clusters": int, "sizes": {size: clusters},
        "examples": [[{"id", "source", "text"}, ...], ...]}`, the first of a cluster stays),
        `contamination` (`{"documents": int, "by_file": {file: documents},
        "examples": [{"id", "source", "file", "ngram"}]}`), `rejects`
        (`[{"file", "row", "reason"}]`, the first ten).
    """
    raise NotImplementedError
