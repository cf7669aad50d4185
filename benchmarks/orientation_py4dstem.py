"""Index the patterns of a file with py4DSTEM 0.14.18, for `orientation.py`: run with the Python of its environment.

    python orientation_py4dstem.py INPUT.npz OUTPUT.npz SETTINGS_AS_JSON

Its matching knows disks, not pixels: they are found by `find_Bragg_disks` with a synthetic probe of the true radius, or
given with their true places and intensities. `match_single_pattern` is what `match_orientations` calls for each.

Seconds of detection are those of all patterns less those of the first few. The making of the plan does not count.
"""

import json
import sys
import time

import numpy as np
from emdfile import PointList
from py4DSTEM import DataCube
from py4DSTEM.braggvectors import Probe
from py4DSTEM.process.diffraction import Crystal

# Its electrons travel along -z and its y is up where ours is down.
TO_OURS = np.diag([1.0, -1.0, -1.0])
DISK = np.dtype([("qx", float), ("qy", float), ("intensity", float)])


def plan_of(data, given: dict) -> Crystal:
    """Return the crystal with its orientation plan."""
    numbers = {"Si": 14, "Au": 79}
    crystal = Crystal(data["positions"], [numbers[str(s)] for s in data["symbols"]], float(data["lattice"]))
    crystal.setup_diffraction(200e3)
    crystal.calculate_structure_factors(float(data["g_max"]), tol_structure_factor=1e-4)
    crystal.orientation_plan(
        zone_axis_range=np.array([[0, 1, 1], [1, 1, 1]]), accel_voltage=200e3, progress_bar=False, **given
    )
    return crystal


def point_list(x, y, intensity, data) -> PointList:
    """Return disks (1/Å, y down) outside the direct beam as what it matches."""
    g = np.hypot(x, y)
    shown = (g > data["g_min"]) & (g < data["g_max"])
    points = np.zeros(shown.sum(), DISK)
    points["qx"], points["qy"], points["intensity"] = x[shown], -y[shown], intensity[shown]
    return PointList(points)


def true_disks(data, faintest: float) -> list[PointList]:
    """Return the disks of each pattern brighter than a part of its brightest."""
    lists = []
    for start, stop in zip(data["first"][:-1], data["first"][1:], strict=True):
        x, y, intensity = (data[key][start:stop] for key in ("x", "y", "intensity"))
        bright = intensity > faintest * intensity.max()
        lists.append(point_list(x[bright], y[bright], intensity[bright], data))
    return lists


def detect(data, given: dict) -> tuple[list[PointList], float, float]:
    """Find disks in the patterns; return them and wall and processor seconds per pattern."""
    patterns, few = data["patterns"], int(data["few"])
    radius = float(data["radius"])
    probe = Probe.generate_synthetic_probe(radius=radius, width=1.0, Qshape=patterns.shape[1:])
    given = dict(given)
    mode = given.pop("kernel")
    options = {"sigmoid": {"radii": (radius, 2 * radius)}, "gaussian": {"sigma": 2 * radius}, "flat": {}}[mode]
    kernel = probe.get_kernel(mode=mode, origin=((patterns.shape[1]) / 2, patterns.shape[2] / 2), **options)
    times = []
    for part in (patterns[:few], patterns[:few], patterns):
        begin = time.perf_counter(), time.process_time()
        found = DataCube(part[None]).find_Bragg_disks(template=np.asarray(kernel), **given)
        times.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    middle, pixel = (patterns.shape[1] - 1) / 2, float(data["pixel"])
    lists = []
    for i in range(len(patterns)):
        disks = found.raw[0, i].data
        x, y = (disks["qy"] - middle) * pixel, (disks["qx"] - middle) * pixel
        lists.append(point_list(x, y, disks["intensity"], data))
    return lists, *(np.subtract(times[2], times[1]) / (len(patterns) - few))


def run(data, given: dict):
    """Return matrices, number of zone axes, wall and processor seconds per pattern to match and to detect."""
    crystal, lists, detection = plan_of(data, given["plan"]), [], (0.0, 0.0)
    if given["detect"] is None:
        lists = true_disks(data, given["faintest"])
    else:
        lists, *detection = detect(data, given["detect"])
    begin = time.perf_counter(), time.process_time()
    found = [crystal.match_single_pattern(points, min_number_peaks=2).matrix[0] for points in lists]
    seconds = time.perf_counter() - begin[0], time.process_time() - begin[1]
    matrices = np.array(found) @ TO_OURS
    return matrices, crystal.orientation_num_zones, *(np.array(seconds) / len(lists)), *detection


def main() -> None:
    """Run every setting and write what it found."""
    data = dict(np.load(sys.argv[1]))
    found = [run(data, given) for given in json.loads(sys.argv[3])]
    names = ("matrix", "templates", "wall", "processor", "detection_wall", "detection_processor")
    np.savez(sys.argv[2], **{name: np.array([row[i] for row in found]) for i, name in enumerate(names)})


if __name__ == "__main__":
    main()
