"""Gain, offset and readout noise from the line of variance over mean, against detectors whose values are known."""

import functools
import json

import numpy as np
import pytest
from disk_scans import disk

from fourdstem.calibration import Acquisition
from fourdstem.cube import Cube
from fourdstem.methods import preprocess
from fourdstem.methods.preprocess import Params, moments

CAMERAS = [(3.7, 100.0, 2.0), (40.0, 100.0, 20.0), (12.0, 400.0, 5.0), (0.5, 50.0, 1.0)]  # gain, offset, readout noise
SIZE = 48


@functools.cache
def recorded(dose, camera, dtype):
    """A disk, three Bragg disks and a halo under a specimen of 20 % contrast, as a detector records them."""
    gain, offset, readout = camera
    rng = np.random.default_rng(1)
    y, x = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
    middle = (SIZE - 1) / 2
    shape = disk((SIZE, SIZE), (middle, middle), 6.0) + 0.1 * np.exp(-((np.hypot(y, x) / 12) ** 2))
    for dy, dx in ((15, 0), (-15, 3), (2, 14)):
        shape += 0.3 * disk((SIZE, SIZE), (middle + dy, middle + dx), 4.0)
    sy, sx = np.mgrid[:16, :40]
    thickness = 1 + 0.2 * np.sin(sx / 7.0) * np.cos(sy / 5.0)
    counts = gain * rng.poisson(dose * thickness[..., None, None] * shape) + offset
    counts = counts + rng.normal(0, readout, counts.shape) if readout else counts
    return (np.round(counts) if np.dtype(dtype).kind == "u" else counts).astype(dtype)


@functools.cache
def statistics(dose, camera, dtype):
    return moments.measure(Cube(recorded(dose, camera, dtype)))


def estimated(dose, camera, dtype, **known):
    good = np.ones((SIZE, SIZE), bool)
    integer = np.dtype(dtype).kind == "u"
    return moments.estimate_gain(statistics(dose, camera, dtype), good, Acquisition(**known), Params(), integer)[0]


def bright_enough(camera, dose):
    """Whether shot noise of the brightest pixels exceeds the readout noise several times over."""
    gain, _, readout = camera
    return 0.1 * dose * gain**2 > 3 * readout**2


SEEN = [(c, d) for c in CAMERAS for d in (30, 100, 300) if bright_enough(c, d)]


@pytest.mark.parametrize("dtype", ["u2", "f4"])
@pytest.mark.parametrize(("camera", "dose"), SEEN)
def test_with_one_of_them_given_gain_and_the_other_are_those_of_the_detector(camera, dose, dtype):
    gain, offset, readout = camera
    rounding = 1 / 12 if dtype == "u2" else 0.0  # variance that whole numbers add
    for known in ({"offset_counts": offset}, {"readout_noise_counts": readout}):
        found = estimated(dose, camera, dtype, **known)
        assert found.passed
        assert found.counts_per_electron == pytest.approx(gain, rel=0.02)
        if "offset_counts" in known:
            assert found.offset_counts == offset
            assert found.readout_noise_counts == pytest.approx(np.sqrt(readout**2 + rounding), rel=0.05)
        else:
            assert found.readout_noise_counts == readout
            assert found.offset_counts == pytest.approx(offset - rounding / gain, abs=0.02 * gain)
            assert "from the line and the readout noise given" in found.reason


@pytest.mark.parametrize("dtype", ["u2", "f4"])
@pytest.mark.parametrize("camera", CAMERAS[:3])
def test_with_neither_given_a_level_floor_gives_the_offset_and_a_sloping_one_does_not(camera, dtype):
    gain, offset, readout = camera
    dim = estimated(30, camera, dtype)
    assert dim.counts_per_electron == pytest.approx(gain, rel=0.02)
    assert dim.offset_counts == pytest.approx(offset, abs=0.05 * gain)  # 0.03 electrons of halo are on the floor
    assert dim.readout_noise_counts == pytest.approx(readout, rel=0.1)
    assert "level floor" in dim.reason
    bright = estimated(300, camera, dtype)
    assert bright.counts_per_electron == pytest.approx(gain, rel=0.02)
    assert np.isnan(bright.offset_counts) and np.isnan(bright.readout_noise_counts)
    assert "offset declined" in bright.reason


@pytest.mark.parametrize("dose", [0.3, 3, 30, 300])
def test_a_counting_detector_has_gain_1_no_offset_and_no_readout_noise_at_every_dose(dose):
    found = estimated(dose, (1.0, 0.0, 0.0), "u2")
    assert found.counts_per_electron == pytest.approx(1, rel=0.03)
    assert found.offset_counts == 0
    assert found.readout_noise_counts < 0.05
    given = estimated(dose, (1.0, 0.0, 0.0), "f4", offset_counts=0.0)
    assert given.counts_per_electron == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("dtype", ["u2", "f4"])
@pytest.mark.parametrize("camera", CAMERAS)
def test_the_gain_is_declined_where_readout_noise_hides_the_electrons(camera, dtype):
    gain, offset, _ = camera
    found = estimated(0.3, camera, dtype)
    assert not found.passed and np.isnan(found.counts_per_electron)
    assert "gain declined" in found.reason
    assert found.offset_counts == pytest.approx(offset, abs=0.05 * gain + 0.1)
    given = estimated(0.3, camera, dtype, counts_per_electron=gain)
    assert given.counts_per_electron == gain and "given" in given.reason


def test_the_estimate_and_its_reason_stand_in_the_results():
    camera = CAMERAS[0]
    cube = Cube(recorded(300, camera, "u2"), acquisition=Acquisition(offset_counts=camera[1]))
    result = preprocess.compute(cube, Params())
    assert result.counts_per_electron == pytest.approx(camera[0], rel=0.02)
    assert result.offset_counts == camera[1]
    assert result.readout_noise_counts == pytest.approx(camera[2], rel=0.05)
    verdict = json.loads(result.verdict)["gain"]
    assert verdict["pass"] and "offset 100 given" in verdict["reason"]
