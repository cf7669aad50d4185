"""Pole figures and inverse pole figures: equal-area projection, multiples of a random distribution."""

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Polygon
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.tri import Triangulation

from fourdstem.crystal import conventional_rotation
from fourdstem.figures.style import FAINT, INK, save, styled

SIDE, BAR, MARGIN, ABOVE = 1.5, 0.75, 0.2, 0.72  # inches
LEVELS = 12
AXIS_WORDS = ("beam (z)", "x (right)", "y (down)")


@styled
def pole_figures(sample):
    """Draw, for every source and phase, three pole figures and three inverse pole figures on one scale."""
    rows = [
        (source, found, k, crystal)
        for source, found in sample.grains.items()
        for k, crystal in enumerate(sample.crystals)
        if np.isfinite(found.texture_index[k])
    ]
    size = 2 * MARGIN + 6 * (SIDE + MARGIN) + BAR, max(len(rows), 1) * (SIDE + ABOVE) + MARGIN
    fig = Canvas(figsize=size)
    for number, (source, found, k, crystal) in enumerate(rows):
        bottom = size[1] - (number + 1) * (SIDE + ABOVE)
        words = f"{source}, {crystal.name}: poles of planes in the lab; crystal directions along lab axes"
        fig.text(MARGIN / size[0], (bottom + SIDE + 0.42) / size[1], words, fontsize=9.5, fontweight="bold")
        axes = [
            fig.add_axes([x / size[0], bottom / size[1], SIDE / size[0], SIDE / size[1]])
            for x in (MARGIN + n * (SIDE + MARGIN) for n in range(6))
        ]
        _row(axes, source, found, k, crystal)
    if not rows:
        fig.text(0.5, 0.5, "No grain was found: there is no texture to show.", ha="center", va="center")
    return save(fig, sample.figures, "grains_poles", _caption(rows))


def flat(directions) -> np.ndarray:
    """Lambert's equal-area projection along z of directions (n, 3), z >= 0; the equator has radius 1."""
    directions = np.asarray(directions, float)
    return directions[:, :2] / np.sqrt(1 + np.maximum(directions[:, 2:], 0))


def _row(axes, source, found, k: int, crystal) -> None:
    net = Triangulation(*flat(found.pole_direction).T)
    top = max(float(np.nanmax([found.pole_density[k].max(), found.inverse_pole_density[k].max()])), 1.5)
    levels = np.linspace(0, top, LEVELS + 1)
    for ax, hkl, density in zip(axes, found.pole_hkl[k], found.pole_density[k], strict=False):
        drawn = _contours(ax, net, density, levels)
        circle = np.linspace(0, 2 * np.pi, 181)
        _outline(ax, drawn, np.stack([np.cos(circle), np.sin(circle)], 1))
        ax.set(xlim=(-1.02, 1.02), ylim=(1.02, -1.02))  # y is down, as in the maps
        ax.set_title(f"{{{_indices(hkl)}}}", loc="center", fontweight="normal")
        ax.text(1.05, 0, "x", color=INK, va="center")
        ax.text(0, 1.05, "y", color=INK, ha="center", va="top")
    for ax, word, density in zip(axes[3:], AXIS_WORDS, found.inverse_pole_density[k], strict=True):
        drawn = _contours(ax, net, density, levels)
        _sector(ax, drawn, crystal)
        ax.set_title(word, loc="center", fontweight="normal")
    place = axes[-1].inset_axes([1.12, 0.05, 0.07, 0.85])
    bar = axes[-1].figure.colorbar(drawn, cax=place)
    bar.set_label("density (mrd)")
    bar.ax.yaxis.set_major_locator(MaxNLocator(5))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.outline.set_linewidth(0.5)


def _contours(ax, net, density, levels):
    drawn = ax.tricontourf(net, density, levels, cmap="viridis", extend="neither")
    ax.set(aspect="equal", xticks=[], yticks=[])
    ax.set_axis_off()
    return drawn


def _outline(ax, drawn, corners) -> None:
    """Draw the rim of a figure, and nothing outside it."""
    rim = Polygon(corners, closed=True, fill=False, edgecolor=FAINT, linewidth=0.8)
    ax.add_patch(rim)
    drawn.set_clip_path(rim)


def _sector(ax, drawn, crystal) -> None:
    """Cut an inverse pole figure to the fundamental sector and name its corners."""
    symmetry, turn = conventional_rotation(crystal)
    sector = symmetry.fundamental_sector
    corners = flat(sector.edges.unit.data)
    _outline(ax, drawn, corners)
    low, high = corners.min(axis=0), corners.max(axis=0)
    middle, half = (low + high) / 2, 0.62 * (high - low).max()
    ax.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    for vertex in sector.vertices.unit.data:
        name, place = direction_name(turn.T @ vertex, crystal), flat(vertex[None])[0]
        away = place - middle
        away = place + 0.13 * half * away / max(np.linalg.norm(away), 1e-9)
        ax.text(*away, name, ha="center", va="center", fontsize=7.5)


def direction_name(vector, crystal) -> str:
    """Return "[uvw]" of a crystal direction with indices up to 6; "" where it has none."""
    uvw = np.linalg.solve(crystal.lattice.T, vector)
    uvw = uvw / np.abs(uvw).max()
    for factor in range(1, 7):
        whole = np.round(uvw * factor)
        if np.abs(uvw * factor - whole).max() < 0.01:
            return f"[{_indices(whole.astype(int))}]"
    return ""


def _indices(values) -> str:
    """Return "1̄10" for (-1, 1, 0)."""
    return "".join(f"{abs(int(v))}{chr(0x305) if v < 0 else ''}" for v in values)


def _caption(rows) -> str:
    parts = [
        f"{source}, {crystal.name}: texture index {found.texture_index[k]:.2f}, of randomly oriented grains as many "
        f"and as large {found.texture_index_random[k]:.2f} ± {found.texture_index_random_sigma[k]:.2f} "
        f"(effectively {found.effective_grains[k]:.0f} grains)"
        for source, found, k, crystal in rows
    ]
    return (
        "<b>Texture</b>, in multiples of a random distribution (mrd). Left: where the normals of planes point in the "
        "lab, seen along the beam (centre: along the beam; x right and y down as in the maps; equal-area projection). "
        "Right: which crystal directions lie along the beam, x and y. Every position of a grain counts. A single spot "
        "of many mrd is one large grain, not a texture: with few grains, maxima are inevitable. The texture index is "
        "∫ f² over orientations; believe it only where it exceeds that of random grains by several of its standard "
        "deviations, and remember that a grain which noise broke into many counts as many. "
        f"{'; '.join(parts) or 'No grains were found'}."
    )
