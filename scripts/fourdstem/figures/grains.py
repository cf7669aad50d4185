"""Figures of grains, boundaries, local misorientation and clean-up."""

from types import SimpleNamespace

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb

from fourdstem.figures import ipf, maps
from fourdstem.figures.orientation import SOURCE_COLOURS
from fourdstem.figures.style import FAINT, INK, MISSING, PALETTE, save, styled
from fourdstem.methods.grains import random_turns
from fourdstem.rotations import angle_deg

PALE = 0.55  # how much of a colour is left under the lines of boundaries
LINES = {  # class of boundary: colour, width
    "low angle": (FAINT, 0.8),
    "general": (INK, 1.2),
    "Σ3": (PALETTE[5], 1.8),
    "other Σ": (PALETTE[0], 1.4),
    "phase boundary": (PALETTE[2], 1.4),
}
RANDOM = 20000
SEED = 0


@styled
def overview(sample):
    """Draw grains with their boundaries, misorientation from the mean, and local misorientation above the noise."""
    columns = (maps.LEGEND, maps.BAR, maps.BAR)
    fig, axes = maps.panels(len(sample.grains), columns, sample.scan_shape, sample.step, width=2.4)
    for row, (source, found) in zip(axes, sample.grains.items(), strict=True):
        shown = SimpleNamespace(orientation=found.orientation_mean, phase=np.where(found.grain >= 0, _phase(found), -1))
        rgb = ipf.colours(shown, sample.crystals, "z")
        known = found.grain >= 0
        rgb[known] = 1 - PALE * (1 - rgb[known])
        maps.show(row[0], rgb, sample.step, f"{source}: grains, boundaries")
        _boundaries(row[0], found, sample.step or (1.0, 1.0))
        grod = {"cmap": "magma", "limits": (0.0, _top(found.grod_deg)), "label": "GROD (°)"}
        maps.show(row[1], found.grod_deg, sample.step, "from the grain's mean", **grod)
        kam = {"cmap": "viridis", "limits": (0.0, _top(found.kam_deg)), "label": "KAM (°)"}
        maps.show(row[2], found.kam_deg, sample.step, "local, above noise", **kam)
    return save(fig, sample.figures, "grains_overview", _overview_caption(sample))


def _phase(found) -> np.ndarray:
    if len(found.grain_phase) == 0:
        return found.grain
    return np.asarray(found.grain_phase)[np.maximum(found.grain, 0)]


def _top(values) -> float:
    """Return the upper end of a scale from 0."""
    return max(maps.span(values)[1], 1e-3) if np.isfinite(values).any() else 1.0


def kinds(found) -> np.ndarray:
    """Return, for each row of the table of classes, the name under which it is drawn."""
    return np.array([name if name in LINES else "other Σ" for name in found.class_name])


def _boundaries(ax, found, step) -> None:
    """Draw every segment as the edge between its two positions, and a legend of the kinds that are there."""
    position = np.asarray(found.boundary_position_px, float).reshape(-1, 2)
    upright = position[:, 1] % 1 > 0.25  # between neighbours along x
    half = np.where(upright[:, None], [0.5, 0.0], [0.0, 0.5])
    ends = np.stack([position - half, position + half], axis=1)[..., ::-1] * [step[1], step[0]]
    kind, length = kinds(found)[found.boundary_class], np.where(upright, step[0], step[1])
    limits = ax.get_xlim(), ax.get_ylim()
    for name, (colour, width) in LINES.items():
        mine = kind == name
        if mine.any():
            share = f"{name.removesuffix(' boundary')} {100 * length[mine].sum() / length.sum():.0f} %"
            ax.add_collection(LineCollection(ends[mine], colors=colour, linewidths=width, capstyle="projecting"))
            ax.plot([], [], "-", color=colour, lw=width, label=share)
    ax.set(xlim=limits[0], ylim=limits[1])
    if len(position):
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1.2)


def _overview_caption(sample) -> str:
    parts = []
    for source, found in sample.grains.items():
        count = len(found.grain_size_px)
        floor = found.kam_floor_deg[np.isfinite(found.kam_floor_deg)]
        noise = f", KAM floor {np.median(floor):.2f}° (median)" if floor.size else ""
        parts.append(f"{source}: {count} grains on {100 * (found.grain >= 0).mean():.1f} % of the positions{noise}")
    return (
        "<b>Grains</b>: connected positions of one phase whose neighbours differ by no more than the threshold, pale "
        "in the colour of their mean orientation along the beam, with every boundary segment by its class (Σ by "
        "Brandon's criterion; lengths are those of the staircase of positions). Grey: not indexed, or fewer positions "
        "than a grain has. One grain of the specimen that falls into many says that the index is noise; a special "
        "boundary (Σ) that winds through it, that its patterns fit two orientations. <b>From the "
        "grain's mean</b> (GROD): smooth gradients are bending; single bright positions are wrong indices that the "
        "threshold let through. <b>Local misorientation</b> (KAM, first neighbours) is grey where it does not rise "
        "above what the scatter of this source's index alone would give; noise alone still leaves 6 to 10 % of the "
        "positions. "
        "The scales of the sources differ: averaging smooths noise and true changes narrower than its window alike, "
        f"so never compare KAM of different sources. {'; '.join(parts)}."
    )


@styled
def statistics(sample):
    """Draw grain sizes, boundary angles against chance, and local misorientation against its floor."""
    fig, axes = maps.panels(len(sample.grains), (maps.CHART,) * 3, (1, 1), width=1.9)
    for row, (source, found) in zip(axes, sample.grains.items(), strict=True):
        _sizes(row[0], source, found)
        _angles(row[1], source, found, sample.crystals)
        _local(row[2], source, found)
        for ax in row:
            ax.spines[["top", "right"]].set_visible(False)
    return save(fig, sample.figures, "grains_statistics", _STATISTICS_CAPTION)


def _sizes(ax, source, found) -> None:
    size, unit = found.grain_diameter_nm, "nm"
    if not np.isfinite(size).all():
        size, unit = 2 * np.sqrt(found.grain_size_px / np.pi), "px"
    if len(size):
        edges = np.linspace(0, 1.02 * size.max(), 16)
        ax.set_xlim(0, edges[-1])
        ax.hist(
            size, edges, weights=100 * found.grain_size_px / found.grain_size_px.sum(), color=SOURCE_COLOURS[source]
        )
    ax.set(title=f"{source}: grain size", xlabel=f"equivalent diameter ({unit})", ylabel="share of area (%)")


def _angles(ax, source, found, crystals) -> None:
    rng, edges = np.random.default_rng(SEED), np.arange(0, 186, 3.0)
    angle, phase = found.boundary_angle_deg, np.asarray(found.class_phase)[found.boundary_class]
    expected, known = np.zeros(len(edges) - 1), np.isfinite(angle)
    for k, crystal in enumerate(crystals):
        share = (phase == k).sum() / max(known.sum(), 1)
        drawn = np.histogram(angle_deg(random_turns(crystal, RANDOM, rng)), edges)[0] / RANDOM
        expected += 100 * share * drawn
    if known.any():
        ax.hist(angle[known], edges, weights=np.full(known.sum(), 100 / known.sum()), color=SOURCE_COLOURS[source])
        ax.plot((edges[1:] + edges[:-1]) / 2, expected, color=INK, lw=1.3, label="at random")
        ax.set_xlim(0, max(angle[known].max(), edges[1:][expected > 0].max()) + 2)
        ax.legend(loc="upper left")
    ax.set(title="boundary angle", xlabel="misorientation (°)", ylabel="share of segments (%)")


def _local(ax, source, found) -> None:
    top = _top(np.concatenate([found.kam_measured_deg.ravel(), found.kam_floor_deg.ravel()]))
    for values, colour, name in (
        (found.kam_measured_deg, SOURCE_COLOURS[source], "measured"),
        (found.kam_floor_deg, INK, "noise floor"),
    ):
        good = values[np.isfinite(values)].clip(0, top)
        if good.size:
            style = {"histtype": "stepfilled" if name == "measured" else "step", "color": colour, "label": name}
            ax.hist(good, np.linspace(0, top, 31), weights=np.full(good.size, 100 / good.size), **style)
    ax.set(title="local misorientation", xlabel="KAM (°)", ylabel="share of positions (%)", xlim=(0, top))
    if ax.has_data():
        ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend
        ax.legend(loc="upper right")


_STATISTICS_CAPTION = (
    "<b>Sizes, angles, noise.</b> Left: share of the area in grains of a diameter; grains cut by the edge of the scan "
    "count as they are seen. Middle: misorientation along boundaries beside what random orientations of the same "
    "phases give; a peak above the line is a special boundary (60° in cubic metals: twins) or an ambiguity of the "
    "index, an excess at small angles is sub-grains or grains broken up by noise. Right: local misorientation beside "
    "the floor that the scatter of the index alone would give; where the two lie on top of each other, the map of "
    "local misorientation shows noise."
)


@styled
def clean(sample):
    """Draw the map as indexed, after clean-up, and what clean-up changed."""
    columns = (maps.PLAIN, maps.PLAIN, maps.LEGEND)
    fig, axes = maps.panels(len(sample.grains), columns, sample.scan_shape, sample.step, width=2.2)
    for row, (source, found) in zip(axes, sample.grains.items(), strict=True):
        maps.show(
            row[0], ipf.colours(sample.orientation[source], sample.crystals, "z"), sample.step, f"{source}: as indexed"
        )
        cleaned = SimpleNamespace(orientation=found.orientation_clean, phase=found.phase_clean)
        maps.show(row[1], ipf.colours(cleaned, sample.crystals, "z"), sample.step, "after clean-up")
        picture = np.full((*found.changed.shape, 3), to_rgb("#eef0f2"))
        entries = (("filled", PALETTE[4], found.changed == 1), ("replaced", PALETTE[5], found.changed == 2))
        entries += (("no grain", MISSING, (found.grain_clean < 0)),)
        for name, colour, where in entries:
            picture[where] = to_rgb(colour)
            row[2].plot([], [], "s", color=colour, ms=7, label=f"{name} {100 * where.mean():.1f} %")
        maps.show(row[2], picture, sample.step, "changed")
        row[2].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), handletextpad=0.2)
    return save(fig, sample.figures, "grains_clean", _CLEAN_CAPTION)


_CLEAN_CAPTION = (
    "<b>Clean-up</b> (crystal direction along the beam, colours of the key above). Positions that belong to no grain "
    "take the orientation of the grain around them, if most of their neighbours agree; positions of a grain never "
    "change. It is a map of its own: <code>orientation_clean</code> with <code>changed</code>, beside the map as "
    "indexed. Much orange says that small features were taken for noise, or that there was more noise than map: "
    "statistics should not be drawn from what clean-up made."
)
