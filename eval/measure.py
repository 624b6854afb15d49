"""One measurement: a model's answers to a task's questions, as a `Result`."""

import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from eval import metrics, perplexity, protocols
from eval.cache import Cache, generate_all, score_all
from eval.protocols import Protocol
from eval.request import Answer, Model
from eval.results import Key, ModelInfo, Result
from eval.task import Question, Task
from polyglot_jax import provenance


@dataclasses.dataclass(frozen=True)
class Conditions:
    """How a task is asked."""

    protocol: Protocol
    prompt: str
    split: str
    shots: int
    limit: int | None
    data: str | None  # directory; None is the Hugging Face hub

    def questions(self, task: Task) -> list[Question]:
        """Returns the rendered questions. Raises ValueError: see `protocols.questions`."""
        return protocols.questions(
            task,
            self.protocol,
            self.data,
            split=self.split,
            shots=self.shots,
            prompt=self.prompt,
            limit=self.limit,
        )


def key_of(model: Model, task: Task, how: Conditions, asked: Sequence[Question]) -> Key:
    """Returns what decides the result of these questions."""
    digest = hashlib.sha256()
    for question in asked:
        fields = dataclasses.asdict(question)
        digest.update(json.dumps(fields, sort_keys=True, ensure_ascii=False).encode())
    return Key(
        model=model.content_hash,
        engine=model.engine,
        task=task.name,
        task_version=task.version,
        protocol=how.protocol.name,
        protocol_version=how.protocol.version,
        prompt=how.prompt,
        split=how.split,
        shots=how.shots,
        limit=how.limit,
        questions=digest.hexdigest()[:32],
    )


def measure(
    model: Model,
    info: ModelInfo,
    task: Task,
    how: Conditions,
    asked: Sequence[Question],
    cache: Cache,
) -> Result:
    """Asks the model whatever the cache does not know, and judges the answers.

    Raises:
      ValueError: a question does not fit the model; see `Model.score` and `Model.generate`.
    """
    description = f"{info.name}: {task.name}, {how.shots} shots"
    answers: Sequence[Any]
    kept: list[int] = []
    if task.kind == "choice":
        answers, kept = _choose(model, how.protocol, asked, cache, description)
    elif task.kind == "generate":
        answers = _generate(model, asked, cache, description)
    else:
        answers = _read(model, asked, cache, description)
    outcomes = metrics.outcomes(task, asked, answers)
    measures = metrics.summarise(task, outcomes)
    headline = next(iter(measures))
    return Result(
        key=key_of(model, task, how, asked),
        model=info,
        measures={name: dataclasses.asdict(m) for name, m in measures.items()},
        headline=headline,
        classes=_classes(task, asked),
        shots_kept=_mean_and_min(kept) if how.shots and kept else {},
        seeds={
            "shots": how.protocol.seed,
            "bootstrap": metrics.SEED,
            "resamples": metrics.RESAMPLES,
        },
        example=_example(asked[0]),
        items=[
            _item(question, outcome, answer, headline)
            for question, outcome, answer in zip(asked, outcomes, answers, strict=True)
        ],
        provenance=_provenance(),
    )


def _choose(
    model: Model, protocol: Protocol, asked: Sequence[Question], cache: Cache, description: str
) -> tuple[list[Answer], list[int]]:
    requests = [
        protocols.request(protocol, question, model.tokenizer, model.end_of_text)
        for question in asked
    ]
    answers = score_all(model, requests, cache, description)
    kept = [
        protocols.shots_kept(question, request, answer, model.tokenizer)
        for question, request, answer in zip(asked, requests, answers, strict=True)
    ]
    return answers, kept


def _generate(model: Model, asked: Sequence[Question], cache: Cache, description: str) -> list[str]:
    prompts = [
        protocols.prompt_ids(question, model.tokenizer, model.end_of_text) for question in asked
    ]
    return generate_all(
        model,
        prompts,
        cache,
        description,
        max_new_tokens=asked[0].max_new_tokens,
        stop=asked[0].stop,
    )


def _read(model: Model, asked: Sequence[Question], cache: Cache, description: str) -> list[Answer]:
    windows = [
        perplexity.requests(question, model.tokenizer, model.end_of_text, model.max_length)
        for question in asked
    ]
    flat = score_all(model, list(itertools.chain(*windows)), cache, description)
    answers = iter(flat)
    return [perplexity.total(list(itertools.islice(answers, len(own)))) for own in windows]


def _classes(task: Task, asked: Sequence[Question]) -> list[str]:
    """Returns the answers as the model sees them, if they are the same for every question."""
    if task.kind != "choice":
        return list(task.labels)
    choices = {question.choices for question in asked}
    return [choice.strip() for choice in choices.pop()] if len(choices) == 1 else []


def _provenance() -> dict[str, Any]:
    """Returns the git commit and the versions of what was used, torch only if it was."""
    used = [name for name in ("tokenizers", "transformers", "torch") if name in sys.modules]
    made = provenance.code()
    versions = made["versions"] | {name: importlib.metadata.version(name) for name in used}
    return made | {"versions": versions}


def _mean_and_min(kept: Sequence[int]) -> dict[str, float]:
    return {"mean": float(np.mean(kept)), "min": float(min(kept))}


def _example(question: Question) -> dict[str, Any]:
    shown: dict[str, Any] = {"context": question.context}
    if question.choices:
        shown |= {f"choice {i}": repr(choice) for i, choice in enumerate(question.choices)}
    if question.gold is not None:
        shown["right"] = question.gold
    return shown


def _item(question: Question, outcome: Any, answer: Any, headline: str) -> dict[str, Any]:
    fields = json.loads(json.dumps(dataclasses.asdict(outcome)))  # as it will be read back
    norm = headline.endswith("_norm")
    item = {
        "row": question.row,
        "shots": list(question.shots),
        "prediction": fields["predicted_norm" if norm else "predicted"],
        **fields,
    }
    if isinstance(answer, str):
        return item | {"completion": answer}
    return item | {
        "log_probs": list(answer.log_probs),
        "greedy": list(answer.greedy),
        "context_kept": list(answer.context_kept),
    }
