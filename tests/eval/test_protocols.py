"""How questions are drawn, rendered and encoded."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from eval import data, protocols, tasks
from eval.models.tokenizer import PlainTokenizer
from eval.request import Answer
from eval.task import Question, Task

POLYGLOT = protocols.PROTOCOLS["polyglot-2023"]
LM_EVAL = protocols.PROTOCOLS["lm-eval"]
KOBEST = [task.name for task in tasks.find(["kobest"])]
NAMES = {0: "아니오", 1: "예"}


class Characters:
    """A tokenizer of one token a character."""

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, ids: object) -> str:
        raise NotImplementedError


def task(name: str) -> Task:
    (found,) = tasks.find([name])
    return found


@pytest.fixture(scope="module")
def kobest(shared_data: Path) -> str:
    return str(shared_data / "kobest_v1")


@pytest.fixture(scope="module")
def published(shared_data: Path) -> PlainTokenizer:
    path = shared_data / "polyglot_tokenizer" / "tokenizer.json"
    return PlainTokenizer(Tokenizer.from_file(str(path)))


def test_polyglot_draws_as_the_old_harness_did(kobest: str) -> None:
    """The old harness's mechanics, written down a second time for one task."""
    boolq = task("kobest_boolq")
    documents = list(data.read(boolq, kobest, "dev").rows)
    training = list(data.read(boolq, kobest, "train").rows)
    rnd = random.Random()
    rnd.seed(42)
    rnd.shuffle(documents)
    wanted = []
    for document in documents[:20]:
        text = "".join(
            f"{shot['paragraph']} 질문: {shot['question']} 답변:  {NAMES[shot['label']]}\n\n"
            for shot in rnd.sample(training, 5)
        )
        wanted.append(f"{text}{document['paragraph']} 질문: {document['question']} 답변: ")
    found = protocols.questions(boolq, POLYGLOT, kobest, split="dev", shots=5, limit=20)
    assert [question.context for question in found] == wanted
    assert found[0].choices == (" 아니오", " 예")


def test_goldens(
    kobest: str, published: PlainTokenizer, check_golden: Callable[[str, str], None]
) -> None:
    lines = []
    for name in KOBEST:
        for prompt in ("original", "modified"):
            for question in protocols.questions(
                task(name), POLYGLOT, kobest, split="dev", shots=2, prompt=prompt, limit=2
            ):
                request = protocols.request(POLYGLOT, question, published, end_of_text=2)
                entry = {
                    "prompt": prompt,
                    **{key: getattr(question, key) for key in ("task", "row", "shots", "gold")},
                    "context": request.context,
                    "choices": request.choices,
                }
                lines.append(json.dumps(entry, ensure_ascii=False))
    check_golden("polyglot_2023_requests.jsonl", "\n".join(lines) + "\n")


def test_two_spaces_of_boolq(kobest: str, published: PlainTokenizer) -> None:
    """The context ends with the token of a space, and the answer begins with another."""
    (question,) = protocols.questions(task("kobest_boolq"), POLYGLOT, kobest, split="dev", limit=1)
    request = protocols.request(POLYGLOT, question, published, end_of_text=2)
    assert request.context[-1] == 224
    assert request.choices[1] == (566,)
    jointly = protocols.request(LM_EVAL, question, published, end_of_text=2)
    assert jointly.context == request.context[:-1]
    assert published.decode(jointly.choices[1]) == "  예"


def test_modified_prompts_have_choices_of_one_token(kobest: str, published: PlainTokenizer) -> None:
    for name in ("kobest_boolq", "kobest_sentineg", "kobest_wic"):
        (question,) = protocols.questions(
            task(name), POLYGLOT, kobest, split="dev", prompt="modified", limit=1
        )
        request = protocols.request(POLYGLOT, question, published, end_of_text=2)
        assert [len(choice) for choice in request.choices] == [1, 1]


def test_modified_wic_shots_have_two_spaces(kobest: str) -> None:
    (question,) = protocols.questions(
        task("kobest_wic"), POLYGLOT, kobest, split="dev", prompt="modified", shots=1, limit=1
    )
    shot, own = question.context.split("\n\n다음 두")
    assert shot.endswith(("정답:  예", "정답:  아니"))
    assert own.endswith("정답:")


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS.values(), ids=lambda p: p.name)
def test_a_limit_changes_no_question(kobest: str, protocol: protocols.Protocol) -> None:
    few, more = (
        protocols.questions(
            task("kobest_copa"), protocol, kobest, split="dev", shots=3, limit=limit
        )
        for limit in (5, 50)
    )
    assert few == more[:5]


@pytest.mark.parametrize("name", KOBEST)
def test_questions_are_whole(kobest: str, name: str) -> None:
    found = protocols.questions(task(name), POLYGLOT, kobest, split="dev", shots=4)
    assert sorted(question.row for question in found) == list(range(len(found)))
    for question in found:
        assert len(set(question.shots)) == 4
        pieces = [question.context[start:] for start in question.shot_starts]
        assert pieces[0] == question.context
        assert all(
            question.context[start - 2 : start] == "\n\n" for start in question.shot_starts[1:]
        )
        assert question.lengths == tuple(len(choice) - 1 for choice in question.choices)


def write_haerae(folder: Path, answers: str) -> str:
    rows = [{"query": f"질문 {i}", "answer": f"({a})"} for i, a in enumerate(answers)]
    path = folder / "history" / "test.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_shots_of_the_same_split_leave_out_the_row(tmp_path: Path) -> None:
    folder = write_haerae(tmp_path, "ABCDE")
    for protocol in protocols.PROTOCOLS.values():
        for question in protocols.questions(task("haerae_history"), protocol, folder, shots=4):
            assert sorted([*question.shots, question.row]) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="has 5 rows to draw 5 shots from"):
        protocols.questions(task("haerae_history"), LM_EVAL, folder, shots=5)


def test_repeated_rows_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "history" / "test.jsonl"
    path.parent.mkdir()
    path.write_text('{"query": "?", "answer": "(A)"}\n' * 6)
    for _ in range(2):
        assert len(protocols.questions(task("haerae_history"), LM_EVAL, str(tmp_path))) == 6
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{path}: 5 rows repeat an earlier one" in said
    assert "(counted from 0: 1 is 0, 2 is 0, 3 is 0, ...)" in said


def test_copies_of_the_row_are_no_shots(tmp_path: Path) -> None:
    row = {"query": "같은 질문", "answer": "(A)"}
    rows = [row] * 6 + [{"query": f"질문 {i}", "answer": "(B)"} for i in range(2)]
    path = tmp_path / "history" / "test.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = protocols.questions(task("haerae_history"), LM_EVAL, str(tmp_path), shots=2)
    assert all(sorted(question.shots) == [6, 7] for question in found if question.row < 6)


def test_an_empty_context_is_the_end_of_text() -> None:
    question = Question("t", 0, "", ("가나",))
    request = protocols.request(LM_EVAL, question, Characters(), end_of_text=2)
    assert (request.context, request.choices) == ((2,), ((ord("가"), ord("나")),))
    assert protocols.prompt_ids(question, Characters(), 2) == (2,)


def test_a_context_of_spaces_is_asked_after_the_end_of_text() -> None:
    question = Question("t", 0, "  ", (" 가",))
    request = protocols.request(LM_EVAL, question, Characters(), end_of_text=2)
    assert (request.context, request.choices) == ((2,), ((32, 32, 32, ord("가")),))
    request = protocols.request(POLYGLOT, question, Characters(), end_of_text=2)
    assert (request.context, request.choices) == ((32, 32), ((32, ord("가")),))


def test_a_choice_without_tokens_is_refused() -> None:
    question = Question("t", 7, "가", ("나", ""))
    for protocol in protocols.PROTOCOLS.values():
        with pytest.raises(ValueError, match="t, row 7: '' adds no token"):
            protocols.request(protocol, question, Characters(), end_of_text=2)


def test_unknown_prompt() -> None:
    with pytest.raises(ValueError, match="has no prompt 'new', only: original, modified"):
        protocols.questions(task("kobest_copa"), LM_EVAL, "nowhere", prompt="new")


@pytest.mark.parametrize(
    ("kept", "shots"), [(14, 3), (13, 2), (10, 2), (9, 1), (6, 1), (5, 0), (2, 0), (0, 0)]
)
def test_shots_kept(kept: int, shots: int) -> None:
    context = "aa\n\nbb\n\nc\n\n?!!"
    question = Question("t", 0, context, (" x", " y"), shots=(4, 5, 6), shot_starts=(0, 4, 8))
    request = protocols.request(POLYGLOT, question, Characters(), end_of_text=2)
    assert len(request.context) == 14
    answer = Answer((0.0, 0.0), (False, False), (14, kept))
    assert protocols.shots_kept(question, request, answer, Characters()) == shots


def test_a_shot_is_never_the_question(kobest: str) -> None:
    asked = protocols.questions(task("kobest_copa"), POLYGLOT, kobest, split="train", shots=50)
    assert not any(question.row in question.shots for question in asked)


def test_one_file_has_no_train_split_for_shots(kobest: str) -> None:
    file = f"{kobest}/COPA/dev.tsv"
    assert len(protocols.questions(task("kobest_copa"), POLYGLOT, file)) == 500
    with pytest.raises(ValueError, match=r"dev\.tsv is one file, and shots of kobest_copa come"):
        protocols.questions(task("kobest_copa"), POLYGLOT, file, shots=5)
