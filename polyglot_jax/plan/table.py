"""The scale table: every published size on every topology, kept cell by cell.

Each finished cell is a line of a JSON-lines file beside the page, so that the hour of compiling can
be interrupted, and one cell be made anew by deleting its line. A line says what made it: one that
other versions or options made counts as not there.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from polyglot_jax import files
from polyglot_jax.config import load_experiment
from polyglot_jax.plan.compiled import FLAGS, Plan, plan
from polyglot_jax.plan.hardware import GIB, hardware_of, installed, open_topology
from polyglot_jax.plan.hlo import Traffic
from polyglot_jax.plan.search import search

SIZES = ("ko_1p3b", "ko_3p8b", "ko_5p8b", "ko_12p8b", "ko_40b")
TOPOLOGIES = (
    *("v4:4x4x4", "v5e:16x16", "v5p:4x4x4", "v5p:8x8x4", "v6e:8x8"),
    *("a100-80g:1x8", "a100-80g:32x8", "h100:1x8", "h200:1x1"),
)
STATED = {  # the hardware that an experiment's file names: there it is compiled as it is
    "ko_1p3b": "a100-80g:1x8",
    "ko_3p8b": "a100-80g:1x8",
    "ko_5p8b": "h100:1x8",
    "ko_12p8b": "a100-80g:32x8",
    "ko_40b": "a100-80g:32x8",
}
MFU = 0.45  # for the days of the page


def cell(size: str, topology: str) -> Plan:
    """Returns one cell: as the experiment's file sets it on its stated hardware, else by search."""
    experiment, described = load_experiment(size), open_topology(topology)
    if STATED[size] == topology:
        return plan(experiment, described)
    return list(search(experiment, described))[-1]


def made_by(topology: str) -> dict[str, Any]:
    """Returns what makes a cell here: version of jax, version of the compiler's package (None where
    it is not installed), and the options that it compiles with."""
    hardware = hardware_of(topology)
    return {
        "jax": jax.__version__,
        hardware.compiler: installed(hardware.compiler),
        "options": FLAGS["gpu" if hardware.gpu else "tpu"],
    }


def is_current(made: dict[str, Any] | None, topology: str) -> bool:
    """Returns whether a cell that was made so is what would be made here.

    Where the compiler is not installed nothing could be made, and options alone decide.
    """
    here = made_by(topology)
    if made is not None and installed(hardware_of(topology).compiler) is None:
        return made["options"] == here["options"]
    return made == here


def read_cells(path: Path) -> dict[tuple[str, str], Plan]:
    """Returns the kept cells by (experiment, topology) that are current; none without a file.

    Raises:
      ValueError: a line is not a cell of this version.
    """
    if not path.exists():
        return {}
    plans = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            values = json.loads(line)
            if is_current(values.pop("made_by", None), values["topology"]):
                plans.append(from_dict(values))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: {error}; delete the line to make it anew") from None
    return {(p.experiment, p.topology): p for p in plans}


def write_cells(path: Path, sizes: Sequence[str], topologies: Sequence[str]) -> Iterator[Plan]:
    """Yields every cell, those of the file at once; each new one is written to the file first, in
    the place of its line that is not current."""
    kept = read_cells(path)
    for topology in topologies:
        for size in sizes:
            if (size, topology) not in kept:
                kept[size, topology] = cell(size, topology)
                _write_line(path, kept[size, topology])
            yield kept[size, topology]


def _write_line(path: Path, made: Plan) -> None:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    line = json.dumps({**dataclasses.asdict(made), "made_by": made_by(made.topology)})
    others = [other for other in lines if _cell_of(other) != (made.experiment, made.topology)]
    files.write(path, *(f"{row}\n" for row in [*others, line]))


def _cell_of(line: str) -> tuple[str, str]:
    values = json.loads(line)
    return values["experiment"], values["topology"]


def from_dict(values: dict) -> Plan:
    """Makes a plan of the JSON types of `dataclasses.asdict`."""
    traffic = tuple(Traffic(**{**t, "axes": tuple(t["axes"])}) for t in values["traffic"])
    return Plan(**{**values, "traffic": traffic, "complaints": tuple(values["complaints"])})


def page(cells: dict[tuple[str, str], Plan], provenance: str) -> str:
    """Returns the page in Markdown.

    Args:
      provenance: versions and command, for the foot of the page.
    """
    header = "| " + " | ".join(["", *(f"`{size}`" for size in SIZES)]) + " |\n"
    header += "|---" * (len(SIZES) + 1) + "|\n"
    rows = "".join(
        f"| `{t}` | " + " | ".join(_verdict(cells.get((size, t))) for size in SIZES) + " |\n"
        for t in TOPOLOGIES
    )
    details = "".join(
        _detail(cells[size, t]) for size in SIZES for t in TOPOLOGIES if (size, t) in cells
    )
    complaints = [
        f"- `{size}` on `{t}`: {line}\n" for (size, t), p in cells.items() for line in p.complaints
    ]
    names = (
        *("experiment", "topology", "mesh (data x fsdp x tensor)", "sequences x accumulation"),
        *("remat", "attention", "arguments + temporaries, GiB", "of"),
        *("collectives a device, GiB an update", "hidden gathers"),
    )
    columns = "| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|\n"
    nothing = "None.\n"
    return f"""# What fits where

Made by a command; nothing here was run. Each cell is the training step of an experiment, compiled
for the named devices by the compiler that would run it there, from the shapes alone. Memory is that
of one device; what a program may use of it is said in `polyglot_jax/plan/hardware.py`. Days are
those of the experiment's tokens at {MFU:.0%} MFU, which is an assumption and not a measurement.

{header}{rows}
Made by {provenance}.

## The settings behind it

On the hardware that an experiment's file names (bold) it is compiled as the file says; elsewhere
`plan` searched mesh, microbatch, accumulation and remat. Arguments are parameters, optimizer state
and the batch; temporaries are gradients, activations and gathered weights. A TPU's compiler lets
some of both share their place, so that its peak is lower than their sum. A gather is hidden where
the compiler starts it before other work and waits for it after: by its schedule, not by a clock.

{columns}{details}
## Complaints

What the compiled programs do that their shardings should not ask for.

{"".join(complaints) or nothing}"""


def _verdict(p: Plan | None) -> str:
    if p is None:
        return "not compiled yet"
    text = f"{days(p, MFU):,.1f} days" if p.fits else f"does not fit by {p.short / GIB:.1f} GiB"
    if p.fits and p.peak is not None:
        text = f"fits, {p.peak / GIB:.1f} GiB; {text}"
    return f"**{text}**" if STATED.get(p.experiment) == p.topology else text


def days(p: Plan, mfu: float) -> float:
    """Returns the days of the whole experiment at a stated share of the peak."""
    return p.steps * p.step_seconds(mfu) / 86400


def _detail(p: Plan) -> str:
    mesh = " x ".join(str(n) for n in p.mesh.values())
    temporaries = "?" if p.temporaries is None else f"{p.temporaries / GIB:.1f}"
    gathers = [t for t in p.traffic if t.kind == "all-gather"]
    total = sum(t.bytes for t in gathers)
    hidden = sum(t.bytes * t.overlapped for t in gathers) / total if total else None
    values = (
        *(f"`{p.experiment}`", f"`{p.topology}`", mesh, f"{p.sequences} x {p.accumulation}"),
        *(p.remat, p.attention, f"{p.arguments / GIB:.1f} + {temporaries}"),
        f"{p.memory / GIB:.1f}",
        f"{sum(t.bytes for t in p.traffic) / GIB:.1f}" if p.traffic else "",
        "" if hidden is None else f"{hidden:.0%}",
    )
    return "| " + " | ".join(values) + " |\n"
