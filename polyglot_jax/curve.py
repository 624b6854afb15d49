"""The picture of a run: WORKDIR/curve.png."""

from etils import epath

from polyglot_jax import report
from polyglot_jax.metrics import read_metrics


def plot_run(workdir: epath.PathLike) -> epath.Path:
    """Draws bits per byte, learning rate and gradient norm over the steps to WORKDIR/curve.png.

    Raises:
      ValueError: the run has recorded nothing.
    """
    records = read_metrics(workdir)
    panels = (
        ("bits per byte", ("train/bits_per_byte", "held_out/bits_per_byte")),
        ("learning rate", ("train/learning_rate",)),
        ("gradient norm", ("train/grad_norm",)),
    )
    drawn, axes = report.figure(len(panels), height=9, sharex=True, height_ratios=(3, 1, 1))
    for axis, (title, names) in zip(axes, panels, strict=True):
        for name in names:
            points = [(record["step"], record[name]) for record in records if name in record]
            if points:
                marker = "o" if name.startswith("held_out") else None
                label = name.split("/")[0].replace("_", "-")
                axis.plot(*zip(*points, strict=True), marker=marker, label=label)
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
    axes[0].legend()
    axes[-1].set_xlabel("step")
    return report.write(epath.Path(workdir) / "curve.png", report.png(drawn))
