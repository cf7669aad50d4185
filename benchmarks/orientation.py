"""Orientation mapping beside pyxem and py4DSTEM: the same patterns, one run, one thread each, settings in print.

Make two environments, ``pip install "pyxem==0.21.*" "zarr<3"`` and ``pip install py4DSTEM==0.14.18 "numpy<2"
"scikit-learn<1.5"``, and give their Pythons:

    OMP_NUM_THREADS=1 PYTHONPATH=scripts python benchmarks/orientation.py --rival-pyxem PY --rival-py4dstem PY

The patterns are by diffsims, which also makes the templates of pyxem: ideal, kinematical, without direct beam. All
sample zone axes by one degree. Each library matches with all its templates and with the shorter search that it offers;
the settings of the rivals are those that did best of those tried on such patterns (powers of intensity, number of bins,
faintest reflection, kernel and reach of excitation errors). Times are per pattern: those of many patterns less those of
a few, so that compilation, templates and the preparation of polar transforms do not count, while transform, search and
refinement do. Ours are 1,000 and 3,000: what is done once a map, templates and the camera length from 400 patterns, is
in both and printed beside. On a busy machine trust the processor times.

*Of six*: patterns with at least six disks of 1 % of the brightest. *Identifiable*: those of them that no orientation
more than 3° away makes as well. Each of our candidates there is turned to where its pattern, by diffsims, is most like
the given one, where it begins above 0.9; above 0.99 it is as well. Likeness: cosine of the amplitudes I^0.25 of disks,
common parts of disks counted.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from diffpy.structure import Atom, Lattice, Structure
from diffsims.generators.simulation_generator import SimulationGenerator
from orix.crystal_map import Phase
from orix.quaternion import Rotation
from scipy.spatial.transform import Rotation as Turn

from fourdstem.calibration import Acquisition
from fourdstem.crystal import make_crystal
from fourdstem.cube import Cube
from fourdstem.methods import orientation

HERE = Path(__file__).resolve().parent
SIZE, PIXEL, SEED, FEW = 128, 0.0203, 5, 32
FEW_OURS, MANY_OURS = 1000, 3000
OPTICS = Acquisition(
    beam_energy_kev=200, convergence_mrad=1.0, scan_step_angstrom=(20, 20), detector_pixel_inv_angstrom=PIXEL
)
RADIUS = 1e-3 / OPTICS.wavelength_angstrom / PIXEL
G_MIN, G_MAX = (1.5 * RADIUS + 1) * PIXEL, (SIZE - 1) / 2 * PIXEL
FCC = [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
DIAMOND = [*FCC, *(tuple(x + 0.25 for x in site) for site in FCC)]
CRYSTALS = {"Si": (5.431, "Si", DIAMOND, 227), "Au": (4.0782, "Au", FCC, 225)}
# Relrods of diffsims are 1 / (1 + (π s 100 Å)²) at its width of 0.01 1/Å, ours 1 / (1 + 2 (π s t)²): this is t, Å.
THICKNESS = 100 / np.sqrt(2)
# diffsims lets electrons travel along -z with y up; ours travel along +z with y down.
TO_DIFFSIMS = np.diag([1.0, -1.0, -1.0])
ALIKE, FAR_DEG, CANDIDATES = 0.99, 3.0, 5

TEMPLATE = {
    "method": "templates",
    "sampling_deg": 1.0,
    "minimum_intensity": 1e-4,
    "max_excitation_error": 0.1,
    "shape_factor_width": 0.01,
    "power": 0.35,
    "npt": 128,
    "npt_azim": 360,
    "frac_keep": 1.0,
}
VECTORS = {
    "method": "vectors",
    "faintest": 0.05,
    "mag_tol": 0.02,
    "angle_tol_deg": 1.5,
    "index_error_tol": 0.1,
    "n_peaks_to_index": 10,
    "n_best": 20,
    "wavelength": OPTICS.wavelength_angstrom,
    "camera_length": 0.2,
}
PYXEM = {
    "all templates": TEMPLATE,
    "a tenth matched fully": TEMPLATE | {"npt": 64, "frac_keep": 0.1},
    "vectors, true disks": VECTORS,
}
FULL = {"angle_step_zone_axis": 1.0, "angle_step_in_plane": 1.0}
COARSE = FULL | {"angle_coarse_zone_axis": 3.0, "angle_refine_range": 3.0}
FOUND = {
    "kernel": "sigmoid",
    "corrPower": 1.0,
    "sigma_cc": 1.0,
    "minRelativeIntensity": 5e-4,
    "minPeakSpacing": 4,
    "edgeBoundary": 2,
    "maxNumPeaks": 100,
    "subpixel": "poly",
}
PY4DSTEM = {
    "all zone axes, true disks": {"plan": FULL, "detect": None, "faintest": 1e-3},
    "3° refined to 1°, true disks": {"plan": COARSE, "detect": None, "faintest": 1e-3},
    "3° refined to 1°, found disks": {"plan": COARSE, "detect": FOUND},
}


def simulate(name: str, quaternions: np.ndarray) -> list[np.ndarray]:
    """Return the reflections of each orientation by diffsims, (n, 3): x and y in 1/Å, y down, and intensity."""
    a, symbol, sites, _ = CRYSTALS[name]
    structure = Structure([Atom(symbol, site) for site in sites], Lattice(a, a, a, 90, 90, 90))
    rotations = Rotation.from_matrix(Rotation(quaternions).to_matrix() @ TO_DIFFSIMS)
    found = SimulationGenerator(200, "xtables", minimum_intensity=1e-6).calculate_diffraction2d(
        Phase(name=name, space_group=1, structure=structure),
        rotations,
        reciprocal_radius=1.45 * G_MAX,
        with_direct_beam=False,
        max_excitation_error=0.2,
        shape_factor_width=0.01,
    )
    lists = found.coordinates if len(quaternions) > 1 else [found.coordinates]
    return [np.column_stack([c.data[:, 0], -c.data[:, 1], c.intensity]) for c in lists]


def draw(reflections: np.ndarray) -> np.ndarray:
    """Return a pattern of disks with smooth edges."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    distance = np.hypot(x - reflections[:, 0, None, None] / PIXEL, y - reflections[:, 1, None, None] / PIXEL)
    disk = 1 / (1 + np.exp(np.minimum(4 * (distance - RADIUS), 50)))
    return (1e4 / reflections[:, 2].max() * reflections[:, 2, None, None] * disk).sum(axis=0).astype(np.float32)


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Return the cosine of two lists of reflections."""
    shown = [r[(np.hypot(r[:, 0], r[:, 1]) > G_MIN) & (np.hypot(r[:, 0], r[:, 1]) < G_MAX)] for r in (first, second)]
    product = [[_overlap(a, b) for b in shown] for a in shown]
    return product[0][1] / np.sqrt(max(product[0][0] * product[1][1], 1e-30))


def _overlap(a, b) -> float:
    """Return the sum over pairs of amplitudes times the common part of their disks."""
    apart = np.hypot(a[:, None, 0] - b[:, 0], a[:, None, 1] - b[:, 1]) / (2 * RADIUS * PIXEL)
    apart = np.minimum(apart, 1)
    common = 2 / np.pi * (np.arccos(apart) - apart * np.sqrt(1 - apart**2))
    return float((a[:, None, 2] ** 0.25 * b[:, 2] ** 0.25 * common).sum())


def most_alike(name: str, pattern: np.ndarray, quaternion: np.ndarray) -> float:
    """Return the largest likeness found by turning an orientation step by step, up to half a degree at a time."""
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    turn, step = Turn.from_quat(np.roll(quaternion, -1)), 0.4
    best = likeness(pattern, simulate(name, quaternion[None])[0])
    while step > 0.04 and best > 0.9 and best <= ALIKE:
        trials = turn * Turn.from_rotvec(np.deg2rad(step) * axes)
        values = [likeness(pattern, r) for r in simulate(name, np.roll(trials.as_quat(), 1, axis=1))]
        if max(values) > best:
            turn, best = trials[int(np.argmax(values))], max(values)
        else:
            step /= 2
    return best


def identifiable(name: str, crystal, truth, reflections, candidates) -> np.ndarray:
    """Tell which patterns none of the candidates far from the truth makes as well."""
    apart = orientation.misorientation_deg(candidates, truth[:, None], crystal)
    out = np.ones(len(truth), bool)
    for i, c in np.argwhere(np.nan_to_num(apart) > FAR_DEG):
        out[i] = out[i] and most_alike(name, reflections[i], candidates[i, c].astype(float)) <= ALIKE
    return out


def index(crystal, patterns: np.ndarray):
    """Return our result, wall and processor seconds per pattern, and those once a map."""
    params = orientation.Params(thickness_angstrom=THICKNESS, intensity="kinematical", candidates=CANDIDATES)
    times, many = [], patterns[None, np.arange(MANY_OURS) % len(patterns)]
    for part in (many[:, :FEW], many[:, :FEW_OURS], many):
        begin = time.perf_counter(), time.process_time()
        result = orientation.compute(Cube(part, OPTICS, threads=1), [crystal], params)
        times.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    each = np.subtract(times[2], times[1]) / (MANY_OURS - FEW_OURS)
    return result, each, times[1] - FEW_OURS * each


def ask_rival(python: str, script: str, data: dict, settings: dict) -> dict:
    """Return what a rival's script found with each of its settings."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("patterns.npz", "found.npz")]
        np.savez(files[0], **data)
        command = [python, str(HERE / script), *files, json.dumps(list(settings.values()))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        return dict(np.load(files[1]))


def line(label, templates, seconds, error, masks, ours) -> str:
    """Return one row of the table; ``seconds`` are wall and processor per pattern."""
    words = [f"{label:42} {templates:6} {1e3 * seconds[1]:8.2f} {1e3 * seconds[0]:8.2f} {seconds[1] / ours:7.1f}"]
    for mask in masks:
        words.append(f"{np.median(error[mask]):8.2f} {100 * np.mean(error[mask] > FAR_DEG):6.1f}")
    return " ".join(words)


def table(name: str, given) -> list[str]:
    """Return the lines of one crystal."""
    a, symbol, sites, group = CRYSTALS[name]
    crystal = make_crystal(name, (a, a, a, 90, 90, 90), [symbol] * len(sites), sites)
    truth = np.roll(Turn.random(given.patterns, random_state=SEED).as_quat(canonical=True), 1, axis=1)
    reflections = simulate(name, truth)
    patterns = np.array([draw(r) for r in reflections])
    result, seconds, once = index(crystal, patterns)
    alone = identifiable(name, crystal, truth, reflections, result.candidate_orientation[0, : len(truth)])
    inside = [r[np.hypot(r[:, 0], r[:, 1]) < G_MAX, 2] for r in reflections]
    six = np.array([(r > 0.01 * r.max()).sum() >= 6 for r in inside])
    masks = (np.ones(len(truth), bool), six, six & alone)
    errors = np.nan_to_num(orientation.misorientation_deg(result.orientation[0, : len(truth)], truth, crystal), nan=180)
    lines = [
        f"{name}: {given.patterns} patterns of {SIZE} x {SIZE}, {100 * six.mean():.0f} % with six disks, "
        f"{100 * (six & alone).mean():.0f} % of all identifiable ones of those; ours once a map: {once[1]:.2f} s",
        f"{'':42} {'temp-':>6} {'ms CPU':>8} {'ms wall':>8} {'times':>7} {'all: median, > 3°':>15}"
        f" {'six':>12} {'identifiable':>15}",
    ]
    lines.append(line("fourdstem", "", seconds, errors, masks, seconds[1]))
    sizes = [len(r) for r in reflections]
    flat = np.concatenate(reflections)
    data = {"patterns": patterns, "first": np.cumsum([0, *sizes]), "x": flat[:, 0], "y": flat[:, 1]}
    data |= {"intensity": flat[:, 2], "lattice": a, "symbols": [symbol] * len(sites), "positions": sites}
    data |= {"space_group": group, "pixel": PIXEL, "radius": RADIUS, "g_min": G_MIN, "g_max": G_MAX}
    data |= {"few": FEW, "repeat": given.repeat}
    for python, script, title, settings in (
        (given.rival_pyxem, "orientation_pyxem.py", "pyxem", PYXEM),
        (given.rival_py4dstem, "orientation_py4dstem.py", "py4DSTEM", PY4DSTEM),
    ):
        if python:
            found = ask_rival(python, script, data, settings)
            lines += rival_lines(title, settings, found, truth, crystal, masks, seconds[1])
    return lines


def rival_lines(title, settings, found, truth, crystal, masks, ours) -> list[str]:
    """Return the rows of one rival."""
    lines = []
    for i, label in enumerate(settings):
        quaternions = Rotation.from_matrix(found["matrix"][i]).data
        error = orientation.misorientation_deg(quaternions, truth, crystal)
        spent = np.array([found["wall"][i], found["processor"][i]])
        if "detection_wall" in found:
            spent += [found["detection_wall"][i], found["detection_processor"][i]]
        lines.append(line(f"{title}, {label}", found["templates"][i], spent, error, masks, ours))
    return lines


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rival-pyxem", help="a Python with pyxem 0.21")
    parser.add_argument("--rival-py4dstem", help="a Python with py4DSTEM 0.14.18")
    parser.add_argument("--patterns", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=10, help="how often rivals get the patterns, for the times")
    parser.add_argument("--crystals", nargs="+", choices=list(CRYSTALS), default=list(CRYSTALS))
    return parser.parse_args()


def main() -> None:
    """Write the settings and a table for each crystal to standard output."""
    given = arguments()
    lines = [f"pyxem {k}: {json.dumps(v)}" for k, v in PYXEM.items()]
    lines += [f"py4DSTEM {k}: {json.dumps(v)}" for k, v in PY4DSTEM.items()]
    for name in given.crystals:
        lines += ["", *table(name, given)]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
