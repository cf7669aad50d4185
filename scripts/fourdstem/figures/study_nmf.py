"""Figures of the study of factorisation: which rank each rule chooses, and what labels are worth."""

import numpy as np
from matplotlib.figure import Figure as Canvas

from fourdstem.figures.style import save, styled

METRICS = {
    "ari": "labels: adjusted Rand index",
    "overlap_f1": "overlap: F1",
    "cosine_least": "worst component: cosine",
}
SCALINGS = ("sum", "norm", "max", "weight")


def draw(rows, errors: dict, folder) -> list:
    """Draw the figures of the study into a folder.

    Parameters
    ----------
    rows : list of tuple
    errors : dict of (kind, way) to list of int
        Rank less true rank; both from `study.gather_components`.
    folder : Path
    """
    return [_ranks(errors, folder), _labels(rows, folder)]


@styled
def _ranks(errors: dict, folder):
    """Draw how far the rank is from the truth, one panel per way, kinds down, a mark per scan."""
    kinds = list(dict.fromkeys(kind for kind, _ in errors))
    ways = list(dict.fromkeys(way for _, way in errors))
    fig = Canvas(figsize=(1.35 * len(ways) + 1, 0.26 * len(kinds) + 1.3), layout="constrained")
    axes = fig.subplots(1, len(ways), sharey=True, sharex=True, squeeze=False)[0]
    for ax, way in zip(axes, ways, strict=True):
        off = [errors[kind, way] for kind in kinds]
        ax.axvline(0, color="0.8", lw=4, zorder=0)
        for row, values in enumerate(off):
            places = row + 0.5 * (np.arange(len(values)) - (len(values) - 1) / 2) / max(len(values), 1)
            ax.plot(values, places, "o", ms=3, mew=0)
        every = np.concatenate(off)
        right, near = 100 * np.mean(every == 0), 100 * np.mean(np.abs(every) <= 1)
        name = way.replace(", ", ",\n")
        ax.set_title(f"{name}\n{right:.0f} % right\n{near:.0f} % within 1", fontsize=7)
        ax.set_xlabel("rank - truth", fontsize=7)
    axes[0].set_yticks(range(len(kinds)), kinds)
    axes[0].invert_yaxis()
    return save(fig, folder, "nmf_rank", _CAPTIONS["rank"])


@styled
def _labels(rows, folder):
    """Draw labels, overlap and components by source, weighting and scaling, at the true rank."""
    table = {(kind, way, metric): tuple(map(float, told)) for kind, way, metric, _, *told in rows[1:]}
    groups = list(dict.fromkeys(way.rsplit(", ", 1)[0] for _, way, _ in table if way.endswith(", sum")))
    fig = Canvas(figsize=(2.5 * len(METRICS) + 0.5, 2.8), layout="constrained")
    for ax, (metric, title) in zip(fig.subplots(1, len(METRICS)), METRICS.items(), strict=True):
        for i, scaling in enumerate(SCALINGS):
            kind = "overlap" if metric == "overlap_f1" else "all"
            told = [table.get((kind, f"{g}, {scaling}", metric)) for g in groups]
            known = [k for k, t in enumerate(told) if t is not None]
            mean, low, high = np.array([told[k] for k in known]).reshape(-1, 3).T
            at = np.array(known) + 0.18 * (i - 1.5)
            ax.vlines(at, low, high, color=f"C{i}", lw=1)
            ax.plot(at, mean, "o", ms=4, color=f"C{i}", label=scaling)
        ax.set_xticks(range(len(groups)), [g.replace(", ", "\n") for g in groups], fontsize=7)
        ax.set_title(title, fontsize=8)
        ax.set_ylim(-0.03, 1.03)
    fig.axes[0].legend(title="scaling", fontsize=7, title_fontsize=7, loc="lower left")
    return save(fig, folder, "nmf_labels", _CAPTIONS["labels"])


@styled
def cost(rows, folder):
    """Draw processor time against positions, pixels and rank, with the exponents of power laws.

    Parameters
    ----------
    rows : list of tuple
        (against, positions, pixels, rank, processor_s, ...), names of the columns first.
    folder : Path
    """
    columns = {"positions": 1, "pixels": 2, "rank": 3}
    fig = Canvas(figsize=(8.0, 2.8), layout="constrained")
    axes, told = fig.subplots(1, 3, sharey=True), []
    for ax, (name, column) in zip(axes, columns.items(), strict=True):
        x, y = np.array([(float(row[column]), float(row[4])) for row in rows[1:] if row[0] == name]).T
        exponent, factor = np.polyfit(np.log(x), np.log(y), 1)
        ax.loglog(x, np.exp(factor) * x**exponent, color="0.7", lw=1.5, label=f"power {exponent:.2f}")
        ax.loglog(x, y, "o", ms=4)
        ax.set_xticks(x, [f"{int(v):,}" for v in x], fontsize=7, rotation=45)
        ax.minorticks_off()
        ax.set_xlabel(name)
        ax.legend(fontsize=8, loc="upper left")
        told.append(f"{name} to the power {exponent:.2f}")
    low, high = axes[0].get_ylim()
    ticks = [t for t in (a * 10.0**b for b in range(-3, 4) for a in (1, 2, 5)) if low <= t <= high]
    axes[0].set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes[0].set_ylabel("processor time (s)")
    first = {name: int(next(r for r in rows[1:] if r[0] != name)[column]) for name, column in columns.items()}
    held = "{positions:,} positions, {pixels:,} pixels, rank {rank}".format(**first)
    return save(fig, folder, "nmf_cost", _CAPTIONS["cost"].format(held=held, told="; ".join(told)))


_CAPTIONS = {
    "cost": (
        "What the comparison of starts at one rank costs, compression and true losses included: processor time of one "
        "thread, three starts. What is not on the axis stays at {held}. Straight lines: {told}."
    ),
    "rank": (
        "How far the number of components is from the truth: every mark is one scan, of seeds that nothing was tuned "
        "on; doses are 1,000 electrons per pattern where the name does not say. All ways see the same averaged "
        "patterns and candidates; the stage and 'noise alone' see the recorded counts too."
    ),
    "labels": (
        "What the scaling of components before weights are compared is worth, at the true rank, by pattern source and "
        "weighting: mean (dot) and range (line) over all scans; overlap over those of that kind. "
        "'weight' sets the largest weight of each component to 1. Components do not depend on the scaling."
    ),
}
