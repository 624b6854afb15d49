"""Byte-level BPE from counted words: the training itself, and the inference tokenizer it leaves.

The training pre-tokenizer splits at the marker; the one that is written differs from it by nothing
else, so that inference cuts words as training did.
"""

import re
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer

from polyglot_jax.tokens import END_OF_TEXT, PLACEHOLDERS
from tokenizer import segment, selection, words
from tokenizer.recipes import Recipe

SPECIALS = ("<pad>", "<eos>", END_OF_TEXT, "<|sep|>")  # ids 0..3
PII_SPECIALS = tuple(PLACEHOLDERS)  # ids vocab_size..vocab_size+2
SMALLEST_VOCABULARY = len(SPECIALS) + 256

# GPT-2's pattern, which ByteLevel has built in, with combining marks among the letters.
_WORDS_WITH_MARKS = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"
)


def check(recipe: Recipe) -> None:
    """Checks what can be checked before any text is read.

    Raises:
      ValueError: vocab_size has no room for the bytes; a special token that is a word or there
        already; a segmenter's package or dictionary is missing or another one than is meant.
    """
    if recipe.vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(
            f"--vocab_size={recipe.vocab_size}: must be at least {SMALLEST_VOCABULARY}, which is "
            f"{len(SPECIALS)} specials and 256 bytes"
        )
    taken = {*SPECIALS, *PII_SPECIALS}
    for token in recipe.special_tokens:
        # Words mix no letters with brackets, so no merge can be such a token.
        if not re.fullmatch(r"[<\[]\S*\w\S*[>\]]", token):
            raise ValueError(f"--special_token={token}: must look like <|user|> or [INST]")
        if token in taken:
            raise ValueError(f"--special_token={token}: is there already")
        taken.add(token)
    segment.check(recipe.segmenters.values())


def train(texts: Iterable[tuple[str, str]], recipe: Recipe, *, processes: int = 1) -> Tokenizer:
    """Returns the inference tokenizer for pairs of language and text.

    It has `vocab_size` ids, the three PII tokens, runs of whitespace and the user's special tokens;
    fewer where the texts yield no more merges: a model may have more rows than its tokenizer. The
    same texts give the same tokenizer for any number of processes.

    Raises:
      ValueError: as `check`.
    """
    check(recipe)
    inference = _pre_tokenizer(recipe)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(segment.MARKER, "removed"), inference]
    )
    trainer = BpeTrainer(
        vocab_size=recipe.vocab_size,
        min_frequency=2,  # a pair that occurs once says nothing about the language
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    all_cut = not recipe.unmarked and "none" not in recipe.segmenters.values()
    an_id = words.CUT_WORDS_AN_ID if all_cut else words.WHOLE_WORDS_AN_ID
    counts = words.count(
        _prepared(texts, recipe),
        processes,
        most=max(an_id * recipe.vocab_size, words.LEAST_WORDS),
        blanks=not recipe.whitespace_runs,
    )
    _interruptibly(tokenizer.train_from_iterator, words.repeated(counts), trainer)
    _add(tokenizer, PII_SPECIALS, special=True)
    longest = range(recipe.whitespace_runs, 1, -1)
    _add(tokenizer, [char * n for char in " \n" for n in longest], special=False)
    _add(tokenizer, recipe.special_tokens, special=True)
    tokenizer.pre_tokenizer = inference
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _prepared(texts: Iterable[tuple[str, str]], recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yields (segmenter, text)."""
    for language, text in texts:
        unmarked = selection.chance(text, "unmarked") < recipe.unmarked
        if recipe.nfc:
            text = unicodedata.normalize("NFC", text)
        yield "none" if unmarked else recipe.segmenters[language], text


def _pre_tokenizer(recipe: Recipe) -> pre_tokenizers.PreTokenizer:
    steps: list[pre_tokenizers.PreTokenizer] = []
    if recipe.digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if recipe.marks_in_words:
        steps.append(pre_tokenizers.Split(Regex(_WORDS_WITH_MARKS), "isolated"))
    steps.append(
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not recipe.marks_in_words)
    )
    return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)


def _add(tokenizer: Tokenizer, tokens: Iterable[str], *, special: bool) -> None:
    added = [AddedToken(token, normalized=False, special=special) for token in tokens]
    tokenizer.add_special_tokens(added) if special else tokenizer.add_tokens(added)


def _interruptibly(
    function: Callable[[Iterator[str], BpeTrainer], None], texts: Iterable[str], trainer: BpeTrainer
) -> None:
    """Runs the training in a thread: it would hold the main one, which alone sees an interrupt."""
    interrupted = threading.Event()

    def until_interrupted() -> Iterator[str]:
        for text in texts:
            if interrupted.is_set():
                raise ValueError("interrupted")
            yield text

    with ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(function, until_interrupted(), trainer).result()
        except KeyboardInterrupt:
            interrupted.set()
            raise
