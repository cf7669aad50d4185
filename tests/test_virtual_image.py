"""Virtual detectors against plain sums."""

import numpy as np
import pytest
from peak_memory import peak_growth_mb

from fourdstem.calibration import Acquisition
from fourdstem.cube import Cube
from fourdstem.errors import InputError
from fourdstem.methods import virtual_image
from fourdstem.methods.virtual_image import Params


@pytest.fixture
def counts():
    return np.random.default_rng(3).poisson(2.0, (3, 37, 21, 24)).astype(np.uint16)


def test_images_are_sums_over_rings(counts):
    valid = np.ones((21, 24), np.uint8)
    valid[:, :2] = 0
    result = virtual_image.compute(Cube(counts, valid=valid), Params(), 2.5)
    y, x = np.indices((21, 24)) - np.array([10, 11.5])[:, None, None]
    r = np.hypot(y, x)
    kept = counts * valid
    np.testing.assert_allclose(result.bright_field, kept[..., r <= 2.5].sum(-1))
    np.testing.assert_allclose(result.annular_dark_field, kept[..., (r >= 5) & (r <= 10)].sum(-1))
    np.testing.assert_allclose(result.sum, kept.sum((2, 3)))
    np.testing.assert_allclose(result.centre_of_mass_y, (kept * y).sum((2, 3)) / kept.sum((2, 3)), atol=1e-5)
    np.testing.assert_allclose(result.centre_of_mass_x, (kept * x).sum((2, 3)) / kept.sum((2, 3)), atol=1e-5)


def test_the_answer_does_not_depend_on_threads_or_memory(counts):
    one = virtual_image.compute(Cube(counts), Params(), 2.5)
    other = virtual_image.compute(Cube(counts, threads=2, memory_mb=0.1), Params(), 2.5)
    for name in ("bright_field", "annular_dark_field", "centre_of_mass_y"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_limits_in_mrad_and_px_agree(counts):
    cube = Cube(counts, acquisition=Acquisition(beam_energy_kev=200, detector_pixel_mrad=0.5))
    by_angle = virtual_image.compute(cube, Params(dark_field_inner_mrad=2, dark_field_outer_mrad=4), 2.5)
    by_pixel = virtual_image.compute(cube, Params(dark_field_inner_px=4, dark_field_outer_px=8), 2.5)
    assert np.array_equal(by_angle.annular_dark_field, by_pixel.annular_dark_field)
    assert by_angle.dark_field_outer_px == 8
    by_length = Cube(counts, acquisition=Acquisition(beam_energy_kev=200, detector_pixel_inv_angstrom=0.0199355))
    result = virtual_image.compute(by_length, Params(dark_field_inner_mrad=2), 2.5)
    assert result.dark_field_inner_px == pytest.approx(4, rel=1e-3)


def test_a_pattern_without_counts_has_no_centre_of_mass(counts):
    counts[1, 5] = 0
    result = virtual_image.compute(Cube(counts), Params(), 2.5)
    assert np.isnan(result.centre_of_mass_y[1, 5])
    assert np.isnan(result.centre_of_mass_y).sum() == 1
    assert result.sum[1, 5] == 0


def test_impossible_limits_are_errors_that_name_them(counts):
    cube = Cube(counts)
    with pytest.raises(InputError, match="dark_field"):
        virtual_image.compute(cube, Params(), 8.0)
    with pytest.raises(InputError, match="one of the two"):
        virtual_image.compute(cube, Params(bright_field_outer_px=2, bright_field_outer_mrad=1), 2.0)
    with pytest.raises(InputError, match="calibration"):
        virtual_image.compute(cube, Params(bright_field_outer_mrad=1), 2.0)


def test_the_compiled_kernel_does_what_its_python_does(counts):
    patterns = counts[0, :3].astype(np.float32)
    inside = (np.random.default_rng(1).random((3, 21, 24)) > 0.5).astype(np.uint8)
    compiled = virtual_image.integrate(patterns, inside, np.empty((5, 3)))
    np.testing.assert_allclose(compiled, virtual_image.integrate.py_func(patterns, inside, np.empty((5, 3))))


PREPARE = """
import h5py
import numpy as np
from fourdstem.cube import Correction, Cube
from fourdstem.methods import virtual_image
file = h5py.File(sys.argv[1])
correction = Correction(np.full((*file["data"].shape[:2], 2), 127.0), np.eye(2), np.zeros((256, 256), bool))
options = {"correction": correction, "memory_mb": 100}
virtual_image.compute(Cube(file["data"][:1, :2], **options), virtual_image.Params(), 2.5)
"""
WORK = """
result = virtual_image.compute(Cube(file["data"], **options), virtual_image.Params(), 2.5)
assert result.sum[7, 3] > 0 and result.sum[6, 3] == 0
"""


def test_a_scan_larger_than_memory_mb_is_summed_within_it(tmp_path):
    import h5py

    with h5py.File(tmp_path / "scan.h5", "w") as file:  # chunks that are never written are zero and take no space
        data = file.create_dataset("data", (18, 64, 256, 256), np.uint16, chunks=(1, 16, 256, 256))
        data[7] = 1
    assert peak_growth_mb(PREPARE, WORK, tmp_path / "scan.h5") < 100
