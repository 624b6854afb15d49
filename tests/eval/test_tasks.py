"""The benchmarks: found by name, rendered from small files in their schemas, judged."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from eval import protocols, tasks
from eval.task import Question, Task
from eval.tasks import gsm8k, kobbq, nsmc

LM_EVAL = protocols.PROTOCOLS["lm-eval"]
POLYGLOT = protocols.PROTOCOLS["polyglot-2023"]


def task(name: str) -> Task:
    (found,) = tasks.find([name])
    return found


def ask(
    folder: Path,
    name: str,
    file: str,
    rows: list[dict[str, Any]],
    protocol: protocols.Protocol = LM_EVAL,
    **options: Any,
) -> list[Question]:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    else:
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text("".join(lines), encoding="utf-8")
    return protocols.questions(task(name), protocol, str(folder), **options)


def test_find() -> None:
    found = tasks.find(["kobest_wic", "kobest", "nsmc", "kobest"])
    assert [t.name for t in found] == [
        "kobest_wic", "kobest_boolq", "kobest_copa", "kobest_hellaswag", "kobest_sentineg", "nsmc",
    ]  # fmt: skip
    assert len(tasks.find(["klue", "haerae"])) == 9


@pytest.mark.parametrize(
    ("name", "close"), [("kobset", "kobest"), ("copa", "kobest_copa"), ("klue_nil", "klue_nli")]
)
def test_unknown_names_get_the_closest(name: str, close: str) -> None:
    with pytest.raises(ValueError, match=f"no task '{name}'; did you mean .*{close}"):
        tasks.find([name])


@pytest.mark.parametrize("found", tasks.TASKS.values(), ids=lambda t: t.name)
def test_every_task_is_whole(found: Task) -> None:
    from eval.metrics import METRICS

    assert next(iter(found.prompts)) == "original"
    assert set(found.metrics) <= set(METRICS)
    assert (found.kind == "generate") == (found.judge is not None) == bool(found.max_new_tokens)


def test_ynat(tmp_path: Path) -> None:
    rows = [{"guid": "1", "title": "유튜브 내달 2일까지", "label": "생활문화"}]
    (question,) = ask(tmp_path, "klue_ynat", "klue-ynat-v1.1/ynat-v1.1_dev.json", rows)
    assert question.context == (
        "질문: 다음의 제목을 가지는 뉴스는 어느 분야의 뉴스인가요?\n"
        "제목: 유튜브 내달 2일까지\n분야:"
    )
    assert question.choices == (" 과학", " 경제", " 사회", " 생활", " 세계", " 스포츠", " 정치")
    assert question.gold == 3


def test_nli(tmp_path: Path) -> None:
    rows = [{"premise": "비가 온다.", "hypothesis": "맑다", "label": 2}]
    (question,) = ask(tmp_path, "klue_nli", "nli/validation.jsonl", rows)
    assert question.context == "비가 온다.\n질문: 맑다. 참, 거짓, 중립 중 무엇인가요?\n정답:"
    assert question.choices == (" 참", " 중립", " 거짓")
    assert question.gold == 2


def test_sts(tmp_path: Path) -> None:
    rows = [{"sentence1": "가", "sentence2": "나", "labels": {"label": 3.0, "binary-label": 1}}]
    (question,) = ask(tmp_path, "klue_sts", "klue-sts/dev.json", rows)
    assert question.context.endswith("\n문장 1: 가\n문장 2: 나\n정답:")
    assert (question.choices, question.gold) == ((" 아니오", " 예"), 1)


def test_relations(tmp_path: Path) -> None:
    rows = [
        {
            "sentence": "〈Something〉은 조지 해리슨이 쓴 노래다.",
            "subject_entity": {
                "word": "조지 해리슨",
                "start_idx": 13,
                "end_idx": 18,
                "type": "PER",
            },
            "object_entity": {"word": "노래", "start_idx": 24, "end_idx": 25, "type": "POH"},
            "label": "per:product",
        }
    ]
    (question,) = ask(tmp_path, "klue_re", "klue-re-v1.1/klue-re-v1.1_dev.json", rows)
    assert "'조지 해리슨'에 대한 '노래'의 관계" in question.context
    assert len(set(question.choices)) == 30
    assert question.gold is not None
    assert question.choices[question.gold] == " 작품"


def test_relations_are_klues(shared_data: Path) -> None:
    from eval.tasks.klue import RELATIONS

    path = shared_data / "klue_v1.1" / "klue_benchmark__klue-re-v1.1__relation_list.json"
    assert list(RELATIONS) == json.loads(path.read_text())["relations"]


def test_haerae(tmp_path: Path) -> None:
    rows = [{"query": "다음 중 옳은 것은?\n(A) 가\n(B) 나\n정답:", "answer": "(B)"}]
    (question,) = ask(tmp_path, "haerae_loan_word", "loan_words/test.jsonl", rows)
    assert question.context == rows[0]["query"]
    assert question.choices == (" (A)", " (B)", " (C)", " (D)", " (E)")
    assert (question.gold, question.lengths) == (1, (3,) * 5)


def test_nsmc(tmp_path: Path) -> None:
    for split in ("train", "test"):
        path = tmp_path / f"ratings_{split}.txt"
        path.write_text("id\tdocument\tlabel\n1\t재미있다\t1\n2\t\t0\n", encoding="utf-8")
    first, empty = protocols.questions(task("nsmc"), LM_EVAL, str(tmp_path))
    assert (first.context, first.choices, first.gold) == ("재미있다", (" (부정)", " (긍정)"), 1)
    assert empty.context == ""
    shown = protocols.questions(task("nsmc_generate"), LM_EVAL, str(tmp_path), shots=1, limit=1)
    assert shown[0].context.endswith("\n\n문장: 재미있다\n감정:")
    assert shown[0].choices == ()
    assert shown[0].options == ("부정", "긍정")
    assert (shown[0].stop, shown[0].max_new_tokens) == (("\n",), 8)


@pytest.mark.parametrize(
    ("completion", "said"),
    [
        (" 긍정", 1),
        ("부정\n\n문장:", 0),
        (" (긍정).", 1),
        (" 긍정적", None),
        ("", None),
        ("중립", None),
    ],
)
def test_nsmc_judge(completion: str, said: int | None) -> None:
    question = Question("nsmc_generate", 0, "", (), options=("부정", "긍정"))
    assert nsmc.judge(question, completion) == said


def test_minimal_pairs(tmp_path: Path) -> None:
    row = {"sentence_good": "나는 간다.", "sentence_bad": "나를 간다.", "phenomenon": "격"}
    (question,) = ask(tmp_path, "minimal_pairs", "minimal_pairs/case.jsonl", [row], POLYGLOT)
    assert (question.context, question.choices) == ("", ("나는 간다.", "나를 간다."))
    assert (question.gold, question.lengths, question.extra) == (0, (6, 6), {"phenomenon": "격"})
    blimp = {"sentence_good": "b", "sentence_bad": "a", "linguistics_term": "agreement"}
    found = ask(tmp_path, "minimal_pairs", "minimal_pairs/other.jsonl", [blimp])
    assert [question.choices for question in found] == [
        (" 나는 간다.", " 나를 간다."),
        (" b", " a"),
    ]
    assert found[1].extra == {"phenomenon": "agreement"}


def test_kobbq(tmp_path: Path) -> None:
    columns = ("sample_id", "context", "question", "choices", "biased_answer", "answer")
    cells = [("둘이 있다.", "알 수 없음"), ("하나다.", "할머니"), ("하나다.", "손자")]
    lines = ["\t".join(columns)]
    for context, answer in cells:
        choices = "['손자', '할머니', '알 수 없음']"
        lines.append("\t".join(("age", context, "누구?", choices, "할머니", answer)))
    path = tmp_path / "KoBBQ_test_samples.tsv"
    path.write_text("\n".join(lines), encoding="utf-8")
    found = protocols.questions(task("kobbq"), LM_EVAL, str(tmp_path))
    assert [question.extra["context"] for question in found] == (
        ["amb"] * 3 + ["biased"] * 3 + ["counter"] * 3
    )
    assert found[0].context.endswith(
        "맥락: 둘이 있다.\n질문: 누구?\nA: 손자\nB: 알 수 없음\nC: 할머니\n정답:"
    )
    assert [(q.gold, q.extra["biased"]) for q in found[:3]] == [(1, "2"), (2, "0"), (0, "1")]
    fifth = protocols.questions(task("kobbq"), LM_EVAL, str(tmp_path), prompt="5", limit=1)
    assert fifth[0].context.endswith("\n보기:(A) 손자\n(B) 답을 확정할 수 없음\n(C) 할머니\n답:")
    lower = protocols.questions(task("kobbq_choice"), LM_EVAL, str(tmp_path), prompt="3", limit=1)
    assert lower[0].choices == (" a", " b", " c")


@pytest.mark.parametrize(
    ("completion", "said"),
    [
        (" A", 0), ("b: 할머니", 1), ("(C) 알 수 없음", 2), ("B입니다.", 1), ("A, B", None),
        ("할머니", None), ("ABC", None), ("", None), ("A: 손자\nB: 할머니", 0),
    ],
)  # fmt: skip
def test_kobbq_judge(completion: str, said: int | None) -> None:
    assert kobbq.judge(Question("kobbq", 0, "", ()), completion) == said


def test_gsm8k(tmp_path: Path) -> None:
    rows = [
        {"question": "1 더하기 2는?", "answer": "1 + 2 = <<1+2=3>>3\n#### 3"},
        {"question": "천 더하기 천은?", "answer": 2000},
    ]
    found = ask(tmp_path, "gsm8k_ko", "GSM8K/test.jsonl", rows)
    assert found[1].context == "문제: 천 더하기 천은?\n풀이:"
    ask(tmp_path, "gsm8k_ko", "GSM8K/train.jsonl", rows[:1])
    (shown, _) = protocols.questions(task("gsm8k_ko"), LM_EVAL, str(tmp_path), shots=1)
    assert shown.context.startswith(
        "문제: 1 더하기 2는?\n풀이: 1 + 2 = <<1+2=3>>3\n정답: 3\n\n문제: "
    )
    assert [gsm8k.judge(found[1], text) for text in ("답은 2,000원", "정답: 3", "모른다")] == [
        0,
        1,
        None,
    ]


@pytest.mark.parametrize(
    ("solution", "number"),
    [
        ("그래서 $\\boxed{1,234}$ 이고 9", 1234),
        ("3 + 4 = 7\n#### 7", 7),
        ("5개와 6개. 정답은 11개입니다. 2번", 11),
        ("정답: -3.50", Fraction(-7, 2)),
        ("3개 중 1/2", Fraction(1, 2)),
        ("1/0", None),
        ("없다", None),
    ],
)
def test_extraction(solution: str, number: Fraction | None) -> None:
    assert gsm8k.extract(solution) == number


def test_an_answer_without_number_is_malformed(tmp_path: Path) -> None:
    rows = [{"question": "?", "answer": "없음"}]
    with pytest.raises(ValueError, match=r"line 1, column answer: '없음': an answer with a number"):
        ask(tmp_path, "gsm8k_ko", "GSM8K/test.jsonl", rows)


def test_texts(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("첫 글.\n둘째 줄.\n", encoding="utf-8")
    found = ask(tmp_path, "text", "text/b.jsonl", [{"text": "다른 글."}])
    assert [question.choices for question in found] == [("첫 글.\n둘째 줄.\n",), ("다른 글.",)]
    assert all(question.context == "" for question in found)
