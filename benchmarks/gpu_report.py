"""The rows of `benchmarks.gpu` for people: one line each, and a section of RESULTS.md."""

from collections.abc import Sequence
from typing import Any

from benchmarks import record
from benchmarks.child import Row

# The line of RESULTS.md that holds the place until a GPU has been measured.
NOT_MEASURED = "| one GPU | not yet measured |"

GIB = 2**30


def line(row: Row) -> str:
    """Returns one line: what was measured, its status, and the figure or the reason."""
    return f"{what(row)}: {row['status']}" + (f", {figure(row)}" if figure(row) else "")


def what(row: Row) -> str:
    """Returns the name of a row, with what tells it from others of its part."""
    names = [row["part"]]
    for key in ("side", "model", "shape"):
        names += [str(row[key])] if row.get(key) else []
    names += [f"{key}={row[key]}" for key in ("microbatch", "accumulation", "remat") if key in row]
    return " ".join(names)


def figure(row: Row) -> str:
    """Returns what a row says beside its status."""
    if "error" in row:
        return row["error"]
    if "tokens_per_s" in row:
        return f"{row['tokens_per_s']:,.0f} tokens/s"
    if "flops" in row:
        return f"{row['flops'] / 1e12:,.1f} TFLOP/s"
    if "bytes_per_s" in row:
        return f"{row['bytes_per_s'] / 1e9:,.0f} GB/s"
    if "relative_error" in row:
        errors = (
            f"{name} {row['relative_error'][name]:.1e} (bound {bound:.0e})"
            for name, bound in row["bound"].items()
        )
        return "relative error of " + ", ".join(errors)
    if "candidates" in row:
        return ", ".join(f"{microbatch} {remat}" for microbatch, remat in row["candidates"])
    if "device_kind" in row:
        return row["device_kind"]
    if "planned_bytes" in row:
        return f"XLA plans {row['planned_bytes'] / GIB:.1f} GiB"
    return ""


def step_table(rows: Sequence[Row]) -> str:
    """Returns the table of training steps, ours and torch's, in the order they were measured."""

    def scaled(row: Row, key: str, scale: float, form: str) -> str | None:
        return None if row.get(key) is None else format(row[key] * scale, form)

    lines: list[list[Any]] = [
        [
            row.get("model"),
            row.get("side", row["part"]),
            f"{row.get('microbatch', '–')} x {row.get('accumulation', 1)}",
            row.get("remat", "none" if row["part"] == "torch" else None),
            row.get("kernel"),
            scaled(row, "step_s", 1e3, ",.0f"),
            scaled(row, "tokens_per_s", 1, ",.0f"),
            scaled(row, "mfu_datasheet", 100, ".1f"),
            scaled(row, "mfu_measured", 100, ".1f"),
            scaled(row, "peak_bytes", 1 / GIB, ".1f"),
            scaled(row, "planned_bytes", 1 / GIB, ".1f"),
            memory_error(row, "planned_bytes"),
            scaled(row, "compile_s", 1, ".0f"),
            "" if row["status"] == "ok" else line(row).partition(": ")[2],
        ]
        for row in rows
        if row["part"] in ("step", "torch")
    ]
    columns = ["model", "side", "batch x accumulation", "remat", "attention", "step ms"]
    columns += ["tokens/s", "MFU % of datasheet", "MFU % of measured", "peak GiB"]
    columns += ["planned GiB", "error %", "compile s", ""]
    return record.table(columns, lines)


def memory_error(row: Row, plan: str) -> str | None:
    """Returns by how many percent a plan is above the measured peak; None without either."""
    peak, planned = row.get("peak_bytes"), row.get(plan)
    return format(100 * (planned / peak - 1), "+.1f") if peak and planned else None


def foretold(rows: Sequence[Row]) -> str:
    """Returns the sentence that sets measured memory beside the plans of docs/scale.jsonl."""
    told = [
        f"{row['foretold_bytes'] / GIB:.1f} GiB for {row['model']}, batch {row['microbatch']} x "
        f"{row['accumulation']}, remat {row['remat']}; measured {row['peak_bytes'] / GIB:.1f} GiB, "
        f"error {memory_error(row, 'foretold_bytes')} %"
        for row in rows
        if row.get("foretold_bytes") and row.get("peak_bytes")
    ]
    if not told:
        return "docs/scale.jsonl foretells the memory of none of these settings on this device."
    return "docs/scale.jsonl foretells " + ", and ".join(told) + "."


def ratio(rows: Sequence[Row]) -> str:
    """Returns the sentence that sets our best step beside torch's, of the model both ran."""
    done = [row for row in rows if row["status"] == "ok"]
    torch = max(
        (row for row in done if row["part"] == "torch"),
        key=lambda row: row["tokens_per_s"],
        default=None,
    )
    if torch is None:
        return "torch: no result, so no ratio."
    ours = max(
        (row for row in done if row["part"] == "step" and row["model"] == torch["model"]),
        key=lambda row: row["tokens_per_s"],
    )
    same = ours["microbatch"] == torch["microbatch"]
    sizes = "" if same else f", microbatch {ours['microbatch']} against {torch['microbatch']}"
    speedup = ours["tokens_per_s"] / torch["tokens_per_s"]
    return (
        f"Ratio ours/torch for {torch['model']}: {speedup:.2f} "
        f"(best of each{sizes}; target at least 1.3)."
    )


def section(rows: Sequence[Row], path: str | None) -> str:
    """Returns the section of RESULTS.md of one run. The first row is the device's."""
    facts = rows[0]
    names = ("jax", "jaxlib", "flax", "optax", "torch", "transformers", "nvidia-cudnn-cu13")
    packages = {name: facts["packages"].get(name) for name in names}
    checks = [
        [what(row), row["status"], figure(row)]
        for row in rows[1:]
        if row["part"] not in ("step", "torch")
    ]
    environment = ", ".join(f"{k}={v}" for k, v in facts["environment"].items())
    body = "\n\n".join(
        [
            step_table(rows),
            ratio(rows),
            foretold(rows),
            "Planned is what the compiler says of the program that ran, compiled with the flags of "
            "`scripts/xla_flags.sh`; the error is of the plan, against the peak of the process.",
            "One GPU, no collectives. MFU counts causal-halved attention and no recomputation "
            "(`polyglot_jax.models.neox.flops_per_token`); the measured peak is the best matrix "
            "product below. Both sides hold parameters, gradients and two moments in float32 and "
            "compute in bfloat16 (torch: autocast, torch.compile, sdpa, fused AdamW).",
            record.table(["measurement", "status", "figure"], checks),
        ]
    )
    return record.section(
        f"One GPU: {facts['device_kind']}, {facts['date']}",
        {
            "command": f"`{facts['command']}`",
            "commit": facts["commit"],
            "versions": ", ".join(f"{k} {v}" for k, v in packages.items() if v),
            "device": f"{facts['nvidia_smi'] or facts['device_kind']}; "
            f"{facts['platform_version']}; host {facts['cpu']}",
            "environment": environment or "none",
            "rows": f"`{path}`" if path else "not kept",
        },
        body,
    )
