"""Statistics: merged in any order they are the same, and their examples too."""

import json
import random

from polyglot_jax.corpus import stats
from polyglot_jax.corpus.rules import Options, clean
from polyglot_jax.corpus.stats import EXAMPLES, Stats

OPTIONS = Options(min_chars=20)
TEXTS = [
    f"{i}번째 문서ㅋㅋㅋㅋㅋ는  길이가 {'조금 ' * (i % 7)}다르고 010-2345-{6000 + i}로 연락한다."
    for i in range(60)
]
TEXTS += ["짧은 글", "<b>짧다</b>", " "] * 5


def of_task(numbers: list[int]) -> Stats:
    one = Stats()
    for i in numbers:
        source, id_ = f"출처{i % 2}", f"a.jsonl:{i}"
        cleaned = clean(TEXTS[i], OPTIONS)
        one.read(source, id_, TEXTS[i], cleaned, OPTIONS)
        if cleaned.dropped:
            one.reject("no field text")
        elif i % 10 == 0:
            one.drop(source, id_, "duplicate", cleaned.text, why="a.jsonl:1")
        else:
            one.change(source, id_, "boilerplate", cleaned.text, cleaned.text[:-5])
            one.write(source, cleaned.text, cleaned.kind)
    return one


def test_the_order_of_tasks_and_of_merging_changes_nothing() -> None:
    whole = stats.to_json(of_task(list(range(len(TEXTS)))))
    for seed in range(5):
        numbers = list(range(len(TEXTS)))
        random.Random(seed).shuffle(numbers)
        tasks = [of_task(numbers[i : i + 11]) for i in range(0, len(numbers), 11)]
        half = len(tasks) // 2
        merged = stats.merge([stats.merge(tasks[:half]), stats.merge(tasks[half:])])
        assert json.dumps(stats.to_json(merged)) == json.dumps(whole)


def test_json_and_back() -> None:
    record = json.loads(json.dumps(stats.to_json(of_task(list(range(len(TEXTS)))))))
    assert stats.to_json(stats.from_json(record)) == record


def test_counts_and_examples() -> None:
    one = of_task(list(range(len(TEXTS))))
    total = stats.together(one.sources.values())
    assert total.documents_in == len(TEXTS)
    assert total.bytes_in == sum(len(text.encode()) for text in TEXTS)
    assert total.documents_out == total.kinds.total() == 54
    assert total.dropped == {"short": 10, "empty": 5, "duplicate": 6}
    assert total.documents_in == total.documents_out + total.dropped.total()
    assert total.changed["repeats"] == 60
    assert total.pii == {"tel": 60}
    assert total.lengths_in.total() == total.documents_in
    assert one.rejected == {"no field text": 15}
    examples = total.change_examples["repeats"]
    assert len(examples) == EXAMPLES
    assert examples == sorted(examples)
    assert all("ㅋㅋㅋㅋㅋ" in e.before and "ㅋㅋㅋㅋ" not in e.after for e in examples)
    assert {e.after for e in total.drop_examples["duplicate"]} == {"a.jsonl:1"}


def test_examples_hold_no_personal_data_and_are_short() -> None:
    text = "앞에 있는 글 " * 40 + "  전화 010-2345-6789 " + "뒤에 있는 글 " * 40
    one = Stats()
    one.read("가", "1", text, clean(text, OPTIONS), OPTIONS)
    found = json.dumps(stats.to_json(one), ensure_ascii=False)
    assert "2345-6789" not in found
    assert "<|tel|>" in found
    for examples in one.sources["가"].change_examples.values():
        assert all(len(e.before) < 300 for e in examples)
