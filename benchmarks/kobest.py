"""KOBEST through our scoring engine beside lm-evaluation-harness, on the same machine and model.

    python -m benchmarks.kobest --data=KOBEST_DIR --tokenizer=tokenizer.json

Both sides get the same token ids and the same random weights in one HF directory, live in processes
of their own and take turns, round by round, so that other load on the machine hits both. Timed is
the scoring, from ids to log-probabilities, which must agree. Appends to benchmarks/RESULTS.md.
"""

import json
import os
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from benchmarks import child, record
from benchmarks.child import Row
from polyglot_jax import cli
from polyglot_jax.config import load_experiment

OURS = "polyglot-jax"
DIFFERENCE = 1e-2  # in a log-probability, above which the two sides do not compute the same


def main() -> None:
    values = flags.FLAGS
    sides = {OURS: ("ours", 0)}
    sides |= {f"lm-eval, batch {size}": ("lm_eval", size) for size in values.batch_size}
    load_before = os.getloadavg()[0]
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / values.shape
        write_model(model, values.shape, values.tokenizer)
        for task in values.task:
            requests = Path(folder) / f"{task}.json"
            tokens = write_requests(
                requests, task, values.data, values.split, values.shots, values.items, model
            )
            timed = measure(sides, model, requests, values.rounds)
            lines += task_lines(task, tokens, timed)
            print(record.table(COLUMNS, lines[-len(sides) :]))
    names = ("jax", "jaxlib", "torch", "transformers", "lm_eval")
    versions = ", ".join(f"{k} {v}" for k, v in record.versions(*names).items())
    m = load_experiment(values.shape).model
    section = record.section(
        f"KOBEST, {values.shots} shots, {values.shape}, {record.now()}",
        {
            "command": f"`{record.command('benchmarks.kobest')}`",
            "commit": record.commit(),
            "versions": versions,
            "machine": f"{record.cpu()}; load average {load_before:.1f} before the run, "
            f"{os.getloadavg()[0]:.1f} after (a side with all cores to itself makes about "
            f"{record.cores()})",
            "work": f"{m.num_layers} layers, d {m.d_model}, vocabulary {m.vocab_size:,}, random "
            f"weights; {values.items} items of the {values.split} split, protocol lm-eval",
            "rounds": f"{values.rounds} a side, in turns, after one that compiles and warms up",
        },
        record.table(COLUMNS, lines),
    )
    record.append_section(section)


def write_model(directory: Path, shape: str, tokenizer: str) -> None:
    """Writes a model of random weights as an HF directory."""
    import jax

    from polyglot_jax import convert, provenance
    from polyglot_jax.models import neox

    model = load_experiment(shape).model
    params = neox.init(model, jax.random.key(0))
    convert.save_hf(directory, model, params, tokenizer, "float32", provenance.code())


def write_requests(
    path: Path, task: str, data: str, split: str, shots: int, items: int, model: Path
) -> float:
    """Writes the ids of a task's first questions; returns the tokens of an item, on average."""
    from eval.models.tokenizer import PlainTokenizer
    from eval.protocols import PROTOCOLS, questions, request
    from eval.tasks import find
    from polyglot_jax.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(model / "tokenizer.json")
    tokenizer = PlainTokenizer(vocabulary.tokenizer)
    protocol = PROTOCOLS["lm-eval"]
    (found,) = find([task])
    asked = questions(found, protocol, data, split=split, shots=shots, limit=items)
    requests = [request(protocol, q, tokenizer, vocabulary.end_of_text) for q in asked]
    path.write_text(json.dumps([[r.context, r.choices] for r in requests]), encoding="utf-8")
    return statistics.mean(len(r.context) + sum(map(len, r.choices)) for r in requests)


def measure(
    sides: Mapping[str, tuple[str, int]], model: Path, requests: Path, rounds: int
) -> dict[str, list[Row]]:
    """Returns the rows of each side, the first of them of the round that warms up.

    Raises:
      ValueError: a side failed, the message is its last line; or the log-probabilities differ.
    """
    running = {
        side: child.rows(
            f"benchmarks.kobest_sides:{function}",
            {"model": str(model), "requests": str(requests), "batch_size": batch_size},
        )
        for side, (function, batch_size) in sides.items()
    }
    timed: dict[str, list[Row]] = {side: [] for side in sides}
    try:
        for i in range(rounds + 1):
            # Whoever goes first in one round goes last in the next.
            for side in list(sides)[:: 1 if i % 2 == 0 else -1]:
                row = next(running[side])
                if row.get("status") == "error":
                    raise ValueError(f"{side}: {row['error']}")
                timed[side].append(row)
    finally:
        for rows in running.values():
            rows.close()
    for side in sides:
        if (worst := _difference(timed[OURS][0], timed[side][0])) > DIFFERENCE:
            raise ValueError(f"{side} has other log-probabilities than {OURS}, by up to {worst}")
    return timed


def _difference(ours: Row, theirs: Row) -> float:
    of_item = zip(ours["log_probs"], theirs["log_probs"], strict=True)
    return max(abs(a - b) for ab in of_item for a, b in zip(*ab, strict=True))


COLUMNS = ["task", "side", "items/s", "spread", "first round s", "peak MiB", "ours is faster by"]


def task_lines(task: str, tokens: float, timed: Mapping[str, Sequence[Row]]) -> list[list[str]]:
    """Returns a line a side: the median speed, and the median of the paired ratios to ours."""
    lines = []
    for side, (warm_up, *rows) in timed.items():
        items = len(warm_up["log_probs"])
        speeds = sorted(items / row["seconds"] for row in rows)
        pairs = zip(rows, timed[OURS][1:], strict=True)
        ratios = sorted(row["seconds"] / ours["seconds"] for row, ours in pairs)
        ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        lines.append(
            [
                f"{task}, {tokens:,.0f} tokens an item",
                side,
                f"{statistics.median(speeds):.2f}",
                f"{speeds[0]:.2f} to {speeds[-1]:.2f}",
                f"{warm_up['seconds']:.1f}",
                f"{rows[-1]['peak_bytes'] / 2**20:,.0f}",
                "" if side == OURS else ratio,
            ]
        )
    return lines


if __name__ == "__main__":
    flags.DEFINE_string("data", None, "Folder of KOBEST's files.")
    flags.DEFINE_string("tokenizer", None, "A tokenizer.json whose ids fit the shape.")
    flags.DEFINE_string("shape", "ko_small", "Experiment whose model is measured.")
    flags.DEFINE_multi_string(
        "task",
        [f"kobest_{name}" for name in ("boolq", "copa", "hellaswag", "sentineg", "wic")],
        "Task to measure; may be repeated.",
    )
    flags.DEFINE_string("split", "dev", "Split of the items.")
    flags.DEFINE_integer("items", 48, "Items of each task.", lower_bound=1)
    flags.DEFINE_integer("shots", 5, "Solved rows before each item.", lower_bound=0)
    flags.DEFINE_integer("rounds", 3, "Timed rounds.", lower_bound=1)
    flags.DEFINE_multi_integer("batch_size", [1, 8], "lm-eval's; each is a side of its own.")
    flags.mark_flags_as_required(["data", "tokenizer"])
    cli.run(main)
