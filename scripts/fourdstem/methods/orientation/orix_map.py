"""Orientation maps as the tree of groups that `orix.io.load` reads from HDF5 as a CrystalMap."""

import dataclasses

import numpy as np
from diffpy.structure import Lattice

from fourdstem.calibration import Acquisition
from fourdstem.crystal import SYMBOLS, Crystal, conventional_rotation
from fourdstem.jit import alone

with alone():
    import orix
    from orix.quaternion import Rotation, symmetry

_MICROMETRE = 1e4  # Å
_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:olive")
_NOT_INDEXED = -1
# orix names its Laue groups for one choice of axes; of 2/m and -3m it has the rotations alone for the others.
_OTHER_AXES = (symmetry.C2x, symmetry.C2y, symmetry.D3y)


def orix_tree(result, crystals: list[Crystal], acquisition: Acquisition) -> dict:
    """Return a map as nested dicts, group by group, in the layout of orix's own HDF5 files.

    Parameters
    ----------
    result : Result
        Each of its maps (scan_y, scan_x) becomes a property of the CrystalMap.
    crystals : list of Crystal
        In the order of ``result.phase``, which is the phase id; -1 is not indexed.
    acquisition : Acquisition
        The scan step must be known; it is written in micrometre.

    Returns
    -------
    dict
        Leaves are arrays, numbers and strings. Crystal axes x ∥ a, z ∥ c* are orix's own. The point group is the
        Laue group; of a cell whose axes are not where orix puts them it is the group of rotations ("121" where
        the two-fold axis is b), and "1" where orix has none that fits.
    """
    ny, nx = result.phase.shape
    step_y, step_x = (float(step) / _MICROMETRE for step in acquisition.scan_step_angstrom)
    y, x = np.mgrid[:ny, :nx]
    data = {
        **{name: values.ravel() for name, values in _maps(result)},
        **_euler(result),
        "y": (y * step_y).ravel(),
        "x": (x * step_x).ravel(),
        "phase_id": result.phase.ravel().astype(np.int64),
        "id": np.arange(ny * nx),
        "is_in_data": np.ones(ny * nx, bool),
    }
    header = {"grid_type": "square", "ny": ny, "nx": nx, "y_step": step_y, "x_step": step_x}
    header |= {"rotations_per_point": 1, "scan_unit": "um"}
    header["phases"] = {str(k): _phase(crystal, _COLOURS[k % len(_COLOURS)]) for k, crystal in enumerate(crystals)}
    if (result.phase == _NOT_INDEXED).any():
        header["phases"][str(_NOT_INDEXED)] = _no_phase()
    return {"manufacturer": "orix", "version": orix.__version__, "crystal_map": {"data": data, "header": header}}


def _maps(result):
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if field.metadata["axes"] == ("scan_y", "scan_x") and field.name != "phase" and value is not None:
            yield field.name, np.asarray(value)


def _euler(result) -> dict:
    """Bunge angles in rad; 0 where not indexed."""
    angles = np.zeros((result.phase.size, 3))
    indexed = result.phase.ravel() >= 0
    if indexed.any():
        angles[indexed] = Rotation(result.orientation.reshape(-1, 4)[indexed].astype(float)).to_euler()
    return dict(zip(("phi1", "Phi", "phi2"), angles.T.copy(), strict=True))


def _phase(crystal: Crystal, colour: str) -> dict:
    atoms = zip(crystal.numbers, crystal.positions, crystal.occupancy, crystal.u_iso, strict=True)
    return {
        "name": crystal.name,
        "space_group": "None",
        "point_group": _point_group(crystal),
        "color": colour,
        "structure": {
            "lattice": {"abcABG": np.array(crystal.cell), "baserot": Lattice(base=crystal.lattice).baserot},
            "atoms": {  # HDF5 hands groups out by name, so that numbers need leading zeros to keep their order
                f"{k:06d}": {"element": SYMBOLS[z - 1], "label": "", "occupancy": share, "xyz": xyz, "U": u * np.eye(3)}
                for k, (z, xyz, share, u) in enumerate(atoms)
            },
        },
    }


def _no_phase() -> dict:
    lattice = {"abcABG": np.array([1.0, 1, 1, 90, 90, 90]), "baserot": np.eye(3)}
    nothing = {"name": "not_indexed", "space_group": "None", "point_group": "None", "color": "white"}
    return {**nothing, "structure": {"lattice": lattice, "atoms": {}}}


def _point_group(crystal: Crystal) -> str:
    group, turn = conventional_rotation(crystal)
    if np.allclose(turn, np.eye(3), atol=1e-6):
        return group.name
    for other in _OTHER_AXES:
        if other.size == len(crystal.operations) and _same(other.to_matrix(), crystal.operations):
            return other.name
    return "1"


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    gap = np.abs(first[:, None] - second[None]).max(axis=(2, 3))
    return bool((gap.min(axis=1) < 1e-3).all())
