"""One command for one GPU: is it right, how fast is it, and how fast is torch beside it.

    python -m benchmarks.gpu --out=benchmarks/results/h200.jsonl

Needs jax with CUDA, flax, optax, numpy, and torch with transformers for the peer; token data is
random. Every measurement runs in a process of its own (`benchmarks.child`) and leaves a JSON row
the moment it is done; what no longer fits the time budget is skipped, with a row that says so. At
the end a dated section goes to benchmarks/RESULTS.md. Order: what is worth most first.

Each row has `part`, `status` and `at_s` (seconds since the start). A status of "cannot run", "does
not fit", "out of memory" or "skipped" is an answer; "failed" (a bound or the loss) and "error" are
faults and make the exit code 1.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks import child, gpu_report, record
from benchmarks.child import Row
from polyglot_jax import cli

OUT = flags.DEFINE_string(
    "out", None, "file of JSON lines; default: benchmarks/results/gpu-TIME.jsonl, none with --smoke"
)
BUDGET = flags.DEFINE_float("budget_minutes", 8.0, "time for everything", lower_bound=0.1)
SMOKE = flags.DEFINE_bool("smoke", False, "tiny shapes on any device; leaves RESULTS.md alone")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the measurements are: in earnest, or as a smoke test."""

    models: tuple[str, ...]
    remats: tuple[str, ...]  # from the one that recomputes least
    overrides: tuple[str, ...]
    matmuls: tuple[tuple[int, int, int], ...]  # the last four are layers of the models
    copy_bytes: int
    check_len: int  # tokens in the checks of correctness
    seconds: float  # of the timed steps of one measurement
    torch_backend: str  # of torch.compile


# On one device there is nothing to shard; a microbatch is a batch unless accumulation is measured.
# Without warm-up, so that a broken update shows in the loss of the few steps.
ONE_DEVICE = (
    *("mesh.data=1", "mesh.fsdp=1", "mesh.tensor=1", "train.accumulation=1"),
    "optimizer.warmup_fraction=0",
)
FULL = Scale(
    models=("ko_1p3b", "ko_3p8b", "ko_5p8b"),
    remats=("none", "dots", "full"),
    overrides=(*ONE_DEVICE, "data.seq_len=2048", "model.compute_dtype=bfloat16"),
    matmuls=(
        *((4096, 4096, 4096), (8192, 8192, 8192), (16384, 16384, 16384)),
        *((16384, 2048, 8192), (16384, 3072, 12288), (16384, 4096, 16384), (16384, 2048, 30080)),
    ),
    copy_bytes=4 * 2**30,
    check_len=256,
    seconds=8.0,
    torch_backend="inductor",
)
SMOKE_SCALE = Scale(
    models=("ko_1p3b",),
    remats=("dots",),
    overrides=(
        *(*ONE_DEVICE, "data.seq_len=16", "model.max_seq_len=16", "model.vocab_size=128"),
        *("model.num_layers=2", "model.d_model=32", "model.num_heads=2", "model.d_ff=64"),
    ),
    matmuls=((64, 64, 64),),
    copy_bytes=2**20,
    check_len=16,
    seconds=0.05,
    torch_backend="eager",
)

# Seconds without which a measurement is not begun: start of the process, tracing, compiling, steps.
NEEDS_S = {"candidates": 15, "correctness": 40, "step": 45, "torch": 75}


@dataclass(frozen=True, kw_only=True)
class Run:
    """The rows so far, where they go, and the time there is."""

    scale: Scale
    path: Path | None
    deadline: float  # on time.monotonic's clock
    start: float = field(default_factory=time.monotonic)
    rows: list[Row] = field(default_factory=list)


def collect(run: Run, part: str, rows: Iterable[Row]) -> list[Row]:
    """Records each row as it comes: in memory, on the disk, on the terminal. Returns them."""
    found = []
    for row in rows:
        row = {"part": part, **row, "at_s": round(time.monotonic() - run.start, 1)}
        found.append(row)
        run.rows.append(row)
        if run.path is not None:
            record.append_row(run.path, row)
        print(gpu_report.line(row), flush=True)
    return found


def measure(run: Run, part: str, function: str, **arguments: Any) -> list[Row]:
    """Runs one measurement in a child if there is time for it, and collects its rows."""
    # A child that is not begun or that crashes does not say itself what it was to measure.
    about = {"model": arguments["name"]} if "name" in arguments else {}
    about |= {k: v for k, v in arguments.items() if k in ("microbatch", "accumulation", "remat")}
    left = run.deadline - time.monotonic()
    rows: Iterable[Row]
    if left < NEEDS_S[part]:
        reason = f"{left:.0f} s left of the budget, {NEEDS_S[part]} needed"
        rows = [{"status": "skipped", "error": reason}]
    else:
        # Several times what it should need: one that hangs must not take the others' time.
        rows = child.rows(function, arguments, timeout=min(left, 3 * NEEDS_S[part]))
    return collect(run, part, ({**about, **row} for row in rows))


def first_that_runs(
    candidates: Sequence[tuple[int, str]], attempt: Callable[[int, str], Row]
) -> tuple[Row | None, list[tuple[int, str]]]:
    """Attempts (microbatch, remat) pairs in order until one is "ok".

    Returns its row, or None, and the pairs of other remats that are still untried. Running out of
    time ends the search; any other failure, a crash too, goes on to the next pair.
    """
    for i, (microbatch, remat) in enumerate(candidates):
        row = attempt(microbatch, remat)
        if row["status"] == "ok":
            return row, [pair for pair in candidates[i + 1 :] if pair[1] != remat]
        if row["status"] == "skipped":
            return None, []
    return None, []


# ---- the measurements, in order


def run_all(run: Run, facts: Row, device_rows: Iterable[Row]) -> None:
    """Collects all rows; `facts` and `device_rows` are the first and the rest of the device's."""
    scale = run.scale
    collect(run, "device", [facts])
    collect(run, "device", device_rows)
    matmuls = [row["flops"] for row in run.rows if row["part"] == "matmul"]
    sets = {"models": scale.models, "remats": scale.remats, "overrides": scale.overrides}
    plans = measure(run, "candidates", "benchmarks.gpu_step:plans", **sets)
    untried: dict[str, list[tuple[int, str]]] = {
        row["model"]: [(m, r) for m, r in row["candidates"]] for row in plans if "model" in row
    }
    kept = {row["model"]: row["kept_plan"] for row in plans if "model" in row}
    measure(run, "correctness", "benchmarks.gpu_checks:correctness", seq_len=scale.check_len)

    def ours(name: str, accumulation: int = 1) -> Callable[[int, str], Row]:
        def attempt(microbatch: int, remat: str) -> Row:
            return measure(
                run,
                "step",
                "benchmarks.gpu_step:measure",
                name=name,
                overrides=scale.overrides,
                microbatch=microbatch,
                remat=remat,
                accumulation=accumulation,
                seconds=scale.seconds,
                matmul_flops=max(matmuls, default=None),
            )[-1]

        return attempt

    def next_of(name: str) -> Row | None:
        found, untried[name] = first_that_runs(untried.get(name, []), ours(name))
        return found

    first, *others = scale.models
    results = [row for row in (next_of(first), next_of(first)) if row is not None]
    best = max(results, key=lambda row: row["tokens_per_s"], default=None)
    if best is not None:

        def torch(microbatch: int, remat: str) -> Row:
            del remat  # the peer recomputes nothing
            sets = [*scale.overrides, f"train.batch_size={microbatch}"]
            return measure(
                run,
                "torch",
                "benchmarks.torch_neox:gpu_step",
                name=first,
                overrides=sets,
                seconds=scale.seconds,
                backend=scale.torch_backend,
            )[-1]

        halves = [best["microbatch"] >> i for i in range(best["microbatch"].bit_length())]
        first_that_runs([(microbatch, "none") for microbatch in halves], torch)
    for name in others:
        next_of(name)
    if kept.get(first):  # the setting of docs/scale.jsonl, for its memory
        ours(first, accumulation=4)(*kept[first])
    if best is not None:
        ours(first, accumulation=4)(best["microbatch"], best["remat"])
    for name in others:
        next_of(name)


def main() -> None:
    start = time.monotonic()
    scale = SMOKE_SCALE if SMOKE.value else FULL
    deadline = start + 60 * BUDGET.value
    rows = child.rows(
        "benchmarks.gpu_checks:device",
        {"matmuls": scale.matmuls, "copy_bytes": scale.copy_bytes},
        timeout=60 * BUDGET.value,
    )
    facts = next(rows)
    if facts["status"] == "error":
        raise ValueError(facts["error"])
    if facts["platform"] != "gpu" and not SMOKE.value:
        rows.close()
        raise ValueError(
            f"no GPU: jax sees {facts['devices']} x {facts['device_kind']}; install jax[cuda13] on "
            "a machine with an NVIDIA GPU, or try the program with --smoke"
        )
    default = f"benchmarks/results/gpu-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.jsonl"
    out = OUT.value or (None if SMOKE.value else default)
    about = {
        "command": record.command("benchmarks.gpu"),
        "commit": record.commit(),
        "date": record.now(),
        "cpu": record.cpu(),
    }
    run = Run(scale=scale, path=Path(out) if out else None, deadline=deadline, start=start)
    try:
        run_all(run, {**facts, **about}, rows)
    finally:
        if run.rows and not SMOKE.value:
            record.append_section(gpu_report.section(run.rows, out), retire=gpu_report.NOT_MEASURED)
    faults = [row for row in run.rows if row["status"] in ("failed", "error")]
    if faults:
        raise ValueError(
            f"{len(faults)} of {len(run.rows)} rows are faults: "
            + "; ".join(gpu_report.line(row) for row in faults)
        )


if __name__ == "__main__":
    cli.run(main)
