"""Figures of the study of simulated specimens: contrast to noise by thickness and dose, vacancies, a domain wall."""

import numpy as np
from matplotlib.figure import Figure as Canvas

from fourdstem.figures.style import FAINT, INK, PALETTE, save, styled

OURS = {"mask": PALETTE[0], "partial mask": PALETTE[4], "joined mask": PALETTE[5], "joined partial mask": PALETTE[1]}
LIMIT = "limit of masks"
SPECIES = ("Fe", "P", "O", "Li")
FAILED = 3.0  # contrast to noise below which an image is taken to have failed


def draw(rows, wall_rows, folder) -> list:
    """Draw the figures of the study into a folder.

    Parameters
    ----------
    rows : list of tuple
        By `examine.COLUMNS`.
    wall_rows : list of tuple
        By `examine.WALL_COLUMNS`.
    folder : Path
    """
    return [_thickness(rows, folder), _dose(rows, folder), _talk(rows, folder), _wall(wall_rows, folder)]


def _table(rows, metric: str, specimen: str = "lifepo4") -> dict:
    return {(row[1], row[2], row[3], row[4]): row[6] for row in rows if row[0] == specimen and row[5] == metric}


def _classical(table: dict) -> list[str]:
    return [n for n in dict.fromkeys(key[3] for key in table) if n not in OURS and n != LIMIT]


def _series(table: dict, along: list, key, names: list[str]) -> np.ndarray:
    """Return the largest of some images' values at each place along an axis; NaN where there is none."""
    found = [[table.get(key(place, name), np.nan) for name in names] for place in along]
    return np.array([max((v for v in row if np.isfinite(v)), default=np.nan) for row in found])


@styled
def _thickness(rows, folder):
    """Draw contrast to noise against thickness at the highest dose, one panel per species."""
    table = _table(rows, "contrast_to_noise")
    dose = max(key[1] for key in table)
    return _panels(table, "thickness / nm", 0.1, lambda t: (t, dose), folder, "atomic_thickness", log=False)


@styled
def _dose(rows, folder):
    """Draw contrast to noise against dose at the largest thickness."""
    table = _table(rows, "contrast_to_noise")
    thick = max(key[0] for key in table)
    refused = [row[2] for row in rows if row[:2] == ("lifepo4", thick) and row[5] == "refused"]
    return _panels(table, "electrons per pattern", 1.0, lambda d: (thick, d), folder, "atomic_dose", True, refused)


def _panels(table: dict, label: str, scale: float, fixed, folder, name: str, log: bool, refused=()):
    along = sorted({key[1 if log else 0] for key in table})
    fig = Canvas(figsize=(9.6, 2.9), layout="constrained")
    for ax, species in zip(fig.subplots(1, len(SPECIES)), SPECIES, strict=True):

        def key(place, image, species=species):
            return (*fixed(place), species, image)

        for image, colour in OURS.items():
            values = _series(table, along, key, [image])
            ax.plot(np.array(along) * scale, values, "o-", ms=3.5, lw=1.2, color=colour, label=image)
        best = _series(table, along, key, _classical(table))
        ax.plot(np.array(along) * scale, best, "s--", ms=3.5, lw=1.2, color=INK, label="best classical image")
        bound = _series(table, along, key, [LIMIT])
        ax.plot(np.array(along) * scale, bound, ":", lw=1.2, color=FAINT, label="limit of masks of one position")
        ax.set(title=species, xlabel=label)
        ax.set_ylim(0.7 if log else 0, None)
        if log:
            ax.set(xscale="log", yscale="log")
            ax.axhline(FAILED, lw=0.6, color=FAINT)
            if refused:
                ax.plot(refused, np.full(len(refused), 1.0), "x", ms=5, color=INK, label="no lattice found")
        ax.spines[["top", "right"]].set_visible(False)
    fig.axes[0].set_ylabel("contrast to counting noise")
    fig.legend(*fig.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7, fontsize=7)
    return save(fig, folder, name, _CAPTIONS[name])


@styled
def _talk(rows, folder):
    """Draw how an image correlates with its own template and with the worst of the others, by thickness."""
    own, other = _table(rows, "own"), _table(rows, "cross_talk")
    dose = max(key[1] for key in own)
    along = sorted({key[0] for key in own})
    ways = {**OURS, "integrated_centre_of_mass": FAINT, "annular_dark_field": INK, "bright_field": PALETTE[2]}
    fig = Canvas(figsize=(9.6, 3.0), layout="constrained")
    for ax, species in zip(fig.subplots(1, len(SPECIES), sharey=True), SPECIES, strict=True):
        for image, colour in ways.items():
            x = [abs(other.get((t, dose, species, image), np.nan)) for t in along]
            y = [abs(own.get((t, dose, species, image), np.nan)) for t in along]
            name = image.replace("_", " ")
            ax.plot(x, y, "-", lw=0.8, color=colour)
            ax.scatter(x, y, s=[8 + 10 * i for i in range(len(along))], color=colour, label=name)
        ax.plot([0, 1], [0, 1], ":", lw=0.8, color=FAINT)
        ax.set(title=species, xlabel="|r| with the worst other", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    fig.axes[0].set_ylabel("|r| with its own template")
    fig.legend(*fig.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7)
    return save(fig, folder, "atomic_talk", _CAPTIONS["atomic_talk"])


@styled
def _wall(rows, folder):
    """Draw shifts across the wall as found and in truth, one panel per species, a colour per thickness."""
    species = list(dict.fromkeys(row[1] for row in rows))
    fig = Canvas(figsize=(3.7 * len(species), 3.0), layout="constrained")
    for ax, name in zip(np.atleast_1d(fig.subplots(1, len(species))), species, strict=True):
        mine = [row for row in rows if row[1] == name]
        for i, thick in enumerate(sorted({row[0] for row in mine})):
            x, many, found, _, scatter, true = np.array([row[2:8] for row in mine if row[0] == thick], float).T
            error = np.nan_to_num(scatter) / np.sqrt(np.maximum(many, 1))
            label = f"{thick / 10:g} nm"
            ax.errorbar(x, 100 * found, 100 * error, fmt="o", ms=3, lw=0.8, color=PALETTE[i], label=label)
        order = np.argsort(x)
        ax.plot(x[order], 100 * true[order], ".", ms=9, mfc="none", mec=INK, label="truth")
        ax.axhline(0, lw=0.6, color=FAINT)
        title = name if " " in name else f"{name} columns"
        ax.set(title=title, xlabel="distance across the wall / Å", ylabel="shift along c / pm")
        ax.spines[["top", "right"]].set_visible(False)
    fig.axes[-1].legend()
    return save(fig, folder, "atomic_wall", _CAPTIONS["atomic_wall"])


_CAPTIONS = {
    "atomic_thickness": (
        "Contrast to counting noise of each species in simulated scans of LiFePO4 [010] at the highest dose, against "
        "thickness. The dotted line is what no mask that looks at one position at a time can exceed; integrals of "
        "deflections and joined masks draw on neighbours."
    ),
    "atomic_dose": (
        "The same at the largest thickness against dose. Crosses: no lattice stands above noise in the image to which "
        "the crystal is registered, so that there is no template. The thin line is a contrast of three times the noise."
    ),
    "atomic_talk": (
        "Correlation of each image with its own template (up) and, of the other species' templates, with the one that "
        "it resembles most (right), at the highest dose; larger dots are thicker. Above the dotted line an image "
        "shows its own species more than any other."
    ),
    "atomic_wall": (
        "Shifts of columns across a 180° wall of lead titanate, found in images by masks that were learned in the "
        "domain at the right, against the truth; “O against Pb”: how far oxygen lies from the middle of its two leads, "
        "a measure of the polarisation. Dots are means over columns that repeat along the wall, bars their "
        "standard error."
    ),
}
