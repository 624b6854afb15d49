"""The GPU program's memory: what docs/scale.jsonl foretells beside what is measured."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import pytest

from benchmarks import gpu, gpu_report, gpu_step
from polyglot_jax.config import load_experiment
from polyglot_jax.models import neox
from polyglot_jax.plan import table
from polyglot_jax.plan.hardware import HARDWARE
from tests.plan.made import made_plan

H200 = HARDWARE["h200"].kind
GIB = 2**30


def temporaries(name: str, kind: str, *overrides: str) -> int | None:
    return gpu_step.foretold_temporaries(
        load_experiment(name, [*gpu.FULL.overrides, *overrides]), kind
    )


def test_the_kept_plan_is_of_its_setting_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flops = neox.flops_per_token(load_experiment("ko_1p3b").model, 2048) * 2048 * 1024
    kept = made_plan(topology="h200:1x1", devices=1, sequences=1, accumulation=1024, flops=flops)
    line = {**dataclasses.asdict(kept), "made_by": table.made_by(kept.topology)}
    (tmp_path / "scale.jsonl").write_text(json.dumps(line))
    monkeypatch.setattr(gpu_step, "SCALE", tmp_path / "scale.jsonl")
    assert gpu_step.kept_plan("ko_1p3b", H200) == kept
    four = ("model.remat=dots", "train.batch_size=4", "train.accumulation=4")
    assert temporaries("ko_1p3b", H200, *four) == kept.temporaries
    for changed in (
        ["train.batch_size=1", "model.remat=dots"],  # one microbatch: another program
        [*four, "train.batch_size=8"],
        [*four, "model.remat=full"],
        [*four, "model.num_layers=2"],
    ):
        assert temporaries("ko_1p3b", H200, *changed) is None, changed
    assert temporaries("ko_1p3b", "NVIDIA L4", *four) is None
    assert temporaries("ko_12p8b", H200, *four) is None


def test_a_measured_step_has_what_was_foretold(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load_experiment("ko_1p3b", gpu.SMOKE_SCALE.overrides)
    per_token = gpu_step.step.family(experiment.model).flops_per_token(experiment.model, 16)
    plan = made_plan(remat="full", accumulation=8, flops=per_token * 16 * 2 * 8, temporaries=1000)
    monkeypatch.setattr(
        gpu_step,
        "kept_plan",
        lambda name, kind: plan if kind == jax.devices()[0].device_kind else 0,
    )
    arguments: dict[str, Any] = {"overrides": gpu.SMOKE_SCALE.overrides, "microbatch": 2}
    arguments |= {"remat": "full", "accumulation": 2, "seconds": 0.01, "matmul_flops": 1e12}
    (row,) = gpu_step.measure("ko_1p3b", **arguments)
    assert row["status"] == "ok"
    state = 3 * 4 * gpu_step.step.family(experiment.model).num_params(experiment.model)
    assert 1000 + state < row["foretold_bytes"] < 1.1 * (1000 + state)


def test_report_sets_the_foretold_memory_beside_the_measured() -> None:
    row = {"model": "ko_1p3b", "microbatch": 1, "accumulation": 4, "remat": "none"}
    row |= {"foretold_bytes": 33 * GIB, "peak_bytes": 30 * GIB}
    assert gpu_report.foretold([row, {**row, "foretold_bytes": None}]) == (
        "docs/scale.jsonl foretells 33.0 GiB for ko_1p3b, batch 1 x 4, remat none; "
        "measured 30.0 GiB, error +10.0 %."
    )
    assert "none of these settings" in gpu_report.foretold([{**row, "peak_bytes": None}])
