"""What an experiment needs on hardware that is not here: `python -m polyglot_jax.plan`.

    python -m polyglot_jax.plan --experiment=ko_12p8b --topology=v5p:8x8x4
    python -m polyglot_jax.plan --table --output=docs/scale.md

The first compiles the training step for the named devices and, where it does not fit or --suggest
is given, searches settings that do. The second makes the table of all sizes; interrupted, it goes
on where it was.
"""

import dataclasses
import json
from pathlib import Path

import jax
from absl import flags
from tqdm import tqdm

from polyglot_jax import cli, files
from polyglot_jax.config import load_experiment
from polyglot_jax.plan import table
from polyglot_jax.plan.compiled import Plan, plan
from polyglot_jax.plan.hardware import GIB, hardware_of, installed, open_topology
from polyglot_jax.plan.search import search

TRIES = 4


def main() -> None:
    values = flags.FLAGS
    if values.table:
        if not (values.output or "").endswith(".md"):
            raise ValueError("--table needs --output=PAGE.md")
        for name, value, known in (
            ("experiment", values.experiment, table.SIZES),
            ("topology", values.topology, table.TOPOLOGIES),
        ):
            if value and value not in known:
                raise ValueError(f"--{name}={value} is not in the table; of it: {', '.join(known)}")
        make_table(Path(values.output), values.experiment, values.topology)
        return
    if not values.experiment or not values.topology:
        raise ValueError("name --experiment and --topology, or ask for --table")
    if not 0 < values.mfu <= 1:
        raise ValueError(f"--mfu={values.mfu}: must be a share above 0, at most 1")
    experiment = load_experiment(values.experiment, values.set)
    topology = open_topology(values.topology)
    suggested, no_suggestion = None, None
    try:
        found = plan(experiment, topology)
        refused = None
    except ValueError as error:
        if values.suggest is False:
            raise
        found, refused = None, cli.one_line(error)
    fits = found is not None and found.fits
    if values.suggest or (values.suggest is None and not fits):
        tries = search(experiment, topology, TRIES)
        try:
            suggested = list(tqdm(tries, total=TRIES, desc="candidates", disable=None))[-1]
        except ValueError as error:
            if found is None:
                raise
            no_suggestion = cli.one_line(error)
    if values.json:
        record = {"refused": refused, "plan": found and as_dict(found, values.mfu)}
        record["suggestion"] = suggested and as_dict(suggested, values.mfu)
        record["no_suggestion"] = no_suggestion
        print(json.dumps(record))
        return
    print(describe(found, values.mfu) if found else f"as it is set: {refused}")
    if suggested:
        print("\n" + ("suggested:" if suggested.fits else "the smallest that was tried:"))
        print(describe(suggested, values.mfu))
        if suggested.fits:
            print("  " + " ".join(settings(suggested)))
    if no_suggestion:
        print(f"\nno suggestion: {no_suggestion}")


def make_table(output: Path, size: str | None, topology: str | None) -> None:
    """Writes the page and, cell by cell, the JSON lines beside it."""
    sizes = [size] if size else list(table.SIZES)
    topologies = [topology] if topology else list(table.TOPOLOGIES)
    cells = output.with_suffix(".jsonl")
    made = table.write_cells(cells, sizes, topologies)
    for done in tqdm(made, total=len(sizes) * len(topologies), desc="cells", disable=None):
        tqdm.write(f"{done.experiment} on {done.topology}: {verdict(done)}")
        compilers = {hardware_of(where).compiler for where in topologies}
        versions = [f"jax {jax.__version__}", *(f"{c} {installed(c)}" for c in sorted(compilers))]
        command = f"`python -m polyglot_jax.plan --table --output={output}`"
        page = table.page(table.read_cells(cells), f"{command}, {', '.join(versions)}")
        files.write(output, page)


def verdict(p: Plan) -> str:
    if not p.fits:
        return f"does not fit by {p.short / GIB:.2f} GiB of {p.memory / GIB:.2f}"
    assert p.peak is not None
    assert p.spare is not None
    return f"fits: {p.peak / GIB:.2f} of {p.memory / GIB:.2f} GiB, {p.spare / GIB:.2f} GiB to spare"


def describe(p: Plan, mfu: float) -> str:
    """Returns the lines that a person reads."""
    seconds = p.step_seconds(mfu)
    days = table.days(p, mfu)
    lines = [
        f"{p.experiment} on {p.topology}: {verdict(p)}",
        f"  mesh        {' '.join(f'{axis}={n}' for axis, n in p.mesh.items())}; "
        f"{p.sequences} sequences at a time, {p.accumulation} times an update; remat {p.remat}",
        f"  arguments   {p.arguments / GIB:.2f} GiB: parameters, optimizer state, batch",
    ]
    if p.temporaries is not None:
        lines.append(f"  temporaries {p.temporaries / GIB:.2f} GiB")
    lines += [
        f"  attention   {p.attention}"
        + ("" if p.temporaries is not None else " (chosen; nothing compiled)"),
        f"  an update   {p.flops:.3e} FLOPs; at {mfu:.0%} of {p.peak_flops:.3e} FLOP/s "
        f"{seconds:.2f} s",
        f"  the whole   {p.tokens / 1e9:.1f}e9 tokens: {days:,.1f} days, "
        f"{24 * days * p.devices:,.0f} device-hours at that rate",
    ]
    for row in p.traffic:
        if row.bytes > 2**20:
            lines.append(
                f"  {row.kind} over {'+'.join(row.axes)}: {row.count:,} an update, "
                f"{row.bytes / GIB:.2f} GiB, {row.overlapped:.0%} hidden behind work"
            )
    return "\n".join(lines + [f"  complaint   {line}" for line in p.complaints])


def settings(p: Plan) -> list[str]:
    """Returns the flags that make the experiment what was planned."""
    flags_of_mesh = [f"--set mesh.{axis}={n}" for axis, n in p.mesh.items()]
    attention = [f"--set model.attention={p.attention}"] if p.attention == "xla" else []
    return [
        *flags_of_mesh,
        f"--set train.accumulation={p.accumulation}",
        f"--set model.remat={p.remat}",
        *attention,
    ]


def as_dict(p: Plan, mfu: float) -> dict:
    """Returns a plan as JSON types, with what follows from the stated MFU."""
    return {
        **dataclasses.asdict(p),
        "fits": p.fits,
        "spare": p.spare,
        "mfu": mfu,
        "step_seconds": p.step_seconds(mfu),
        "days": table.days(p, mfu),
        "device_hours": 24 * table.days(p, mfu) * p.devices,
        "settings": settings(p),
    }


if __name__ == "__main__":
    flags.DEFINE_string("experiment", None, "Name in experiments/, or path of a .py file.")
    flags.DEFINE_string(
        "topology",
        None,
        "v5p:8x8x4, two slices as 2*v5e:16x16, or nodes x GPUs of a cluster: a100-80g:32x8.",
    )
    flags.DEFINE_multi_string("set", [], "Override a.b=value of the experiment; repeatable.")
    flags.DEFINE_float("mfu", table.MFU, "Share of the peak that days and hours are told for.")
    flags.DEFINE_bool("suggest", None, "Search settings: always or never, not only in need.")
    flags.DEFINE_bool("json", False, "Print one JSON object.")
    flags.DEFINE_bool("table", False, "Make the page of all sizes and topologies.")
    flags.DEFINE_string("output", None, "With --table: the page; its cells go beside it as .jsonl.")
    cli.run(main)
