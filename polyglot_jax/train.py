"""Trains an experiment: `python -m polyglot_jax.train --experiment=ko_tiny --workdir=DIR`.

Run the same command again and it goes on from the newest complete checkpoint. WORKDIR holds
config.json (the resolved experiment), tokenizer.json, checkpoints/, metrics.jsonl, tensorboard/ and
curve.png.
"""

import dataclasses
import json
import shlex
import signal
import sys
from contextlib import nullcontext

import jax
import numpy as np
from absl import flags
from etils import epath

from polyglot_jax import checkpoint, cli, distributed, hf_config, selection
from polyglot_jax.attention import choose_kernel
from polyglot_jax.config import Experiment, from_dict, load_experiment, to_dict
from polyglot_jax.convert import load_hf, read_hf_config
from polyglot_jax.curve import plot_run
from polyglot_jax.data.held_out import open_held_out
from polyglot_jax.data.mixture import open_plan
from polyglot_jax.data.resume import check_same
from polyglot_jax.evaluate import evaluate
from polyglot_jax.mesh import local_rows, make_mesh, put_batch
from polyglot_jax.metrics import RunLog
from polyglot_jax.signals import Stop
from polyglot_jax.step import (
    TrainState,
    abstract_state,
    family,
    init_state,
    jit_eval_step,
    jit_init,
    jit_train_step,
    shardings_of,
)


def main() -> None:
    values = flags.FLAGS
    experiment = load_experiment(values.experiment, values.set)
    last_step = values.steps or experiment.train.steps
    with distributed.joined(
        *(values.coordinator, values.num_processes, values.process_id),
        timeout_s=values.peer_timeout,
    ):
        stopped = train(experiment, epath.Path(values.workdir), last_step)
    if stopped:
        print(f"to go on: {shlex.join(sys.orig_argv)}", flush=True)
        sys.exit(128 + stopped)


def train(experiment: Experiment, workdir: epath.Path, last_step: int) -> signal.Signals | None:
    """Runs the experiment up to `last_step` updates.

    Returns:
      The signal that stopped it earlier, its last step saved; None at the end.
    Raises:
      ValueError: the mesh does not fit the devices, the data is missing or damaged, or the workdir
        holds something else than this run.
      OSError: the workdir cannot be written.
      FloatingPointError: the loss or the gradient is not finite; nothing of it is saved.
    """
    t = experiment.train
    if last_step > t.steps:
        raise ValueError(
            f"--steps={last_step} is beyond train.steps={t.steps}, where the schedule ends; "
            f"for a longer run, --set train.steps={last_step}"
        )

    # ---- everything that can be refused, before anything slow
    mesh = make_mesh(experiment.mesh)
    microbatch = t.batch_size // t.accumulation
    if microbatch % (mesh.shape["data"] * mesh.shape["fsdp"]):
        raise ValueError(
            f"train.batch_size={t.batch_size} in train.accumulation={t.accumulation} microbatches "
            f"gives {microbatch} sequences, which data * fsdp of the mesh {dict(mesh.shape)} does "
            "not divide; change one of them"
        )
    abstract = abstract_state(experiment, mesh)
    kernel = choose_kernel(
        experiment.model.attention,
        head_dim=experiment.model.head_dim,
        seq_len=experiment.data.seq_len,
        dtype=experiment.model.compute_dtype,
    )
    data = open_plan(experiment.data, t.batch_size)
    # As many sequences at a time as training holds: a whole batch may not fit the devices.
    held_out = open_held_out(experiment.data, microbatch, t.eval_sequences)
    vocab_size = data.sources[0].manifest.vocab_size
    if vocab_size > experiment.model.vocab_size:
        raise ValueError(
            f"model.vocab_size={experiment.model.vocab_size} is smaller than the tokenizer's "
            f"{vocab_size} ids; set it to at least that, rounded up to a multiple of 128"
        )
    if t.init_from:
        hf_config.check_same(experiment.model, read_hf_config(t.init_from), t.init_from)
    latest = checkpoint.latest_step(workdir)
    if latest == 0:
        raise ValueError(
            f"{workdir} holds converted weights, not a run; use another --workdir, and "
            "--set train.init_from=HF_DIR to start from weights"
        )
    start = latest or 0
    if start:
        metadata = checkpoint.read_metadata(workdir, start)
        check_same_run(from_dict(metadata["experiment"]), experiment)
        check_same(metadata["data"], data.fingerprint(), start)
    scores = selection.held_out(workdir, last_step=start)
    keep = selection.Keep(
        newest=t.keep_checkpoints,
        best=t.keep_best,
        every=t.keep_every,
        held_out=scores,
        tags=lambda: selection.read_tags(workdir),
    )
    manager = checkpoint.open_manager(workdir, keep)
    if jax.process_index() == 0:
        _describe_run(experiment, workdir, data.sources[0].split_dir.parent / "tokenizer.json")

    # ---- state: own checkpoint, else init_from, else scratch
    with jax.set_mesh(mesh):
        if start:
            state = checkpoint.restore(workdir, start, abstract)
            assert int(state.step) == start
            origin = f"step {start} of {workdir}"
        elif t.init_from:
            state = _init_from_hf(experiment, abstract)
            origin = t.init_from
        else:
            state = jit_init(experiment, mesh)()
            origin = "scratch"

        # ---- loop
        run_log = RunLog(
            workdir,
            start_step=start,
            end_step=last_step,
            tokens_per_step=t.batch_size * experiment.data.seq_len,
            flops_per_token=family(experiment.model).flops_per_token(
                experiment.model, experiment.data.seq_len
            ),
        )
        with run_log as log, Stop() as stop:
            log.say(
                f"{experiment.name}: {family(experiment.model).num_params(experiment.model):,} "
                f"parameters on {mesh.size} x {jax.devices()[0].device_kind} "
                f"{dict(mesh.shape)}, attention {kernel}, from {origin}"
            )
            train_step = jit_train_step(experiment, mesh)
            eval_step = jit_eval_step(experiment.model, mesh)
            rows = local_rows(mesh, t.batch_size)
            pending: tuple[int, dict[str, jax.Array]] | None = None
            stopped, is_last = None, True  # of a run that is at its end already

            def log_pending() -> None:
                nonlocal pending
                if pending is None:
                    return
                step, metrics = pending
                pending = None
                values = {k: v.item() for k, v in jax.device_get(metrics).items()}
                for name in ("loss", "grad_norm"):
                    if not np.isfinite(values[name]):
                        raise FloatingPointError(f"step {step}: {name} is {values[name]}")
                log.train(step, values, data.epochs_at(step))

            def log_held_out(step: int) -> None:
                values = evaluate(eval_step, state.params, held_out, mesh)
                log.held_out(step, values)
                scores[step] = values["bits_per_byte"]

            if not start:
                with log.pause():
                    log_held_out(0)
            log.say("compiling the training step")
            for step, batch in enumerate(data.batches(start, last_step, rows), start + 1):
                placed = put_batch(mesh, batch, t.batch_size)
                compiles = log.pause() if step == start + 1 else nullcontext()
                # The guard: nothing crosses to the host unasked.
                with compiles, jax.transfer_guard("disallow"):
                    state, metrics = train_step(state, placed)
                log_pending()  # an earlier step's, while the device works on this one
                is_last = step == last_step
                stopped = stop.requested(step)
                evaluates = is_last or (t.eval_every is not None and step % t.eval_every == 0)
                saves = is_last or bool(stopped) or step % t.checkpoint_every == 0
                if evaluates or saves or step % t.log_every == 0:
                    pending = step, metrics
                if evaluates or saves:
                    log_pending()  # nothing that is not finite is saved; the record is whole
                    with log.pause():
                        if evaluates:
                            log_held_out(step)
                        if saves:
                            made = checkpoint.make_metadata(experiment, step, data.fingerprint())
                            checkpoint.save(manager, state, made)
                if stopped:
                    break
        checkpoint.finish(manager)
    if jax.process_index() == 0:
        plot_run(workdir)
    if stopped and not is_last:
        print(f"{stopped.name}: step {step} is saved", flush=True)
        return stopped
    return None


def check_same_run(saved: Experiment, current: Experiment) -> None:
    """Raises ValueError if going on with `current` would not continue the run of `saved`.

    The model, its seed and the batch must be the same. How it is computed (mesh, kernel, remat,
    accumulation), how long, and how fast it learns may change.
    """
    free = {"attention": "", "remat": "", "compute_dtype": ""}
    decides = {
        "model": lambda e: dataclasses.asdict(dataclasses.replace(e.model, **free)),
        "train": lambda e: {"seed": e.train.seed, "batch_size": e.train.batch_size},
        "optimizer": lambda e: {"trainable": e.optimizer.trainable},
    }
    for section, values_of in decides.items():
        old, new = values_of(saved), values_of(current)
        for name in old:
            if old[name] != new[name]:
                raise ValueError(
                    f"{section}.{name}={new[name]!r}, but the checkpoint was trained with "
                    f"{old[name]!r}; set it back, or use another --workdir"
                )


def _init_from_hf(experiment: Experiment, abstract: TrainState) -> TrainState:
    """Returns a fresh state around the weights of an HF directory, each read into its place."""
    assert experiment.train.init_from is not None
    params = load_hf(experiment.train.init_from, experiment.model, shardings_of(abstract.params))
    shardings = shardings_of(abstract)
    return jax.jit(lambda p: init_state(experiment, p), out_shardings=shardings)(params)


def _describe_run(experiment: Experiment, workdir: epath.Path, tokenizer: epath.Path) -> None:
    """Writes what the run is, so that the workdir alone can be converted and evaluated."""
    description = {"experiment": to_dict(experiment), **checkpoint.provenance()}
    for name, content in (
        ("config.json", json.dumps(description, indent=2).encode()),
        ("tokenizer.json", tokenizer.read_bytes()),
    ):
        temporary = workdir / f"{name}.tmp"
        try:
            temporary.write_bytes(content)
            temporary.replace(workdir / name)
        except OSError as error:
            raise OSError(f"cannot write {workdir / name}: {error}") from error


if __name__ == "__main__":
    flags.DEFINE_string("experiment", None, "Name in experiments/, or path of a .py file.")
    flags.DEFINE_string("workdir", None, "Where the run lives, local or gs://.")
    flags.DEFINE_multi_string("set", [], "Override a.b=value of the experiment; repeatable.")
    flags.DEFINE_integer(
        "steps", None, "Stop after this step; the schedule stays the experiment's.", lower_bound=1
    )
    flags.DEFINE_string(
        "coordinator", None, "host:port of process 0, or 'auto' on TPU pods and SLURM."
    )
    flags.DEFINE_integer("num_processes", None, "With --coordinator=host:port.")
    flags.DEFINE_integer("process_id", None, "With --coordinator=host:port.")
    flags.DEFINE_integer(
        "peer_timeout",
        60,
        "Seconds without a sign of life from one of several processes until all others end.",
        lower_bound=10,
    )
    flags.mark_flags_as_required(["experiment", "workdir"])
    cli.run(main)
