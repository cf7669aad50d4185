"""Inverse pole figure colours by orix, for a crystal in any setting."""

import base64
from io import BytesIO

import numpy as np
from matplotlib.image import imsave

from fourdstem.crystal import conventional_rotation
from fourdstem.figures.style import MISSING
from fourdstem.jit import alone

with alone():
    from orix.plot import DirectionColorKeyTSL
    from orix.quaternion import Rotation
    from orix.vector import Vector3d

AXES = {"z": (0.0, 0.0, 1.0), "x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0)}


def colours(result, crystals, axis: str) -> np.ndarray:
    """Return RGB (scan_y, scan_x, 3) of the crystal direction along a lab axis; grey where not indexed.

    Parameters
    ----------
    result : orientation.Result
    crystals : list of Crystal
        In the order of the phase index; each phase is coloured by the key of its own Laue group.
    axis : {"x", "y", "z"}
    """
    grey = [int(MISSING[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    rgb = np.full((*result.phase.shape, 3), grey)
    for phase, crystal in enumerate(crystals):
        here = (result.phase == phase) & np.isfinite(result.orientation).all(axis=-1)
        if here.any():
            symmetry, turn = conventional_rotation(crystal)
            matrices = Rotation(result.orientation[here].astype(float)).to_matrix()
            directions = matrices @ np.array(AXES[axis]) @ turn.T
            rgb[here] = DirectionColorKeyTSL(symmetry).direction2color(Vector3d(directions))
    return np.clip(rgb, 0, 1)


def keys(fig, column, crystals) -> None:
    """Draw the colour key of every crystal's Laue group, one below the other, into a column of axes."""
    low, high = column[-1].get_position(), column[0].get_position()
    height = (high.y1 - low.y0) / max(len(crystals), 1)
    tall = min(height, 1.9 / fig.get_figheight())
    for k, crystal in enumerate(crystals):
        symmetry, _ = conventional_rotation(crystal)
        middle = high.y1 - (k + 0.5) * height
        place = [low.x0, middle - 0.4 * tall, low.width, 0.66 * tall]
        ax = fig.add_axes(place, projection="ipf", symmetry=symmetry)
        ax.plot_ipf_color_key(show_title=False)
        ax.set_title(f"{crystal.name} ({symmetry.name})", loc="center", pad=16)
        for text in ax.texts:
            text.set_fontsize(8.5)


def png_base64(rgb: np.ndarray) -> str:
    """Return an RGB picture (y, x, 3), one pixel per position, as a base64 PNG for a page."""
    buffer = BytesIO()
    imsave(buffer, (255 * rgb).round().astype(np.uint8), format="png", metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()
