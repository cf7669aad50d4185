"""Figures of the probability of being right: its map, and predicted against observed."""

import numpy as np

from fourdstem.figures import maps
from fourdstem.figures.orientation import SOURCE_COLOURS
from fourdstem.figures.style import FAINT, INK, save, styled
from fourdstem.methods.orientation import curve, scores


@styled
def probability(sample):
    """Draw the map of every source beside its reliability diagram; None where no source has a probability."""
    found = {source: r for source, r in sample.orientation.items() if r.calibration_right is not None}
    if not found:
        return None
    columns = (maps.BAR, maps.CHART, maps.CHART)
    fig, axes = maps.panels(len(found), columns, sample.scan_shape, sample.step, width=2.5)
    for row, (source, result) in zip(axes, found.items(), strict=True):
        scale = {"cmap": "cividis", "limits": (0.0, 1.0), "label": "probability"}
        maps.show(row[0], result.probability, sample.step, f"{source}: probability of being right", **scale)
        diagram(row[1], _pairs(sample, source, result), SOURCE_COLOURS[source])
        row[1].set_title("predicted and observed")
        maps.histogram(
            row[2], {source: result.probability}, (0.0, 1.0), "how often", "probability", SOURCE_COLOURS, bins=20
        )
    return save(fig, sample.figures, "orientation_probability", _caption(sample, found))


def _pairs(sample, source: str, result) -> dict:
    """Predictions and outcomes: of simulated patterns, and of the scan where its truth is known."""
    pairs = {"simulated": (result.calibration_predicted, result.calibration_right > 0)}
    known = sample.evaluation
    if known is not None and source in known.source:
        apart = known.misorientation_deg[list(known.source).index(source)]
        here = np.isfinite(result.probability) & (result.phase >= 0)
        pairs["truth of this scan"] = result.probability[here], np.nan_to_num(apart, nan=np.inf)[here] <= 5
    return pairs


def diagram(ax, pairs: dict, colour: str) -> None:
    """Draw observed shares over predictions, ten bins; areas of the marks grow with counts, bars are one σ.

    Parameters
    ----------
    pairs : dict of str to (predicted, outcome)
        The first is drawn by open marks, the second by filled ones.
    """
    ax.plot([0, 1], [0, 1], color=FAINT, lw=1, zorder=0)
    for k, (label, (predicted, outcome)) in enumerate(pairs.items()):
        _, mean, share, count = curve(predicted, outcome)
        used = count > 0
        sigma = np.sqrt(np.maximum(share * (1 - share), 0.25 / np.maximum(count, 1)) / np.maximum(count, 1))
        size = 8 + 90 * count / max(count.sum(), 1)
        face = colour if k else "white"
        ax.errorbar(mean[used], share[used], sigma[used], fmt="none", ecolor=colour, elinewidth=0.8, zorder=1 + k)
        ax.scatter(mean[used], share[used], size[used], facecolor=face, edgecolor=colour, zorder=2 + k, label=label)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="predicted probability", ylabel="share that is right")
    ax.tick_params(colors=FAINT, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper left", fontsize=7, frameon=False, borderpad=0, handletextpad=0.2)


def _caption(sample, found: dict) -> str:
    said, moved = [], ""
    for source, result in found.items():
        if result.calibration_shift:
            more = "more" if result.calibration_shift > 0 else "fewer"
            rate, by = 100 * result.calibration_base_rate, result.calibration_shift
            moved += f"The {source} positions say that {more} of them are right than of the simulated patterns "
            moved += f"({rate:.0f} %): logit P is shifted by {by:+.2f}. "
        for name, (predicted, outcome) in _pairs(sample, source, result).items():
            if len(outcome):
                said.append(f"{source}, {name}: {_score_text(predicted, outcome)}")
    return (
        "<b>How probably each orientation is right</b>: the phase is right and the orientation lies within 5° of the "
        "truth. <b>Calibrated on simulation</b>: patterns of the sample's phases, of random orientations, with "
        "many-beam intensities under the conditions of this scan, were indexed alike, and the probability was fitted "
        "to how often the answer was right. It knows nothing of what was not simulated: a phase that is missing, a "
        "wrong camera length, texture. Read the map first: dark seams are boundaries, dark speckle is noise, a whole "
        "dark grain has a pattern that fits two orientations; leave those out, or set "
        "<code>minimum_probability</code>. "
        "Then the diagram: marks on the diagonal mean that of the positions with P = 0.8 indeed 80 % are right; below "
        "it P promises too much. Open marks are simulated patterns that the fit had not seen, filled ones this scan "
        f"where its truth is known (few grains: whole grains move them together). {moved}{'; '.join(said)}. ECE is the "
        "mean distance from the diagonal, AUC how often a right position has the higher probability (0.5: no better "
        "than chance), Brier the mean squared error, to be compared with that of the base rate. Grey: not indexed."
    )


def _score_text(predicted, outcome) -> str:
    told = scores(predicted, outcome)
    return (
        f"{100 * np.mean(outcome):.0f} % right, ECE {told['ece']:.3f}, AUC {told['auc']:.2f}, Brier "
        f"{told['brier']:.3f} (base rate {told['brier_of_base_rate']:.3f})"
    )
