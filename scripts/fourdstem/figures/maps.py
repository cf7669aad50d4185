"""One map on one axes: true proportions, scale bar, colour bar with its unit, grey where nothing was measured."""

import numpy as np
from matplotlib.colors import LogNorm, Normalize, PowerNorm
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from fourdstem.figures.style import FAINT, INK, MISSING

STRETCH = 6.0  # a map longer than this times its width is drawn with stretched pixels
# Columns of a figure: inches before the box, what it holds, inches behind it.
PLAIN, BAR, LEGEND = (0.0, "map", 0.2), (0.0, "map", 0.95), (0.0, "map", 1.35)
CHART, KEY = (0.62, "chart", 0.25), (0.1, "none", 0.25)


def panels(rows: int, columns, shape, step=None, width: float = 2.3):
    """Return a figure and its axes (rows, columns), laid out in inches so that every box fits its map.

    Parameters
    ----------
    columns : sequence of (float, str, float)
        `PLAIN`, `BAR`, `LEGEND`, `CHART`, `KEY`.
    shape : tuple of int
        (y, x) of the maps.
    step : tuple of float, optional
        Pixel size (y, x).
    width : float
        Of a map, inches; less where maps are tall.
    """
    ratio = proportion(shape, step)
    width = max(width * min(1.0, 1.3 / ratio), 0.8)
    height = width * ratio
    inner, above, below, margin = max(height, 1.45), 0.3, 0.32, 0.06
    boxes = [(lead, width if kind == "map" else 1.9, trail) for lead, kind, trail in columns]
    boxes = [(lead, wide, max(trail, 2.1 - lead - wide)) for lead, wide, trail in boxes]
    size = 2 * margin + sum(map(sum, boxes)), 2 * margin + rows * (above + inner + below)
    fig = Canvas(figsize=size)
    axes = np.empty((rows, len(columns)), object)
    for i in range(rows):
        x, top = margin, size[1] - margin - i * (above + inner + below) - above
        for k, ((lead, wide, trail), (_, kind, _)) in enumerate(zip(boxes, columns, strict=True)):
            tall = height if kind == "map" else inner - (0.12 if kind == "chart" else 0.0)
            ax = fig.add_axes([(x + lead) / size[0], (top - tall) / size[1], wide / size[0], tall / size[1]])
            ax.set_axis_off() if kind == "none" else None
            axes[i, k] = ax
            x += lead + wide + trail
    return fig, axes


def proportion(shape, step=None) -> float:
    """Return height by width of a map, within what can be drawn."""
    dy, dx = step or (1.0, 1.0)
    return float(np.clip(shape[0] * dy / (shape[1] * dx), 1 / STRETCH, STRETCH))


def _inches(ax) -> tuple[float, float]:
    box, size = ax.get_position(), ax.figure.get_size_inches()
    return box.width * size[0], box.height * size[1]


def show(ax, values, step, title: str, *, cmap="viridis", limits=None, label="", missing=MISSING):
    """Draw a map (scan_y, scan_x) or, for RGB, (scan_y, scan_x, 3).

    Parameters
    ----------
    step : tuple of float or None
        Scan step (y, x) in Å; None where unknown.
    limits : tuple of float, optional
        Ends of the colour scale; None takes the 1st and 99th percentile of what was measured.
    label : str
        Name and unit of what is drawn, for the colour bar.
    missing : str
        Colour of what was not measured.
    """
    values = np.asarray(values)
    ny, nx = values.shape[:2]
    dy, dx = step or (1.0, 1.0)
    options = {"extent": (-0.5 * dx, (nx - 0.5) * dx, (ny - 0.5) * dy, -0.5 * dy), "aspect": "auto"}
    ax.set_facecolor(missing)
    if values.ndim == 3:
        image = ax.imshow(values, **options)
    else:
        low, high = limits or span(values)
        shown = np.ma.masked_invalid(values)
        image = ax.imshow(shown, cmap=cmap, norm=Normalize(low, high), **options)
        colour_bar(ax, image, label, values)
    bare(ax, title)
    scale_bar(ax, nx * dx, *(("Å", True) if step else ("scan px", False)))
    return image


def bare(ax, title: str) -> None:
    """Take the ticks away; a scale bar says it better."""
    ax.set(xticks=[], yticks=[], title=title)


def span(values, low=1.0, high=99.0) -> tuple[float, float]:
    """Return robust ends of a colour scale; never an empty one."""
    found = np.asarray(values)[np.isfinite(values)]
    if found.size == 0:
        return 0.0, 1.0
    ends = np.percentile(found.astype(float), (low, high))
    slack = 0.0 if ends[1] > ends[0] else max(0.1 * abs(ends[0]), 1e-6)
    return float(ends[0]) - slack, float(ends[1]) + slack


def colour_bar(ax, image, label: str, values=None):
    """Add a colour bar; arrow ends say that values lie beyond the scale."""
    extend = "neither"
    if values is not None:
        found = np.asarray(values)[np.isfinite(values)]
        low, high = image.norm.vmin, image.norm.vmax
        under, over = bool((found < low).any()), bool((found > high).any())
        extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((under, over), "neither")
    place = ax.inset_axes([1 + 0.06 / _inches(ax)[0], 0, 0.1 / _inches(ax)[0], 1])
    bar = ax.figure.colorbar(image, cax=place, extend=extend, extendfrac=0.04)
    bar.set_label(label)
    bar.outline.set_linewidth(0.5)
    many = int(np.clip(_inches(ax)[1] / 0.35, 1, 6))
    bar.ax.yaxis.set_major_locator(_ticks(image.norm, many))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    if isinstance(image.norm, PowerNorm | LogNorm):
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return bar


def _ticks(norm, many: int):
    """Return round ticks that do not crowd, whatever the scale."""
    if isinstance(norm, PowerNorm):
        return FixedLocator(sorted({float(f"{end:.1g}") for end in norm.inverse(np.linspace(0, 0.95, many + 1))}))
    if isinstance(norm, LogNorm):
        decades = np.arange(np.floor(np.log10(norm.vmin)), np.ceil(np.log10(norm.vmax)) + 1)
        steps = (1,) if np.log10(norm.vmax / norm.vmin) > 2 else (1, 2, 5)
        return FixedLocator([m * 10.0**d for d in decades for m in steps])
    if (norm.vmin, norm.vmax) == (-180, 180):
        return FixedLocator([-180, -90, 0, 90, 180])
    return MaxNLocator(many)


def scale_bar(ax, width: float, unit: str, metric: bool) -> None:
    """Draw a scale bar of a round length below the lower left corner, where it hides no data."""
    length = round_length(width / 4)
    text = length_text(length) if metric else f"{length:g} {unit}"
    share, below = length / width, -0.1 / _inches(ax)[1]
    line = {"color": INK, "linewidth": 2.2, "solid_capstyle": "butt", "clip_on": False}
    ax.plot([0, share], [below, below], transform=ax.transAxes, **line)
    ax.text(share + 0.07 / _inches(ax)[0], below, text, transform=ax.transAxes, va="center", ha="left", fontsize=8)


def round_length(target: float) -> float:
    """Return 1, 2 or 5 times a power of ten, the largest that is at most ``target``."""
    power = 10.0 ** np.floor(np.log10(target))
    return float(max(m * power for m in (1, 2, 5) if m * power <= target * (1 + 1e-9)))


def length_text(angstrom: float) -> str:
    """Return a length in the unit that makes it readable: Å, nm or µm."""
    for unit, size in (("µm", 1e4), ("nm", 10.0)):
        if angstrom >= size:
            return f"{angstrom / size:g} {unit}"
    return f"{angstrom:g} Å"


def pattern(ax, values, pixel, title: str, *, norm, cmap="magma", missing=None):
    """Draw a pattern (detector_y, detector_x).

    Parameters
    ----------
    pixel : float or None
        1/Å per detector pixel; None where unknown.
    missing : ndarray of bool, optional
        Pixels drawn in grey.
    """
    values = np.asarray(values, float)
    nx = values.shape[1]
    ax.set_facecolor(MISSING)
    shown = np.ma.masked_array(values, np.zeros(values.shape, bool) if missing is None else missing)
    image = ax.imshow(shown, cmap=cmap, norm=norm, aspect="auto")
    bare(ax, title)
    scale_bar(ax, *((nx, "px") if pixel is None else (nx * pixel, "1/Å")), False)
    return image


def power_norm(values, gamma: float = 0.35, percentile: float = 99.95) -> PowerNorm:
    """Return a scale on which weak disks are seen beside the direct one."""
    found = np.asarray(values, float)
    found = found[np.isfinite(found)]
    high = float(np.percentile(found, percentile)) if found.size else 1.0
    return PowerNorm(gamma, 0.0, high if high > 0 else 1.0, clip=True)


def log_norm(values) -> LogNorm | PowerNorm:
    """Return a logarithmic scale over what is positive; a linear one where nothing is."""
    found = np.asarray(values, float)
    found = found[np.isfinite(found) & (found > 0)]
    if found.size == 0:
        return PowerNorm(1.0, 0.0, 1.0)
    low, high = np.percentile(found, (2, 99.95))
    return LogNorm(max(low, high * 1e-5), high if high > low else low * 10, clip=True)


def thousands(value: float) -> str:
    """Return a rounded number, its thousands set apart by narrow spaces."""
    return f"{value:,.0f}".replace(",", "\u202f")


def count_text(missing: int, total: int, what: str) -> str:
    """Return "12 of 4 096 (0.3 %) not indexed"."""
    return f"{thousands(missing)} of {thousands(total)} ({100 * missing / max(total, 1):.1f} %) {what}"


def histogram(ax, groups: dict, limits, title: str, label: str, colours: dict, bins: int = 40) -> None:
    """Draw outlined histograms of several groups on one scale, as shares of all positions."""
    for name, values in groups.items():
        values = np.asarray(values, float)
        found = np.clip(values[np.isfinite(values)], *limits)
        weights = np.full(found.size, 100 / max(values.size, 1))
        style = {"color": colours[name], "linewidth": 1.6, "histtype": "stepfilled", "alpha": 0.25}
        ax.hist(found, bins, range=limits, weights=weights, **style)
        ax.hist(found, bins, range=limits, weights=weights, **(style | {"histtype": "step", "alpha": 1.0}), label=name)
    ax.set(title=title, xlabel=label, ylabel="share of positions (%)", xlim=limits)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=FAINT, labelcolor=INK)
