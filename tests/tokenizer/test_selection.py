"""Which documents are taken: all by default, else by weight, temperature, budget and seed."""

import json
from pathlib import Path

import pytest

from tokenizer import selection
from tokenizer.selection import Input, Size


def corpus(folder: Path, language: str, sources: dict[str, int]) -> Input:
    lines = [
        {"text": f"{source} {i} " + "text " * 20, "source": source}
        for source, count in sources.items()
        for i in range(count)
    ]
    file = folder / f"{language}.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Input(language, str(file))


def test_inputs_name_their_language() -> None:
    assert selection.parse_input("a/b=c", ["ko"]) == Input("ko", "a/b=c")
    assert selection.parse_input("zh=a=b", ["ko", "zh"]) == Input("zh", "a=b")
    with pytest.raises(ValueError, match="say its language, one of ko, zh, as in --input=ko=a"):
        selection.parse_input("a", ["ko", "zh"])
    with pytest.raises(ValueError, match="unknown language in --input=jp=a: 'jp'; did you mean ja"):
        selection.parse_input("jp=a", ["ko", "ja"])


@pytest.mark.parametrize("value", ["law", "=1", "law=x", "law=-1", "law=nan", "law=1e9"])
def test_bad_weights(value: str) -> None:
    with pytest.raises(ValueError, match=f"--source={value}: must be NAME=WEIGHT"):
        selection.parse_weights([value])


def test_sizes_are_those_of_the_text(tmp_path: Path) -> None:
    one = corpus(tmp_path, "ko", {"law": 3, "news": 2})
    (tmp_path / "more.jsonl").write_text('{"text": "가나"}\n')
    inputs = [one, Input("ko", str(tmp_path / "more.jsonl"))]
    sizes = selection.sizes(inputs, processes=1)
    assert sizes["ko", "more"] == Size(1, 6)
    assert sizes["ko", "law"].documents == 3
    assert sizes == selection.sizes(inputs, processes=2)


def test_the_whole_corpus_is_taken_once_in_order(tmp_path: Path) -> None:
    one = corpus(tmp_path, "ko", {"law": 30, "news": 20})
    rates = selection.rates(selection.sizes([one], 1), {}, alpha=1.0, sample_bytes=10**9)
    assert set(rates.values()) == {1.0}
    texts = [text for _, text in selection.take([one], rates, seed=0)]
    lines = Path(one.pattern).read_text().splitlines()
    assert texts == [json.loads(line)["text"] for line in lines]


def test_weights_budget_and_seed(tmp_path: Path) -> None:
    one = corpus(tmp_path, "ko", {"law": 1000, "news": 1000, "spam": 50})
    sizes = selection.sizes([one], 1)
    total = sum(size.bytes for size in sizes.values())
    weights = {"law": 0.5, "news": 2.0, "spam": 0.0}

    def taken(seed: int, budget: int) -> list[str]:
        rates = selection.rates(sizes, weights, 1.0, budget)
        return [text for _, text in selection.take([one], rates, seed)]

    every = taken(0, 10**9)
    counts = {name: sum(text.startswith(name) for text in every) for name in weights}
    assert counts["news"] == 2000
    assert 450 < counts["law"] < 550
    assert counts["spam"] == 0
    few = taken(0, total // 4)
    assert abs(sum(map(len, few)) - total / 4) < total / 40
    assert few == taken(0, total // 4)
    assert few != taken(1, total // 4)
    # Order and names of the files do not matter.
    lines = Path(one.pattern).read_text().splitlines(keepends=True)
    (tmp_path / "other.jsonl").write_text("".join(reversed(lines)))
    again = Input("ko", str(tmp_path / "other.jsonl"))
    rates = selection.rates(sizes, weights, 1.0, total // 4)
    assert sorted(few) == sorted(text for _, text in selection.take([again], rates, 0))


def test_temperature_levels_languages_and_repeats_little() -> None:
    sizes = {("en", "a"): Size(10, 8000), ("ms", "b"): Size(1, 100), ("ko", "c"): Size(5, 1900)}
    rates = selection.rates(sizes, {}, alpha=0.3, sample_bytes=10**9)
    taken = {key: sizes[key].bytes * rate for key, rate in rates.items()}
    assert rates["ms", "b"] == selection.MAX_REPEATS
    assert taken["ko", "c"] / taken["en", "a"] == pytest.approx((1900 / 8000) ** 0.3)
    assert sum(taken.values()) < 10_000
    equal = selection.rates(sizes, {}, alpha=0.0, sample_bytes=150)
    assert [equal[key] * sizes[key].bytes for key in sizes] == pytest.approx([50, 50, 50])


def test_bad_sources() -> None:
    sizes = {("ko", "law_ko"): Size(1, 10)}
    with pytest.raises(ValueError, match="unknown --source 'law-ko'; did you mean law_ko"):
        selection.rates(sizes, {"law-ko": 1.0}, 1.0, 100)
    with pytest.raises(ValueError, match="leave no text"):
        selection.rates(sizes, {"law_ko": 0.0}, 1.0, 100)
