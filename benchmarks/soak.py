"""A long run that is killed again and again, and what its checkpoints cost it.

    python -m benchmarks.soak                 # 2,000 steps of ko_tiny, a SIGKILL every 100
    python -m benchmarks.soak --smoke         # the same in a minute or two, on a toy model

The run is held against one that nobody killed: the record and all numbers of the kept checkpoints
must be the same to the bit. Both take 2 sequences a step instead of 8: what is started, saved,
killed and restored is all of ko_tiny, in a quarter of the time. The stall of a checkpoint is
measured apart, in this process, with the whole batch: blocks of steps with and without a save take
turns. Appends to benchmarks/RESULTS.md.
"""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from benchmarks import record, workload
from polyglot_jax import cli
from polyglot_jax.config import TrainConfig, load_experiment

TOY = (
    *("model.num_layers=1", "model.d_model=32", "model.num_heads=2", "model.d_ff=64"),
    *("model.max_seq_len=32", "data.seq_len=32", "train.log_every=5"),
)
SHARD_TOKENS = 2_000_000
STALL_STEPS = 10
PAIRS = 15  # of blocks of steps, with and without a save


def write_shards(root: Path, vocab_size: int) -> Path:
    """Writes a source of random tokens, the low ids more often, as text has it."""
    import hashlib

    import numpy as np

    from polyglot_jax.data.manifest import SPLITS, Manifest, dtype_for, write_manifest
    from polyglot_jax.data.shards import write_shard, write_token_bytes

    rng = np.random.default_rng(0)
    source = root / "shards"
    source.mkdir()
    (source / "tokenizer.json").write_text("{}")
    write_token_bytes(source, np.full(vocab_size, 3))
    for split in SPLITS:
        size = SHARD_TOKENS if split == "train" else SHARD_TOKENS // 50
        tokens = (vocab_size * rng.random(size) ** 3).astype(dtype_for(vocab_size))
        tokens[tokens == 2] = 3
        ends = np.arange(500, size + 1, 500)
        tokens[ends - 1] = 2
        shard = write_shard(source / split, "shard-00000", tokens, ends, 3 * size)
        manifest = Manifest(
            source="soak",
            split=split,
            tokenizer_sha256=hashlib.sha256(b"{}").hexdigest(),
            vocab_size=vocab_size,
            separator_id=2,
            dtype=tokens.dtype.name,
            seed=0,
            held_out_fraction=0.02,
            shards=(shard,),
        )
        write_manifest(source / split, manifest)
    return source


def start(workdir: Path, sets: list[str]) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "polyglot_jax.train", "--experiment=ko_tiny"]
    command = [*program, f"--workdir={workdir}", *(f"--set={item}" for item in sets)]
    with (workdir.parent / f"{workdir.name}.log").open("a") as log:
        return subprocess.Popen(command, cwd=record.ROOT, stdout=log, stderr=log, text=True)


def last_step(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def run(workdir: Path, sets: list[str], kills: Sequence[int]) -> float:
    """Runs to the end, killed once each time that the record reaches one of the steps `kills`.

    Returns:
      The seconds it took, starts and steps that were done twice included.
    Raises:
      ValueError: the program failed by itself.
    """
    begin = time.perf_counter()
    for due in (*kills, None):
        process = start(workdir, sets)
        while process.poll() is None:
            time.sleep(0.02)
            if due is not None and last_step(workdir) >= due:
                process.send_signal(signal.SIGKILL)
                process.wait()
                break
        else:
            if process.returncode:
                log = workdir.parent / f"{workdir.name}.log"
                raise ValueError(f"the run failed: {log.read_text().splitlines()[-1]}")
            if due is not None:
                raise ValueError(f"the run was over before it could be killed at step {due}")
    return time.perf_counter() - begin


def same(one: Path, other: Path, sets: list[str]) -> dict[str, bool]:
    """Says what of two runs is the same to the bit."""
    import jax
    import numpy as np

    from polyglot_jax import checkpoint
    from polyglot_jax.mesh import make_mesh
    from polyglot_jax.metrics import read_metrics
    from polyglot_jax.step import abstract_state

    by_the_clock = ("train/tokens_per_second", "train/mfu")
    records = [
        [{k: v for k, v in r.items() if k not in by_the_clock} for r in read_metrics(workdir)]
        for workdir in (one, other)
    ]
    steps = [sorted(checkpoint.complete_steps(workdir)) for workdir in (one, other)]
    experiment = load_experiment("ko_tiny", sets)
    abstract = abstract_state(experiment, make_mesh(experiment.mesh, jax.devices()[:1]))
    states = [
        [checkpoint.restore(workdir, step, abstract) for step in steps[0]]
        for workdir in (one, other)
        if steps[0] == steps[1]
    ]
    equal = len(states) == 2 and jax.tree.all(
        jax.tree.map(lambda a, b: np.array_equal(a, b, equal_nan=True), *states)
    )
    return {"record": records[0] == records[1], "kept checkpoints": equal}


def stall(root: Path, sets: Sequence[str], steps: int) -> tuple[float, list[float]]:
    """Returns the median seconds of a step, and those that a checkpoint adds in each pair."""
    import jax

    from polyglot_jax import checkpoint, selection
    from polyglot_jax import mesh as meshes
    from polyglot_jax.step import jit_init, jit_train_step

    experiment = load_experiment("ko_tiny", sets)
    mesh = meshes.make_mesh(experiment.mesh, jax.devices()[:1])
    manager = checkpoint.open_manager(root / "stall", selection.Keep(newest=3))
    plain, added = [], []
    with jax.set_mesh(mesh):
        state = jit_init(experiment, mesh)()
        train_step = jit_train_step(experiment, mesh)
        batch_size = experiment.train.batch_size
        batch = meshes.put_batch(mesh, workload.random_batch(experiment), batch_size)
        for number in range(2 * PAIRS + 2):  # the first two compile and open files
            begin = time.perf_counter()
            if number % 2:
                metadata = checkpoint.make_metadata(experiment, number, {})
                checkpoint.save(manager, state, metadata)
            for _ in range(steps):
                state, metrics = train_step(state, batch)
            jax.block_until_ready((state, metrics))
            manager.wait_until_finished()  # what outlasts the block counts as well
            seconds = time.perf_counter() - begin
            if number >= 2 and not number % 2:
                plain.append(seconds)
            elif number >= 2:
                added.append(seconds - plain[-1])
    checkpoint.finish(manager)
    return statistics.median(plain) / steps, added


def main() -> None:
    smoke = flags.FLAGS.smoke
    steps, every = (200, 50) if smoke else (flags.FLAGS.steps, flags.FLAGS.kill_every)
    toy = TOY if smoke or flags.FLAGS.toy else ()
    load = os.getloadavg()[0]
    rng = random.Random(0)
    kills = [rng.randrange(k, k + every) for k in range(0, steps - every + 1, every)]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shards = write_shards(root, load_experiment("ko_tiny").model.vocab_size)
        sets = [
            *(*toy, f"data.plan.0.sources.0.path={shards}", f"train.steps={steps}"),
            *("train.batch_size=2", "train.eval_sequences=64"),
            *(f"train.checkpoint_every={every}", f"train.eval_every={every}"),
            "health.probe_every=none",  # random tokens have no tokenizer to read them by
        ]
        whole = run(root / "whole", sets, ())
        killed = run(root / "killed", sets, kills)
        equal = same(root / "killed", root / "whole", sets)
        step_s, stalls = stall(root, toy if smoke else (), 4 if smoke else STALL_STEPS)
    interval = TrainConfig(steps=1, batch_size=1).checkpoint_every
    stall_s = statistics.median(stalls)
    first, _, third = (1e3 * seconds for seconds in statistics.quantiles(stalls))
    rows = [
        ["steps, kills", f"{steps:,}, {len(kills)}"],
        *(
            [f"{what} same to the bit as without kills", str(is_so)]
            for what, is_so in equal.items()
        ),
        ["seconds without kills", f"{whole:,.0f}"],
        ["seconds with kills, all starts and repeated steps included", f"{killed:,.0f}"],
        ["ms a step", f"{1e3 * step_s:,.1f}"],
        [
            "ms that a checkpoint adds: median, half of the pairs",
            f"{1e3 * stall_s:+,.1f}, {first:+,.1f} to {third:+,.1f}",
        ],
        *(
            [f"of the step time, at a checkpoint every {n:,} steps", f"{stall_s / n / step_s:+.2%}"]
            for n in (100, interval)
        ),
    ]
    body = record.table(["what", "found"], rows)
    print(body)
    if not smoke:
        versions = record.versions("jax", "jaxlib", "orbax-checkpoint", "tensorstore")
        facts = {
            "command": f"`{record.command('benchmarks.soak')}`",
            "commit": record.commit(),
            "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
            "machine": f"{record.cpu()}; load average {load:.1f} before the run, "
            f"{os.getloadavg()[0]:.1f} after",
            "work": f"ko_tiny{', killed as a toy' if toy else ''} at 2 sequences a step, random "
            f"tokens, a checkpoint and an evaluation every {every} steps; step and stall of the "
            f"whole ko_tiny: {PAIRS} pairs of blocks of {STALL_STEPS} steps",
        }
        record.append_section(record.section(f"Soak, ko_tiny, {record.now()}", facts, body))
    if not all(equal.values()):
        raise ValueError(f"the killed run is not the same as the whole one: {equal}")


if __name__ == "__main__":
    flags.DEFINE_integer("steps", 2000, "Steps of the run.", lower_bound=1)
    flags.DEFINE_integer("kill_every", 100, "Steps among which one kill falls.", lower_bound=1)
    flags.DEFINE_bool("toy", False, "Kill a model that is cut down, so that starts dominate.")
    flags.DEFINE_bool("smoke", False, "200 steps of the toy, 4 kills; nothing is appended.")
    cli.run(main)
