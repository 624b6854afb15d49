"""Finished results without a model: numbers drawn from a seed."""

import numpy as np

from eval.results import Key, ModelInfo, Result

CLASSES = {
    "kobest_boolq": ["아니오", "예"],
    "kobest_copa": [],
    "kobest_hellaswag": [],
    "kobest_sentineg": ["부정", "긍정"],
    "kobest_wic": ["아니오", "예"],
}


def made_result(
    task="kobest_boolq",
    *,
    shots=0,
    name="polyglot-ko-1.3b",
    prompt="original",
    protocol="polyglot-2023",
    split="test",
    limit=None,
    run=None,
    step=None,
    parameters=1_331_810_304,
    tokens=213_000_000_000,
    right=0.6,
    questions=40,
    constant=None,
):
    """Returns a result whose predictions are right with a chance, or all `constant`."""
    choices = 4 if task == "kobest_hellaswag" else 2
    rng = np.random.default_rng([shots, questions, len(name), step or 0])
    gold = rng.integers(choices, size=questions)
    hit = rng.random(questions) < right
    prediction = np.where(hit, gold, (gold + 1) % choices)
    if constant is not None:
        prediction[:] = constant
    value = float(np.mean(prediction == gold))
    error = float(np.sqrt(value * (1 - value) / questions))
    headline = "macro_f1_norm" if task == "kobest_hellaswag" else "macro_f1"
    measures = {m: {"value": value, "stderr": error} for m in (headline, "acc")}
    return Result(
        key=Key(
            model=f"{name}@{step}",
            engine="made",
            task=task,
            task_version=1,
            protocol=protocol,
            protocol_version=1,
            prompt=prompt,
            split=split,
            shots=shots,
            limit=limit,
            questions="0" * 32,
        ),
        model=ModelInfo(name, f"/models/{name}", run, step, parameters, tokens),
        measures=measures,
        headline=headline,
        classes=CLASSES.get(task, []),
        shots_kept={"mean": min(shots, 16.2), "min": min(shots, 11)} if shots else {},
        seeds={"shots": 42, "bootstrap": 0},
        example={"context": "두 문장에서 <배>가 같은 뜻으로 쓰였나?", "choices": "아니오 | 예"},
        items=[
            {"row": i, "gold": int(g), "prediction": int(p), "log_probs": [-1.0, -2.0]}
            for i, (g, p) in enumerate(zip(gold, prediction, strict=True))
        ],
        provenance={"git_commit": "0" * 40, "versions": {"jax": "0.10.2"}},
    )
