"""The loss curves of a run, as a picture."""

from __future__ import annotations

from pathlib import Path

from robustdistiller.pretrain.training.callbacks import read_history

_NO_TERMS = {"step", "epoch", "audio_h", "audio_s_per_s", "grad_norm", "lr"}


def draw_history(history: str | Path, picture: str | Path) -> None:
    """Draw every term of the loss over steps.

    Args:
        history: a run's `history.csv`.
        picture: PNG to write.
    """
    from matplotlib.figure import Figure  # no pyplot: its state is global

    lines = read_history(history)
    names = [name for name in (lines[0] if lines else ()) if name not in _NO_TERMS and "_layer" not in name]
    figure = Figure(figsize=(3.2 * max(len(names), 1), 2.6), layout="constrained")
    for index, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), index + 1)
        axes.plot([line["step"] for line in lines], [line[name] for line in lines], linewidth=1)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    figure.savefig(picture, dpi=120)
