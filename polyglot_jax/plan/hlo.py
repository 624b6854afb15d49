"""Reads a compiled program: which collectives it runs, over which mesh axes, how often, how large.

An instruction counts as often as the loops around it turn. The text is that of XLA after all passes
(`compiled.as_text()`), in the spellings of its CPU, CUDA and TPU compilers.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s64": 8, "u64": 8}
_BYTES |= {"f64": 8, "s32": 4, "u32": 4, "f32": 4}

_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z-]*)\((.*)$")
_CALLED = re.compile(r"(body|condition|calls|to_apply)=%?([\w.-]+)|branch_computations=\{([^}]*)\}")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_WORK = ("fusion", "custom-call", "dot", "convolution", "while")

Array = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class Collective:
    """One collective operation of the program that each device runs."""

    kind: str  # one of KINDS
    shapes: tuple[tuple[int, ...], ...]  # whole arrays: gathered, or before they are scattered
    bytes: int  # of those arrays
    axes: tuple[str, ...]  # of the mesh
    times: int  # in one run of the program
    op: str  # where in the model
    overlapped: bool  # started, and waited for only after other work


@dataclass(frozen=True)
class Traffic:
    """The collectives of one kind over the same mesh axes, in one update, of one device."""

    kind: str
    axes: tuple[str, ...]
    count: int
    bytes: int
    overlapped: float  # share of the bytes


@dataclass(frozen=True)
class _Line:
    name: str
    result: str
    opcode: str
    rest: str  # operands and attributes


def collectives(
    text: str, mesh: Mapping[str, int], across: tuple[str, ...] = ()
) -> list[Collective]:
    """Returns the collectives of an optimised program.

    Args:
      text: of the program.
      mesh: size of each axis, outermost first, of the mesh that it was compiled for.
      across: the axes that cross slices of TPUs, over which the program does not reduce itself: it
        sends to a runtime and receives the sum.
    """
    computations, entry = _parse(text)
    times = _times(computations, entry)
    results = {line.name: line.result for lines in computations.values() for line in lines}
    by_channel: dict[str, list[Collective]] = defaultdict(list)
    for computation, lines in computations.items():
        for number, line in enumerate(lines):
            kind = line.opcode.removesuffix("-start")
            between = _BETWEEN_SLICES.search(line.rest) if kind == "recv" else None
            if between:
                kind = between[1].lower().replace("_", "-")
            if kind not in KINDS or not times[computation]:
                continue
            if computation.startswith("all-reduce-scatter"):  # a fusion of the TPU compiler
                kind = "reduce-scatter"
            operands = re.findall(r"%([\w.-]+)", line.rest.partition(")")[0])
            given = [array for name in operands for array in _arrays(results.get(name, ""))]
            made = _arrays(line.result)
            if between:
                made = made[:1]  # beside it is a context
            elif line.opcode.endswith("-start") and kind != "all-reduce":
                made = made[len(given) :]  # such a tuple repeats the operands
            whole = made if kind == "all-gather" or between else given
            groups = re.search(
                r"(?:replica_groups|source_target_pairs)=(.*?)(?:, [a-z_]+=[^(]|$)", line.rest
            )
            channel = re.search(r"channel_id=(\d+)", line.rest)
            op = re.search(r'op_name="([^"]*)"', line.rest)
            found = Collective(
                kind=kind,
                shapes=tuple(shape for _, shape in whole),
                bytes=sum(_BYTES[dtype] * math.prod(shape) for dtype, shape in whole),
                axes=across if between else _axes(groups[1] if groups else "", mesh),
                times=times[computation],
                op=op[1] if op else "",
                overlapped=_overlaps(computation, lines, number),
            )
            by_channel[channel[1] if channel else line.name].append(found)
    # The TPU compiler spreads one operation over several fusions: its start, its steps, its end.
    return [
        max(parts, key=lambda part: (part.overlapped, part.times)) for parts in by_channel.values()
    ]


def traffic(found: Sequence[Collective]) -> tuple[Traffic, ...]:
    """Sums collectives by kind and axes, the most bytes first."""
    groups: dict[tuple[str, tuple[str, ...]], list[Collective]] = {}
    for c in found:
        groups.setdefault((c.kind, c.axes), []).append(c)
    rows = []
    for (kind, axes), members in groups.items():
        total = sum(c.times * c.bytes for c in members)
        hidden = sum(c.times * c.bytes for c in members if c.overlapped)
        count = sum(c.times for c in members)
        rows.append(Traffic(kind, axes, count, total, hidden / total if total else 0.0))
    return tuple(sorted(rows, key=lambda row: -row.bytes))


def attention_kernel(text: str) -> str:
    """Returns the kernel that the program really runs, by its name in `polyglot_jax.attention`."""
    marks = {"__cudnn$fmha": "cudnn", "splash_mha": "splash", "mha_backward": "triton"}
    return next((kernel for mark, kernel in marks.items() if mark in text), "xla")


def _parse(text: str) -> tuple[dict[str, list[_Line]], str]:
    computations: dict[str, list[_Line]] = {}
    entry, lines = "", []
    for row in text.splitlines():
        header = _HEADER.match(row)
        if header:
            lines = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif match := _INSTRUCTION.match(row):
            lines.append(_Line(*match.groups()))
    return computations, entry


def _times(computations: Mapping[str, Sequence[_Line]], entry: str) -> dict[str, int]:
    """Returns how often each computation runs in one run of the program."""
    times: dict[str, int] = dict.fromkeys(computations, 0)

    def visit(computation: str, turns: int) -> None:
        times[computation] += turns
        for line in computations[computation]:
            for role, name, branches in _CALLED.findall(line.rest):
                names = re.findall(r"%?([\w.-]+)", branches) if branches else [name]
                inner = turns * (_trips(computations, line) if role == "body" else 1)
                for called in names:
                    if called in computations:
                        visit(called, inner)

    visit(entry, 1)
    return times


def _trips(computations: Mapping[str, Sequence[_Line]], loop: _Line) -> int:
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.-]+)", loop.rest)
    assert condition is not None
    bounds = [
        int(line.rest.partition(")")[0])
        for line in computations[condition[1]]
        if line.opcode == "constant" and line.result.startswith("s32[]")
    ]
    return max(bounds, default=1)


def _arrays(shape: str) -> list[Array]:
    return [
        (dtype, tuple(int(size) for size in sizes.split(",") if size))
        for dtype, sizes in _ARRAY.findall(shape)
        if dtype in _BYTES
    ]


def _overlaps(computation: str, lines: Sequence[_Line], number: int) -> bool:
    line = lines[number]
    if computation.startswith("async_collective_fusion") or "async_collective_name" in line.rest:
        return True
    if (
        not (line.opcode.endswith("-start") or line.opcode == "recv")
        or '"is_sync":true' in line.rest
    ):
        return False
    for later in lines[number + 1 :]:
        if re.search(rf"%{re.escape(line.name)}\b", later.rest):
            return False
        if later.opcode in _WORK:
            return True
    return False


def _axes(groups: str, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the mesh axes along which the members of a group, or of a pair, differ."""
    size = math.prod(mesh.values())
    members = _members(groups, size)
    places = np.stack(np.unravel_index(members, tuple(mesh.values())), axis=-1)
    varies = (places != places[:, :1]).any(axis=(0, 1))
    return tuple(axis for axis, different in zip(mesh, varies, strict=True) if different)


def _members(groups: str, size: int) -> np.ndarray:
    """Returns int[groups, members] device numbers from any of XLA's three spellings."""
    if match := re.match(r"\[([\d,]+)\]<=(.*)", groups):  # [32,8]<=[8,32]T(1,0)
        return _iota(match[2]).reshape(_ints(match[1]))
    if groups.startswith("mesh["):  # mesh['a'=32,'b'=8], device_ids=([8,32]T(1,0)) {'a'}
        sizes = {axis: int(n) for axis, n in re.findall(r"'(\w+)'=(\d+)", groups)}
        ordered = re.search(r"device_ids=\((.*?\])?(T\([\d,]+\))?\)", groups)
        devices = _iota("".join(filter(None, ordered.groups()))) if ordered else np.arange(size)
        chosen = re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", groups.rpartition("{")[2])
        shape: list[int] = []
        inside: list[int] = []
        for axis, n in sizes.items():
            part = next((entry for entry in chosen if entry[0] == axis), None)
            pieces = [n]
            if part and part[1]:  # a part of the axis: 'a':(4)2 skips 4, takes 2
                pieces = [int(part[1]), int(part[2]), n // int(part[1]) // int(part[2])]
            if part:
                inside.append(len(shape) + (1 if part[1] else 0))
            shape += pieces
        cube = np.moveaxis(devices.reshape(shape), inside, range(-len(inside), 0))
        return cube.reshape(-1, math.prod(shape[i] for i in inside))
    explicit = [_ints(group) for group in re.findall(r"\{([\d,]+)\}", groups)]
    return np.array(explicit) if explicit else np.arange(size)[None]


def _iota(text: str) -> np.ndarray:
    """Returns the numbers of "[8,32]T(1,0)", flat."""
    match = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
    assert match is not None, text
    numbers = np.arange(math.prod(_ints(match[1]))).reshape(_ints(match[1]))
    return (numbers.transpose(_ints(match[2])) if match[2] else numbers).reshape(-1)


def _ints(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
