"""Grains of measured EBSD maps: needs FOURDSTEM_TEST_DATA. Read, segmented, written without change of orientation."""

import os
from pathlib import Path

import numpy as np
import orientations as make
import pytest
from scipy import ndimage

from fourdstem import crystal, rotations
from fourdstem.jit import alone
from fourdstem.methods import grains, orientation

with alone():
    from orix import io as orix_io
    from orix.quaternion import Orientation, symmetry

DATA = os.environ.get("FOURDSTEM_TEST_DATA")
pytestmark = pytest.mark.skipif(not DATA, reason="FOURDSTEM_TEST_DATA names no folder of third-party data")
AUSTENITE = crystal.make_crystal("austenite", (3.595,) * 3 + (90,) * 3, ["Fe"] * 4, make.FCC)
MAPS = {
    "mtex_twins.ctf": ([make.magnesium()], [symmetry.D6], "bands"),
    "sdss_ferrite_austenite.ang": ([AUSTENITE, make.iron()], [symmetry.O, symmetry.O], "iq"),
}


@pytest.fixture(scope="module", params=MAPS)
def case(request):
    crystals, groups, quality = MAPS[request.param]
    loaded = orix_io.load(str(Path(DATA) / "orientation_maps" / request.param))
    found = as_indexed(loaded, loaded.prop[quality])
    step = (1e4 * loaded.dy, 1e4 * loaded.dx)  # µm to Å
    result = grains.compute(found, crystals, grains.Params(minimum_px=5), source="ebsd", scan_step=step)
    return found, crystals, groups, step, result


def as_indexed(loaded, quality=None):
    """A map of orix as the library reads it; orix numbers phases from 1."""
    phase = np.where(loaded.phase_id > 0, loaded.phase_id - 1, -1).reshape(loaded.shape)
    quality = None if quality is None else quality.reshape(loaded.shape)
    return make.indexed(loaded.rotations.data.reshape(*loaded.shape, 4), phase, quality, quality)


def joined(found, groups, first, second) -> np.ndarray:
    """Whether neighbours differ by at most 5°, by orix's own misorientation."""
    out = np.zeros(found.phase[first].shape, bool)
    for phase, group in enumerate(groups):
        both = (found.phase[first] == phase) & (found.phase[second] == phase)
        one, other = (Orientation(found.orientation[part][both].astype(float), group) for part in (first, second))
        out[both] = np.rad2deg(one.angle_with(other)) <= 5
    return out


def test_the_segments_of_a_measured_map_are_those_of_an_independent_labelling(case):
    found, _, groups, _, result = case
    ny, nx = found.phase.shape
    # Positions on even pixels, their bonds between them; scipy labels what hangs together.
    picture = np.zeros((2 * ny - 1, 2 * nx - 1), bool)
    picture[::2, ::2] = found.phase >= 0
    left, right = (slice(None), slice(None, -1)), (slice(None), slice(1, None))
    above, below = (slice(None, -1), slice(None)), (slice(1, None), slice(None))
    picture[::2, 1::2] = joined(found, groups, left, right)
    picture[1::2, ::2] = joined(found, groups, above, below)
    label, count = ndimage.label(picture)
    label = label[::2, ::2]
    assert result.segment.max() + 1 == count
    pairs = set(zip(result.segment.ravel().tolist(), label.ravel().tolist(), strict=True))
    assert len(pairs) == count + bool((found.phase < 0).any())
    size = np.bincount(label.ravel())[1:]
    assert len(result.grain_size_px) == (size >= 5).sum()
    assert 60 < len(result.grain_size_px) < 2000 and (result.grain >= 0).mean() > 0.9


def test_the_twins_of_magnesium_and_of_austenite_are_in_the_boundaries(case):
    _, crystals, _, _, result = case
    if crystals[0].name == "magnesium":
        near = np.abs(result.boundary_angle_deg - 86.3) < 3
        # {10-12} twins turn about a; this file's e1 lies along a*, as Channel has it, 30° from ours.
        a = np.array([np.cos(np.pi / 6), np.sin(np.pi / 6), 0])
        along = np.abs(result.boundary_axis[near] @ (crystals[0].operations @ a).T).max(axis=1)
        assert near.mean() > 0.2 and np.median(np.rad2deg(np.arccos(along.clip(0, 1)))) < 3
    else:
        names = np.array(result.class_name)
        austenite = result.class_share[(names == "Σ3") & (result.class_phase == 0)][0]
        ferrite = result.class_share[(names == "Σ3") & (result.class_phase == 1)][0]
        assert austenite > 0.3 and austenite > 5 * ferrite
        assert result.class_segments[-1] > 500


def test_a_measured_map_is_written_without_change_of_orientation(case, tmp_path):
    found, crystals, _, step, result = case
    before = found.orientation.copy()
    cleaned = make.indexed(result.orientation_clean, result.phase_clean)
    for name, shown in (("raw", found), ("clean", cleaned)):
        shown.phase_name = tuple(c.name for c in crystals)
        path = tmp_path / f"{name}.ang"
        path.write_text(orientation.ang_text(shown, crystals, step), encoding="utf-8")
        back = as_indexed(orix_io.load(str(path)))
        if (shown.phase < 0).any():
            np.testing.assert_array_equal(back.phase, shown.phase)
        for k, one in enumerate(crystals):
            here = shown.phase == k
            away = rotations.angle_deg(
                rotations.multiply(back.orientation[here], rotations.conjugate(shown.orientation[here]))
            )
            assert away.max() < 2e-3, one.name
    np.testing.assert_array_equal(found.orientation, before)
    untouched = result.changed == 0
    as_read = untouched & (found.phase >= 0)
    assert as_read.mean() > 0.9
    np.testing.assert_allclose(result.orientation_clean[as_read], found.orientation[as_read], atol=1e-6)
