"""The drawing of docs/frames.md: lab, detector and crystal axes, with a real pattern in them."""

import numpy as np
from matplotlib import pyplot
from matplotlib.patches import Arc, Polygon

from fourdstem.calibration import Acquisition
from fourdstem.crystal import Crystal, make_crystal
from fourdstem.figures.style import FAINT, INK, PALETTE, save, styled
from fourdstem.geometry import corrected_to_recorded
from fourdstem.methods.orientation import template_pattern

# The orientation worked by hand in docs/frames.md; its matrix has no digits beyond the second.
WORKED = np.array([0.4, 0.8, 0.2, 0.4])
_KNOWN = Acquisition(beam_energy_kev=200, convergence_mrad=1.5, detector_pixel_inv_angstrom=0.0203)
_SIZE = 129
_ROTATION_DEG = 35.0
_LAB, _DETECTOR, _CTF = PALETTE[0], PALETTE[5], PALETTE[2]


def titanium() -> Crystal:
    """The hexagonal crystal of docs/frames.md."""
    sites = [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
    return make_crystal("titanium", (2.95, 2.95, 4.68, 90, 90, 120), ["Ti", "Ti"], sites)


@styled
def frames(folder):
    """Draw the four frames into ``<folder>/frames.png`` and ``.pdf``."""
    fig, axes = pyplot.subplots(2, 2, figsize=(8.4, 8.4), layout="constrained")
    for ax, draw in zip(axes.flat, (_scan, _recorded, _corrected, _crystal), strict=True):
        ax.set_aspect("equal")
        ax.axis("off")
        draw(ax)
    return save(fig, folder, "frames", "Lab, detector and crystal axes.")


def _arrow(ax, start, vector, text, colour, nudge=(0.0, 0.0)) -> None:
    """An arrow with a name beyond its tip; y counts down in every panel but the crystal's."""
    start, vector = np.array(start, float), np.array(vector, float)
    style = {"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", start + vector, start, arrowprops=style)
    place = start + vector + 0.1 * vector / np.linalg.norm(vector) + nudge
    ax.text(*place, text, color=colour, ha="center", va="center")


def _into_page(ax, place, text) -> None:
    ax.plot(*place, "o", ms=11, mfc="white", mec=_LAB, mew=1.4)
    ax.plot(*place, "x", ms=7, mec=_LAB, mew=1.4)
    ax.text(place[0] - 0.08, place[1] - 0.2, text, color=_LAB, ha="center", va="center")


def _frame(ax, title, x_limits=(-1.3, 1.3), y_limits=(1.45, -1.15)) -> None:
    ax.set_title(title)
    ax.set_xlim(*x_limits)
    ax.set_ylim(*y_limits)


def _angle(ax, radius, first_deg, last_deg, text, colour, place_deg=None) -> None:
    ax.add_patch(Arc((0, 0), 2 * radius, 2 * radius, theta1=first_deg, theta2=last_deg, color=colour, lw=1.2))
    middle = np.deg2rad((first_deg + last_deg) / 2 if place_deg is None else place_deg)
    ax.text(
        1.38 * radius * np.cos(middle), 1.38 * radius * np.sin(middle), text, color=colour, ha="center", va="center"
    )


def _scan(ax) -> None:
    _frame(ax, "scan and lab, seen along the beam", (-0.75, 1.65), (1.85, -0.55))
    y, x = np.mgrid[0:1.2:6j, 0:1.2:6j]
    ax.plot(x.ravel(), y.ravel(), ".", color=FAINT, ms=4)
    _arrow(ax, (0, 0), (1.3, 0), "x = scan_x", _LAB, (0.02, -0.12))
    _arrow(ax, (0, 0), (0, 1.3), "y = scan_y", _LAB, (0.0, 0.03))
    _into_page(ax, (0, 0), "z, into the page:\nthe way electrons go")
    ax.text(0.72, 1.36, "positions [y, x]", color=FAINT, ha="center")


def _recorded(ax) -> None:
    _frame(ax, f"recorded pattern: scan_rotation_deg = {_ROTATION_DEG:.0f}")
    # What is recorded is the corrected pattern turned back: R(-rotation).
    matrix = corrected_to_recorded(1.0, 0.0, _ROTATION_DEG, False)[::-1, ::-1]  # here x comes first
    _disks(ax, matrix)
    _arrow(ax, (0, 0), (1, 0), "detector_x", _DETECTOR, (0.02, 0.12))
    _arrow(ax, (0, 0), (0, 1), "detector_y", _DETECTOR, (-0.28, -0.08))
    for vector, text in (((1, 0), "x"), ((0, 1), "y")):
        _arrow(ax, (0, 0), 0.9 * matrix @ vector, text, _LAB)
    _angle(ax, 0.42, -_ROTATION_DEG, 0, f"{_ROTATION_DEG:.0f}°", INK)
    _note(ax, "turning the image by +rotation, x towards y,\nlays its axes along the scan; flip comes before")


def _corrected(ax) -> None:
    _frame(ax, "corrected pattern: titanium as worked below")
    spots = _disks(ax, np.eye(2))
    _arrow(ax, (0, 0), (1, 0), "x", _LAB)
    _arrow(ax, (0, 0), (0, 1), "y", _LAB, (-0.09, -0.1))
    x, y = spots[0, :2]
    ax.plot([0, x], [0, y], "--", color=INK, lw=1)
    ax.text(x + 0.03, y - 0.12, "11$\\bar{2}$0", ha="center")
    angle = np.rad2deg(np.arctan2(y, x))
    _angle(ax, 0.42, angle, 0, f"{angle:.1f}°", INK)
    _note(ax, "disk g at beam + (g_y, g_x) / pixel;\nin-plane angles count from +x towards +y (down)")


def _note(ax, text) -> None:
    ax.text(0, 1.2, text, color=FAINT, ha="center", va="top", fontsize=7.5)


def _disks(ax, matrix) -> np.ndarray:
    """Draw the pattern, 1/Å times 1.25; return x, y and intensity of its reflections."""
    found = template_pattern(titanium(), WORKED, _KNOWN, (_SIZE, _SIZE))
    offset = (found[:, 1::-1] - (_SIZE - 1) / 2) * _KNOWN.detector_pixel_inv_angstrom * 1.25
    shown = (found[:, 2] > 0.004) & (np.abs(offset) < 1.05).all(axis=1)
    place = offset[shown] @ matrix.T
    ax.scatter(
        *place.T, s=60, c=found[shown, 2] ** 0.25, cmap="Greys", vmin=0, vmax=1.1, edgecolors=FAINT, linewidths=0.5
    )
    ax.scatter(0, 0, s=70, color=INK)
    return np.column_stack([place, found[shown, 2]])


def _crystal(ax) -> None:
    _frame(ax, "hexagonal crystal, seen from +c", y_limits=(-1.3, 1.3))
    corners = np.deg2rad(60 * np.arange(6))
    ax.add_patch(Polygon(0.8 * np.column_stack([np.cos(corners), np.sin(corners)]), fill=False, ec=FAINT, lw=0.8))
    crystal = titanium()
    star = crystal.reciprocal[0, :2] / np.linalg.norm(crystal.reciprocal[0])
    b = crystal.lattice[1, :2] / np.linalg.norm(crystal.lattice[1])
    _arrow(ax, (0, 0), (0.95, 0), "a ∥ e1\n.ang, HDF5: x", _LAB, (0.02, -0.16))
    _arrow(ax, (0, 0), 0.95 * star, "a*\n.ctf: x", _CTF, (0.06, 0.06))
    _arrow(ax, (0, 0), 0.95 * b, "b\n.ctf: y", _CTF, (-0.06, 0.08))
    _arrow(ax, (0, 0), (0, 0.95), "e2\n.ang, HDF5: y", _LAB, (0.12, 0.08))
    ax.plot(0, 0, "o", ms=10, mfc="white", mec=INK)
    ax.plot(0, 0, ".", color=INK)
    ax.text(-0.08, -0.16, "c ∥ c* ∥ e3", ha="right")
    _angle(ax, 0.5, 0, 30, "30°", INK)
