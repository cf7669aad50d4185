"""Orientation maps for other programs: .ang, .ctf and orix's HDF5, each in the frame that its readers assume."""

import hashlib
import io as text_io
import os
import time
from pathlib import Path

import numpy as np
import pytest
from orix.io import load
from scipy.spatial.transform import Rotation as Turn
from test_crystal import LAUE, build

from fourdstem import io
from fourdstem.calibration import Acquisition
from fourdstem.crystal import make_crystal
from fourdstem.methods import orientation as method

SCAN = Acquisition(beam_energy_kev=200, scan_step_angstrom=(20, 30))
CODES = ("-1", "2/m", "mmm", "4/m", "4/mmm", "-3", "-3m", "6/m", "6/mmm", "m-3", "m-3m")
ORIX_CTF = [laue for laue in LAUE if laue != "m-3"]  # orix 0.15 calls class 10 "m3", which it does not know itself


def random_orientations(count, seed=1):
    return Turn.random(count, random_state=seed).as_quat(canonical=True)[:, [3, 0, 1, 2]]


def map_of(orientation, phase, names):
    """A result that holds what the writers read; correlation and reliability differ from place to place."""
    ramp = np.linspace(0.25, 0.75, phase.size, dtype=np.float32).reshape(phase.shape)
    nothing = {"candidate_orientation": None, "candidate_correlation": None, "candidate_phase": None}
    nothing["ambiguous"] = None
    return method.Result(
        orientation=np.where((phase >= 0)[..., None], orientation, np.nan),
        phase=phase,
        correlation=ramp,
        second_correlation=ramp / 2,
        reliability=100 * (1 - ramp),
        phase_name=tuple(names),
        **nothing,
    )


def small_map(crystal):
    phase = np.zeros((3, 4), int)
    phase[1, 2] = -1
    return map_of(random_orientations(12).reshape(3, 4, 4), phase, [crystal.name])


def bunge(degrees):
    """Matrices from Bunge angles, written out: rows are the crystal's axes in the lab frame."""
    (c1, c, c2), (s1, s, s2) = np.cos(np.deg2rad(degrees)).T, np.sin(np.deg2rad(degrees)).T
    rows = [
        [c1 * c2 - s1 * s2 * c, s1 * c2 + c1 * s2 * c, s2 * s],
        [-c1 * s2 - s1 * c2 * c, -s1 * s2 + c1 * c2 * c, c2 * s],
        [s1 * s, -c1 * s, c],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def matrices_of(result):
    """Of the indexed positions."""
    return Turn.from_quat(result.orientation[result.phase >= 0][:, [1, 2, 3, 0]]).as_matrix()


def columns_of(ctf):
    head, body = ctf.split("Phase\tX\tY\t")
    return head.splitlines(), np.loadtxt(text_io.StringIO(body.split("\n", 1)[1]), ndmin=2)


@pytest.fixture(scope="module")
def maps():
    folder = os.environ.get("FOURDSTEM_TEST_DATA")
    if not folder:
        pytest.skip("FOURDSTEM_TEST_DATA is not set")
    return Path(folder) / "orientation_maps"


# ---- .ctf ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("laue", LAUE)
def test_the_crystal_axes_of_ctf_are_a_star_and_c_in_every_laue_class(laue):
    crystal = build(laue)
    result = small_map(crystal)
    head, columns = columns_of(method.ctf_text(result, [crystal], SCAN))
    indexed = result.phase.ravel() >= 0
    axes = bunge(columns[indexed, 5:8])
    ours = matrices_of(result)
    for row, vector in ((0, crystal.reciprocal[0]), (2, crystal.lattice[2])):
        lab = np.einsum("nij,i->nj", ours, vector / np.linalg.norm(vector))
        assert np.allclose(axes[:, row], lab, atol=5e-6)
    phase = head[-1].split("\t")
    assert [float(v) for part in phase[:2] for v in part.split(";")] == pytest.approx(crystal.cell, abs=5e-5)
    assert phase[2:5] == [laue, str(CODES.index(laue) + 1), str(LAUE[laue][0])]


@pytest.mark.parametrize("laue", ORIX_CTF)
def test_orix_reads_ctf_text(laue, tmp_path):
    crystal = build(laue)
    result = small_map(crystal)
    (tmp_path / "map.ctf").write_text(method.ctf_text(result, [crystal], SCAN))
    back = load(tmp_path / "map.ctf")
    indexed = result.phase.ravel() >= 0
    assert (back.shape, back.scan_unit) == ((3, 4), "um")
    assert (back.dy, back.dx) == pytest.approx((0.002, 0.003))
    assert np.array_equal(back.is_indexed, indexed)
    assert back.phases[1].point_group.name == laue
    # orix takes the angles as they stand, without turning the crystal's axes: docs/frames.md says how to.
    turned = method.hkl_axes(crystal).T @ back.rotations.to_matrix()[indexed]
    assert np.allclose(turned, matrices_of(result), atol=5e-6)


def test_hexagonal_angles_of_ctf_and_ang_differ_by_thirty_degrees():
    crystal = build("6/mmm")
    result = small_map(crystal)
    lines = method.ang_text(result, [crystal], (20, 30)).splitlines()[-12:]
    ang = np.array([line.split()[:3] for line in lines], float)
    _, ctf = columns_of(method.ctf_text(result, [crystal], SCAN))
    indexed = result.phase.ravel() >= 0
    apart = (ctf[indexed, 5:8] - np.rad2deg(ang[indexed]) + 180) % 360 - 180
    assert np.allclose(apart, [0, 0, 30], atol=1e-3)


def test_the_other_columns_of_ctf():
    crystal = build("m-3m")
    result = small_map(crystal)
    head, columns = columns_of(method.ctf_text(result, [crystal], SCAN))
    y, x = np.mgrid[:3, :4]
    assert np.allclose(columns[:, 1], 0.003 * x.ravel())
    assert np.allclose(columns[:, 2], 0.002 * y.ravel())
    lost = np.arange(12) == 6
    assert np.array_equal(columns[:, 0], np.where(lost, 0, 1))
    assert np.array_equal(columns[:, 4], np.where(lost, 3, 0))
    assert np.all(columns[lost, 5:8] == 0)
    assert np.array_equal(columns[:, 9], np.round(255 * result.correlation.ravel()))
    assert np.array_equal(columns[:, 10], np.where(lost, 0, np.round(2.55 * result.reliability.ravel())))
    assert np.all(columns[:, [3, 8]] == 0)
    assert {"XCells\t4", "YCells\t3", "XStep\t0.0030000", "YStep\t0.0020000", "JobMode\tGrid"} <= set(head)
    assert "x || a*, z || c" in head[1]
    text = method.ctf_text(result, [crystal], SCAN)
    assert text.count("\r\n") == text.count("\n") == 15 + 12  # header and positions
    assert "\tCoverage\t92\tDevice\t0\tKV\t200\tTiltAngle\t0\t" in "".join(head)


def test_a_vendors_ctf_of_magnesium_twins_has_its_a_axes_where_ours_does(maps):
    # The misorientation of a {10-12} twin is 86.3° about <11-20>, which is a. In an Oxford file it must lie 30°
    # off x (x || a*), modulo the crystal's 60°.
    back = load(maps / "mtex_twins.ctf")
    matrices = back.rotations.to_matrix().reshape(*back.shape, 3, 3)
    known = back.is_indexed.reshape(back.shape)
    pairs = known[:, 1:] & known[:, :-1]
    angles = [axis_angles(matrices[:, :-1][pairs], matrices[:, 1:][pairs])]
    crystal = magnesium()
    ours = method.hkl_axes(crystal).T @ matrices
    angles.append(axis_angles(ours[:, :-1][pairs], ours[:, 1:][pairs]))
    for found, expected in zip(angles, (30, 0), strict=True):
        assert len(found) > 500
        apart = (found - expected + 30) % 60 - 30
        assert np.abs(apart).max() < 5
        assert np.abs(apart.mean()) < 0.5


def hexagonal_rotations():
    turn = np.arange(6) * np.pi / 3
    about_c = Turn.from_rotvec(turn[:, None] * [0, 0, 1]).as_matrix()
    return np.concatenate([about_c, np.diag([1.0, -1, -1]) @ about_c])


def axis_angles(first, second):
    """Azimuths of the twin axes, modulo 60°, of those pairs that are {10-12} twins."""
    apart = np.einsum("mij,njk,nlk->mnil", hexagonal_rotations(), second, first)
    cosine = (np.trace(apart, axis1=2, axis2=3) - 1) / 2
    # Best over symmetry on one side; the other side turns the axis by a multiple of 60° or inverts it.
    best = cosine.argmax(axis=0)
    vector = Turn.from_matrix(apart[best, np.arange(len(first))]).as_rotvec()
    size = np.rad2deg(np.linalg.norm(vector, axis=1))
    twin = (np.abs(size - 86.3) < 2) & (np.abs(vector[:, 2]) < 0.1 * np.linalg.norm(vector, axis=1))
    return np.rad2deg(np.arctan2(vector[twin, 1], vector[twin, 0])) % 60


def test_a_vendors_ctf_has_its_euler_frame_turned_about_x_against_its_map(maps):
    # Boundaries of {10-12} twins lie along the traces of the planes that both crystals share. In the frame of the
    # map, y down, they do so only with y and z of the Euler frame reversed: docs/frames.md tells whom that concerns.
    place, normal = twin_boundaries(load(maps / "mtex_twins.ctf"))
    off = {(1, 1): [], (1, -1): []}
    for here, plane in zip(place, normal, strict=True):
        near = (np.linalg.norm(place - here, axis=1) < 8) & (np.abs(normal @ plane) > np.cos(np.deg2rad(8)))
        spread = place[near] - place[near].mean(axis=0)
        size, axes = np.linalg.eigh(spread.T @ spread)
        if near.sum() < 10 or size[1] < 12 * size[0] or np.hypot(*plane[:2]) < 0.35:
            continue  # not a line, or a plane nearly parallel to the map
        line = np.arctan2(axes[1, 1], axes[0, 1])
        for signs, found in off.items():
            x, y = plane[:2] * signs
            found.append(np.abs((np.rad2deg(line - np.arctan2(x, -y)) + 90) % 180 - 90))
    assert len(off[1, 1]) > 300
    assert np.median(off[1, -1]) < 10
    assert np.median(off[1, 1]) > 45


def twin_boundaries(back):
    """Middles (x, y) in px of neighbours that are {10-12} twins, and lab normals of the plane that they share."""
    matrices, known = back.rotations.to_matrix().reshape(*back.shape, 3, 3), back.is_indexed.reshape(back.shape)
    plane = np.array([2 / np.sqrt(3) / 3.2089, 0, 2 / 5.2101])  # 10-12 with x || a*
    planes = hexagonal_rotations()[:6] @ plane / np.linalg.norm(plane)
    places, normals = [], []
    for step in ((0, 1), (1, 0)):
        end = [size - d for size, d in zip(back.shape, step, strict=True)]
        pairs = np.argwhere(known[: end[0], : end[1]] & known[step[0] :, step[1] :])
        first, second = matrices[tuple(pairs.T)], matrices[tuple((pairs + step).T)]
        cosine = np.einsum("mij,njk,nik->mn", hexagonal_rotations(), second, first).max(axis=0) / 2 - 0.5
        twin = np.abs(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))) - 86.3) < 2.5
        one, other = planes @ first[twin], planes @ second[twin]
        shared = np.abs(one @ other.transpose(0, 2, 1)).reshape(-1, 36)
        coherent = shared.max(axis=1) > np.cos(np.deg2rad(4))
        normals.append(one[np.arange(len(one)), shared.argmax(axis=1) // 6][coherent])
        places.append((pairs[twin] + np.array(step) / 2)[coherent][:, ::-1])
    return np.concatenate(places), np.concatenate(normals)


def magnesium():
    return make_crystal(
        "Magnesium", (3.2089, 3.2089, 5.2101, 90, 90, 120), ["Mg", "Mg"], [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
    )


def test_a_vendors_ctf_read_and_written_again_has_the_same_angles(maps):
    back = load(maps / "mtex_twins.ctf")
    crystal = magnesium()
    phase = np.where(back.is_indexed, 0, -1).reshape(back.shape)
    undone = Turn.from_matrix(method.hkl_axes(crystal).T @ back.rotations.to_matrix())
    quaternions = undone.as_quat(canonical=True)[:, [3, 0, 1, 2]].reshape(*back.shape, 4)
    scan = Acquisition(scan_step_angstrom=(3000, 3000))
    head, ours = columns_of(method.ctf_text(map_of(quaternions, phase, ["Magnesium"]), [crystal], scan))
    theirs = columns_of((maps / "mtex_twins.ctf").read_text(encoding="latin1"))[1]
    assert np.array_equal(ours[:, 0], theirs[:, 0])
    assert np.allclose(ours[:, 1:3], theirs[:, 1:3])
    assert phase.max() == 0
    indexed = phase.ravel() >= 0
    apart = np.einsum("nij,nij->n", bunge(ours[indexed, 5:8]), bunge(theirs[indexed, 5:8]))
    assert np.rad2deg(np.arccos(np.clip((apart - 1) / 2, -1, 1))).max() < 1e-3
    assert head[-1].startswith("3.2089;3.2089;5.2101\t90.0000;90.0000;120.0000\tMagnesium\t9\t194\t")


# ---- .ang ----------------------------------------------------------------------------------------------------


def test_a_vendors_ang_of_two_phases_read_and_written_again_is_unchanged(maps, tmp_path):
    first = load(maps / "sdss_ferrite_austenite.ang", autogen_names=False)
    fcc, bcc = ([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]], [[0, 0, 0], [0.5, 0.5, 0.5]])
    crystals = [
        make_crystal(name, (a, a, a, 90, 90, 90), ["Fe"] * len(points), points)
        for name, a, points in (("austenite", 3.595, fcc), ("ferrite", 2.867, bcc))
    ]
    quaternions = first.rotations.data.reshape(*first.shape, 4)
    result = map_of(quaternions, first.phase_id.reshape(first.shape) - 1, ["austenite", "ferrite"])
    (tmp_path / "map.ang").write_text(method.ang_text(result, crystals, (15000, 15000)))
    again = load(tmp_path / "map.ang", autogen_names=False)
    assert np.array_equal(again.phase_id, first.phase_id)
    assert len(np.unique(first.phase_id)) == 2
    assert again.shape == first.shape
    assert (again.dy, again.dx) == pytest.approx((first.dy, first.dx))
    apart = (again.rotations.to_matrix() * first.rotations.to_matrix()).sum(axis=(1, 2))
    assert np.rad2deg(np.arccos(np.clip((apart - 1) / 2, -1, 1))).max() < 2e-3  # five digits of a radian
    assert [again.phases[k].structure.lattice.a for k in (1, 2)] == [3.595, 2.867]


# ---- orix's HDF5 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("laue", LAUE)
def test_orix_reads_its_hdf5_with_phases_and_without_what_is_not_indexed(laue, tmp_path):
    crystal = build(laue)
    result = small_map(crystal)
    io.write_tree(tmp_path / "map_orix.h5", method.orix_tree(result, [crystal], SCAN), {"stage": "orientation"})
    back = load(tmp_path / "map_orix.h5")
    indexed = result.phase.ravel() >= 0
    assert (back.shape, back.scan_unit) == ((3, 4), "um")
    assert (back.dy, back.dx) == pytest.approx((0.002, 0.003))
    assert back.is_in_data.all()
    assert np.array_equal(back.is_indexed, indexed)
    assert np.allclose(back.rotations.to_matrix()[indexed], matrices_of(result), atol=1e-7)
    phase = back.phases[0]
    assert phase.point_group.name == ("121" if laue == "2/m" else laue)
    operations = phase.point_group.laue_proper_subgroup.to_matrix()
    gap = np.abs(operations[:, None] - crystal.operations[None]).max(axis=(2, 3))
    assert operations.shape == crystal.operations.shape
    assert gap.min(axis=1).max() < 1e-6
    assert np.allclose(phase.structure.lattice.base, crystal.lattice)
    assert [atom.element for atom in phase.structure] == elements_of(crystal)
    assert np.allclose([atom.xyz for atom in phase.structure], crystal.positions)
    assert np.array_equal(back.prop["correlation"], result.correlation.ravel())
    assert np.array_equal(back.prop["reliability"], result.reliability.ravel())


def elements_of(crystal):
    return [{8: "O", 16: "S", 22: "Ti", 26: "Fe", 79: "Au"}[number] for number in crystal.numbers]


def test_a_trigonal_cell_with_its_two_fold_axes_between_a_and_b_keeps_its_rotations(tmp_path):
    # P-31m: orix's -3m has them along a.
    crystal = make_crystal(
        "p31m", (5, 5, 5.5, 90, 90, 120), ["Fe"] * 2 + ["O"] * 6,
        [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0], [0.3, 0, 0.2], [0, 0.3, 0.2], [0.7, 0.7, 0.2],
         [0, 0.7, 0.8], [0.7, 0, 0.8], [0.3, 0.3, 0.8]],
    )  # fmt: skip
    assert crystal.space_group == 162
    io.write_tree(tmp_path / "map_orix.h5", method.orix_tree(small_map(crystal), [crystal], SCAN), {})
    group = load(tmp_path / "map_orix.h5").phases[0].point_group
    assert group.name == "312"
    assert np.abs(group.to_matrix()[:, None] - crystal.operations[None]).max(axis=(2, 3)).min(axis=1).max() < 1e-6


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (20, 30)])
def test_maps_of_one_row_or_column_and_larger_ones_are_read(shape, tmp_path):
    crystal = build("6/mmm")
    count = shape[0] * shape[1]
    result = map_of(random_orientations(count).reshape(*shape, 4), np.zeros(shape, int), ["hexagonal"])
    io.write_tree(tmp_path / "map_orix.h5", method.orix_tree(result, [crystal], SCAN), {})
    (tmp_path / "map.ctf").write_text(method.ctf_text(result, [crystal], SCAN))
    for name in ("map_orix.h5", "map.ctf"):
        assert load(tmp_path / name).size == count


def test_the_bytes_of_a_rerun_are_the_same(tmp_path):
    crystals = [build("6/mmm"), build("m-3m")]
    phase = np.arange(600).reshape(20, 30) % 3 - 1
    result = map_of(random_orientations(600).reshape(20, 30, 4), phase, ["a", "b"])
    digests = set()
    for name in ("first.h5", "second.h5"):
        time.sleep(1.1)  # HDF5 would stamp times in whole seconds
        io.write_tree(tmp_path / name, method.orix_tree(result, crystals, SCAN), {"settings": {"a": 1}})
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    back = load(tmp_path / "first.h5")
    assert np.array_equal(back.phase_id, phase.ravel())
    assert {k: p.name for k, p in back.phases} == {-1: "not_indexed", 0: "6/mmm", 1: "m-3m"}


def test_a_map_without_one_indexed_position_is_written(tmp_path):
    crystal = build("m-3m")
    result = map_of(random_orientations(12).reshape(3, 4, 4), np.full((3, 4), -1), ["gold"])
    io.write_tree(tmp_path / "map_orix.h5", method.orix_tree(result, [crystal], SCAN), {})
    (tmp_path / "map.ctf").write_text(method.ctf_text(result, [crystal], SCAN))
    for name in ("map_orix.h5", "map.ctf"):
        assert not load(tmp_path / name).is_indexed.any()
