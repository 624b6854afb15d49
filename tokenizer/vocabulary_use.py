"""What a byte-level BPE vocabulary holds, and what of it a text uses.

Waste has three kinds: tokens that no text can give, since the merges or the pre-tokenizer never
form them; tokens that are no whole characters, which only serve as steps to others; and tokens that
the measured text never used, which says as much of the text as of the tokenizer.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

SYLLABLES = [chr(code) for code in range(0xAC00, 0xD7A4)]  # 11,172
# KS X 1001 has the syllables of everyday writing in rows 16 to 40 of 94; EUC-KR adds 0xA0 to each.
KS_X_1001 = [
    bytes([row, column]).decode("euc_kr")
    for row in range(0xB0, 0xC9)
    for column in range(0xA1, 0xFF)
]
_EXAMPLES = 40


def is_text(token: bytes) -> bool:
    """Says whether the bytes of a token are whole characters."""
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True


def partial(table: Sequence[bytes]) -> np.ndarray:
    """Returns bool[ids]: which tokens are no whole characters, single bytes among them."""
    return np.array([not is_text(token) for token in table], bool)


def unreachable(tokenizer: Tokenizer, table: Sequence[bytes]) -> list[int]:
    """Returns the ids, of neither added tokens nor single bytes, that no text can give.

    A token that the merges form somewhere they also form from its own bytes alone, since nothing
    crossed its ends there; so those that do not come back from their own text are unreachable.
    """
    added = tokenizer.get_added_tokens_decoder()
    found = []
    for token, i in sorted(tokenizer.get_vocab(False).items(), key=lambda item: item[1]):
        if i in added or len(table[i]) < 2:
            continue
        if is_text(table[i]):
            ids = tokenizer.encode(table[i].decode(), add_special_tokens=False).ids
        else:
            ids = [piece.id for piece in tokenizer.model.tokenize(token)]
        if ids != [i]:
            found.append(i)
    return found


def describe(tokenizer: Tokenizer, table: Sequence[bytes]) -> dict[str, Any]:
    """Returns the facts of a vocabulary that need no text. `table`: the bytes of each id."""
    added = tokenizer.get_added_tokens_decoder()
    learnt = [i for i in range(len(table)) if i not in added and len(table[i]) > 1]
    not_text = [i for i in learnt if not is_text(table[i])]
    dead = unreachable(tokenizer, table)
    whole = {table[i] for i in learnt}
    return {
        "ids": tokenizer.get_vocab_size(),
        "added_tokens": len(added),
        "learnt_tokens": len(learnt),
        "not_utf8": len(not_text),
        "with_hangul": sum(
            any("가" <= c <= "힣" for c in table[i].decode()) for i in learnt if is_text(table[i])
        ),
        "unreachable": len(dead),
        "unreachable_examples": [show(table[i]) for i in dead[:_EXAMPLES]],
        "syllables": sum(syllable.encode() in whole for syllable in SYLLABLES),
        "syllables_ks_x_1001": sum(syllable.encode() in whole for syllable in KS_X_1001),
        "longest_token": show(max((table[i] for i in learnt), key=len, default=b"")),
    }


def usage(tokenizer: Tokenizer, table: Sequence[bytes], counts: np.ndarray) -> dict[str, Any]:
    """Returns what of the vocabulary a text used. `counts`: int[ids], how often each occurred."""
    added = tokenizer.get_added_tokens_decoder()
    learnt = np.array([i not in added and len(token) > 1 for i, token in enumerate(table)])
    unused = np.flatnonzero(learnt & (counts == 0))
    sizes = np.array([len(token) for token in table])
    broken = partial(table)
    total = max(1, int(counts.sum()))
    return {
        "never_used": int(unused.size),
        "never_used_share": float(unused.size / max(1, int(learnt.sum()))),
        "never_used_examples": [show(table[i]) for i in unused[:_EXAMPLES]],
        # Tokens that are no whole characters, in the sequence that a model would see.
        "byte_fallback_tokens": float(counts[broken].sum() / total),
        "byte_fallback_bytes": float(
            (counts * sizes)[broken].sum() / max(1, int((counts * sizes).sum()))
        ),
    }


def show(token: bytes) -> str:
    """Returns a token for people: bytes that are no characters as \\xNN."""
    return token.decode(errors="backslashreplace")
