"""One merged map of several phases in every format: phases, orientations, headers, as other readers take them."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from orix.io import load
from test_crystal import build
from test_interchange import SCAN, bunge, columns_of, map_of, random_orientations

from fourdstem import io
from fourdstem.errors import InputError
from fourdstem.methods import orientation as method
from fourdstem.methods.orientation.rotations import to_matrix

LAUE = ("m-3m", "6/mmm", "mmm")
PHASE = np.array([[0, 1, 2, -1], [2, 2, -1, 0], [1, 0, 1, 2]])


@pytest.fixture(scope="module")
def crystals():
    return [build(laue) for laue in LAUE]


@pytest.fixture(scope="module")
def merged():
    return map_of(random_orientations(12).reshape(3, 4, 4), PHASE, LAUE)


def same_orientations(found, merged, crystals):
    """Angles between rotations read (n, 4) and those of the map, symmetry considered, all in one frame."""
    wanted = merged.orientation.reshape(-1, 4)
    for k, crystal in enumerate(crystals):
        here = PHASE.ravel() == k
        assert np.all(method.misorientation_deg(found[here], wanted[here], crystal) < 0.01)


def test_ang_has_every_phase_its_cell_and_symmetry_and_zero_where_not_indexed(merged, crystals, tmp_path):
    text = method.ang_text(merged, crystals, (20.0, 30.0))
    (tmp_path / "map.ang").write_text(text)
    back = load(tmp_path / "map.ang")
    assert np.array_equal(back.phase_id, np.where(PHASE < 0, -1, PHASE + 1).ravel())
    names = {k: p.name for k, p in back.phases if k > 0}
    assert names == {k + 1: laue for k, laue in enumerate(LAUE)}
    for k, crystal in enumerate(crystals):
        phase = back.phases[k + 1]
        assert phase.point_group.laue.name == crystal.laue_class
        assert phase.structure.lattice.abcABG() == pytest.approx(crystal.cell, abs=1e-4)
    same_orientations(back.rotations.data, merged, crystals)
    rows = np.loadtxt(text.splitlines())
    assert np.array_equal(rows[:, 7], PHASE.ravel() + 1)
    assert np.array_equal(rows[PHASE.ravel() < 0][:, 6], [-1, -1])
    head = [line for line in text.splitlines() if line.startswith("#")]
    for key in ("GRID", "XSTEP", "YSTEP", "NCOLS_ODD", "NCOLS_EVEN", "NROWS", "OPERATOR", "Column names"):
        assert sum(line.startswith(f"# {key}") for line in head) == 1
    for key in ("Phase ", "MaterialName", "Formula", "Symmetry", "LatticeConstants", "NumberFamilies"):
        assert sum(line.startswith(f"# {key}") for line in head) == len(LAUE)


def test_ctf_has_every_phase_its_cell_and_laue_class_and_zero_where_not_indexed(merged, crystals, tmp_path):
    text = method.ctf_text(merged, crystals, SCAN)
    (tmp_path / "map.ctf").write_text(text)
    back = load(tmp_path / "map.ctf")
    assert np.array_equal(np.where(back.phase_id < 1, 0, back.phase_id), PHASE.ravel() + 1)
    head, rows = columns_of(text)
    at = head.index("Phases\t3")
    codes = {"m-3m": "11", "6/mmm": "9", "mmm": "3"}
    for line, crystal in zip(head[at + 1 : at + 4], crystals, strict=True):
        lengths, angles, name, laue, group, *_ = line.split("\t")
        assert [float(v) for v in lengths.split(";") + angles.split(";")] == pytest.approx(crystal.cell, abs=1e-4)
        assert (name, laue, group) == (crystal.name, codes[crystal.laue_class], str(crystal.space_group))
    for key in (
        "Channel Text File",
        "Prj",
        "Author",
        "JobMode\tGrid",
        "XCells\t4",
        "YCells\t3",
        "XStep",
        "YStep",
        "Euler",
    ):
        assert sum(line.startswith(key) for line in head) == 1
    assert np.array_equal(rows[:, 0], PHASE.ravel() + 1)
    assert np.array_equal(rows[:, 4], np.where(PHASE.ravel() < 0, 3, 0))
    # Axes of .ctf are x || a*, z || c: turned back by hand, every phase by its own cell.
    for k, crystal in enumerate(crystals):
        here = PHASE.ravel() == k
        ours = np.einsum("ij,njk->nik", method.hkl_axes(crystal).T, bunge(rows[here][:, 5:8]))
        wanted = to_matrix(merged.orientation.reshape(-1, 4)[here])
        assert np.allclose(ours, wanted, atol=1e-5)


def test_orix_hdf5_has_every_phase_and_the_reliability_of_the_phase(merged, crystals, tmp_path):
    best = np.random.default_rng(1).uniform(0.2, 0.9, (3, 4, 3)).astype(np.float32)
    ramp = np.linspace(0, 90, 12, dtype=np.float32).reshape(3, 4)
    full = dataclasses.replace(merged, phase_correlation=best, phase_reliability=ramp)
    io.write_tree(tmp_path / "map_orix.h5", method.orix_tree(full, crystals, SCAN), {})
    back = load(tmp_path / "map_orix.h5")
    assert np.array_equal(back.phase_id, PHASE.ravel())
    assert {k: p.name for k, p in back.phases} == {-1: "not_indexed", **dict(enumerate(LAUE))}
    assert [back.phases[k].point_group.name for k in range(3)] == list(LAUE)
    assert np.array_equal(back.prop["phase_reliability"], ramp.ravel())
    same_orientations(back.rotations.data, merged, crystals)


@pytest.mark.parametrize(
    ("source", "words"),
    [("averaged", "no averaged patterns"), ("denoised", "no denoised patterns"), ("smoothed", "no pattern source")],
)
def test_a_source_that_was_not_computed_is_named(source, words, tmp_path):
    for missing in ([], str(tmp_path / "not_there.h5")):
        files = {"nonlocal_average": missing, "denoise": missing}
        inputs = SimpleNamespace(scan="scan.h5", preprocess="preprocess.h5", **files)
        with pytest.raises(InputError, match=words), io.open_patterns(source, inputs):
            pass
