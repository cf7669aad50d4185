"""Figures of the comparison with known truth."""

import numpy as np
from matplotlib.figure import Figure as Canvas

from fourdstem.figures import maps
from fourdstem.figures.style import FAINT, INK, PALETTE, save, styled

SCALE_DEG = 10.0
MOST_LABELLED = 6  # bars of a group; more are too thin for a number
NOISE_FREE = "noise_free"
LOOKS = {  # colour, marker, line: greys for averages over positions, colours for those by likeness
    "corrected": (PALETTE[1], "o", "-"),
    "denoised": (PALETTE[4], "o", "-"),
    "averaged": (PALETTE[0], "o", "-"),
    "box_3x3": ("#9aa7b3", "s", "-"),
    "box_5x5": ("#7f8d9a", "s", "-"),
    "box_9x9": ("#59656f", "s", "-"),
    "gaussian_1": ("#9aa7b3", "^", ":"),
    "gaussian_2": ("#59656f", "^", ":"),
    "window_pattern": (PALETTE[4], "o", "--"),
    "window_projection": (PALETTE[0], "o", "-"),
    "global_pattern": (PALETTE[3], "D", "--"),
    "global_projection": (PALETTE[2], "D", "-"),
    "window_sqrt": (PALETTE[5], "v", "--"),
    NOISE_FREE: (INK, "", (0, (4, 2))),
}
WORDS = {
    "corrected": "as recorded",
    "window_sqrt": "window, pattern distance, √counts",
    **{f"{s}_{d}": f"{s}, {d} distance" for s in ("window", "global") for d in ("pattern", "projection")},
}


def words(name: str) -> str:
    """Return "box 3 × 3" for "box_3x3", "Gaussian σ = 1" for "gaussian_1", "noise-free" for "noise_free"."""
    if name.startswith("box_"):
        return f"box {name.removeprefix('box_').replace('x', ' × ')}"
    if name.startswith("gaussian_"):
        return f"Gaussian σ = {name.removeprefix('gaussian_')}"
    return WORDS.get(name, name.replace("_", "-"))


def look(source: str) -> dict:
    """Return colour, marker and line style of a source, the same in every figure."""
    colour, marker, line = LOOKS[source]
    return {"color": colour, "marker": marker, "linestyle": line, "linewidth": 1.3}


@styled
def misorientation(sample):
    """Draw the misorientation of every source from the truth, the centre's error, and what averaging mixed in."""
    found = sample.evaluation
    turned = {"limits": (0, SCALE_DEG), "label": "from truth (°)"}
    shown = [
        (values, f"{words(source)}: misorientation", turned)
        for source, values in zip(found.source, found.misorientation_deg, strict=True)
    ]
    if found.centre_error_px is not None:
        shown.append((found.centre_error_px, "centre error", {"cmap": "plasma", "label": "from truth (px)"}))
    if found.foreign_weight is not None:
        style = {"cmap": "magma", "limits": (0, 100), "label": "share (%)"}
        shown.append((100 * found.foreign_weight, "averaged: from other grains", style))
    columns = min(4 if len(shown) > 6 else 3, len(shown))
    rows = -(-len(shown) // columns)
    fig, axes = maps.panels(rows, (maps.BAR,) * columns, sample.scan_shape, sample.step, width=2.2)
    for ax, (values, title, style) in zip(axes.flat, shown, strict=False):
        maps.show(ax, values, sample.step, title, **style)
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    return save(fig, sample.figures, "evaluation_misorientation", _misorientation_caption(found))


def _misorientation_caption(found) -> str:
    parts, foreign = [], ""
    if found.foreign_weight is not None:
        share = 100 * float(np.nanmean(found.foreign_weight))
        foreign = (
            f" <b>Weight from other grains</b> ({share:.1f} % on average) is what averaging mixed in. Thin bright "
            "seams are boundaries, where the probe itself saw two grains; a lamella or a grain that is bright all "
            "over was averaged away."
        )
    for source, values in zip(found.source, found.misorientation_deg, strict=True):
        good = values[np.isfinite(values)]
        if good.size:
            parts.append(f"{words(source)} {np.median(good):.2f}°")
    return (
        "<b>Distance from the truth</b> (known here, used by no other stage), smallest angle over the symmetry, on one "
        f"scale of 0 to {SCALE_DEG:g}°; the arrow of the colour bar stands for everything beyond. Medians of what was "
        f"indexed: {', '.join(parts) or 'nothing'}. Dark grains are right; whole grains of yellow are patterns that "
        "the matcher reads wrongly however little noise there is (compare noise-free); single yellow pixels are "
        "noise; yellow seams are boundaries, where two patterns overlap. Grey: not indexed, or wrong phase."
        f"{foreign}"
    )


@styled
def success(sample, within_deg: float = 5.0):
    """Draw the share within ``within_deg`` of the truth by region and source, of all and of identifiable positions."""
    metric = f"within_{within_deg:g}_deg"
    every = _table(sample.evaluation, metric)
    some = _table(sample.evaluation, f"identifiable_{metric}")
    shown = [(every, "positions", f"within {within_deg:g}° of the truth, all positions")]
    if some:
        title = f"within {within_deg:g}° of the truth, identifiable positions"
        shown.append((some, "identifiable_positions", title))
    fig = Canvas(figsize=(10.4, 3.4 * len(shown)), layout="constrained")
    axes = fig.subplots(len(shown), 1, squeeze=False)[:, 0]
    for ax, (table, counted, title) in zip(axes, shown, strict=True):
        _bars(ax, table, _table(sample.evaluation, counted))
        ax.set_title(title)
    axes[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return save(fig, sample.figures, "evaluation_success", _success_caption(every, within_deg, bool(some)))


def _bars(ax, table: dict, counts: dict) -> None:
    """Draw one group of bars per region, one bar per source, and noise-free patterns as a dashed line."""
    regions = [r for r in dict.fromkeys(region for _, region in table) if not r.endswith("_interior")]
    sources = [s for s in dict.fromkeys(source for source, _ in table) if s != NOISE_FREE]
    width = 0.8 / max(len(sources), 1)
    for k, source in enumerate(sources):
        at = np.arange(len(regions)) - 0.4 + (k + 0.5) * width
        height = [100 * table.get((source, region), np.nan) for region in regions]
        bars = ax.bar(at, height, 0.92 * width, color=look(source)["color"], label=words(source))
        for bar, h in zip(bars, height, strict=True):
            if len(sources) <= MOST_LABELLED:
                _label(ax, bar, h, "white" if source == "averaged" else INK)
    for k, region in enumerate(regions):
        if (NOISE_FREE, region) in table:
            height = 100 * table[NOISE_FREE, region]
            label = "noise-free patterns" if k == 0 else None
            ax.plot([k - 0.44, k + 0.44], [height, height], color=INK, lw=1.6, ls=(0, (4, 2)), label=label)
    known = {region: count for (_, region), count in counts.items()}
    names = [f"{r}\n{maps.thousands(known[r])} positions" if r in known else r for r in regions]
    ax.set_xticks(np.arange(len(regions)), names)
    ax.set(ylim=(0, 108), yticks=range(0, 101, 20), ylabel="share (%)")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color=FAINT, alpha=0.25, lw=0.6)
    ax.set_axisbelow(True)


def _label(ax, bar, height: float, colour: str) -> None:
    """Write a bar's height inside it, where the dashed line does not cross it, or above if the bar is too low."""
    if np.isfinite(height):
        inside = height > 10
        style = {"fontsize": 7.5, "ha": "center", "va": "top" if inside else "bottom"}
        y = height - 1.8 if inside else height + 1.0
        ax.text(bar.get_x() + bar.get_width() / 2, y, f"{height:.0f}", color=colour if inside else INK, **style)


def _table(found, metric: str) -> dict:
    rows = zip(found.row_source, found.row_region, found.row_metric, found.row_value, strict=True)
    return {(source, region): float(value) for source, region, name, value in rows if name == metric}


def _success_caption(table: dict, within_deg: float, identifiable: bool) -> str:
    shares = {s: table.get((s, "all")) for s in ("corrected", "averaged", NOISE_FREE)}
    said = ", ".join(f"{words(s)} {100 * v:.1f} %" for s, v in shares.items() if v is not None)
    text = (
        f"<b>What averaging bought.</b> Share of positions within {within_deg:g}° of the truth (a threshold fixed "
        f"beforehand, the same for all; a position that is not indexed counts as wrong). All positions: {said}. Blue "
        "above the grey box averages at boundary and twin says that averaging by likeness keeps what a box smears; "
        "blue below orange there would say that thin features were lost. The dashed line is the same matcher on "
        "patterns without noise; bars above it are luck, where two orientations fit equally well. "
    )
    if identifiable:
        text += (
            "Below, the same for identifiable positions alone: those whose noise-free pattern is indexed rightly and "
            "fits no other orientation as well. There the dashed line is 100 % at 5° by definition; at smaller angles "
            "averaging can lie above it, because it mixes orientations as precession does."
        )
    return text
