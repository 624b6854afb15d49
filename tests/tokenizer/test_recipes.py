"""Recipes: their segmenters exist, and a misspelt name is answered with the closest."""

import pytest

from tokenizer import recipes, segment


def test_every_language_has_a_segmenter_and_every_recipe_its_languages() -> None:
    assert set(recipes.LANGUAGES.values()) <= set(segment.SEGMENTERS)
    for recipe in recipes.RECIPES.values():
        assert recipe.segmenters.items() <= recipes.LANGUAGES.items()
        assert recipe.unmarked == 0.0
    assert [*recipes.RECIPES["romance"].segmenters] == ["es", "pt", "fr", "ro", "it"]


def test_the_default_is_the_published_tokenizer() -> None:
    assert recipes.RECIPES["ko"] == recipes.Recipe(segmenters={"ko": "mecab-ko"}, vocab_size=30_000)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mecab", "unknown --segmenter 'mecab'; did you mean mecab-ko"),
        ("xyz", "unknown --segmenter 'xyz'; known: none, mecab-ko"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipes.check_name(name, segment.SEGMENTERS, "--segmenter")
