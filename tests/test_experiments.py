"""Every experiment loads, is named after its file, and equals its recorded text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from polyglot_jax import config
from polyglot_jax.models import neox
from tokenizer.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(p.stem for p in (ROOT / "experiments").glob("*.py") if p.stem != "__init__")


def to_text(experiment: config.Experiment) -> str:
    """Returns one sorted `key = value` line a field: the form of the goldens in tests/goldens."""

    def lines(value: Any, path: str) -> list[str]:
        if isinstance(value, dict):
            return [line for k, v in value.items() for line in lines(v, f"{path}.{k}")]
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return [line for i, v in enumerate(value) for line in lines(v, f"{path}.{i}")]
        return [f"{path[1:]} = {json.dumps(value)}"]

    return "\n".join(sorted(lines(config.to_dict(experiment), ""))) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_experiment_equals_its_golden(name: str, check_golden: Callable[[str, str], None]) -> None:
    experiment = config.load_experiment(name)
    assert experiment.name == name
    check_golden(f"experiments/{name}.txt", to_text(experiment))


def test_no_golden_outlives_its_experiment() -> None:
    goldens = (ROOT / "tests" / "goldens" / "experiments").glob("*.txt")
    assert sorted(path.stem for path in goldens) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_docstring_says_what_how_and_whence(name: str) -> None:
    text = (ROOT / "experiments" / f"{name}.py").read_text(encoding="utf-8")
    for heading in ("Command:", "Hardware:", "Numbers:", f"--experiment={name}"):
        assert heading in text, f"experiments/{name}.py: its docstring lacks {heading!r}"


PUBLISHED = {  # sequences of 2,048 per step, steps, and tokens in billions: the models' cards
    "ko_1p3b": (1024, 102_000, 213.9),
    "ko_3p8b": (1024, 105_000, 220.2),
    "ko_5p8b": (256, 320_000, 167.8),
    "ko_12p8b": (256, 301_000, 157.8),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_runs_keep_their_length(name: str) -> None:
    experiment = config.load_experiment(name)
    batch_size, steps, billions = PUBLISHED[name]
    assert (experiment.train.batch_size, experiment.train.steps) == (batch_size, steps)
    assert experiment.model.rotary_dims == 64
    tokens = steps * batch_size * experiment.data.seq_len
    assert tokens / 1e9 == pytest.approx(billions, abs=0.05)


OURS = {  # parameters of the shapes that nobody has published
    "east_asian_1p3b": 1_628_557_312,
    "romance_1p3b": 1_414_123_520,
    "ko_40b": 39_152_664_576,
}


@pytest.mark.parametrize("name", OURS)
def test_counts_of_our_own_shapes(name: str) -> None:
    experiment = config.load_experiment(name)
    assert neox.num_params(experiment.model) == OURS[name]
    assert experiment.model.rotary_dims == 64
    assert experiment.model.vocab_size % 128 == 0
    text = (ROOT / "experiments" / f"{name}.py").read_text(encoding="utf-8")
    assert f"{OURS[name]:,}" in text


CC_100 = {  # GiB of text: XLM-R, arXiv 1911.02116, table 6; Chinese in both scripts
    **{"ko": 54.2, "zh": 46.9 + 16.6, "ja": 69.3, "id": 148.3, "ms": 8.5, "vi": 137.3, "th": 71.7},
    **{"en": 300.8, "es": 53.3, "pt": 49.1, "fr": 56.8, "ro": 61.4, "it": 30.2},
}


@pytest.mark.parametrize("recipe", ["east_asian", "romance"])
def test_mixtures_are_as_their_recipe_says(recipe: str) -> None:
    made = RECIPES[recipe]
    experiment = config.load_experiment(f"{recipe}_1p3b")
    sources = experiment.data.plan[0].sources
    assert [Path(source.path).name for source in sources] == list(made.segmenters)
    powers = [CC_100[language] ** made.alpha for language in made.segmenters]
    for source, power in zip(sources, powers, strict=True):
        assert source.weight == pytest.approx(power / sum(powers), abs=1e-3)
    num_ids = made.vocab_size + 3 + 2 * (made.whitespace_runs - 1)  # masks; blanks and newlines
    assert f"{num_ids:,} ids" in (ROOT / "experiments" / f"{recipe}_1p3b.py").read_text()
    assert 0 <= experiment.model.vocab_size - num_ids < 128
