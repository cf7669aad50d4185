"""Orientation maps as the text of a TSL .ang file, for MTEX, OIM Analysis and orix."""

from io import StringIO

import numpy as np

from fourdstem.crystal import Crystal
from fourdstem.jit import alone

with alone():
    from orix.quaternion import Rotation

_SYMMETRY = {
    "-1": "1",
    "2/m": "20",
    "mmm": "22",
    "4/m": "4",
    "4/mmm": "42",
    "-3": "3",
    "-3m": "32",
    "6/m": "6",
    "6/mmm": "62",
    "m-3": "23",
    "m-3m": "43",
}
_FRAME = """\
# NOTES Start
# Euler angles (Bunge: phi1, Phi, phi2, rad) turn the lab frame into the crystal frame. Lab: x along +x of this
# map, y along +y (down on screen), z = x cross y = direction in which electrons travel. Crystal: e1 || a,
# e3 || c*. Positions and Euler angles share one frame: choose an import that converts neither (MTEX: no
# 'convertEuler2SpatialReferenceFrame' and no 'convertSpatial2EulerReferenceFrame'; in OIM no rotation on import).
# MTEX takes x || a* for monoclinic cells: hand it crystalSymmetry(..., 'X||a', 'Z||c*') there.
# image_quality = 100 x correlation; confidence_index = reliability / 100, -1 where not indexed. Lengths: micrometre.
# NOTES End
"""
_COLUMNS = (
    "# Column names: phi1, Phi, phi2, x, y, image_quality, confidence_index, phase_id, detector_signal, pattern_fit\n"
)
_MICROMETRE = 1e4  # Å


def ang_text(result, crystals: list[Crystal], scan_step: tuple[float, float]) -> str:
    """Write an orientation map as TSL .ang text; the header states its frame.

    Parameters
    ----------
    result : Result
    crystals : list of Crystal
        In the order of ``result.phase``.
    scan_step : tuple of float
        Å along scan_y and scan_x.

    Returns
    -------
    str
        One line per position, scan_x fastest. Not indexed: Euler angles 4 pi, confidence index -1, pattern fit
        180, phase 0 (-1 in a map of one phase), the convention of OIM that orix and MTEX read.
    """
    ny, nx = result.phase.shape
    step_y, step_x = (float(step) / _MICROMETRE for step in scan_step)
    header = "".join(
        [
            "# TEM_PIXperUM           1.000000\n# x-star                 0.000000\n# y-star                 0.000000\n",
            "# z-star                 0.000000\n# WorkingDistance        0.000000\n#\n",
            # OIM Analysis reads phases in reverse order.
            *(_phase_block(number, crystals[number - 1]) for number in range(len(crystals), 0, -1)),
            _FRAME,
            f"# GRID: SqrGrid\n# XSTEP: {step_x:.7f}\n# YSTEP: {step_y:.7f}\n",
            f"# NCOLS_ODD: {nx}\n# NCOLS_EVEN: {nx}\n# NROWS: {ny}\n#\n",
            "# OPERATOR: fourdstem\n#\n# SAMPLEID:\n#\n# SCANID:\n#\n",
            _COLUMNS,
        ]
    )
    body = StringIO()
    np.savetxt(body, _table(result, step_y, step_x), fmt="%9.5f %9.5f %9.5f %12.7f %12.7f %8.3f %7.4f %2d %d %d")
    return header + body.getvalue()


def _phase_block(number: int, crystal: Crystal) -> str:
    constants = " ".join(f"{value:.4f}" for value in crystal.cell)
    return (
        f"# Phase {number}\n# MaterialName    {crystal.name}\n# Formula    {crystal.name}\n# Info\n"
        f"# Symmetry    {_symmetry(crystal)}\n# LatticeConstants    {constants}\n# NumberFamilies    0\n#\n"
    )


def _symmetry(crystal: Crystal) -> str:
    """TSL's code of the rotation group; "20" is a two-fold axis along b, "2" along c."""
    along_c = crystal.laue_class == "2/m" and np.allclose(crystal.operations[:, 2, 2], 1, atol=1e-3)
    return "2" if along_c else _SYMMETRY[crystal.laue_class]


def _table(result, step_y: float, step_x: float) -> np.ndarray:
    ny, nx = result.phase.shape
    indexed = result.phase.ravel() >= 0
    euler = np.full((ny * nx, 3), 4 * np.pi)
    quaternion = result.orientation.reshape(-1, 4)[indexed].astype(float)
    if indexed.any():
        euler[indexed] = Rotation(quaternion).to_euler()
    y, x = np.mgrid[:ny, :nx]
    missing = 0 if len(result.phase_name) > 1 else -1
    return np.column_stack(
        [
            euler,
            x.ravel() * step_x,
            y.ravel() * step_y,
            np.where(indexed, 100 * np.nan_to_num(result.correlation.ravel()), 0),
            np.where(indexed, np.nan_to_num(result.reliability.ravel()) / 100, -1),
            np.where(indexed, result.phase.ravel() + 1, missing),
            np.zeros(ny * nx),
            np.where(indexed, 0, 180),
        ]
    )
