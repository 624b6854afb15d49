"""Resuming: a longer plan goes on, another past is refused by name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from polyglot_jax.config import DataConfig, DataPhase, SourceConfig
from polyglot_jax.data.mixture import open_plan
from polyglot_jax.data.resume import check_same
from tests.data.made import T, plan, write_source


def saved_and_current(
    sources: dict[str, SourceConfig], data: DataConfig, batch_size: int = 2
) -> tuple[dict, dict]:
    saved = open_plan(plan(DataPhase(sources=(sources["ko"], sources["law"]))), 2).fingerprint()
    current = open_plan(data, batch_size).fingerprint()
    return json.loads(json.dumps(saved)), current


def test_the_same_plan_and_a_longer_one_resume(sources: dict[str, SourceConfig]) -> None:
    first = DataPhase(sources=(sources["ko"], sources["law"]))
    for step in (0, 1, 50):
        check_same(*saved_and_current(sources, plan(first)), step=step)
    later = DataPhase(from_step=50, sources=(sources["web"],))
    check_same(*saved_and_current(sources, plan(first, later)), step=50)
    check_same(*saved_and_current(sources, plan(first, later))[::-1], step=50)
    skipping = replace(first, skipped=((50, 60), (99, 100)))
    check_same(*saved_and_current(sources, plan(skipping)), step=50)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skipped": ((49, 60),)}, r"data\.plan\.0\.skipped: was \[\], is \[\[49, 60\]\]"),
        ({"seed": 5}, r"data\.plan\.0\.seed: was 1234, is 5"),
        ({"sources": ("ko",)}, "source 'law' in data.plan.0: was [0-9a-f]{12}, is absent"),
        ({"sources": ("ko", "law", "web")}, "source 'web' in data.plan.0: was absent"),
        ({"weight": 2.0}, r'turns .*: was {"ko": 1, "law": 1}, is {"ko": 2, "law": 1}'),
        ({"seq_len": 5}, r"data\.seq_len: was 4, is 5"),
        ({"batch_size": 3}, r"train\.batch_size: was 2, is 3"),
        ({"from_step": 49}, r"data\.plan\.1\.from_step: was absent, is 49"),
    ],
)
def test_another_past_is_refused_by_name(
    sources: dict[str, SourceConfig], change: dict, message: str
) -> None:
    chosen = [sources[name] for name in change.get("sources", ("ko", "law"))]
    chosen[0] = replace(chosen[0], weight=change.get("weight", 1.0))
    phases = [
        DataPhase(
            sources=tuple(chosen),
            seed=change.get("seed", 1234),
            skipped=change.get("skipped", ()),
        )
    ]
    if "from_step" in change:
        phases.append(DataPhase(from_step=change["from_step"], sources=(sources["web"],)))
    data = plan(*phases, seq_len=change.get("seq_len", T))
    saved, current = saved_and_current(sources, data, change.get("batch_size", 2))
    with pytest.raises(ValueError, match=message) as error:
        check_same(saved, current, step=50)
    assert "append a phase from step 50 on" in str(error.value)


def test_another_tokenizer_or_manifest_is_refused_by_name(
    sources: dict[str, SourceConfig], tmp_path: Path
) -> None:
    for changes, message in (
        ({"tokenizer_sha256": "0" * 64}, "tokenizer: was 44136fa355b3, is 000000000000"),
        ({"seed": 8}, "manifest of source 'ko' in data.plan.0: was"),
    ):
        root = tmp_path / str(len(changes)) / next(iter(changes))
        root.mkdir(parents=True)
        data = plan(
            DataPhase(sources=tuple(write_source(root, name, **changes) for name in ("ko", "law")))
        )
        with pytest.raises(ValueError, match=message):
            check_same(*saved_and_current(sources, data), step=1)
