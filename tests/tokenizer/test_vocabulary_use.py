"""What a vocabulary holds and wastes."""

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from polyglot_jax.data.documents import token_table
from tests.tiny_tokenizer import train_tokenizer
from tokenizer import vocabulary_use


def handmade(merges: list[tuple[str, str]], more: list[str] = ()) -> Tokenizer:
    """A byte-level tokenizer of 256 bytes, these merges, and tokens that no merge makes."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens += ["".join(pair) for pair in merges] + list(more)
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def test_unreachable_tokens() -> None:
    # "bc" is merged first, so "abc" of "ab" + "c" never forms; "a." is cut by the pre-tokenizer;
    # no merge gives "xyz".
    merges = [("b", "c"), ("a", "b"), ("ab", "c"), ("a", ".")]
    tokenizer = handmade(merges, ["xyz"])
    table = token_table(tokenizer, "x")
    names = [tokenizer.id_to_token(i) for i in vocabulary_use.unreachable(tokenizer, table)]
    assert names == ["abc", "a.", "xyz"]
    described = vocabulary_use.describe(tokenizer, table)
    assert (described["learnt_tokens"], described["unreachable"]) == (5, 3)
    assert described["unreachable_examples"] == ["abc", "a.", "xyz"]


def test_syllables_and_partial_characters() -> None:
    b1, b2, b3 = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("가")[0][0]
    tokenizer = handmade([(b1, b2), (b1 + b2, b3), (b2, b3)])
    table = token_table(tokenizer, "x")
    described = vocabulary_use.describe(tokenizer, table)
    assert (described["syllables"], described["syllables_ks_x_1001"]) == (1, 1)
    assert (described["not_utf8"], described["with_hangul"]) == (2, 1)
    assert described["longest_token"] == "가"
    assert described["unreachable_examples"] == []  # two of three bytes, as in 나 or in no text
    assert (len(vocabulary_use.SYLLABLES), len(set(vocabulary_use.KS_X_1001))) == (11_172, 2350)

    counts = np.bincount(tokenizer.encode("가각a").ids, minlength=len(table))
    used = vocabulary_use.usage(tokenizer, table, counts)
    # 가 | two bytes of 각 | its third | a
    assert (used["byte_fallback_tokens"], used["byte_fallback_bytes"]) == (2 / 4, 3 / 7)
    assert (used["never_used"], used["never_used_share"]) == (1, 1 / 3)


def test_added_tokens_are_not_learnt() -> None:
    tokenizer = train_tokenizer()
    described = vocabulary_use.describe(tokenizer, token_table(tokenizer, "x"))
    assert (described["ids"], described["added_tokens"]) == (300, 4)
    assert described["learnt_tokens"] == 300 - 4 - 256


def test_the_published_vocabulary(shared_data) -> None:
    tokenizer = Tokenizer.from_file(str(shared_data / "polyglot_tokenizer" / "tokenizer.json"))
    described = vocabulary_use.describe(tokenizer, token_table(tokenizer, "x"))
    assert (described["ids"], described["learnt_tokens"]) == (30_003, 29_740)
    assert (described["not_utf8"], described["unreachable"]) == (715, 0)
    assert described["syllables"] == described["syllables_ks_x_1001"] == 1268
