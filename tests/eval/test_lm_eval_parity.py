"""The protocol `lm-eval` against lm-evaluation-harness: strings, ids, scores and metrics.

Its own task files are loaded, with nothing but the place of the data and the number of shots
changed, and KoBEST's dev split stands in for the test split, which is not at hand.
"""

import json
import warnings
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
from eval.task import Task
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

    def task_file(self, task: Task, shots: int) -> Path:
        """Writes and returns a task file that includes lm-eval's own."""
        own = Path(self.lm_eval.__file__ or "").parent / "tasks" / "kobest" / f"{task.name}.yaml"
        files = {}
        for split, theirs in (("train", "train"), ("dev", "validation"), ("dev", "test")):
            path = self.folder / f"{task.name}_{theirs}.jsonl"
            if not path.exists():
                rows = data.read(task, self.kobest, split).rows
                lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
                path.write_text("".join(lines), encoding="utf-8")
            files[theirs] = str(path)
        place = {"data_files": files, "cache_dir": str(self.folder / "cache")}
        config = self.folder / f"{task.name}_{shots}.yaml"
        config.write_text(
            f"include: {own}\nnum_fewshot: {shots}\ndataset_path: json\ndataset_name: null\n"
            f"dataset_kwargs: {json.dumps(place)}\n",
            encoding="utf-8",
        )
        return config

    def evaluate(self, model: Any, task: Task, shots: int, limit: int | None) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.lm_eval.simple_evaluate(
                model=model,
                tasks=[str(self.task_file(task, shots))],
                limit=limit,
                bootstrap_iters=0,
                task_manager=self.lm_eval.tasks.TaskManager(include_defaults=False),
                verbosity="ERROR",
            )

    def requests(self, task: Task, shots: int, limit: int | None) -> list[tuple[str, str]]:
        """Returns the strings that lm-eval would score: context and continuation."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            manager = self.lm_eval.tasks.TaskManager(include_defaults=False)
            (theirs,) = manager.load([str(self.task_file(task, shots))])["tasks"].values()
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
def their_model(harness: Harness, model_dir: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return harness.lm_eval.models.huggingface.HFLM(
            pretrained=str(model_dir), device="cpu", batch_size=8, dtype="float32"
        )


@pytest.fixture(scope="session")
def our_model(model_dir: Path) -> Model:
    return load(model_dir)


def check_strings(harness: Harness, theirs: Any, name: str, shots: int, limit: int | None) -> None:
    (task,) = tasks.find([name])
    asked = protocols.questions(
        task, LM_EVAL, str(harness.kobest), split="dev", shots=shots, limit=limit
    )
    ours = [(question.context, choice) for question in asked for choice in question.choices]
    wanted = harness.requests(task, shots, limit)
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
