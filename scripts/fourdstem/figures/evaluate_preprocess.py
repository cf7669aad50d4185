"""Figures of the evaluation of the preprocessing: denoising, centre, what parts of a pattern cost, ellipse."""

import numpy as np
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure as Canvas

from fourdstem.figures.style import FAINT, PALETTE, save, styled

_COLOURS = {
    "recorded": FAINT,
    "gaussian": PALETTE[1],
    "non-local means": PALETTE[2],
    "principal components": PALETTE[3],
    "network": PALETTE[0],
    "disk_correlation": PALETTE[0],
    "disk_correlation with slope": PALETTE[5],
    "centre_of_mass": PALETTE[1],
    "blurred_maximum": PALETTE[2],
    "friedel": PALETTE[3],
    "bound": "black",
}
_DENOISING = (  # data, measure, title, logarithmic
    ("patterns", "error outside the direct disk, mean", "single patterns", True),
    ("scans", "error outside the direct disk, mean", "small scans of four grains", True),
    ("many-beam patterns", "error outside the direct disk, mean", "many-beam patterns", True),
    ("patterns", "recall, mean", "single patterns", False),
    ("many-beam patterns", "recall, mean", "many-beam patterns", False),
    ("without reflections", "false spot, mean", "without reflections", False),
)
_LABELS = {
    "error outside the direct disk, mean": "relative squared error",
    "recall, mean": "recall of reflections",
    "false spot, mean": "share with a false spot",
}


def draw(rows, folder) -> list:
    """Draw the figures of the table into a folder.

    Parameters
    ----------
    rows : list of tuple
        Without the header; see `evaluate_preprocess.COLUMNS`.
    folder : Path
    """
    table = {}
    for part, data, way, dose, label, measure, value, number in rows:
        if measure != "setting":
            key = part, data, way, float(dose) if dose != "" else None, label, measure
            table[key] = float(value), int(number)
    return [_denoise(table, folder), _centre(table, folder), _parts(table, folder), _ellipse(table, folder)]


def _ways(table, part, data, measure, label) -> dict:
    """{way: (doses, values)} in the order of the table."""
    found = {}
    for (p, d, way, dose, c, m), (value, _) in table.items():
        if (p, d, c, m) == (part, data, label, measure):
            found.setdefault(way, []).append((dose, value))
    return {way: np.array(sorted(points)).T for way, points in found.items()}


@styled
def _denoise(table, folder):
    """Draw errors, recall and false spots of every way against dose."""
    fig = Canvas(figsize=(7.6, 5.2), layout="constrained")
    for ax, (data, measure, title, logarithmic) in zip(fig.subplots(2, 3).flat, _DENOISING, strict=True):
        for way, (dose, value) in _ways(table, "denoise", data, measure, "all").items():
            ax.plot(dose, value, "o-", ms=3, lw=1.2, color=_COLOURS[way], label=way)
        ax.set_xscale("log")
        if logarithmic:
            ax.set_yscale("log")
        else:
            ax.set_ylim(-0.03, 1.03)
        ax.set_title(title)
        ax.set_ylabel(_LABELS[measure])
        ax.set_xlabel("electrons per pattern")
    handles, names = fig.axes[1].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=5)
    return save(fig, folder, "preprocess_denoise", _CAPTIONS["denoise"])


@styled
def _centre(table, folder):
    """Draw the median error of every way by class of radius, and lost centres, against dose."""
    labels = list(dict.fromkeys(k[4] for k in table if k[:2] == ("centre", "patterns")))
    fig = Canvas(figsize=(7.6, 5.0), layout="constrained")
    axes = list(fig.subplots(2, 3).flat)
    panels = [(label, "median (px)", f"disks of {label}" if label != "all" else "all disks") for label in labels]
    panels.append(("all", "beyond 1 px or not found", "all disks"))
    for ax, (label, measure, title) in zip(axes, panels, strict=False):
        for way, (dose, value) in _ways(table, "centre", "patterns", measure, label).items():
            kind = {"ls": "--", "marker": ""} if way == "bound" else {"ls": "-", "marker": "o"}
            ax.plot(dose, value, ms=3, lw=1.2, color=_COLOURS[way], label=way.replace("_", " "), **kind)
        ax.set_xscale("log")
        if measure.startswith("median"):
            ax.set_yscale("log")
        else:
            ax.set_ylim(0, None)
        ax.set_title(title)
        ax.set_ylabel("median error (px)" if measure.startswith("median") else measure)
        ax.set_xlabel("electrons per pattern")
    axes[-1].axis("off")
    axes[-1].legend(*fig.axes[0].get_legend_handles_labels(), loc="center")
    return save(fig, folder, "preprocess_centre", _CAPTIONS["centre"])


@styled
def _parts(table, folder):
    """Draw the median error of the centre with parts of the patterns left out, a row per part."""
    told = [(k[4], k[2], v[0]) for k, v in table.items() if k[1] == "parts left out" and k[5] == "median (px)"]
    labels = list(dict.fromkeys(label for label, _, _ in told))
    fig = Canvas(figsize=(6.6, 0.3 * len(labels) + 1.0), layout="constrained")
    ax = fig.subplots()
    for way in dict.fromkeys(way for _, way, _ in told):
        values = [next(v for c, w, v in told if (c, w) == (label, way)) for label in labels]
        mark = "|" if way == "bound" else "o"
        ax.plot(values, range(len(labels)), mark, ms=10 if way == "bound" else 5, color=_COLOURS[way], ls="")
        ax.lines[-1].set_label(way.replace("_", " "))
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.grid(axis="y", color="0.9", lw=0.6)
    ax.set_xlabel("median error of the centre (px), a million electrons per pattern")
    fig.legend(loc="outside upper center", ncols=4)
    return save(fig, folder, "preprocess_parts", _CAPTIONS["parts"])


@styled
def _ellipse(table, folder):
    """Draw error of a/b, roundness of rings, and how often the fit declines, against electrons in the mean."""
    fig = Canvas(figsize=(7.2, 2.5), layout="constrained")
    panels = (
        ("error of a/b", ("error of a/b, mean", "error of a/b, median"), True),
        ("unevenness of rings", ("unevenness of rings before, mean", "unevenness of rings after, mean"), True),
        ("share declined", ("declined",), False),
    )
    for ax, (title, measures, small) in zip(fig.subplots(1, 3), panels, strict=True):
        for i, measure in enumerate(measures):
            for label, line in (("10 orientations and more", "-"), ("fewer", ":")):
                for dose, value in _ways(table, "ellipse", "scan means", measure, label).values():
                    count = "10 or more" if label != "fewer" else label
                    name = f"{measure.split(title)[-1].strip(' ,') or 'share'}, {count}"
                    ax.plot(dose, value, "o" + line, ms=3, lw=1.2, color=PALETTE[i], label=name)
        ax.set_xscale("log")
        ax.set_ylim(0, None if small else 1.03)
        ax.set_title(title)
        ax.set_xlabel("electrons in the mean")
        ax.legend(fontsize=6.5)
    return save(fig, folder, "preprocess_ellipse", _CAPTIONS["ellipse"])


@styled
def draw_measured(examples: dict, folder):
    """Draw measured patterns as recorded and denoised, and the difference in units of counting noise.

    Parameters
    ----------
    examples : dict of str to ndarray, shape (n, y, x)
        "NAME, as recorded" and "NAME, denoised".
    folder : Path
    """
    names = [name.removesuffix(", as recorded") for name in examples if name.endswith(", as recorded")]
    pairs = [
        (name, i, *both)
        for name in names
        for i, both in enumerate(zip(examples[f"{name}, as recorded"], examples[f"{name}, denoised"], strict=True))
    ]
    fig = Canvas(figsize=(7.0, 2.1 * len(pairs)), layout="constrained")
    for row, (name, i, before, after) in zip(fig.subplots(len(pairs), 3, squeeze=False), pairs, strict=True):
        norm = SymLogNorm(1.0, vmin=0, vmax=float(before.max()), base=10)
        off = (before - after) / np.sqrt(np.maximum(after, 0) + 0.375)
        for ax, image in zip(row, (before, after), strict=False):
            shown = ax.imshow(image, norm=norm, cmap="magma")
        fig.colorbar(shown, ax=row[:2], label="electrons", shrink=0.8)
        noise = row[2].imshow(off, cmap="RdBu_r", vmin=-4, vmax=4)
        fig.colorbar(noise, ax=row[2], label="difference / counting noise", shrink=0.8)
        for ax, title in zip(row, (f"{name} {i + 1}", "denoised", "difference"), strict=True):
            ax.set_title(title)
            ax.set_xticks([])
            ax.set_yticks([])
    return save(fig, folder, "preprocess_measured", _CAPTIONS["measured"])


_CAPTIONS = {
    "denoise": (
        "Counting noise taken off single patterns of crystal structures that no network was trained on and no setting "
        "tuned on: squared error outside the direct disk by the square of the expected pattern; share of reflections "
        "of ten electrons that keep half of their contrast; share of patterns with a false spot. Settings of classical "
        "ways are the best of several on the training's structures, at each dose. Principal components need a scan. "
        "Many-beam patterns: nickel and germanium by Bloch waves of py4DSTEM."
    ),
    "centre": (
        "Distance of the centre from the truth, radius and edge of the disk given to all. The dashed line is the "
        "median of the Cramér-Rao bound of the patterns."
    ),
    "parts": "What keeps centres from the bound at a million electrons: patterns with parts left out, one by one.",
    "ellipse": (
        "The ellipse by the fit, on means of simulated scans; errors are of those that it did not decline, declines "
        "of all. Means of ten orientations or more, and of fewer."
    ),
    "measured": (
        "Measured patterns as recorded and denoised by the network, and the difference in units of counting noise: "
        "structure in it is detail that was taken off. Counts of the second set are scaled; their smallest step is "
        "taken for an electron."
    ),
}
