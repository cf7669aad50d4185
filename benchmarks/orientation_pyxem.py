"""Index the patterns of a file with pyxem 0.21, for `orientation.py`: run with the Python of pyxem's environment.

    python orientation_pyxem.py INPUT.npz OUTPUT.npz SETTINGS_AS_JSON

Template matching is that of its tutorials: a polar transform by `get_azimuthal_integral2d(mean=True)`, a power of
pattern and templates, `get_orientation` over templates of `orix.sampling.get_sample_reduced_fundamental` in the
crystal's point group. Its vector matching is `match_vectors`, given the true places of the disks, so that no detection
costs time or errs; of equally many matched disks the smallest error decides.

Seconds are those of all patterns less those of the first few, so that compilation and preparation of the polar
transform do not count; the making of templates never does.
"""

import json
import sys
import time

import dask
import hyperspy.api as hs
import numpy as np
import pyxem
from diffpy.structure import Atom, Lattice, Structure
from diffsims.generators.library_generator import VectorLibraryGenerator
from diffsims.generators.simulation_generator import SimulationGenerator
from diffsims.libraries.structure_library import StructureLibrary
from orix.crystal_map import Phase
from orix.quaternion import Rotation
from orix.sampling import get_sample_reduced_fundamental
from pyxem.utils.indexation_utils import match_vectors
from pyxem.utils.vectors import detector_to_fourier

# From our lab frame to that of its rotations: both are right-handed, x and z are reversed.
TO_OURS = np.diag([-1.0, 1.0, -1.0])


def phase_of(data) -> Phase:
    """Return the crystal of the file."""
    atoms = [Atom(s, x) for s, x in zip(data["symbols"], data["positions"], strict=True)]
    cell = Lattice(*[float(data["lattice"])] * 3, 90, 90, 90)
    return Phase(name="crystal", space_group=int(data["space_group"]), structure=Structure(atoms, cell))


def templates(data, given: dict):
    """Simulate the templates of one setting."""
    phase = phase_of(data)
    rotations = get_sample_reduced_fundamental(resolution=given["sampling_deg"], point_group=phase.point_group)
    simulation = SimulationGenerator(200, "xtables", minimum_intensity=given["minimum_intensity"])
    found = simulation.calculate_diffraction2d(
        phase,
        rotation=rotations,
        max_excitation_error=given["max_excitation_error"],
        shape_factor_width=given["shape_factor_width"],
        reciprocal_radius=float(data["g_max"]),
        with_direct_beam=False,
    )
    for template in found.coordinates:
        template.intensity = template.intensity ** given["power"]
    return found


def index_templates(patterns, simulation, data, given: dict):
    """Index (1, n, y, x) patterns; return rotation matrices (n, 3, 3) in our frame, wall and processor seconds."""
    begin = time.perf_counter(), time.process_time()
    signal = pyxem.signals.Diffraction2D(patterns)
    signal.calibration(scale=float(data["pixel"]), units="A^-1")
    signal.calibration.center = None
    limits = (float(data["g_min"]), float(data["g_max"]))
    polar = signal.get_azimuthal_integral2d(
        npt=given["npt"], npt_azim=given["npt_azim"], radial_range=limits, mean=True, inplace=False
    )
    found = (polar ** given["power"]).get_orientation(simulation, frac_keep=given["frac_keep"], n_best=1)
    seconds = time.perf_counter() - begin[0], time.process_time() - begin[1]
    quaternion = np.asarray(found.to_rotation().data).reshape(-1, 4)
    return Rotation(quaternion).to_matrix() @ TO_OURS, *seconds


def index_vectors(disks, library, given: dict):
    """Match places of disks; return rotation matrices (n, 3, 3) in our frame, wall and processor seconds."""
    begin = time.perf_counter(), time.process_time()
    matrices = []
    for x, y in disks:
        vectors = detector_to_fourier(np.stack([x, y], -1), given["wavelength"], given["camera_length"])
        found = match_vectors(
            vectors,
            library,
            given["mag_tol"],
            np.deg2rad(given["angle_tol_deg"]),
            given["index_error_tol"],
            given["n_peaks_to_index"],
            given["n_best"],
        )[0]
        found = [solution for solution in found if solution is not None]  # too few disks: none
        best = min(found, key=lambda solution: (-solution.match_rate, solution.total_error), default=None)
        matrices.append(np.eye(3) if best is None else best.rotation_matrix)
    seconds = time.perf_counter() - begin[0], time.process_time() - begin[1]
    # Its Ewald sphere lies where ours does for y down: its frame is ours.
    return np.array(matrices), *seconds


def bright_disks(data, given: dict) -> list:
    """Return x and y, 1/Å, of the disks of each pattern that are bright enough to be found."""
    found = []
    for start, stop in zip(data["first"][:-1], data["first"][1:], strict=True):
        x, y, intensity = (data[key][start:stop] for key in ("x", "y", "intensity"))
        shown = (intensity > given["faintest"] * intensity.max()) & (np.hypot(x, y) < data["g_max"])
        found.append((x[shown], y[shown]))
    return found


def run(data, given: dict):
    """Return rotation matrices, number of templates, and wall and processor seconds per pattern of one setting."""
    few, repeat = int(data["few"]), int(data["repeat"])
    if given["method"] == "vectors":
        structures = StructureLibrary(["crystal"], [phase_of(data).structure], [[(0, 0, 0)]])
        work, everything = index_vectors, bright_disks(data, given)
        bank = VectorLibraryGenerator(structures).get_vector_library(float(data["g_max"]))
        size, options = len(bank["crystal"]["measurements"]), (bank, given)
        parts, count = (everything[:few], everything), len(everything)
    else:
        bank = templates(data, given)
        work, size, options = index_templates, bank.rotations.size, (bank, data, given)
        many = np.tile(data["patterns"], (repeat, 1, 1))[None]
        parts, count = (many[:, :few], many), many.shape[1]
    work(parts[0], *options)
    _, *short = work(parts[0], *options)
    matrices, *long = work(parts[1], *options)
    return matrices[: len(data["patterns"])], size, *(np.subtract(long, short) / (count - few))


def main() -> None:
    """Run every setting and write what it found."""
    dask.config.set(scheduler="single-threaded")
    hs.set_log_level("ERROR")
    hs.preferences.General.show_progressbar = False
    data = dict(np.load(sys.argv[1]))
    found = [run(data, given) for given in json.loads(sys.argv[3])]
    names = ("matrix", "templates", "wall", "processor")
    np.savez(sys.argv[2], **{name: np.array([row[i] for row in found]) for i, name in enumerate(names)})


if __name__ == "__main__":
    main()
