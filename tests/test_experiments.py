"""Every experiment loads, is named after its file, and equals its recorded text."""

from collections.abc import Callable
from pathlib import Path

import pytest

from polyglot_jax import config

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(p.stem for p in (ROOT / "experiments").glob("*.py") if p.stem != "__init__")


@pytest.mark.parametrize("name", NAMES)
def test_experiment_equals_its_golden(name: str, check_golden: Callable[[str, str], None]) -> None:
    experiment = config.load_experiment(name)
    assert experiment.name == name
    check_golden(f"experiments/{name}.txt", config.to_text(experiment))


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
