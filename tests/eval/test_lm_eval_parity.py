"""The protocol `lm-eval` against lm-evaluation-harness: strings, ids, scores and metrics.

Its own task files are loaded, with nothing but the place of the data and the number of shots
changed, and KoBEST's dev split stands in for the test split, which is not at hand.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from eval import data, metrics, protocols, tasks
from eval.models import load
from eval.models.tokenizer import PlainTokenizer
from eval.request import Answer, Model
from eval.task import Row, Task
from tests.eval.tiny_model import write_model

LM_EVAL = protocols.PROTOCOLS["lm-eval"]
KOBEST = [task.name for task in tasks.find(["kobest"])]
SHOTS = (0, 5)
TIE = 2e-4  # of the two best choices, below which the two implementations may choose differently
OURS = {"acc,none": "acc", "f1,none": "macro_f1", "acc_norm,none": "acc_norm"}


@dataclass(frozen=True)
class Harness:
    lm_eval: ModuleType
    kobest: Path
    folder: Path

    def kobest_file(self, task: Task, shots: int) -> Path:
        """Writes and returns a task file for KoBEST."""
        files = {}
        for split, theirs in (("train", "train"), ("dev", "validation"), ("dev", "test")):
            rows = data.read(task, self.kobest, split).rows
            files[theirs] = self.write_rows(f"{task.name}_{theirs}", rows)
        return self.task_file(f"kobest/{task.name}.yaml", files, shots)

    def write_rows(self, name: str, rows: Sequence[Row]) -> Path:
        path = self.folder / f"{name}.jsonl"
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        path.write_text("".join(lines), encoding="utf-8")
        return path

    def task_file(self, own: str, files: Mapping[str, Path], shots: int) -> Path:
        """Writes and returns a task file that includes lm-eval's own."""
        tasks_folder = Path(self.lm_eval.__file__ or "").parent / "tasks"
        place = {
            "data_files": {split: str(path) for split, path in files.items()},
            "cache_dir": str(self.folder / "cache"),
        }
        config = self.folder / f"{shots}_{own.replace('/', '_')}"
        config.write_text(
            f"include: {tasks_folder / own}\nnum_fewshot: {shots}\ndataset_path: json\n"
            f"dataset_name: null\ndataset_kwargs: {json.dumps(place)}\n",
            encoding="utf-8",
        )
        return config

    def evaluate(self, model: Any, task: Task, shots: int, limit: int | None) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.lm_eval.simple_evaluate(
                model=model,
                tasks=[str(self.kobest_file(task, shots))],
                limit=limit,
                bootstrap_iters=0,
                task_manager=self.lm_eval.tasks.TaskManager(include_defaults=False),
                verbosity="ERROR",
            )

    def requests(self, task_file: Path, limit: int | None = None) -> list[tuple[Any, ...]]:
        """Returns the strings that lm-eval would score: context and continuation."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            manager = self.lm_eval.tasks.TaskManager(include_defaults=False)
            (theirs,) = manager.load([str(task_file)])["tasks"].values()
            theirs.set_fewshot_seed(LM_EVAL.seed)
            theirs.build_all_requests(limit=limit)
        return [instance.args for instance in theirs.instances]


@pytest.fixture(scope="session")
def harness(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Harness:
    folder = tmp_path_factory.mktemp("lm_eval")
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_OFFLINE", "1")
        lm_eval = pytest.importorskip("lm_eval")
        for module in ("lm_eval.models.huggingface", "lm_eval.tasks"):
            pytest.importorskip(module)
    return Harness(lm_eval, shared_data / "kobest_v1", folder)


@pytest.fixture(scope="session")
def model_dir(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    write_model(path, shared_data / "polyglot_tokenizer" / "tokenizer.json", positions=512)
    return path


@pytest.fixture(scope="session")
def trained_dir(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "trained"
    (task,) = tasks.find(["kobest_hellaswag"])
    rows = data.read(task, shared_data / "kobest_v1", "train").rows
    tokenizer = shared_data / "polyglot_tokenizer" / "tokenizer.json"
    write_model(path, tokenizer, positions=512, texts=[row["context"] for row in rows[:100]])
    return path


def their_model_of(harness: Harness, path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return harness.lm_eval.models.huggingface.HFLM(
            pretrained=str(path), device="cpu", batch_size=8, dtype="float32"
        )


@pytest.fixture(scope="session")
def their_model(harness: Harness, model_dir: Path) -> Any:
    return their_model_of(harness, model_dir)


@pytest.fixture(scope="session")
def our_model(model_dir: Path) -> Model:
    return load(model_dir)


def check_strings(harness: Harness, theirs: Any, name: str, shots: int, limit: int | None) -> None:
    (task,) = tasks.find([name])
    asked = protocols.questions(
        task, LM_EVAL, str(harness.kobest), split="dev", shots=shots, limit=limit
    )
    ours = [(question.context, choice) for question in asked for choice in question.choices]
    wanted = harness.requests(harness.kobest_file(task, shots), limit)
    assert ours == wanted
    path = harness.kobest.parent / "polyglot_tokenizer" / "tokenizer.json"
    tokenizer = PlainTokenizer(Tokenizer.from_file(str(path)))
    for question in asked:
        request = protocols.request(LM_EVAL, question, tokenizer, theirs.prefix_token_id)
        for choice, ids in zip(question.choices, request.choices, strict=True):
            pair = theirs._encode_pair(question.context, choice)
            assert (list(request.context), list(ids)) == pair


def check_scores(
    harness: Harness, theirs: Any, ours: Model, name: str, shots: int, limit: int | None
) -> list[str]:
    """Returns the items that were too close to call."""
    (task,) = tasks.find([name])
    asked = protocols.questions(
        task, LM_EVAL, str(harness.kobest), split="dev", shots=shots, limit=limit
    )
    requests = [protocols.request(LM_EVAL, q, ours.tokenizer, ours.end_of_text) for q in asked]
    answers: list[Answer] = [answer for _, answer in sorted(ours.score(requests))]
    found = harness.evaluate(theirs, task, shots, limit)
    samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
    their_scores = [[float(r[0][0]) for r in sample["resps"]] for sample in samples]
    close = []
    for question, answer, scores in zip(asked, answers, their_scores, strict=True):
        np.testing.assert_allclose(answer.log_probs, scores, atol=1e-4, rtol=0)
        normalised = np.sort(np.array(scores) / question.lengths)
        raw = np.sort(scores)
        if min(raw[-1] - raw[-2], normalised[-1] - normalised[-2]) <= TIE:
            close.append(f"{name}, {shots} shots, row {question.row}: {scores}")
    if not close:
        measured = metrics.measure(task, asked, answers)
        results = found["results"][name]
        for key, value in results.items():
            if key in OURS and OURS[key] in measured:
                assert measured[OURS[key]].value == pytest.approx(value, abs=1e-12), key
    return close


@pytest.mark.parametrize("shots", SHOTS)
@pytest.mark.parametrize("name", KOBEST)
def test_strings_and_ids(harness: Harness, their_model: Any, name: str, shots: int) -> None:
    check_strings(harness, their_model, name, shots, limit=40)


@pytest.mark.slow
@pytest.mark.parametrize("shots", SHOTS)
@pytest.mark.parametrize("name", KOBEST)
def test_strings_and_ids_of_all(harness: Harness, their_model: Any, name: str, shots: int) -> None:
    check_strings(harness, their_model, name, shots, limit=None)


@pytest.mark.parametrize("shots", [0, 3])
def test_haerae(harness: Harness, tmp_path: Path, shots: int) -> None:
    rows = [{"query": f"질문 {i}", "answer": f"({'ABCDE'[i % 5]})"} for i in range(20)]
    path = harness.write_rows(f"haerae_{shots}_history_test", rows)
    (task,) = tasks.find(["haerae_history"])
    asked = protocols.questions(task, LM_EVAL, str(path), shots=shots)
    ours = [(question.context, choice) for question in asked for choice in question.choices]
    assert ours == harness.requests(
        harness.task_file("haerae/haerae_hi.yaml", {"test": path}, shots)
    )


def test_blimp(harness: Harness) -> None:
    rows = [{"sentence_good": "a b", "sentence_bad": "b a", "linguistics_term": "order"}]
    path = harness.write_rows("blimp", rows)
    (task,) = tasks.find(["minimal_pairs"])
    (question,) = protocols.questions(task, LM_EVAL, str(path))
    ours = [(question.context, choice) for choice in question.choices]
    assert ours == harness.requests(
        harness.task_file("blimp/adjunct_island.yaml", {"train": path}, 0)
    )


def test_hrm8k(harness: Harness) -> None:
    path = harness.write_rows("hrm8k", [{"question": " 1 더하기 2는? ", "answer": 3}])
    (task,) = tasks.find(["gsm8k_ko"])
    (question,) = protocols.questions(task, LM_EVAL, str(path), prompt="boxed")
    ((context, _),) = harness.requests(
        harness.task_file("hrm8k/default/hrm8k_gsm8k.yaml", {"test": path}, 0)
    )
    assert question.context == context


@pytest.mark.parametrize("name", ["kobest_boolq", "kobest_hellaswag"])
def test_scores(harness: Harness, their_model: Any, our_model: Model, name: str) -> None:
    assert check_scores(harness, their_model, our_model, name, shots=2, limit=6) == []


@pytest.mark.slow
@pytest.mark.parametrize("shots", SHOTS)
@pytest.mark.parametrize("name", KOBEST)
def test_scores_of_all(
    harness: Harness, their_model: Any, our_model: Model, name: str, shots: int
) -> None:
    close = check_scores(harness, their_model, our_model, name, shots, limit=None)
    print(*close, sep="\n")
    assert len(close) < 5


@pytest.mark.slow
@pytest.mark.parametrize("shots", SHOTS)
@pytest.mark.parametrize("name", KOBEST)
def test_scores_of_a_trained_model(
    harness: Harness, trained_dir: Path, name: str, shots: int
) -> None:
    theirs, ours = their_model_of(harness, trained_dir), load(trained_dir)
    close = check_scores(harness, theirs, ours, name, shots, limit=100)
    print(*close, sep="\n")
    assert len(close) <= 1
