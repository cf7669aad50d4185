"""Orientation mapping on a graphics card beside the same on processor cores: equal answers, and patterns per second.

Where all of the product is installed, write what a bare machine lacks (a crystal and the table of scattering factors):

    PYTHONPATH=scripts python benchmarks/orientation_cuda.py --prepare CRYSTAL.npz

Where there is a card, with torch, numpy, scipy, numba, h5py and no more:

    PYTHONPATH=scripts python benchmarks/orientation_cuda.py CRYSTAL.npz [--threads 16] [--patterns 16384]

Patterns are gold, 128 x 128 px, random orientations, drawn kinematically with another thickness than the templates' and
with counting noise; they are the same on every machine. Printed: share of patterns whose best template, mirror image
and peak are the same on both; angles between the two answers, before and after refinement; seconds and patterns per
second of each step and of the whole. Exit status 1 where fewer than 99.9 % agree or an agreeing angle exceeds 0.05°.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from dataclasses import fields
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch

# Of these the product reads CIF files, finds symmetry and writes exports; none of it is done here.
NEEDLESS = (
    "orix orix.quaternion orix.plot orix.vector orix.crystal_map spglib diffpy diffpy.structure "
    "diffpy.structure.parsers diffpy.structure.parsers.p_cif diffpy.structure.structureerrors diffsims diffsims.utils "
    "diffsims.utils.atomic_scattering_params diffsims.utils.lobato_scattering_params"
)
SIZE, PIXEL, SEED = 128, 0.0203, 9
THICKNESS = {"pattern": 120.0, "template": 200.0}
SAME, ANGLE_DEG = 0.999, 0.05


def stand_in(table: dict) -> None:
    """Let the product be imported where some packages are missing; scattering factors are those of ``table``."""
    for name in NEEDLESS.split():
        if importlib.util.find_spec(name.split(".")[0]) is None or isinstance(
            sys.modules.get(name.split(".")[0]), MagicMock
        ):
            sys.modules[name] = MagicMock()
            sys.modules[name].__spec__ = None
            sys.modules[name].ATOMIC_SCATTERING_PARAMS_LOBATO = table


def write_crystal(path: Path) -> None:
    """Write gold and the scattering factors of all elements."""
    from diffsims.utils.lobato_scattering_params import ATOMIC_SCATTERING_PARAMS_LOBATO

    from fourdstem.crystal import make_crystal

    gold = make_crystal(
        "gold", (4.0782,) * 3 + (90,) * 3, ["Au"] * 4, [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    )
    table = {symbol: np.asarray(rows).tolist() for symbol, rows in ATOMIC_SCATTERING_PARAMS_LOBATO.items()}
    np.savez(path, table=json.dumps(table), **{f.name: getattr(gold, f.name) for f in fields(gold)})


def read_crystal(path: Path):
    """Read gold, before anything of the product is imported."""
    data = dict(np.load(path))
    stand_in(json.loads(str(data.pop("table"))))
    from fourdstem.crystal import Crystal

    return Crystal(**{name: value.item() if value.ndim == 0 else value for name, value in data.items()})


def simulate(crystal, optics, count: int, electrons: float) -> np.ndarray:
    """Return patterns (1, count, y, x) of random orientations with counting noise."""
    from scipy.spatial.transform import Rotation

    from fourdstem.methods.orientation import templates

    wavelength = optics.wavelength_angstrom
    radius = optics.convergence_mrad * 1e-3 / wavelength / PIXEL
    g, f2 = templates.bright_reflections(crystal, SIZE * PIXEL)
    thickness = np.full(len(g), THICKNESS["pattern"])
    rng = np.random.default_rng(SEED)
    patterns = np.zeros((1, count, SIZE, SIZE), np.float32)
    for pattern, matrix in zip(patterns[0], Rotation.random(count, random_state=SEED).as_matrix(), strict=True):
        lab = g @ matrix
        intensity = f2 * templates.relrod(lab, wavelength, thickness, 0.0, 2e-3)
        templates.render(lab, intensity, PIXEL, radius, pattern)
        pattern[:] = rng.poisson(pattern * (electrons / max(pattern.sum(), 1e-9)))
    return patterns


def device_of(name: str) -> str:
    """Return torch's name of a device; "cpu-torch" is the path of the card on the processor, to try this script."""
    from fourdstem.methods.orientation import matching

    matching._on_card = lambda values: name != "cpu"
    return "cuda" if name == "cuda" else "cpu"


def clock(device: str) -> float:
    """Return seconds, after everything on the card is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def steps(patterns, crystal, optics, params, device: str):
    """Return seconds per unit of each step, and the peaks of every unit, on a device; one thread."""
    from fourdstem.cube import UNIT, Cube
    from fourdstem.methods.orientation import index, matching, polar

    cube = Cube(patterns, optics)
    lens, rings = index._geometry(cube, [crystal], params)
    weights, valid = polar.polar_map(rings, cube.detector_shape, cube.valid)
    torch.set_num_threads(1)
    begin = clock(device)
    bank = matching.build_bank(
        [crystal], lens, rings, valid, params.sampling_deg, params.intensity_power, params.distinct_deg, device
    )
    spent = {"templates, in all": clock(device) - begin}
    spent |= dict.fromkeys(("polar", "prepare", "correlate"), 0.0)
    answers = []
    for first in range(0, patterns.shape[1], UNIT):
        unit = patterns[0, first : first + UNIT]
        times = [clock(device)]
        rows = (weights @ unit.reshape(len(unit), -1).T).T.reshape(len(unit), *valid.shape)
        times.append(clock(device))
        prepared, _ = matching.prepare(rows, bank)
        times.append(clock(device))
        answers.append(matching.correlate(prepared, bank))
        times.append(clock(device))
        if first:  # the first unit compiles and starts the card
            for name, seconds in zip(("polar", "prepare", "correlate"), np.diff(times), strict=True):
                spent[name] += seconds
    for name in ("polar", "prepare", "correlate"):
        spent[name] /= max(patterns.shape[1] - UNIT, 1)
    return spent, answers, len(bank.phase), rings.azimuths


def best_peaks(answers):
    """Return the index of the best peak of each pattern, and where it is, in bins."""
    entry, place = [], []
    for score, at in answers:
        flat = np.asarray(score).reshape(-1, score.shape[-1])
        top = flat.argmax(axis=0)
        entry.append(top)
        place.append(np.asarray(at).reshape(flat.shape)[top, np.arange(flat.shape[1])])
    return np.concatenate(entry), np.concatenate(place)


def compare_steps(patterns, crystal, optics, params, device) -> tuple[list[str], bool]:
    """Return lines about the steps on both devices, and whether the best templates are the same."""
    lines, found = [], {}
    for name in ("cpu", device):
        spent, answers, templates, azimuths = steps(patterns, crystal, optics, params, device_of(name))
        found[name] = best_peaks(answers)
        words = [f"{step} {1e6 * s:.1f} µs" for step, s in spent.items() if "all" not in step]
        lines.append(
            f"{name}, one thread, {templates} templates made in {spent['templates, in all']:.2f} s; "
            f"per pattern: {', '.join(words)}"
        )
        lines.append(f"{name}, correlation alone: {1 / spent['correlate']:.0f} patterns/s")
    (one, first), (other, second) = found["cpu"], found[device]
    same = one == other
    apart = np.abs(first - second)[same]
    angle = 360 / azimuths * np.minimum(apart, azimuths - apart)
    good = same.mean() >= SAME and angle.max(initial=0) <= ANGLE_DEG
    lines.append(
        f"best template, mirror image and peak the same on cpu and {device}: {100 * same.mean():.3f} % of {len(same)}; "
        f"in-plane angles of these differ by at most {angle.max(initial=0):.2g}°"
    )
    return lines, good


def whole(patterns, crystal, optics, params, device, threads):
    """Return the result of `compute` and its patterns per second, templates not counted."""
    from fourdstem.cube import Cube
    from fourdstem.methods import orientation

    few = patterns[:, : 32 * threads]
    orientation.compute(Cube(few, optics, threads=threads, memory_mb=8000), [crystal], params, device)
    times = []
    for part in (few, patterns):
        begin = clock(device)
        result = orientation.compute(Cube(part, optics, threads=threads, memory_mb=8000), [crystal], params, device)
        times.append(clock(device) - begin)
    return result, (patterns.shape[1] - few.shape[1]) / (times[1] - times[0])


def compare_whole(patterns, crystal, optics, params, device, threads) -> tuple[list[str], bool]:
    """Return lines about `compute` on both devices, and whether the orientations are the same."""
    from fourdstem.methods.orientation import misorientation_deg

    found = {}
    lines = []
    for name in ("cpu", device):
        found[name], rate = whole(patterns, crystal, optics, params, device_of(name), threads)
        lines.append(f"{name}, {threads} threads, refine {params.refine}: {rate:.0f} patterns/s")
    one, other = found["cpu"].orientation[0], found[device].orientation[0]
    apart = misorientation_deg(one, other, crystal)
    known = np.isfinite(apart)
    agree = (np.isnan(one[:, 0]) == np.isnan(other[:, 0])).all()
    close = np.mean(apart[known] <= ANGLE_DEG)
    lines.append(
        f"refine {params.refine}: {100 * close:.3f} % of {known.sum()} indexed orientations within {ANGLE_DEG}°, "
        f"of these at most {apart[known][apart[known] <= ANGLE_DEG].max(initial=0):.2g}°"
    )
    return lines, bool(agree and close >= SAME)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crystal", type=Path, nargs="?", help="what --prepare wrote")
    parser.add_argument("--prepare", type=Path, metavar="CRYSTAL.npz", help="write the crystal, do nothing else")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu-torch"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--patterns", type=int, default=16384, help="of the whole")
    parser.add_argument("--compared", type=int, default=4096, help="of the steps")
    parser.add_argument("--electrons", type=float, default=5000.0, help="in each pattern, outside the direct beam")
    return parser.parse_args()


def main() -> int:
    """Print the comparison; return the exit status."""
    given = arguments()
    if given.prepare:
        write_crystal(given.prepare)
        return 0
    crystal = read_crystal(given.crystal)
    from fourdstem.calibration import Acquisition
    from fourdstem.methods import orientation

    optics = Acquisition(
        beam_energy_kev=200, convergence_mrad=1.0, scan_step_angstrom=(20, 20), detector_pixel_inv_angstrom=PIXEL
    )
    if given.device == "cuda":
        sys.stdout.write(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {os.cpu_count()} cores\n")
    begin = time.perf_counter()
    count = max(given.patterns, given.compared)
    distinct = min(count, 4096)
    patterns = np.resize(simulate(crystal, optics, distinct, given.electrons), (1, count, SIZE, SIZE))
    sys.stdout.write(f"{count} patterns ({distinct} distinct) in {time.perf_counter() - begin:.1f} s\n")
    params = orientation.Params(thickness_angstrom=THICKNESS["template"])
    good = True
    jobs = [lambda: compare_steps(patterns[:, : given.compared], crystal, optics, params, given.device)]
    for refine in (False, True):
        chosen = orientation.Params(thickness_angstrom=THICKNESS["template"], refine=refine)
        part = patterns[:, : given.patterns]
        jobs.append(lambda p=chosen, d=part: compare_whole(d, crystal, optics, p, given.device, given.threads))
    for job in jobs:
        lines, same = job()
        good = good and same
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
