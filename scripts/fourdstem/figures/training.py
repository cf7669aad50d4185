"""Figure of a training: loss against time."""

import numpy as np
from matplotlib.figure import Figure as Canvas

from fourdstem.figures.style import PALETTE, save, styled


@styled
def draw(curves, folder):
    """Draw the loss of every network against time, in training and on held-back structures.

    Parameters
    ----------
    curves : list of tuple
        Network, step, seconds, loss in training, loss on held-back structures.
    folder : path-like
    """
    names = list(dict.fromkeys(row[0] for row in curves))
    fig = Canvas(figsize=(3.2 * len(names), 2.8), layout="constrained")
    for ax, name in zip(fig.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        step, seconds, trained, held = np.array([row[1:] for row in curves if row[0] == name], float).T
        ax.plot(seconds / 60, trained, color=PALETTE[1], label="training structures")
        ax.plot(seconds / 60, held, color=PALETTE[0], label="held-back structures")
        ax.set(title=f"{name} ({step[-1]:,.0f} steps)", xlabel="time (min)", ylabel="loss")
    fig.axes[0].legend()
    caption = (
        "Loss of the networks against time. Training structures: running mean of the network as it is; held-back "
        "structures: the network of averaged weights, on always the same patterns."
    )
    return save(fig, folder, "training_curves", caption)
