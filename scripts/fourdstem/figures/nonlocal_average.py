"""Figures of non-local averaging: how far to trust it, and what it did to single patterns."""

from typing import NamedTuple

import numpy as np

from fourdstem.figures import maps
from fourdstem.figures.style import PALETTE, save, styled
from fourdstem.methods.orientation import template_pattern


@styled
def trust(sample):
    """Draw effective number, self-weight, noise and weight from elsewhere of every averaged pattern."""
    found, foreign = sample.nonlocal_average, _foreign(sample)
    most = float(max(found.members, 2))
    columns = (maps.BAR, maps.BAR, maps.BAR, *([maps.BAR] if foreign is not None else []), maps.CHART)
    fig, (axes,) = maps.panels(1, columns, sample.scan_shape, sample.step, width=1.95)
    maps.show(
        axes[0], found.effective_number, sample.step, "effective number", limits=(1, most), label="patterns averaged"
    )
    maps.show(axes[1], found.self_weight, sample.step, "self-weight", cmap="plasma", label="own share")
    maps.show(axes[2], found.sigma, sample.step, "noise σ", cmap="magma", label="σ (√counts)")
    if foreign is not None:
        maps.show(
            axes[3], foreign, sample.step, "from elsewhere", cmap="magma", limits=(0, 0.5), label="share of weight"
        )
    colours = {"all positions": PALETTE[0]}
    groups = {"all positions": found.effective_number}
    maps.histogram(axes[-1], groups, (1, most), "effective number", "patterns averaged", colours)
    return save(fig, sample.figures, "nonlocal_average_trust", _trust_caption(sample, most, foreign))


def _foreign(sample):
    averaged = sample.orientation.get("averaged")
    return None if averaged is None else averaged.foreign_weight


def _trust_caption(sample, most: float, foreign) -> str:
    number = np.asarray(sample.nonlocal_average.effective_number, float)
    low = float((number < 2).mean())
    text = (
        f"<b>How many patterns stand behind each averaged one.</b> Median effective number "
        f"{np.nanmedian(number):.1f} of at most {most:.0f}; {100 * low:.1f} % of positions average fewer than 2 and "
        "are as noisy as before. Boundaries should show as thin lines of low number and high self-weight: there a "
        "pattern has few of its like. No boundaries at all and numbers near the maximum mean that unlike patterns are "
        "mixed (lower λ); numbers near 1 everywhere mean that nothing was averaged (raise λ). The noise should vary "
        "with thickness, not from pixel to pixel; grey: no noise estimate. "
    )
    if foreign is not None and np.isfinite(foreign).any():
        text += (
            "<b>From elsewhere</b>: share of weight of patterns that are indexed more than 5° away, "
            f"{100 * np.nanmean(foreign):.1f} % in the mean. Bright lines are boundaries over which patterns were "
            "mixed, bright areas were indexed by chance; a dark map alone proves nothing: what was mixed is indexed "
            "alike."
        )
    return text


class Example(NamedTuple):
    """A position worth looking at, and the rule by which it was chosen."""

    y: int
    x: int
    rule: str


def examples(sample) -> list[Example]:
    """Choose positions by fixed rules: extremes of effective number and of reliability, all distinct."""
    number = sample.nonlocal_average.effective_number
    wanted = [("most averaged", number, 1), ("least averaged", number, -1)]
    if "averaged" in sample.orientation:
        result = sample.orientation["averaged"]
        reliability = np.where(result.phase >= 0, result.reliability, np.nan)
        wanted += [("most reliable index", reliability, 1), ("least reliable index", reliability, -1)]
    else:
        wanted.append(("median of averaging", -np.abs(number - np.nanmedian(number)), 1))
    chosen: list[Example] = []
    for rule, values, sign in wanted:
        score = np.where(np.isfinite(values), sign * np.asarray(values, float), -np.inf)
        for e in chosen:
            score[e.y, e.x] = -np.inf
        y, x = np.unravel_index(np.argmax(score), score.shape)
        if np.isfinite(score[y, x]):
            chosen.append(Example(int(y), int(x), rule))
    return chosen


@styled
def patterns(sample, chosen: list[Example], shown: dict):
    """Draw example patterns before and after averaging, and the matched template over the averaged one.

    Parameters
    ----------
    chosen : list of Example
    shown : dict
        ``{"corrected": (n, detector_y, detector_x), "averaged": likewise}`` at the chosen positions.
    """
    indexed = sample.orientation.get("averaged")
    columns = 3 if indexed is not None else 2
    kinds = (maps.BAR, maps.BAR, maps.PLAIN)[:columns]
    fig, axes = maps.panels(max(len(chosen), 1), kinds, sample.detector_shape, width=2.75)
    for i, (row, example) in enumerate(zip(axes, chosen, strict=False)):
        titles = (f"{example.rule} ({example.y}, {example.x}): corrected", "averaged", "averaged + matched template")
        for k, (ax, source, title) in enumerate(zip(row, ("corrected", "averaged", "averaged"), titles, strict=False)):
            values = shown[source][i]
            image = maps.pattern(ax, values, sample.acquisition.pixel_inv_angstrom, title, norm=maps.power_norm(values))
            if k < 2:
                maps.colour_bar(ax, image, "counts (power 0.35)")
        _numbers(row, sample, example)
        if indexed is not None:
            _template(row[2], sample, indexed, example)
    return save(fig, sample.figures, "nonlocal_average_patterns", _patterns_caption(columns))


def _numbers(row, sample, example: Example) -> None:
    at = example.y, example.x
    box = {"facecolor": "black", "edgecolor": "none", "alpha": 0.6, "pad": 1.5}
    style = {"color": "white", "fontsize": 8, "va": "bottom", "ha": "right", "bbox": box, "zorder": 5}
    number = sample.nonlocal_average.effective_number[at]
    row[1].text(0.98, 0.02, f"effective number {number:.1f}", transform=row[1].transAxes, **style)
    for ax, source in zip(row[::2], ("corrected", "averaged"), strict=False):
        result = sample.orientation.get(source)
        if result is not None:
            text = "not indexed"
            if result.phase[at] >= 0:
                text = f"correlation {result.correlation[at]:.2f}\nreliability {result.reliability[at]:.0f}"
            ax.text(0.98, 0.02, text, transform=ax.transAxes, **style)


def _template(ax, sample, result, example: Example) -> None:
    """Circle the spots of the matched template; the line's weight follows the intensity it predicts."""
    at = example.y, example.x
    if result.phase[at] < 0:
        return
    used = sample.settings("orientation_averaged")
    model = used.get("thickness_angstrom", 200.0), used.get("intensity", "auto"), used.get("relrod", "lorentzian")
    crystal = sample.crystals[int(result.phase[at])]
    spots = template_pattern(crystal, result.orientation[at], sample.acquisition, sample.detector_shape, *model)
    spots = spots[spots[:, 2] > 0.01]
    radius = max(float(sample.preprocess.beam_radius_px), 1.0) + 1.2
    angle = np.linspace(0, 2 * np.pi, 41)
    for y, x, intensity in spots:
        width = 0.5 + 1.6 * intensity**0.35
        ax.plot(x + radius * np.cos(angle), y + radius * np.sin(angle), color="#7fffd4", lw=width, alpha=0.9)
    ny, nx = sample.detector_shape
    ax.set(xlim=(-0.5, nx - 0.5), ylim=(ny - 0.5, -0.5))


def _patterns_caption(columns: int) -> str:
    text = (
        "<b>Single patterns before and after averaging.</b> Positions (y, x) are chosen by rule, not by eye: largest "
        "and smallest effective number, then largest and smallest reliability of the averaged index. Averaging "
        "should bring out disks that are hinted at on the left and add none that are not; doubled or ghost disks "
        "mean that patterns of another grain were mixed in. "
    )
    if columns == 3:
        text += (
            "Circles are the spots of the matched template, heavier where it predicts more intensity (those above "
            "1 % of its strongest): each should hold a disk, and each clear disk should have a circle. Disks without "
            "a circle mean a wrong orientation, a second grain or a missing phase; circles that miss all disks by the "
            "same factor mean a wrong camera length. "
        )
    return text + "Each pattern has its own colour scale, counts to the power 0.35."
