"""Frames: detector against scan, scan against specimen, equivalent orientations, and docs/frames.md by numbers."""

import itertools
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orix.io import load
from scipy.spatial.transform import Rotation as Turn
from test_crystal import LAUE, build
from test_interchange import columns_of, map_of
from test_orientation import COARSE, OPTICS, SIZE, from_diffsims, random_orientations

from fourdstem import io
from fourdstem.calibration import Acquisition
from fourdstem.cube import Correction, Cube
from fourdstem.figures import frames, ipf
from fourdstem.geometry import corrected_to_recorded
from fourdstem.methods import orientation as method
from fourdstem.methods.orientation import rotations

DOCS = Path(__file__).resolve().parents[1] / "docs"
EIGHT = list(itertools.product((0, 90, 180, 270), (False, True)))


@pytest.fixture(scope="module")
def pyrite():
    """A crystal without four-fold axes, so that no symmetry hides a quarter turn; truth; patterns by diffsims."""
    truth = random_orientations(8, 11)
    return build("m-3"), truth, from_diffsims("m-3", truth)


# ---- the detector against the scan ---------------------------------------------------------------------------


@pytest.mark.parametrize(("turn", "flip"), EIGHT)
def test_each_way_to_mount_a_detector_gives_the_orientation(pyrite, turn, flip):
    # Numpy states independently what the settings undo: rot90 takes the right to the top, +x to -y, which a scan
    # rotation of +90° brings back; the mirror is the last thing that happened to the image.
    crystal, truth, patterns = pyrite
    recorded = np.rot90(patterns, turn // 90, axes=(1, 2))
    recorded = recorded[:, ::-1] if flip else recorded
    middle = np.full((1, len(recorded), 2), (SIZE - 1) / 2)
    correction = Correction(middle, corrected_to_recorded(1.0, 0.0, turn, flip), np.zeros((SIZE, SIZE), bool))
    cube = Cube(np.ascontiguousarray(recorded)[None], OPTICS, correction)
    result = method.compute(cube, [crystal], COARSE)
    assert np.sum(method.misorientation_deg(result.orientation[0], truth, crystal) < 3) >= 7


def test_a_wrong_way_to_mount_the_detector_loses_the_orientation(pyrite):
    crystal, truth, patterns = pyrite
    middle = np.full((1, len(patterns), 2), (SIZE - 1) / 2)
    for turn, flip in ((90, False), (0, True), (270, True)):
        correction = Correction(middle, corrected_to_recorded(1.0, 0.0, turn, flip), np.zeros((SIZE, SIZE), bool))
        result = method.compute(Cube(patterns[None], OPTICS, correction), [crystal], COARSE)
        assert np.sum(method.misorientation_deg(result.orientation[0], truth, crystal) < 3) <= 2


# ---- the scan against the specimen ---------------------------------------------------------------------------


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_the_scan_turned_by_quarter_turns_turns_the_answer(pyrite, quarters):
    """The specimen turned under the beam: positions and patterns turn together, and the orientations with them."""
    crystal, _, patterns = pyrite
    data = patterns.reshape(2, 4, SIZE, SIZE)
    turned = np.rot90(np.rot90(data, quarters, axes=(0, 1)), quarters, axes=(2, 3))
    before = method.compute(Cube(data, OPTICS), [crystal], COARSE)
    after = method.compute(Cube(np.ascontiguousarray(turned), OPTICS), [crystal], COARSE)
    # rot90 takes +x to -y: a turn of the specimen by -90° about z as seen along the beam (x right, y down).
    angle = np.deg2rad(-90 * quarters)
    about_z = np.array([np.cos(angle / 2), 0, 0, -np.sin(angle / 2)])
    expected = rotations.multiply(np.rot90(before.orientation, quarters), about_z)
    apart = method.misorientation_deg(after.orientation, expected, crystal)
    assert np.sort(apart.ravel())[:7].max() < 0.1
    assert np.allclose(np.rot90(before.correlation, quarters), after.correlation, atol=0.02)
    same = method.misorientation_deg(after.orientation, np.rot90(before.orientation, quarters), crystal)
    assert np.sum(same < 3) <= 2


# ---- symmetry ------------------------------------------------------------------------------------------------

components = st.floats(-1, 1, allow_nan=False, width=32)
quaternions = st.tuples(components, components, components, components).filter(lambda q: np.linalg.norm(q) > 0.1)
CRYSTALS = {laue: build(laue) for laue in LAUE}


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(st.sampled_from(sorted(LAUE)), quaternions, quaternions, st.integers(0, 23))
def test_equivalent_orientations_have_no_misorientation_and_leave_it_to_others_unchanged(laue, first, second, pick):
    crystal = CRYSTALS[laue]
    first, second = (np.array(q) / np.linalg.norm(q) for q in (first, second))
    operation = rotations.from_matrix(crystal.operations[pick % len(crystal.operations)])
    equivalent = rotations.multiply(operation, first)
    assert method.misorientation_deg(first, equivalent, crystal) < 1e-4
    assert method.misorientation_deg(-first, equivalent, crystal) < 1e-4
    one = method.misorientation_deg(first, second, crystal)
    assert method.misorientation_deg(equivalent, second, crystal) == pytest.approx(one, abs=1e-4)
    assert method.misorientation_deg(second, first, crystal) == pytest.approx(one, abs=1e-4)
    plain = np.rad2deg((from_wxyz(first).inv() * from_wxyz(second)).magnitude())
    assert one <= plain + 1e-4


def from_wxyz(q):
    return Turn.from_quat(np.roll(q, -1))


# ---- docs/frames.md, number by number ------------------------------------------------------------------------

NUMBERS = {"gold": "m-3m", "titanium": "6/mmm"}
COLUMN = {"gold": 1, "titanium": 2}


@pytest.fixture(scope="module")
def page():
    return (DOCS / "frames.md").read_text(encoding="utf-8")


def row(page, first, name):
    """The numbers of one cell of the worked table."""
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {first} |")]
    cell = line.split("|")[1 + COLUMN[name]]
    for word in ("from c", "from a", "°", ",", "[", "]"):
        cell = cell.replace(word, " ")
    return np.array(cell.split(), float)


def hand():
    """Matrix and Bunge angles of the page's quaternion, by the page's formulas and nothing else."""
    w, x, y, z = 0.4, 0.8, 0.2, 0.4
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    m = np.eye(3) + 2 * w * cross + 2 * cross @ cross
    angles = np.arctan2(m[2, 0], -m[2, 1]), np.arccos(m[2, 2]), np.arctan2(m[0, 2], m[1, 2])
    return m, np.array(angles)


def cell_of(name):
    """Rows a, b, c, with a along x and c along z, written out."""
    a, c = {"gold": (4.0782, 4.0782), "titanium": (2.95, 4.68)}[name]
    b = [0, a, 0] if name == "gold" else [-a / 2, a * np.sqrt(3) / 2, 0]
    return np.array([[a, 0, 0], b, [0, 0, c]])


def worked(name):
    """The crystal and a map of one position, as the page says: correlation 0.25, reliability 75."""
    crystal = frames.titanium() if name == "titanium" else build("m-3m")
    assert np.allclose(crystal.lattice, cell_of(name))
    assert crystal.laue_class == NUMBERS[name]
    result = map_of(frames.WORKED[None, None], np.zeros((1, 1), int), [name])
    return crystal, result


@pytest.mark.parametrize("name", NUMBERS)
def test_the_worked_angles_are_those_of_hand_and_files(page, name, tmp_path):
    matrix, angles = hand()
    crystal, result = worked(name)
    printed = [
        [float(v) for v in line.replace("M =", "").split()] for line in page.splitlines() if line.startswith("    ")
    ]
    assert np.allclose(printed, matrix, atol=1e-12)
    assert np.allclose(row(page, "Euler angles in .ang and HDF5, degree", name), np.rad2deg(angles), atol=5e-5)
    assert np.allclose(row(page, "the same in rad, as .ang has them", name), angles, atol=5e-6)
    # .ctf: rows of the matrix are a* and c seen from the lab.
    lattice = cell_of(name)
    star = np.cross(lattice[1], lattice[2])
    first, last = star / np.linalg.norm(star) @ matrix, lattice[2] / np.linalg.norm(lattice[2]) @ matrix
    second = np.cross(last, first)
    ctf = np.arctan2(last[0], -last[1]), np.arccos(last[2]), np.arctan2(first[2], second[2])
    assert np.allclose(row(page, "Euler angles in .ctf, degree", name), np.rad2deg(ctf), atol=5e-5)

    known = Acquisition(scan_step_angstrom=(20, 20))
    ang_line = method.ang_text(result, [crystal], (20, 20)).splitlines()[-1]
    text = method.ctf_text(result, [crystal], known)
    assert np.allclose(np.array(ang_line.split()[:3], float), angles, atol=5e-6)
    assert np.allclose(columns_of(text)[1][0, 5:8], np.rad2deg(ctf), atol=5e-5)
    if name == "titanium":
        lines = page.split("```")[1].strip("\n").split("\n")
        assert lines == [ang_line, text.splitlines()[-1]]
    io.write_tree(tmp_path / "a_orix.h5", method.orix_tree(result, [crystal], known), {})
    assert np.allclose(load(tmp_path / "a_orix.h5").rotations.to_matrix()[0], matrix)


@pytest.mark.parametrize("name", NUMBERS)
def test_the_worked_directions_and_colours_are_those_of_hand_and_figures(page, name):
    matrix, _ = hand()
    crystal, result = worked(name)
    for axis, direction in zip("xyz", matrix.T, strict=True):
        assert np.allclose(row(page, f"crystal direction along lab {axis}", name), direction, atol=1e-12)
        folded = row(page, f"IPF-{axis.upper()}: folded into the sector", name)
        if name == "gold":
            assert np.allclose(np.sort(np.abs(direction)), folded / np.linalg.norm(folded))
            assert np.array_equal(folded, np.round(folded))
        else:
            upper = direction * np.sign(direction[2])
            azimuth = np.rad2deg(np.arctan2(upper[1], upper[0])) % 60
            expected = np.rad2deg(np.arccos(upper[2])), min(azimuth, 60 - azimuth)
            assert np.allclose(folded, expected, atol=5e-3)
        colour = np.round(255 * ipf.colours(result, [crystal], axis)[0, 0])
        assert np.array_equal(row(page, f"IPF-{axis.upper()}: colour", name), colour)


@pytest.mark.parametrize("name", NUMBERS)
def test_the_worked_reflection_lies_where_the_page_says(page, name):
    matrix, _ = hand()
    crystal, _ = worked(name)
    g = np.linalg.inv(cell_of(name)) @ row(page, "brightest reflection", name)
    assert np.allclose(row(page, "g in the crystal, 1/Å", name), g, atol=5e-5)
    assert np.allclose(row(page, "g in the lab, 1/Å", name), matrix.T @ g, atol=5e-5)
    found = method.template_pattern(crystal, frames.WORKED, OPTICS, (SIZE, SIZE))[0]
    offset = (found[1::-1] - (SIZE - 1) / 2) * OPTICS.detector_pixel_inv_angstrom
    assert np.allclose(offset, (matrix.T @ g)[:2], atol=1e-4)


def test_the_drawing_is_what_the_code_draws(tmp_path):
    frames.frames(tmp_path)
    ours, theirs = (matplotlib.image.imread(folder / "frames.png") for folder in (tmp_path, DOCS))
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).mean() < 0.002
