"""Cleaning options as settings of the command line."""

import pytest

from polyglot_jax.corpus.options import parse
from polyglot_jax.corpus.rules import ORIGINAL, Options


def test_settings_have_the_types_of_the_options() -> None:
    settings = ["min_hangul_share=0.25", "max_chars=9", "without=html,repeats", "pii_style=tag"]
    found = parse([*settings, "max_word_chars=none", "pii="], ORIGINAL)
    assert (found.min_hangul_share, found.max_chars, found.max_word_chars) == (0.25, 9, None)
    assert (found.without, found.pii, found.pii_style) == (("html", "repeats"), (), "tag")
    assert parse([], Options()) == Options()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("max_char=3", "not name=value; the names are without, "),
        ("max_chars", "not name=value"),
        ("max_chars=x", "not of type int"),
        ("pii_style=x", "one of token, tag"),
        ("without=x", "no cleaning rule 'x'"),
    ],
)
def test_what_is_no_setting(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse([setting], Options())
