"""Figures of the study of averaging: what each way of averaging is worth, against dose."""

import csv

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import NullLocator

from fourdstem.figures.evaluation import NOISE_FREE, look, words
from fourdstem.figures.maps import thousands
from fourdstem.figures.style import FAINT, INK, save, styled

REGIONS = ("all", "interior", "boundary", "twin")
RIVALS = ("corrected", "box_3x3", "box_9x9", "gaussian_1", "gaussian_2")
NONLOCAL = ("window_pattern", "window_projection", "global_pattern", "global_projection")
TITLES = {
    "all": "all positions",
    "interior": "interior of grains",
    "boundary": "within 2 px of a boundary",
    "twin": "twin lamella, 2 px wide",
}


def draw(rows, folder) -> list:
    """Draw every figure of the study into a folder.

    Parameters
    ----------
    rows : list of tuple
        From `study.gather_doses`.
    folder : path-like
    """
    table = table_of(rows)
    return [figure(table, folder) for figure in (success, bending, root, quality, weight)]


def table_of(rows) -> dict:
    """Return ``{(region, source, metric): (dose, mean, lowest, highest)}``, each an array over doses."""
    found = {}
    for row in csv.DictReader(",".join(map(str, r)) for r in rows):
        key = row["region"], row["source"], row["metric"]
        found.setdefault(key, []).append([float(row[name]) for name in ("dose", "mean", "lowest", "highest")])
    return {key: np.array(values).T for key, values in found.items()}


@styled
def success(table: dict, folder):
    """Draw the share within 5° of the truth against dose, by source and region."""
    fig = _by_region(table, (*RIVALS, *NONLOCAL, NOISE_FREE), "within_5_deg", "share within 5° of the truth (%)", 100)
    caption = (
        "Share of positions within 5° of the truth against dose: mean of the films, bars from lowest to highest. The "
        "scales do not begin at 0."
    )
    return save(fig, folder, "averaging_success", caption)


@styled
def quality(table: dict, folder):
    """Draw the peak signal-to-noise ratio against dose, by source and region."""
    fig = _by_region(table, (*RIVALS, *NONLOCAL), "psnr", "PSNR outside the direct beam (dB)")
    return save(fig, folder, "averaging_quality", "Likeness of single patterns to the noise-free ones against dose.")


@styled
def bending(table: dict, folder):
    """Draw shares and median misorientation in the bent grain and in an unbent one of the same orientation."""
    fig, axes = _canvas(2, 3)
    metrics = (("within_2_deg", 100), ("within_5_deg", 100), ("median_misorientation", 1))
    names = ("share within 2° (%)", "share within 5° (%)", "median misorientation (°)")
    groups = {"before averaging": ("corrected", NOISE_FREE), "after averaging": ("window_pattern", "window_projection")}
    for line, (title, sources) in zip(axes, groups.items(), strict=True):
        for ax, (metric, factor), name in zip(line, metrics, names, strict=True):
            _lines(ax, table, "bent_interior", sources, metric, factor, note="bent")
            _lines(ax, table, "reference_interior", sources, metric, factor, "unbent", mfc="white", ls=":")
            ax.set(title=title, ylabel=name)
    _finish(fig, axes, table)
    for column in axes.T:
        ends = [ax.get_ylim() for ax in column]
        for ax in column:
            ax.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
    caption = (
        "Does bending help averaging? The interior of a bent grain and of an unbent one of the same orientation, at "
        "the same dose."
    )
    return save(fig, folder, "averaging_bending", caption)


@styled
def root(table: dict, folder):
    """Draw what averaging square roots instead of counts does, all else equal."""
    fig, axes = _canvas(2, 3)
    sources = ("corrected", "window_pattern", "window_sqrt", NOISE_FREE)
    for line, region in zip(axes, ("interior", "boundary"), strict=True):
        shown = (("within_2_deg", 100, "share within 2° (%)"), ("within_5_deg", 100, "share within 5° (%)"))
        for ax, (metric, factor, name) in zip(line, (*shown, ("psnr", 1, "PSNR (dB)")), strict=True):
            _lines(ax, table, region, sources, metric, factor)
            ax.set(title=TITLES[region], ylabel=name)
    _finish(fig, axes, table)
    return save(fig, folder, "averaging_root", "Counts or square roots averaged, by the same weights.")


@styled
def weight(table: dict, folder):
    """Draw how much weight stays in a pattern's own grain, and how many patterns are averaged."""
    fig, axes = _canvas(2, 3)
    for k, region in enumerate(("interior", "boundary", "twin")):
        _lines(axes[0, k], table, region, NONLOCAL, "own_weight", 100)
        axes[0, k].set(title=TITLES[region], ylabel="weight from own grain (%)")
        _lines(axes[1, k], table, region, NONLOCAL, "effective_number")
        axes[1, k].set(ylabel="effective number of patterns")
    _finish(fig, axes, table)
    return save(fig, folder, "averaging_weight", "What the averages are made of.")


def _by_region(table: dict, sources, metric: str, label: str, factor: float = 1):
    """Return a figure of one metric against dose, a panel per region."""
    fig, axes = _canvas(2, 2)
    for ax, region in zip(axes.flat, REGIONS, strict=True):
        _lines(ax, table, region, sources, metric, factor)
        ax.set(title=TITLES[region])
    _finish(fig, axes, table, label)
    return fig


def _canvas(rows: int, columns: int):
    fig = Canvas(figsize=(2.9 * columns + 1.9, 2.45 * rows), layout="constrained")
    return fig, fig.subplots(rows, columns, squeeze=False)


def _lines(ax, table: dict, region: str, sources, metric: str, factor: float = 1.0, note: str = "", **style) -> None:
    """Draw one line per source; sources lie side by side, so that their bars can be told apart."""
    for k, source in enumerate(sources):
        if (region, source, metric) in table:
            dose, mean, low, high = table[region, source, metric]
            at = dose * 1.03 ** (k - len(sources) / 2)
            drawn = {**look(source), "ms": 3.6, **style}
            drawn["ls"] = drawn.get("ls", drawn.pop("linestyle"))
            ax.vlines(at, factor * low, factor * high, color=drawn["color"], lw=0.8, alpha=0.6)
            ax.plot(at, factor * mean, label=", ".join(filter(None, (words(source), note))), **drawn)
    ax.set_xscale("log")


def _finish(fig, axes, table: dict, label: str | None = None) -> None:
    doses = sorted({dose for values in table.values() for dose in values[0]})
    known = {}
    for ax in axes.flat:
        ax.set_xticks(doses, [thousands(dose) for dose in doses])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color=FAINT, alpha=0.25, lw=0.6)
        if label is not None:
            ax.set_ylabel(label)
        if ax.get_ylabel().endswith("(%)"):
            ax.set_ylim(max(10 * np.floor(ax.get_ylim()[0] / 10), -2), 102)
        elif not ax.get_ylabel().endswith("(dB)"):
            ax.set_ylim(0, None)
        handles, names = ax.get_legend_handles_labels()
        known |= dict(zip(names, handles, strict=True))
    for ax in axes[-1]:
        ax.set_xlabel("electrons per pattern")
    fig.legend(known.values(), known, loc="outside right upper", labelcolor=INK)
