"""Whether a resumed run reads the data that its checkpoint was trained on.

Batches are a pure function of (data plan, step), so a checkpoint needs no iterator state; but it
must be the same function for every step that is already behind it.
"""

import json
from typing import Any

from polyglot_jax.data.mixture import skip

HELD_OUT = "held-out split"


def check_same(saved: dict[str, Any], current: dict[str, Any], step: int) -> None:
    """Checks that a plan leaves the batches before `step` as they were.

    Later phases may be appended, and batches from `step` on skipped or planned anew.

    Args:
      saved: `Mixture.fingerprint()`, with those of the held-out splits, as a checkpoint stores it.
      current: the same of the run that resumes.
      step: the step to resume at; the steps before it were trained with `saved`.

    Raises:
      ValueError: names everything that differs, and what to do.
    """
    if isinstance(saved, dict) and "held_out" not in saved:  # of before it was recorded
        current = {**current, "held_out": {}}
    new = _past(current, step)
    try:
        old = _past(saved, step)
    except (KeyError, TypeError, AttributeError, IndexError):
        raise ValueError(
            f"the checkpoint at step {step} does not say what data it was trained on; move it away "
            "to go on from an earlier one"
        ) from None
    differences = [
        f"{key}: was {_short(old.get(key))}, is {_short(new.get(key))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if differences:
        is_trained_on = any(not text.startswith(HELD_OUT) for text in differences)
        append = f"append a phase from step {step} on to data.plan, " if is_trained_on else ""
        raise ValueError(
            f"the data differs from what the checkpoint at step {step} was trained on "
            f"({'; '.join(differences)}); restore it, {append}"
            "or start in a new --workdir"
        )


def _past(fingerprint: dict[str, Any], step: int) -> dict[str, Any]:
    """Returns what decided the steps before `step`, by the words of the error line."""
    plan = fingerprint["plan"]
    past = {
        "tokenizer": fingerprint["tokenizer_sha256"],
        "data.seq_len": fingerprint["seq_len"],
        "train.batch_size": fingerprint["batch_size"],
    }
    for i, phase in enumerate(plan):
        if phase["from_step"] < step:
            end = min([step, *(later["from_step"] for later in plan[i + 1 :])])
            last = skip(end - 1 - phase["from_step"], phase["skipped"])
            where = f"data.plan.{i}"
            past[f"{where}.from_step"] = phase["from_step"]
            past[f"{where}.seed"] = phase["seed"]
            past[f"{where}.skipped"] = [pair for pair in phase["skipped"] if pair[1] <= last]
            for name, manifest in phase["manifests"].items():
                past[f"manifest of source {name!r} in {where}"] = manifest
                past[f"{HELD_OUT} of source {name!r}"] = fingerprint.get("held_out", {}).get(name)
            past[f"turns of the sources in {where}"] = phase["turns"]
    return past


def _short(value: Any) -> str:
    """Returns a value as an error line shows it: hashes by their first digits."""
    if value is None:
        return "absent"
    return value[:12] if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
