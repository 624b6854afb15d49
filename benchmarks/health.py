"""What health monitoring costs a training step, measured in pairs.

    python -m benchmarks.health --experiment=ko_tiny
    python -m benchmarks.health --experiment=ko_1p3b --topology=v5e:16x16   # in `make plan-env`

Two compiled steps take turns on the same batch in one process: ours, and the same without the
guard. Processor time is compared beside the clock, since on a machine that others use too only the
former is the step's own. What happens every n steps (comparing replicas, the probe, the host's
share) is timed alone and divided by its interval. With --topology nothing runs: the two steps are
compiled for hardware that is not here, and the compiler's accounts of them are compared. Appends
to benchmarks/RESULTS.md.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import numpy as np
from absl import flags
from etils import epath
from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks import record, workload
from polyglot_jax import cli, step
from polyglot_jax import mesh as meshes
from polyglot_jax.config import Experiment, load_experiment
from polyglot_jax.health import guard, replicas
from polyglot_jax.health.monitor import GUARD, Monitor
from polyglot_jax.health.probe import jit_probe
from polyglot_jax.metrics import RunLog
from polyglot_jax.plan.compiled import compile_step
from polyglot_jax.plan.hardware import open_topology
from polyglot_jax.tokens import END_OF_TEXT
from polyglot_jax.vocabulary import make_vocabulary

Times = dict[str, list[tuple[float, float]]]  # seconds by the clock, seconds of the processor


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    jax.block_until_ready(run())
    return time.perf_counter() - clock, time.process_time() - processor


def unguarded() -> Any:
    """Returns the context in which steps are traced without the guard."""
    return mock.patch.object(guard, "judge", lambda g, *args, **kwargs: (True, g))


def pairs(experiment: Experiment, rounds: int) -> Times:
    """Returns the times of single steps with the guard and without, taken in turns."""
    mesh = meshes.make_mesh(experiment.mesh)
    with jax.set_mesh(mesh):
        batch = meshes.put_batch(
            mesh, workload.random_batch(experiment), experiment.train.batch_size
        )
        states, steps = {}, {}
        for side in ("guarded", "unguarded"):
            states[side] = step.jit_init(experiment, mesh)()
            steps[side] = step.jit_train_step(experiment, mesh)

        def once(side: str) -> Any:
            states[side], metrics = steps[side](states[side], batch)
            return metrics

        once("guarded")
        with unguarded():
            once("unguarded")  # traced here, and never again
        times: Times = {side: [] for side in states}
        for i in range(rounds):
            # Whoever goes first in one round goes second in the next.
            for side in list(states)[:: 1 if i % 2 == 0 else -1]:
                times[side].append(timed(lambda side=side: once(side)))  # type: ignore[misc]
    return times


def comparison(experiment: Experiment, rounds: int) -> float:
    """Returns the processor seconds of one comparison of replicas, over the mesh there is."""
    mesh = meshes.make_mesh(experiment.mesh)
    params = step.jit_init(experiment, mesh)().params
    shardings = step.shardings_of(step.abstract_state(experiment, mesh).params)
    bit_sums = replicas.jit_bit_sums(mesh, shardings)

    def compare() -> None:
        replicas.differing(np.asarray(bit_sums(params)), mesh, replicas.cuts(shardings))

    compare()
    return statistics.median(timed(compare)[1] for _ in range(rounds))


def probe_seconds(experiment: Experiment, rounds: int) -> float:
    """Returns the processor seconds of one probe, by a tokenizer of bytes: prompts are longest."""
    mesh = meshes.make_mesh(experiment.mesh)
    params = step.jit_init(experiment, mesh)().params
    shardings = step.shardings_of(step.abstract_state(experiment, mesh).params)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    ids = {token: i for i, token in enumerate(sorted(alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.add_special_tokens([END_OF_TEXT])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocabulary = make_vocabulary(tokenizer.to_str().encode(), "bytes")
    prompts = experiment.health.probe_prompts
    with jax.set_mesh(mesh):
        probe = jit_probe(experiment.model, mesh, shardings, vocabulary, prompts)
        jax.block_until_ready(probe(params))
        return statistics.median(timed(lambda: probe(params))[1] for _ in range(rounds))


def host(experiment: Experiment, calls: int) -> float:
    """Returns the processor seconds that the monitor takes of a logged step."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = epath.Path(folder)
        log = RunLog(workdir, start_step=0, end_step=1, tokens_per_step=1, flops_per_token=1)
        with log:
            monitor = Monitor(experiment, workdir, log, dict.fromkeys(GUARD, 0), list)
            values = dict.fromkeys(("loss", "grad_norm", *GUARD), 0.0)

            def many() -> None:
                for i in range(calls):
                    monitor.update(i, values)

            return timed(many)[1] / calls


def report(
    experiment: Experiment, times: Times, compare_s: float, probe_s: float, host_s: float
) -> str:
    """Returns the Markdown: the pairs, and what each part adds to a step."""
    ratios = {
        what: [a[i] / b[i] - 1 for a, b in zip(times["guarded"], times["unguarded"], strict=True)]
        for i, what in enumerate(("clock", "processor"))
    }
    lines = []
    for side, seconds in times.items():
        clock, processor = (statistics.median(s[i] for s in seconds) for i in (0, 1))
        lines.append([side, f"{1e3 * clock:,.1f}", f"{1e3 * processor:,.1f}"])
    middle = {what: statistics.median(values) for what, values in ratios.items()}
    quartiles = statistics.quantiles(ratios["processor"])
    step_s = statistics.median(s[1] for s in times["unguarded"])
    health = experiment.health
    every, probe_every = health.replicas_every or 1, health.probe_every or 1
    parts = [
        ["guard, by the processor's time", f"{middle['processor']:+.2%}"],
        ["guard, by the clock", f"{middle['clock']:+.2%}"],
        [f"comparison of replicas every {every} steps", f"{compare_s / every / step_s:+.3%}"],
        [f"probe every {probe_every:,} steps", f"{probe_s / probe_every / step_s:+.3%}"],
        ["monitor on the host", f"{host_s / experiment.train.log_every / step_s:+.4%}"],
    ]
    return "\n".join(
        [
            record.table(["step", "ms", "processor ms"], lines),
            "",
            record.table(["part", "of a step"], parts),
            "",
            f"Median of {len(times['guarded'])} pairs; half of the pairs lie between "
            f"{quartiles[0]:+.2%} and {quartiles[2]:+.2%} of the processor's time.",
        ]
    )


def accounts(experiment: Experiment, topology: str) -> str:
    """Returns the Markdown of both steps by the compiler's account, which counts loops once."""
    mesh = meshes.make_mesh(experiment.mesh, open_topology(topology).devices)
    compiled = {"guarded": compile_step(experiment, mesh)[0]}
    with unguarded():
        compiled["unguarded"] = compile_step(experiment, mesh)[0]
    rows = []
    for side, program in compiled.items():
        cost, memory = program.cost_analysis() or {}, program.memory_analysis()
        counts = (*map(cost.get, ("flops", "bytes accessed")), memory.temp_size_in_bytes)
        rows.append([side, *(n and f"{n:,.0f}" for n in counts)])
    return record.table(["step", "FLOPs", "bytes accessed", "bytes of temporaries"], rows)


def main() -> None:
    values = flags.FLAGS
    experiment = load_experiment(values.experiment, values.set)
    load_before = os.getloadavg()[0]
    if values.topology:
        body = accounts(experiment, values.topology)
    else:
        times = pairs(experiment, values.rounds)
        apart = comparison(experiment, 9), probe_seconds(experiment, 9), host(experiment, 1000)
        body = report(experiment, times, *apart)
    print(body)
    versions = record.versions("jax", "jaxlib", "libtpu", "jax-cuda12-plugin")
    where = f"compiled for {values.topology}, " if values.topology else ""
    section = record.section(
        f"Health monitoring, {values.experiment}, {where}{record.now()}",
        {
            "command": f"`{record.command('benchmarks.health')}`",
            "commit": record.commit(),
            "versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
            "machine": f"{record.cpu()}; load average {load_before:.1f} before the run, "
            f"{os.getloadavg()[0]:.1f} after",
        },
        body,
    )
    record.append_section(section)


if __name__ == "__main__":
    flags.DEFINE_string("experiment", "ko_tiny", "Experiment whose step is measured.")
    flags.DEFINE_multi_string("set", [], "Override a.b=value of the experiment; repeatable.")
    flags.DEFINE_string("topology", None, "Compile for this hardware instead: v5e:16x16, h100:1x8.")
    flags.DEFINE_integer("rounds", 31, "Pairs of steps.", lower_bound=4)
    cli.run(main)
