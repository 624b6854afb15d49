"""The picture of a run: WORKDIR/curve.png."""

from etils import epath

from polyglot_jax import files, report
from polyglot_jax.metrics import read_metrics

EVENTS = {  # drawn as lines, by what records them
    "health/nonfinite": ("skipped: not finite", "tab:olive"),
    "health/spikes": ("skipped: spike", "tab:orange"),
    "health/rewound_from": ("rewound to", "tab:purple"),
    "health/plunge_growth": ("alarm: plunge", "tab:red"),
    "health/collapse": ("alarm: repetition", "tab:brown"),
}


def plot_run(workdir: epath.PathLike) -> epath.Path:
    """Draws a run over its steps to WORKDIR/curve.png: bits per byte, learning rate and gradient
    norm, repetition where it was probed, and what the trainer noticed (see docs/health.md).

    Raises:
      ValueError: the run has recorded nothing.
    """
    records = read_metrics(workdir)
    panels = [
        ("bits per byte", ("train/bits_per_byte", "held_out/bits_per_byte")),
        ("learning rate", ("train/learning_rate",)),
        ("gradient norm", ("train/grad_norm",)),
    ]
    if any("probe/repetition" in record for record in records):
        panels.append(("of the texts", ("probe/repetition", "probe/distinct_2", "probe/looping")))
    ratios = (3, *[1] * (len(panels) - 1))
    drawn, axes = report.figure(
        len(panels), height=6 + len(panels), sharex=True, height_ratios=ratios
    )
    for axis, (title, names) in zip(axes, panels, strict=True):
        for name in names:
            points = [(record["step"], record[name]) for record in records if name in record]
            if points:
                prefix, _, short = name.partition("/")
                is_train = prefix == "train"
                label = short.replace("_", "-") if prefix == "probe" else prefix.replace("_", "-")
                axis.plot(*zip(*points, strict=True), marker=None if is_train else "o", label=label)
        for name, (label, colour) in EVENTS.items():
            steps = [record["step"] for record in records if name in record]
            for step in steps:
                is_named = axis is axes[0] and step == steps[0]
                axis.axvline(step, color=colour, alpha=0.5, label=label if is_named else None)
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
    axes[0].legend()
    if len(panels) > 3:
        axes[-1].legend(loc="upper right", ncols=3)
        axes[-1].set_ylim(0, 1)
    axes[-1].set_xlabel("step")
    return files.write(epath.Path(workdir) / "curve.png", report.png(drawn))
