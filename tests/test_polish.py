"""Scale and centre from indexed patterns: known errors of both are found within what is stated, and can be applied."""

import dataclasses
import json
import logging

import numpy as np
import pytest
from scipy.ndimage import shift
from test_crystal import build
from test_dynamical_patterns import FIXTURE, OPTICS
from test_orientation import COARSE, cube_of
from test_overlap import COUNT, PRECESSED, clean

from fourdstem.calibration import Acquisition
from fourdstem.cube import Correction, Cube
from fourdstem.errors import InputError
from fourdstem.methods import orientation as method
from fourdstem.methods.orientation import polish

PARAMS = method.Params(thickness_angstrom=150.0, sampling_deg=1.5)
PIXEL = OPTICS.detector_pixel_inv_angstrom


@pytest.fixture(scope="module")
def gold():
    return build("m-3m")


def wrong(factor, offset, electrons=1e4):
    """Many-beam patterns whose beam lies off the middle, and whose calibration is too large by a factor."""
    images = np.random.default_rng(1).poisson(electrons * clean()).astype(np.float32)
    images = np.array([shift(image, offset, order=1) for image in images])
    return Cube(images[None], dataclasses.replace(PRECESSED, detector_pixel_inv_angstrom=PIXEL * factor))


@pytest.mark.parametrize(
    ("factor", "offset"), [(1.0, (0, 0)), (1.015, (0.5, -0.3)), (0.98, (-0.5, 0.5)), (1.02, (0, 0.5))]
)
def test_scale_and_centre_are_found_within_what_is_stated(gold, factor, offset):
    result = method.compute(wrong(factor, offset), [gold], PARAMS)
    assert 0 < result.scale_factor_sigma < 1e-3
    assert np.all(result.centre_offset_sigma_px < 0.03)
    assert abs(result.scale_factor - factor) < 3 * result.scale_factor_sigma
    assert np.all(np.abs(result.centre_offset_px - offset) < 3 * result.centre_offset_sigma_px)
    assert result.pixel_refined_inv_angstrom == pytest.approx(PIXEL, abs=4 * PIXEL * result.scale_factor_sigma)


def test_at_a_tenth_of_the_dose_the_stated_uncertainty_is_larger_and_holds(gold):
    result = method.compute(wrong(1.015, (0.5, -0.3), electrons=1e3), [gold], PARAMS)
    assert result.scale_factor_sigma > 3.5e-4
    assert abs(result.scale_factor - 1.015) < 3 * result.scale_factor_sigma
    assert np.all(np.abs(result.centre_offset_px - [0.5, -0.3]) < 3 * result.centre_offset_sigma_px)


def test_applied_on_request_the_second_index_finds_what_the_right_calibration_finds(gold):
    cube = wrong(1.02, (0.5, 0.5))
    truth = FIXTURE["orientation"][:COUNT]
    mended = method.compute(cube, [gold], dataclasses.replace(PARAMS, polish=True))
    known = dataclasses.replace(PRECESSED, detector_pixel_inv_angstrom=PIXEL)
    middle = np.broadcast_to((np.array(cube.detector_shape) - 1) / 2 + 0.5, (1, COUNT, 2))
    same = Cube(cube.data, known, Correction(middle, np.eye(2), np.zeros(cube.detector_shape, bool)))
    right = method.compute(same, [gold], PARAMS)
    error, least = (method.misorientation_deg(r.orientation[0], truth, gold) for r in (mended, right))
    assert np.mean(error < 3) >= np.mean(least < 3) - 0.05
    # What is reported is what was found before it was applied.
    assert abs(mended.scale_factor - 1.02) < 3 * mended.scale_factor_sigma
    # Scores are those of patterns whose disks lie where they should.
    before = method.compute(cube, [gold], PARAMS)
    assert np.median(mended.correlation) > np.median(before.correlation) + 0.02
    assert np.median(mended.correlation) == pytest.approx(np.median(right.correlation), abs=0.01)


def test_a_cube_that_is_corrected_while_read_gets_a_corrected_correction(gold):
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])  # recorded = turn @ corrected
    old = Correction(np.full((1, 3, 2), 60.0), turn, np.zeros((128, 128), bool))
    cube = Cube(np.zeros((1, 3, 128, 128), np.float32), OPTICS, correction=old)
    found = polish.Polish(1.01, 1e-3, np.array([0.5, -0.25]), np.full(2, 0.01), 30, 300)
    new = polish.applied(cube, found)
    assert np.allclose(new.correction.centre_px, [59.75, 59.5])
    assert np.array_equal(new.correction.matrix, turn)
    assert new.acquisition.pixel_inv_angstrom == pytest.approx(PIXEL / 1.01)
    assert new.valid[0].sum() == 0 and new.valid[1:-1, 1:-1].all()


def test_too_few_or_meaningless_patterns_tell_nothing(gold):
    few = method.compute(Cube(wrong(1, (0, 0)).data[:, :8], PRECESSED), [gold], PARAMS)
    noise = np.random.default_rng(0).poisson(2.0, (1, 40, 128, 128)).astype(np.float32)
    nothing = method.compute(Cube(noise, PRECESSED), [gold], dataclasses.replace(PARAMS, minimum_correlation=0.0))
    for result in (few, nothing):
        assert np.isnan(result.scale_factor)
        assert np.isnan(result.centre_offset_px).all()


def test_what_is_off_is_told_with_the_setting_that_applies_it(gold, caplog):
    with caplog.at_level(logging.INFO, "fourdstem"):
        method.compute(wrong(1.015, (0.5, -0.3)), [gold], PARAMS)
    (said,) = [r for r in caplog.records if "1/Å per px" in r.getMessage()]
    assert said.levelno == logging.WARNING
    assert "fit 0.0203" in said.getMessage() and "orientation: polish" in said.getMessage()
    caplog.clear()
    with caplog.at_level(logging.INFO, "fourdstem"):
        method.compute(wrong(1.0, (0, 0)), [gold], PARAMS)
    (said,) = [r for r in caplog.records if "1/Å per px" in r.getMessage()]
    assert said.levelno == logging.INFO


@pytest.mark.parametrize(("scale", "offset", "told"), [(1.004, 0.1, False), (1.006, 0.1, True), (1.0, 0.4, True)])
def test_only_what_matters_is_a_warning(scale, offset, told):
    assert polish.matters(scale, 3e-4, np.array([0.0, offset]), np.array([0.01, 0.01])) is told
    assert not polish.matters(scale, 1.0, np.array([0.0, offset]), np.array([1.0, 1.0]))


def test_threads_and_memory_do_not_change_the_polished_map(gold):
    cube = wrong(1.01, (0.3, 0.0))
    params = dataclasses.replace(PARAMS, polish=True)
    first = method.compute(cube, [gold], params)
    again = method.compute(dataclasses.replace(cube, threads=2, memory_mb=8), [gold], params)
    for name in ("orientation", "correlation", "scale_factor", "centre_offset_px", "centre_offset_sigma_px"):
        assert np.array_equal(getattr(first, name), getattr(again, name), equal_nan=True)


# ---- bad input -----------------------------------------------------------------------------------------------


def test_rings_that_do_not_fit_the_calibration_are_told_with_the_scale_that_does(caplog):
    reason = "rings of the phases fit neither 0.04060 1/Å per px, which is in force, nor 30 % around it (correlation "
    reason += "0.14); they fit 0.02028 (0.50 times as much)"
    with caplog.at_level(logging.WARNING, "fourdstem"):
        method.tell_camera(json.dumps({"camera": {"pass": True, "reason": "fits"}}))
        assert not caplog.records
        method.tell_camera(json.dumps({"camera": {"pass": False, "reason": reason}}))
    (said,) = [r.getMessage() for r in caplog.records]
    assert "they fit 0.02028 (0.50 times as much)" in said
    assert "detector_pixel_inv_angstrom" in said


def test_a_missing_camera_length_is_one_clear_message(gold):
    blind = Acquisition(beam_energy_kev=200, convergence_mrad=1)
    with pytest.raises(InputError, match=r"no calibration.*detector_pixel_inv_angstrom.*preprocess proposes"):
        method.compute(Cube(np.zeros((1, 1, 128, 128)), blind), [gold], PARAMS)


def test_empty_and_saturated_patterns_are_counted_and_not_indexed(gold, caplog):
    images = np.random.default_rng(1).poisson(1e4 * clean()[:12]).astype(np.float32)
    images[2] = 0
    images[5] = 65535
    with caplog.at_level(logging.WARNING, "fourdstem"):
        result = method.compute(Cube(images[None], PRECESSED), [gold], PARAMS)
    assert [r.getMessage()[:18] for r in caplog.records if "nothing to match" in r.getMessage()] == [
        "2 of 12 patterns h"
    ]
    assert np.flatnonzero(result.phase[0] < 0).tolist() == [2, 5]


def test_disks_cut_off_by_the_detectors_ceiling_still_give_orientations(gold):
    images = np.random.default_rng(1).poisson(1e5 * clean()).astype(np.float32)
    cut = np.minimum(images, 60)
    truth = FIXTURE["orientation"][:COUNT]
    share = [
        np.mean(
            method.misorientation_deg(
                method.compute(Cube(i[None], PRECESSED), [gold], PARAMS).orientation[0], truth, gold
            )
            < 3
        )
        for i in (images, cut)
    ]
    assert np.mean(images > 60) > 0.005
    assert share[1] >= share[0] - 0.2


def test_a_phase_without_reflections_in_range_is_named(gold):
    far = dataclasses.replace(OPTICS, detector_pixel_inv_angstrom=1e-4)
    with pytest.raises(InputError, match="no reflection of m-3m"):
        method.compute(dataclasses.replace(cube_of(np.zeros((1, 80, 80))), acquisition=far), [gold], COARSE)
