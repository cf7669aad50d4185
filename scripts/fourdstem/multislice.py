"""Atomic-resolution scans by abTEM: multislice with frozen phonons.

abTEM (Madsen & Susi, doi:10.12688/openreseurope.13015.2) lives in an environment of its own and is no part of the
product; it shares no code with the masks.
"""

import numpy as np

from fourdstem.errors import InputError
from fourdstem.specimens import VIBRATION_ANGSTROM, Specimen, grid, rebinned, specimen

SLICE_ANGSTROM = 2.0  # about; a whole number of slices makes a cell
FINEST_ANGSTROM = 0.147  # of the wave function: reaches 2.3 1/Å after the two-thirds rule
FAST = tuple(2**a * 3**b * 5**c for a in range(1, 10) for b in range(5) for c in range(3))  # quick to transform


def simulate(name: str, optics: dict, thickness_angstrom, seed: int) -> np.ndarray:
    """Simulate the scan of one cell with one configuration of phonons.

    Parameters
    ----------
    name : str
    optics : dict
        ``energy_kev``, ``convergence_mrad``, ``step_angstrom``, ``detector_px``, ``pixel_inv_angstrom``.
    thickness_angstrom : sequence of float
        Where the waves leave the specimen, ascending.
    seed : int
        Of the phonons.

    Returns
    -------
    ndarray of shape (thickness, scan_y, scan_x, detector_y, detector_x)
        float32; shares of the beam.

    Raises
    ------
    InputError
        If abTEM is not installed, or there is no such specimen.
    """
    abtem = _abtem()
    one = specimen(name)
    abtem.config.set({"device": "cpu", "fftw.threads": 1, "num_workers": 1, "dask.lazy": False})
    abtem.config.set({"diagnostics.progress_bar": False})
    potential = _potential(abtem, one, thickness_angstrom, seed)
    probe = abtem.Probe(energy=optics["energy_kev"] * 1e3, semiangle_cutoff=optics["convergence_mrad"])
    probe.grid.match(potential)
    detector = abtem.PixelatedDetector(max_angle="cutoff")
    count, out = grid(one, optics["step_angstrom"]), []
    for i in range(count[0]):  # a row at a time: what all positions need would not fit
        y = i * one.cell[1] / count[0]
        row = abtem.LineScan((one.scanned[0], y), (one.scanned[1], y), gpts=count[1], endpoint=False)
        seen = probe.multislice(potential, row, detectors=detector)
        out.append(rebinned(np.asarray(seen.array), seen.sampling, optics["detector_px"], optics["pixel_inv_angstrom"]))
    return np.stack(out, axis=1)


def _abtem():
    try:
        import abtem
    except ImportError:
        raise InputError(
            "no abTEM in this environment",
            where="simulate_atomic",
            expected="the environment of envs/multislice.yaml, which the product's own does not include",
            do="Run `snakemake simulate_atomic --sdm conda`.",
        ) from None
    return abtem


def _potential(abtem, one: Specimen, thickness_angstrom, seed: int):
    """Return the potential of a supercell with one configuration of phonons, left where the thicknesses are reached."""
    import ase

    layers = max(1, round(one.cell[2] / SLICE_ANGSTROM))
    cells = np.maximum(1, np.round(np.asarray(thickness_angstrom) / one.cell[2])).astype(int)
    atoms = ase.Atoms(one.element, positions=one.place, cell=one.cell, pbc=True) * (*one.repeat, int(cells[-1]))
    moved = np.random.default_rng(seed).normal(size=atoms.positions.shape)
    atoms.positions += moved * np.array([VIBRATION_ANGSTROM[e] for e in atoms.get_chemical_symbols()])[:, None]
    atoms.wrap()
    width = one.cell[:2] * one.repeat
    return abtem.Potential(
        atoms,
        gpts=tuple(min(n for n in FAST if n * FINEST_ANGSTROM >= w) for w in width),
        slice_thickness=one.cell[2] / layers,
        exit_planes=tuple(int(n) * layers - 1 for n in cells),
        parametrization="lobato",
        projection="infinite",
    ).build()
