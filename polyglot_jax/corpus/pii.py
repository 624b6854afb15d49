"""Personal data in Korean text: found, and masked or tagged, match by match."""

from collections import Counter
from collections.abc import Collection
from typing import Literal

TYPES = ("rrn", "acc", "tel", "email", "card", "passport", "brn", "ip")
DEFAULT_TYPES = ("rrn", "acc", "tel")  # those that the tokenizer of Polyglot-Ko has a token for


def mask(
    text: str,
    types: Collection[str] = DEFAULT_TYPES,
    style: Literal["token", "tag"] = "token",
) -> tuple[str, Counter[str]]:
    """Replaces personal data of these types by tokens, or wraps it in tags.

    Returns the text and how many spans of each type it held.
    """
    return text, Counter()
