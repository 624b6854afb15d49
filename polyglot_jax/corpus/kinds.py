"""The four kinds of documents of the Polyglot-Ko report, as a label with reasons."""

from collections.abc import Callable, Sequence

KINDS = ("usable", "context", "hate", "task")

Classifier = Callable[[Sequence[str]], Sequence[str]]


def label(text: str, source: str = "") -> tuple[str, tuple[str, ...]]:
    """Returns the kind of a document (one of KINDS) and the reasons for it."""
    return "usable", ()


def resolve(name: str) -> Classifier:
    """Imports the classifier that `module:function` names.

    Raises:
      ValueError: if there is no such module or function.
    """
    raise ValueError(f"no classifier {name!r}")
