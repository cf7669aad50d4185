"""Orientation maps as the text of an Oxford (HKL) channel text file, .ctf, for MTEX, AZtecCrystal and Channel 5.

The format has its own crystal axes. In .ang files, here and in orix, x ∥ a and z ∥ c*; in .ctf files x ∥ a* and
z ∥ c, for every symmetry. The two agree where all angles of the cell are 90°; in a hexagonal or trigonal cell they
are 30° apart about c, and Euler angles that are copied from one format to the other are wrong by as much.
"""

from io import StringIO

import numpy as np

from fourdstem.calibration import Acquisition
from fourdstem.crystal import Crystal
from fourdstem.jit import alone
from fourdstem.methods.orientation.rotations import from_matrix, multiply

with alone():
    from orix.quaternion import Rotation

_LAUE = ("-1", "2/m", "mmm", "4/m", "4/mmm", "-3", "-3m", "6/m", "6/mmm", "m-3", "m-3m")
# The format has no comments: what the numbers mean stands where Channel 5 keeps the name of its project.
_FRAME = (
    "fourdstem: sample axes x = scan_x, y = scan_y (down on screen), z = x cross y = along the beam, for X, Y and "
    "Euler angles alike; crystal axes x || a*, z || c; BC = 255 x correlation, BS = 2.55 x reliability, "
    "MAD and Bands are not measured (0), Error 3 = not indexed; lengths in micrometre"
)
_COLUMNS = "Phase\tX\tY\tBands\tError\tEuler1\tEuler2\tEuler3\tMAD\tBC\tBS\n"
_FORMAT = ("%d", "%.7f", "%.7f", "%d", "%d", "%.4f", "%.4f", "%.4f", "%.4f", "%d", "%d")
_MICROMETRE = 1e4  # Å


def hkl_axes(crystal: Crystal) -> np.ndarray:
    """(3, 3) rotation R from our crystal axes to those of .ctf: ``v_ctf = R v_crystal``; x ∥ a*, z ∥ c."""
    x = crystal.reciprocal[0] / np.linalg.norm(crystal.reciprocal[0])
    z = crystal.lattice[2] / np.linalg.norm(crystal.lattice[2])
    return np.array([x, np.cross(z, x), z])


def ctf_text(result, crystals: list[Crystal], acquisition: Acquisition) -> str:
    """Write an orientation map as channel text; the header states its frame.

    Parameters
    ----------
    result : Result
    crystals : list of Crystal
        In the order of ``result.phase``.
    acquisition : Acquisition
        The scan step must be known.

    Returns
    -------
    str
        One line per position, scan_x fastest. Not indexed: phase 0, Euler angles 0, error 3 ("no solution").
    """
    ny, nx = result.phase.shape
    step_y, step_x = (float(step) / _MICROMETRE for step in acquisition.scan_step_angstrom)
    indexed = float(np.mean(result.phase >= 0))
    header = [
        f"Channel Text File\nPrj\t{_FRAME}\nAuthor\tfourdstem\nJobMode\tGrid\n",
        f"XCells\t{nx}\nYCells\t{ny}\nXStep\t{step_x:.7f}\nYStep\t{step_y:.7f}\n",
        "AcqE1\t0\nAcqE2\t0\nAcqE3\t0\n",
        f"Euler angles refer to Sample Coordinate system (CS0)!\tMag\t0\tCoverage\t{100 * indexed:.0f}\tDevice\t0\t",
        f"KV\t{acquisition.beam_energy_kev or 0:g}\tTiltAngle\t0\tTiltAxis\t0\n",
        f"Phases\t{len(crystals)}\n",
        *(_phase_line(crystal) for crystal in crystals),
        _COLUMNS,
    ]
    body = StringIO()
    np.savetxt(body, _table(result, crystals, step_y, step_x), fmt=_FORMAT, delimiter="\t")
    return ("".join(header) + body.getvalue()).replace("\n", "\r\n")  # as Oxford's programs write it


def _phase_line(crystal: Crystal) -> str:
    lengths, angles = (";".join(f"{value:.4f}" for value in part) for part in (crystal.cell[:3], crystal.cell[3:]))
    laue = _LAUE.index(crystal.laue_class) + 1
    return f"{lengths}\t{angles}\t{crystal.name}\t{laue}\t{crystal.space_group}\t\t\tfourdstem\n"


def _table(result, crystals: list[Crystal], step_y: float, step_x: float) -> np.ndarray:
    ny, nx = result.phase.shape
    phase, orientation = result.phase.ravel(), result.orientation.reshape(-1, 4)
    euler = np.zeros((ny * nx, 3))
    for number, crystal in enumerate(crystals):
        here = phase == number
        if here.any():
            turned = multiply(from_matrix(hkl_axes(crystal)), orientation[here].astype(float))
            euler[here] = Rotation(turned).to_euler(degrees=True)
    y, x = np.mgrid[:ny, :nx]
    nothing = np.zeros(ny * nx)
    correlation, reliability = (np.nan_to_num(v.ravel()) for v in (result.correlation, result.reliability))
    return np.column_stack(
        [
            np.where(phase >= 0, phase + 1, 0),
            x.ravel() * step_x,
            y.ravel() * step_y,
            nothing,
            np.where(phase >= 0, 0, 3),
            euler,
            nothing,
            np.clip(np.round(255 * correlation), 0, 255),
            np.where(phase >= 0, np.clip(np.round(2.55 * reliability), 0, 255), 0),
        ]
    )
