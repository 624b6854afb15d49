"""Trains an experiment: `python -m polyglot_jax.train --experiment=ko_tiny --workdir=DIR`.

Run the same command again and it goes on from the newest complete checkpoint. WORKDIR holds
config.json (the resolved experiment), tokenizer.json, checkpoints/, metrics.jsonl, tensorboard/ and
curve.png.
"""

import dataclasses
import signal
import sys
from contextlib import ExitStack, nullcontext

import jax
from absl import flags
from etils import epath
from jax.experimental import multihost_utils

from polyglot_jax import (
    checkpoint,
    cli,
    distributed,
    files,
    lock,
    preflight,
    selection,
    workdirs,
)
from polyglot_jax.config import Experiment, load_experiment
from polyglot_jax.convert import load_hf
from polyglot_jax.curve import plot_run
from polyglot_jax.data.held_out import sources_since
from polyglot_jax.evaluate import evaluate
from polyglot_jax.health import replicas, rewind
from polyglot_jax.health.monitor import GUARD, Monitor
from polyglot_jax.health.watchdog import Watchdog
from polyglot_jax.mesh import local_rows, put_batch
from polyglot_jax.metrics import RunLog
from polyglot_jax.signals import Stop, resume_line
from polyglot_jax.step import (
    TrainState,
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
        while isinstance(
            ended := train(experiment, epath.Path(values.workdir), last_step), rewind.Rewind
        ):
            pass  # once more, from before the spike
    if ended:
        sys.exit(128 + ended)


def train(
    experiment: Experiment, workdir: epath.Path, last_step: int
) -> signal.Signals | rewind.Rewind | None:
    """Runs the experiment up to `last_step` updates.

    Returns:
      The signal that stopped it earlier, its last step saved; the rewind with which to call it
      again; None at the end.
    Raises:
      ValueError: the mesh does not fit the devices, the data is missing or damaged, the workdir
        holds something else than this run, or the run has plunged and health.on_plunge is "stop".
      OSError: the workdir cannot be written.
      FloatingPointError: too many losses or gradients in a row are not finite, the held-out loss at
        the end is not, the same data spikes again and again, or devices disagree; nothing of it is
        saved.
    """
    t, health = experiment.train, experiment.health
    stacks = workdir / f"stall-{jax.process_index()}.txt" if not files.is_remote(workdir) else None
    with ExitStack() as stack:
        watchdog = stack.enter_context(Watchdog(health.stall_seconds, t.log_every, stacks))
        rewinds = rewind.read(workdir)
        data_config = rewind.without(experiment.data, rewinds)
        experiment = dataclasses.replace(experiment, data=data_config)
        parts = preflight.check(experiment, workdir, last_step)
        mesh, data, held_outs = parts.mesh, parts.data, parts.held_outs
        stack.enter_context(jax.set_mesh(mesh))
        stop = stack.enter_context(Stop())
        still_ours = stack.enter_context(lock.only_trainer(workdir))
        start, state, origin = _start(experiment, workdir, parts)
        run_log = RunLog(
            workdir,
            start_step=start,
            end_step=last_step,
            tokens_per_step=t.batch_size * experiment.data.seq_len,
            flops_per_token=family(experiment.model).flops_per_token(
                experiment.model, experiment.data.seq_len
            ),
        )
        keep = selection.Keep(
            newest=t.keep_checkpoints,
            best=t.keep_best,
            every=t.keep_every,
            held_out=lambda: selection.scores(run_log.records),
            last_good=lambda: monitor.last_good(),
            tags=lambda: selection.read_tags(workdir),
        )
        manager = checkpoint.open_manager(workdir, keep)
        with run_log as log, checkpoint.finished(manager, watchdog.pause):
            log.say(
                f"{experiment.name}: {family(experiment.model).num_params(experiment.model):,} "
                f"parameters on {mesh.size} x {jax.devices()[0].device_kind} "
                f"{dict(mesh.shape)}, attention {parts.kernel}, from {origin}"
            )
            guard = {name: int(getattr(state.guard, name)) for name in GUARD}

            def steps_saved() -> list[int]:
                return distributed.agreed([int(step) for step in manager.all_steps()])

            monitor = Monitor(experiment, workdir, log, guard, steps_saved)
            for done in [r for r in rewinds if r.step == start][-1:]:
                log.record(start + 1, "health", {"rewound_from": done.spike})
                log.say(f"step {start:>7,}  again, without the data up to step {done.spike:,}")
            train_step = jit_train_step(experiment, mesh)
            eval_step = jit_eval_step(experiment.model, mesh)
            param_shardings = shardings_of(parts.abstract.params)
            bit_sums = replicas.jit_bit_sums(mesh, param_shardings)
            rows = local_rows(mesh, t.batch_size)
            pending: tuple[int, dict[str, jax.Array], jax.Array | None] | None = None
            stopped, is_last = None, True  # of a run that is at its end already
            is_due = has_plunged = False  # a save that is not made yet; a stop by health.on_plunge
            compare_every = health.replicas_every if mesh.size > 1 else None

            def log_pending() -> None:
                nonlocal pending
                if pending is None:
                    return
                step, metrics, sums = pending
                pending = None
                values = {k: v.item() for k, v in jax.device_get(metrics).items()}
                watchdog.beat(step)
                checkpoint.raise_failure(manager)
                shown = {k: v for k, v in values.items() if k not in GUARD}
                log.train(step, shown, data.epochs_at(step))
                monitor.update(step, values)
                if sums is not None:
                    monitor.compared(step, jax.device_get(sums), mesh, param_shardings)

            def held_out_values(step: int, *, whole: bool) -> dict[str, float]:
                held_out = held_outs[sources_since(experiment.data, step)]
                held_out = held_out if whole else held_out.first_batch()
                return evaluate(eval_step, state.params, held_out, mesh)

            def log_held_out(step: int) -> float:
                values = held_out_values(step, whole=True)
                since = sources_since(experiment.data, step)
                log.held_out(step, values | ({"sources_since": since} if since else {}))
                return values["loss"]

            if not start:
                with log.pause():
                    log_held_out(0)
            if start < last_step:
                log.say("compiling the training step")
            else:
                log.say(f"step {start:,} is done already, of {last_step:,}")
            for step, batch in enumerate(data.batches(start, last_step, rows), start + 1):
                placed = put_batch(mesh, batch, t.batch_size)
                compiles = log.pause() if step == start + 1 else nullcontext()
                # The guard: nothing crosses to the host unasked.
                with compiles, jax.transfer_guard("disallow"):
                    state, metrics = train_step(state, placed)
                stop.has_work = True
                stopped = stopped or stop.requested(step)
                log_pending()  # an earlier step's, while the device works on this one
                if monitor.rewind:
                    break
                if step <= start + 3:  # one by one, so that the watchdog knows how long one takes
                    metrics["loss"].block_until_ready()
                    watchdog.beat(step)
                is_last = step == last_step
                evaluates = is_last or (t.eval_every is not None and step % t.eval_every == 0)
                probes = health.probe_every is not None and step % health.probe_every == 0
                is_due |= is_last or bool(stopped) or step % t.checkpoint_every == 0
                pauses = evaluates or probes or is_due
                compares = compare_every is not None and (is_due or step % compare_every == 0)
                if pauses or compares or step % t.log_every == 0:
                    pending = step, metrics, bit_sums(state.params) if compares else None
                if not pauses:
                    continue
                log_pending()  # the record is whole
                if monitor.rewind:
                    break
                with log.pause(), watchdog.pause():
                    if evaluates:
                        loss = log_held_out(step)
                        has_plunged = monitor.held_out(step)
                    elif is_due:
                        loss = held_out_values(step, whole=False)["loss"]
                    if probes and parts.probe:
                        probe, vocabulary = parts.probe
                        monitor.probed(step, jax.device_get(probe(state.params)), vocabulary)
                    if (is_due or has_plunged) and monitor.may_save(step, loss):
                        still_ours()
                        log.flush()
                        made = checkpoint.make_metadata(experiment, step, parts.fingerprint)
                        checkpoint.save(manager, state, made)
                        is_due = False
                if stopped or has_plunged:
                    break
        if monitor.rewind:
            rewind.begin(workdir, monitor.rewind)
    if stopped and (monitor.rewind or not is_last):
        outcome = f"step {step} is {'not ' if is_due else ''}saved"
        if monitor.rewind:
            outcome = f"goes back to step {monitor.rewind.step} then"
        print(f"{stopped.name}: {outcome}\n{resume_line()}", flush=True)
    _draw(workdir)  # last: nobody waits for it who has sent a signal
    if has_plunged:
        raise ValueError(
            f"stopped after step {step} by health.on_plunge; go on from {workdir}@before_plunge "
            "with other data, or --set health.on_plunge=alarm to go on as it is"
        )
    if monitor.rewind:
        return stopped or monitor.rewind
    if is_due and is_last:
        raise FloatingPointError(
            f"step {last_step}: the held-out loss is not finite, so that nothing is saved; start "
            "again with a lower optimizer.learning_rate, to go on from the newest checkpoint"
        )
    return None if is_last else stopped


def _start(
    experiment: Experiment, workdir: epath.Path, parts: preflight.Parts
) -> tuple[int, TrainState, str]:
    """Returns the step, the state and the origin of a run that begins or goes on.

    The state is that of the newest good checkpoint, else of `init_from`, else from scratch. What is
    damaged and newer is set aside.
    """
    if jax.process_index() == 0:
        for line in checkpoint.set_damaged_aside(workdir):
            print(line, flush=True)
    multihost_utils.sync_global_devices("damaged checkpoints are aside")
    start = workdirs.check_start(experiment, workdir, parts.fingerprint)
    if jax.process_index() == 0:
        workdirs.describe(experiment, workdir, parts.tokenizer)
    if start:
        state = checkpoint.restore(workdir, start, parts.abstract)
        assert int(state.step) == start
        return start, state, f"step {start} of {workdir}"
    if experiment.train.init_from:
        state = _init_from_hf(experiment, parts.abstract)
        return 0, state, experiment.train.init_from
    return 0, jit_init(experiment, parts.mesh)(), "scratch"


def _draw(workdir: epath.Path) -> None:
    """Draws the run. A picture that cannot be drawn, on a full disk say, fails no run."""
    if jax.process_index() == 0:
        try:
            plot_run(workdir)
        except (ValueError, OSError) as error:
            print(f"curve.png is not drawn: {cli.one_line(error)}", file=sys.stderr)


def _init_from_hf(experiment: Experiment, abstract: TrainState) -> TrainState:
    """Returns a fresh state around the weights of an HF directory, each read into its place."""
    assert experiment.train.init_from is not None
    params = load_hf(experiment.train.init_from, experiment.model, shardings_of(abstract.params))
    shardings = shardings_of(abstract)
    return jax.jit(lambda p: init_state(experiment, p), out_shardings=shardings)(params)


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
