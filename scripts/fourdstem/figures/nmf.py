"""Figures of the factorisation: why so many components, what they look like, where they are."""

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator

from fourdstem.figures import maps
from fourdstem.figures.style import FAINT, INK, MISSING, PALETTE, save, styled
from fourdstem.methods import clusters

_SHOWN = 8  # components drawn at most, those of the most positions
_LONGEST = 16  # letters of a name beside a map
_LISTED = 14  # classes beside a map at most: so many lines are as high as it is
_COLOURS = (  # of components: as many as the default range of ranks has at most
    *(*PALETTE[:7], "#8c564b", "#7f7fff", "#98df8a", "#ff9896", "#9467bd"),
    *("#17becf", "#bcbd22", "#393b79", "#e7cb94"),
)


@styled
def ranks(sample):
    """Draw loss, likeness, stability and distinct clusters against the number of components."""
    found = sample.nmf
    first, last = (0.9, "chart", 0.25), (0.62, "chart", 1.25)  # room for long numbers; for the legend
    fig, (axes,) = maps.panels(1, (first, maps.CHART, maps.CHART, last), (1, 1))
    k = np.asarray(found.rank)
    _line(axes[0], k, found.loss, PALETTE[0], "loss", "o")
    axes[0].axvline(found.knee, color=FAINT, lw=1, ls=":", label=f"knee, {found.knee}")
    axes[0].set(title="K-component loss", ylabel="mean |data - model|")
    for name, colour, mark in (
        ("fidelity", PALETTE[0], "o"),
        ("redundancy", PALETTE[1], "s"),
        ("raw_match", PALETTE[2], "^"),
    ):
        _line(axes[1], k, getattr(found, name), colour, name.replace("_", " "), mark)
    axes[1].set(title="likeness", ylabel="SSIM")
    _line(axes[2], k, found.stability, PALETTE[3], "stability", "o")
    axes[2].set(title="stability", ylabel="least cosine, other starts", ylim=(-0.02, 1.05))
    _line(axes[3], k, found.distinct, PALETTE[5], "distinct", "o")
    axes[3].plot(k, k, color=FAINT, lw=0.8, label="all distinct")
    if found.visible_patterns >= 0:
        axes[3].axhline(found.visible_patterns, color=PALETTE[0], lw=1, ls="--", label="above the noise")
    axes[3].set(title="clusters", ylabel="distinct clusters")
    for ax in axes:
        ax.axvline(found.chosen_rank, color=INK, lw=1, label=f"chosen, {found.chosen_rank}")
        ax.set_xlabel("components")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(colors=FAINT, labelcolor=INK)
        beside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0} if ax is axes[3] else {}
        ax.legend(fontsize=6.5, **beside)  # in the last one lines may run anywhere
    return save(fig, sample.figures, "nmf_ranks", _ranks_caption(found))


def _line(ax, k, values, colour, label, mark) -> None:
    ax.plot(k, np.asarray(values, float), color=colour, marker=mark, ms=3.5, lw=1.4, label=label)


def _ranks_caption(found) -> str:
    tried = f"{found.rank[0]} to {found.rank[-1]} components" if len(found.rank) > 1 else f"{found.rank[0]} components"
    return (
        f"<b>How many components.</b> {tried} were tried; {found.chosen_rank} were chosen: {found.reason}. Left to "
        "right: loss, with its knee; likeness of patterns to their reconstruction (fidelity) and of recorded mean "
        "patterns to their component (raw match), which should be high, and of components to each other (redundancy), "
        "which should be low; cosine of the least stable component with its partner from another start; number of "
        "clusters that are neither empty nor alike, beside the number of patterns that stand above counting noise. A "
        "choice is sound where clusters are still all distinct and stability has not fallen yet. Ranks were compared "
        f"on patterns by their first singular directions, which hold {100 * found.captured:.3g} % of all squares; "
        f"losses there differ from the true ones by at most {100 * found.compression_error:.2g} %."
    )


def _chosen(found) -> np.ndarray:
    """Return the components of the most positions, in that order."""
    return np.argsort(-np.asarray(found.component_size_px), kind="stable")[:_SHOWN]


@styled
def components(sample):
    """Draw components beside the mean recorded patterns of their positions."""
    found = sample.nmf
    some = _chosen(found)
    fig, axes = maps.panels(2, (maps.PLAIN,) * len(some), found.component.shape[1:], width=1.9)
    pixel = sample.acquisition.pixel_inv_angstrom
    for column, j in zip(axes.T, some, strict=True):
        colour, size = _colour(j), int(found.component_size_px[j])
        maps.pattern(column[0], found.component[j], pixel, f"component {j}", norm=_norm(found, found.component[j]))
        maps.pattern(
            column[1], found.component_mean[j], pixel, f"mean of {size}", norm=_norm(found, found.component_mean[j])
        )
        box = {"facecolor": "black", "edgecolor": "none", "alpha": 0.6, "pad": 1.5}
        text = f"cosine {found.component_match[j]:.2f}" if size else "labels nothing"
        column[1].text(0.98, 0.02, text, color="white", fontsize=7, ha="right", transform=column[1].transAxes, bbox=box)
        for ax in column:
            for side in ax.spines.values():
                side.set(edgecolor=colour, linewidth=2.2)
    return save(fig, sample.figures, "nmf_components", _components_caption(found, len(some)))


def _norm(found, values):
    """Return a scale made for what was factorised: a direct beam that was left out does not set it."""
    used = np.asarray(values)[found.used > 0]
    return maps.power_norm(used if used.size else values, percentile=99.8)


def _components_caption(found, shown: int) -> str:
    left = f" Only the {shown} of the most positions are shown." if shown < len(found.component) else ""
    under = f" Component {found.background} lies under all others." if found.background >= 0 else ""
    return (
        "<b>Components and what was recorded.</b> Above, the patterns that fit the scan best by the weights found, "
        "at every pixel; below, the mean recorded pattern of the positions that carry the label, with the cosine of "
        "both where patterns were compared. They should look alike; disks above that are missing below mean that a "
        f"component mixes crystals, or splits one.{under}{left} Frames have the colours of the map. Counts to the "
        "power 0.35, each pattern on its own scale, made for the pixels that were used."
    )


def _colour(j: int) -> str:
    return _COLOURS[j % len(_COLOURS)]


@styled
def where(sample):
    """Draw labels, clusters where components were merged or indexed, overlap, and what is not explained."""
    found, named = sample.nmf, sample.clusters
    merged = bool(np.any(found.merge_made)) or named is not None
    kinds = (maps.LEGEND,) * (1 + merged) + (maps.BAR, maps.BAR)
    fig, (axes,) = maps.panels(1, kinds, sample.scan_shape, sample.step, width=2.2)
    _classes(axes[0], found.label, sample.step, "label", found.component_size_px, range(len(found.component)))
    if merged:
        words = None if named is None else [f" {name or 'no phase'}"[:_LONGEST] for name in clusters.names(named)]
        _classes(axes[1], found.cluster, sample.step, "clusters", found.cluster_size_px, largest(found), words)
    ratio, overlap = np.asarray(found.ratio, float), np.asarray(found.overlap)
    reached = np.where(overlap > 0, ratio[:, None, None], 0).max(axis=0)
    limits = (min(ratio) - 0.05, 1.0)
    scale = {"cmap": "viridis", "limits": limits, "label": "second weight by first, at least"}
    maps.show(axes[-2], np.where(reached > 0, reached, np.nan), sample.step, "overlap", **scale)
    maps.show(axes[-1], found.residual, sample.step, "not explained", cmap="magma", label="norm, share of pattern's")
    return save(fig, sample.figures, "nmf_where", _where_caption(found, merged, named is not None))


def largest(found) -> np.ndarray:
    """Return the component of the most positions of every cluster."""
    member = np.asarray(found.component_cluster) == np.arange(len(found.cluster_size_px))[:, None]
    return np.where(member, found.component_size_px, -1).argmax(axis=1)


def _classes(ax, values, step, title: str, size, components, words=None) -> None:
    """Draw classes of so many positions each in the colours of components."""
    values, size, colours = np.asarray(values), np.asarray(size), [_colour(j) for j in components]
    maps.show(ax, np.array([to_rgb(c) for c in (*colours, MISSING)])[values], step, title)  # -1 is the last one
    many = np.argsort(-size, kind="stable")[:_LISTED]
    handles = [ax.plot([], [], "s", color=colours[j], ms=6)[0] for j in many]
    share = 100 / max(values.size, 1)
    names = [f"{j}{words[j] if words else ''}  ({share * size[j]:.0f} %)" for j in many]
    ax.legend(handles, names, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, fontsize=7)


def _where_caption(found, merged: bool, named: bool) -> str:
    lost = int((np.asarray(found.label) < 0).sum())
    listed = "with its" if len(found.component) <= _LISTED else f"those {_LISTED} of the most positions with their"
    text = (
        f"<b>Where components are.</b> Label: the component of the largest weight, {listed} share of positions; "
        f"grey: no label ({maps.count_text(lost, found.label.size, 'positions')}), without counts or explained by no "
        "mixture. "
    )
    if merged:
        pairs = int(np.sum(found.merge_made))
        text += f"Clusters: components whose recorded mean patterns are alike put together ({pairs} merged), in the "
        text += "colour of the largest of them"
        text += ", with the phase that their mean recorded pattern fits best. " if named else ". "
    shares = [f"{r:.2f}: {100 * float(np.mean(o)):.1f} %" for r, o in zip(found.ratio, found.overlap, strict=True)]
    return text + (
        "Overlap: the largest of the ratios that the second weight by the first reaches (share of positions, by "
        f"ratio: {'; '.join(shares)}); bands along boundaries are overlap or a wide probe, dots everywhere are noise. "
        "Right: the norm of what no mixture of components explains; of single noisy patterns it is large everywhere, "
        "and structure in it, not its level, tells of a missing component."
    )
