"""The benchmarks: the GPU program runs whole on a CPU, and its decisions and reports are right."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from benchmarks import child, gpu, gpu_checks, gpu_report, gpu_step, record, train_step, workload
from polyglot_jax.config import load_experiment
from polyglot_jax.models import neox

ROOT = Path(__file__).resolve().parents[1]
TINY = gpu.SMOKE_SCALE.overrides
GIB = 2**30


def run_program(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **env},
        capture_output=True,
        text=True,
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---- the GPU program


def test_smoke_runs_every_part(tmp_path: Path) -> None:
    before = record.RESULTS.read_bytes()
    out = tmp_path / "new" / "rows.jsonl"
    # Unoptimised code compiles in a fraction of the time.
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    done = run_program("benchmarks.gpu", "--smoke", f"--out={out}", XLA_FLAGS=flags)
    assert done.returncode == 0, done.stderr
    rows = read_rows(out)
    parts = {row["part"].partition(" ")[0].rstrip(",") for row in rows}
    assert parts == {
        *("device", "matmul", "bandwidth", "candidates", "model", "attention", "step", "torch")
    }
    assert {row["status"] for row in rows} == {"ok", "cannot run"}
    cudnn = [row for row in rows if row["part"].startswith("attention cudnn")]
    assert len(cudnn) == len(gpu_checks.HEAD_DIMS)
    assert all("needs an NVIDIA GPU" in row["error"] for row in cudnn)
    steps = [row for row in rows if row["part"] == "step"]
    assert [row["accumulation"] for row in steps] == [1, 4]
    assert all(row["tokens_per_s"] > 0 and row["kernel"] == "xla" for row in steps)
    assert all(row["last_loss"] < row["first_loss"] for row in steps)
    (torch,) = (row for row in rows if row["part"] == "torch")
    config = load_experiment("ko_1p3b", TINY).model
    assert torch["parameters"] == neox.num_params(config)
    assert rows[0]["environment"]["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.95"
    assert record.RESULTS.read_bytes() == before
    report = gpu_report.section(rows, str(out))
    assert "Ratio ours/torch for ko_1p3b: " in report
    assert "docs/scale.jsonl foretells the memory of none of these settings" in report


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    done = run_program("benchmarks.gpu", f"--out={out}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no GPU: jax sees 1 x cpu; ")
    assert done.stderr.count("\n") == 1
    assert not out.exists()


def test_gpu_program_imports_little() -> None:
    modules = "benchmarks.gpu, benchmarks.gpu_checks, benchmarks.gpu_step"
    heavy = "('grain', 'tokenizers', 'orbax', 'MeCab', 'tensorboardX', 'pyarrow', 'torch')"
    program = (
        f"import sys, {modules}; from polyglot_jax import step; "
        "from polyglot_jax.config import load_experiment; "
        "step.family(load_experiment('ko_1p3b').model); "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_nothing_begins_when_the_budget_is_spent(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    run = gpu.Run(scale=gpu.SMOKE_SCALE, path=path, deadline=0.0)
    gpu.run_all(run, {"part": "device", "status": "ok", "device_kind": "cpu"}, [])
    rows = read_rows(path)
    assert [(row["part"], row["status"]) for row in rows] == [
        ("device", "ok"),
        ("candidates", "skipped"),
        ("correctness", "skipped"),
    ]
    assert "15 needed" in rows[1]["error"]


# ---- microbatch and remat

# About ko_1p3b's, with cuDNN attention: bytes kept for each sequence of 2048 tokens.
KEPT = {
    "none": gpu_step.Residuals(fixed=0, per_sequence=7 * GIB),
    "dots": gpu_step.Residuals(fixed=0, per_sequence=2 * GIB),
    "full": gpu_step.Residuals(fixed=0, per_sequence=GIB // 2),
}


@pytest.mark.parametrize(
    ("memory_gib", "expected"),
    [
        # 134 usable, 17.4 for the state: 16 sequences without remat.
        (141, [(16, "none"), (8, "none"), (16, "dots"), (8, "dots"), (16, "full"), (8, "full")]),
        # Four sequences without remat still fill the device.
        (60, [(4, "none"), (2, "none"), (16, "dots"), (8, "dots"), (16, "full"), (8, "full")]),
        # One does not: what keeps less and fills it goes first.
        (30, [(4, "dots"), (2, "dots"), (16, "full"), (8, "full"), (1, "none")]),
        (20, [(2, "full"), (1, "full")]),
        (16, []),
    ],
)
def test_candidates(memory_gib: int, expected: list[tuple[int, str]]) -> None:
    pairs = gpu_step.candidates(1_331_810_304, 2048, KEPT, memory_gib * GIB)
    assert pairs == expected


def test_hopeless_models_are_not_tried() -> None:
    kept = {"full": gpu_step.Residuals(fixed=0, per_sequence=0)}
    assert gpu_step.candidates(5_885_059_072, 2048, kept, 80 * GIB) == []
    assert gpu_step.candidates(5_885_059_072, 2048, kept, 132 * GIB)


def test_residuals_shrink_with_remat() -> None:
    kept = [
        gpu_step.residuals(load_experiment("ko_1p3b", [*TINY, f"model.remat={remat}"]))
        for remat in ("none", "dots", "full")
    ]
    sizes = [size.per_sequence for size in kept]
    assert sizes == sorted(sizes, reverse=True)
    # Full remat keeps at least each layer's input, in bfloat16, and the float32 logits' softmax.
    m = load_experiment("ko_1p3b", TINY).model
    assert sizes[-1] >= 16 * (m.num_layers * m.d_model * 2 + m.vocab_size * 4)


def test_search_goes_on_after_memory_runs_out() -> None:
    tried = []

    def attempt(microbatch: int, remat: str) -> dict[str, Any]:
        tried.append((microbatch, remat))
        ok = (microbatch, remat) == (4, "dots")
        return {"status": "ok" if ok else "out of memory", "microbatch": microbatch}

    pairs = [(8, "none"), (4, "none"), (8, "dots"), (4, "dots"), (16, "full")]
    row, untried = gpu.first_that_runs(pairs, attempt)
    assert row == {"status": "ok", "microbatch": 4}
    assert tried == pairs[:4]
    assert untried == [(16, "full")]


def test_search_leaves_a_remat_that_ran_and_ends_with_the_time() -> None:
    pairs = [(8, "none"), (4, "none"), (16, "dots")]
    row, untried = gpu.first_that_runs(pairs, lambda microbatch, remat: {"status": "ok"})
    assert (row, untried) == ({"status": "ok"}, [(16, "dots")])
    row, untried = gpu.first_that_runs(pairs, lambda microbatch, remat: {"status": "skipped"})
    assert (row, untried) == (None, [])


MEASURE = {
    "name": "ko_1p3b",
    "overrides": TINY,
    "microbatch": 2,
    "remat": "full",
    "accumulation": 1,
    "seconds": 0.01,
    "matmul_flops": 1e12,
}


def test_out_of_memory_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(experiment: object, mesh: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory: 99 bytes.\nmore")

    monkeypatch.setattr(gpu_step.step, "jit_train_step", no_memory)
    (row,) = gpu_step.measure(**MEASURE)
    assert row["status"] == "out of memory"
    assert row["error"] == "RESOURCE_EXHAUSTED: Out of memory: 99 bytes."
    assert (row["microbatch"], row["remat"]) == (2, "full")


def test_other_runtime_errors_are_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(experiment: object, mesh: object) -> None:
        raise jax.errors.JaxRuntimeError("INTERNAL: cuDNN says no")

    monkeypatch.setattr(gpu_step.step, "jit_train_step", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="cuDNN says no"):
        next(gpu_step.measure(**MEASURE))


def test_a_plan_larger_than_the_device_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = SimpleNamespace(
        argument_size_in_bytes=600,
        output_size_in_bytes=600,
        alias_size_in_bytes=500,  # donated: counted once
        temp_size_in_bytes=301,
    )
    compiled = SimpleNamespace(memory_analysis=lambda: plan, as_text=lambda: "__cudnn$fmhaSoftmax")
    lowered = SimpleNamespace(compile=lambda options: compiled)
    jitted = SimpleNamespace(lower=lambda state, batch: lowered)
    monkeypatch.setattr(gpu_step.step, "jit_train_step", lambda experiment, mesh: jitted)
    monkeypatch.setattr(gpu_step, "device_memory", lambda: 1000)
    (row,) = gpu_step.measure(**MEASURE)
    assert row["status"] == "does not fit"
    assert row["planned_bytes"] == 1001
    assert row["kernel"] == "cudnn"
    assert "step_s" not in row


# ---- correctness


def test_verdict_fails_beyond_a_bound_and_on_nan() -> None:
    bounds = {"loss": 1e-3}
    assert gpu_checks.verdict("x", {"loss": 1e-3}, bounds)["status"] == "ok"
    assert gpu_checks.verdict("x", {"loss": 1.1e-3}, bounds)["status"] == "failed"
    assert gpu_checks.verdict("x", {"loss": float("nan")}, bounds)["status"] == "failed"


def test_relative_error_is_over_all_leaves() -> None:
    reference = {"a": jax.numpy.zeros(3), "b": jax.numpy.array([3.0, 4.0])}
    value = {"a": jax.numpy.array([0.5, 0, 0]), "b": jax.numpy.array([3.0, 4.0])}
    assert gpu_checks.relative_error(value, reference) == pytest.approx(0.1)


# ---- reports


def step_row(**values: Any) -> dict[str, Any]:
    return {
        **{"part": "step", "side": "polyglot-jax", "model": "ko_1p3b", "status": "ok"},
        **{"microbatch": 8, "accumulation": 1, "remat": "dots", "kernel": "cudnn"},
        **{"step_s": 0.25, "tokens_per_s": 65536.0, "mfu_datasheet": 0.5441, "mfu_measured": 0.68},
        **{"peak_bytes": 60 * GIB, "planned_bytes": 63 * GIB, "compile_s": 31.2, **values},
    }


TORCH_ROW = {
    **{"part": "torch", "side": "torch", "model": "ko_1p3b", "status": "ok", "microbatch": 4},
    **{"kernel": "flash", "step_s": 0.2, "tokens_per_s": 40960.0, "peak_bytes": None},
    "compile_s": 60.0,
}


def test_step_table() -> None:
    failed = {"part": "step", "model": "ko_5p8b", "microbatch": 1, "remat": "full"}
    failed |= {"status": "error", "error": "crash"}
    lines = gpu_report.step_table([step_row(), TORCH_ROW, failed]).splitlines()
    assert lines[2:] == [
        "| ko_1p3b | polyglot-jax | 8 x 1 | dots | cudnn | 250 | 65,536 | 54.4 | 68.0 | 60.0 "
        "| 63.0 | +5.0 | 31 |  |",
        "| ko_1p3b | torch | 4 x 1 | none | flash | 200 | 40,960 | – | – | – | – | – | 60 |  |",
        "| ko_5p8b | step | 1 x 1 | full | – | – | – | – | – | – | – | – | – | error, crash |",
    ]


def test_ratio_names_unequal_microbatches() -> None:
    sentence = gpu_report.ratio([step_row(), step_row(tokens_per_s=1.0), TORCH_ROW])
    assert sentence.startswith("Ratio ours/torch for ko_1p3b: 1.60 (best of each, microbatch 8 ag")
    assert gpu_report.ratio([step_row()]) == "torch: no result, so no ratio."


def test_results_are_appended_and_the_placeholder_goes(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text(f"# Head\n\n{gpu_report.NOT_MEASURED}\nkept\n", encoding="utf-8")
    text = record.section("Title", {"commit": "abc"}, record.table(["a"], [["x|y"]]))
    record.append_section(text, path, retire=gpu_report.NOT_MEASURED)
    assert path.read_text(encoding="utf-8") == (
        "# Head\n\nkept\n\n## Title\n\n- commit: abc\n\n| a |\n| --- |\n| x\\|y |\n"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["RESULTS.md"]


# ---- processes


def test_child_hands_rows_over_one_by_one_and_reports_its_crash() -> None:
    arguments = {"models": ["ko_1p3b", "no_such_model"], "remats": ["full"], "overrides": TINY}
    rows = list(child.rows("benchmarks.gpu_step:plans", arguments))
    assert rows[0]["model"] == "ko_1p3b"
    assert rows[1]["status"] == "error"
    assert "unknown experiment 'no_such_model'" in rows[1]["error"]


def test_child_is_stopped_at_its_time() -> None:
    rows = child.rows(
        "benchmarks.train_step:cpu_rounds", {"name": "ko_tiny", "steps": 1}, timeout=1
    )
    assert list(rows) == [{"status": "error", "error": "stopped after 1 s"}]


# ---- the CPU comparison


def test_products_are_the_linear_layers_of_the_flop_count() -> None:
    experiment = load_experiment("ko_tiny")
    m, T = experiment.model, experiment.data.seq_len
    flops = sum(
        2 * p.count * p.left[0] * p.left[1] * (p.right[1] if p.einsum[3] == "i" else p.right[0])
        for p in workload.products(experiment)
        if p.einsum == "ti,io->to"
    )
    attention = 6 * m.num_layers * T * m.d_model
    per_token = neox.flops_per_token(m, T) - attention
    assert 3 * flops == per_token * workload.tokens_per_step(experiment)


def test_cpu_report() -> None:
    sides = list(train_step.SIDES)
    facts = {sides[0]: {"products_s": 1.0}, sides[1]: {"products_s": 0.5}}
    timed = {
        sides[0]: [{"seconds": s, "peak_bytes": 2**30} for s in (4.0, 4.4, 3.6)],
        sides[1]: [{"seconds": s, "peak_bytes": 2**29} for s in (2.0, 2.2, 1.8)],
    }
    tokens = 2 * workload.tokens_per_step(load_experiment("ko_tiny"))
    speeds = f"{tokens / 4:,.0f} | {tokens / 4.4:,.0f} to {tokens / 3.6:,.0f}"
    text = train_step.report("ko_tiny", 2, facts, timed)
    assert f"| {sides[0]} | {speeds} | 2,000 | 1,000 | 1,000 | 1,024 |" in text
    assert "tokens/s: 0.50 (median of 3 pairs, 0.50 to 0.50)" in text
    assert "difference of 1,000 ms a step" in text
    assert "make 500 ms; attention" in text
