"""What the training loop reports to: it says what it sees, records it, tags checkpoints, and ends
a run that makes no sense to go on with.

All decisions are made from values that are the same on every host, so that all hosts make them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from polyglot_jax import selection
from polyglot_jax.config import Experiment
from polyglot_jax.health import plunge, probe, replicas
from polyglot_jax.health.rewind import Rewind
from polyglot_jax.metrics import RunLog
from polyglot_jax.vocabulary import Vocabulary

BEFORE_PLUNGE = "before_plunge"
GUARD = ("nonfinite", "nonfinite_in_a_row", "spikes", "last_spike")  # metrics of the step


class Monitor:
    """Judges a run between one start, or one rewind, and the next."""

    def __init__(
        self,
        experiment: Experiment,
        workdir: epath.Path,
        log: RunLog,
        guard: Mapping[str, int],
        steps_saved: Callable[[], list[int]],
    ) -> None:
        """
        Args:
          guard: the fields `GUARD` of the state that the run starts from.
          steps_saved: gives the steps of the checkpoints there are, the same on all hosts.
        Raises:
          ValueError: health.on_plunge is "stop" and the run has plunged already.
        """
        self.health = experiment.health
        self.rewind: Rewind | None = None  # wanted, by health.on_spike
        self._workdir = workdir
        self._log = log
        self._seen: Mapping[str, float] = dict(guard)  # the newest metrics
        self._steps_saved = steps_saved
        self._spans = plunge.spans_of(experiment.data)
        if self.health.on_plunge == "stop" and plunge.judge(log.records, self._spans).is_plunging:
            raise ValueError(
                f"this run has plunged and was stopped; go on from {workdir}@{BEFORE_PLUNGE} with "
                "other data, or --set health.on_plunge=alarm to go on as it is"
            )

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Takes the metrics of a step.

        Raises:
          FloatingPointError: too many updates in a row were not finite.
        """
        before, self._seen = self._seen, values
        if nonfinite := int(values["nonfinite"] - before["nonfinite"]):
            self._log.record(step, "health", {"nonfinite": nonfinite})
            now = f"; {self._worst()}" if values["nonfinite_in_a_row"] else ""
            self._log.say(
                f"step {step:>7,}  skipped {_updates(nonfinite)}, loss or gradient not finite{now}"
            )
        if spikes := int(values["spikes"] - before["spikes"]):
            last = int(values["last_spike"])
            self._log.record(step, "health", {"spikes": spikes, "last_spike": last})
            self._log.say(
                f"step {step:>7,}  skipped {_updates(spikes)}, the last {last:,}: loss and "
                f"gradient norm more than {self.health.spike_sigma:g} standard deviations above "
                "the steps before"
            )
            if self.health.on_spike == "rewind":
                if saved := self._steps_saved():
                    self.rewind = Rewind(step=max(saved), spike=last, phases=len(self._spans))
                else:
                    self._log.say(f"step {step:>7,}  no checkpoint to go back to: skipped only")
        row = int(values["nonfinite_in_a_row"])
        if row >= self.health.max_nonfinite:
            raise FloatingPointError(
                f"step {step}: {self._worst()}; {_updates(row)} in a row skipped and nothing of it "
                f"saved. Lower optimizer.learning_rate, or look at the data of step "
                f"{step - row + 1}"
            )

    def may_save(self, step: int, held_out_loss: float) -> bool:
        """Returns whether the parameters still make sense of text: those that do not are not saved.

        A step whose update was skipped for its data is as good as the one before it; one whose own
        update broke the model shows in no loss of training yet.

        Args:
          held_out_loss: of a batch at least, after the step.
        """
        if np.isfinite(held_out_loss):
            return True
        self._log.record(step, "health", {"not_saved": 1})
        self._log.say(f"step {step:>7,}  held-out loss is {held_out_loss}: not saved")
        return False

    def last_good(self) -> int:
        """Returns the last evaluation at which all was well, 0 if there was none."""
        return plunge.judge(self._log.records, self._spans).last_good

    def _worst(self) -> str:
        for name in ("loss", "grad_norm"):
            if not np.isfinite(self._seen[name]):
                return f"{name} is {self._seen[name]}"
        return "loss or gradient were not finite"  # of the steps before, which ended the run

    def held_out(self, step: int) -> bool:
        """Looks for a plunge after an evaluation; returns whether the run should stop."""
        plunges = plunge.judge(self._log.records, self._spans).plunges
        if not plunges or plunges[-1].step != step:
            return False
        found = plunges[-1]
        values = {"growth": found.growth, "fell": found.fell, "since": found.since}
        self._log.record(step, "health", {f"plunge_{k}": v for k, v in values.items()})
        before = max((s for s in self._steps_saved() if 0 < s <= found.since), default=None)
        where = "no checkpoint from before is left"
        if before is not None:
            where = f"the last checkpoint before it, {before:,}, is tagged @{BEFORE_PLUNGE}"
        self._log.say(
            f"step {step:>7,}  ALARM  the loss falls away from the held-out loss: the gap has "
            f"grown by {found.growth:.3f} since all was well at step {found.since:,}, and the "
            f"held-out loss {found.held_out:.4f} no longer follows. The model learns its data by "
            f"heart; {where}"
        )
        if before is not None and jax.process_index() == 0:
            earlier = selection.read_tags(self._workdir).get(BEFORE_PLUNGE, before)
            if earlier != before:  # of a plunge that the run recovered from: it stays as well
                selection.tag(self._workdir, f"{BEFORE_PLUNGE}_{earlier}", earlier)
            selection.tag(self._workdir, BEFORE_PLUNGE, before)
        return self.health.on_plunge == "stop"

    def probed(self, step: int, tokens_RT: np.ndarray, vocabulary: Vocabulary) -> None:
        """Records the texts of a probe, and says if they have begun to repeat themselves."""
        values = probe.measure(tokens_RT)
        self._log.record(step, "probe", values)
        text = probe.text_of(vocabulary, tokens_RT[0].tolist())
        self._log.say(
            f"step {step:>7,}  repetition {values['repetition']:.2f}  "
            f"distinct-2 {values['distinct_2']:.2f}  looping {values['looping']:.2f}  "
            f"e.g. {text[:60]!r}"
        )
        if probe.has_collapsed(self._log.records):
            self._log.record(step, "health", {"collapse": values["repetition"]})
            self._log.say(
                f"step {step:>7,}  ALARM  the texts repeat themselves: {values['repetition']:.0%} "
                "of their 4-grams, and they had not before. Compare the checkpoints with "
                "python -m polyglot_jax.generate"
            )

    def compared(self, step: int, sums: np.ndarray, mesh: Mesh, shardings: Any) -> None:
        """Takes the bit sums of the parameters after a step.

        Raises:
          FloatingPointError: replicas differ.
        """
        if not (devices := replicas.differing(sums, mesh, replicas.cuts(shardings))):
            return
        names = ", ".join(f"{device.id} of process {device.process_index}" for device in devices)
        raise FloatingPointError(
            f"step {step}: devices that should hold the same parameters do not; those that differ "
            f"from most others: {names}. Nothing of it is saved; leave that hardware out and start "
            "again to go on from the newest checkpoint"
        )


def _updates(number: int) -> str:
    return "1 update" if number == 1 else f"{number:,} updates"
