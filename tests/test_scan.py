"""Acquisition values, scan shape and selection: nothing is guessed, nothing is lost."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from fourdstem.calibration import Acquisition
from fourdstem.cube import Cube
from fourdstem.errors import ConfigError, InputError
from fourdstem.methods.scan import (
    Params,
    compute,
    linkable,
    resolve_acquisition,
    resolve_scan_shape,
    scan_shape_candidates,
    select,
    selected_acquisition,
)
from fourdstem.schema import json_schema

COUNTS = np.random.default_rng(0).integers(0, 255, (6, 37, 9, 10)).astype(np.uint8)
SOUND = {"beam_energy_kev": 200.0, "convergence_mrad": 1.0, "detector_pixel_inv_angstrom": 0.0203}


def mistakes(file_values, config_values, needed=(), detector=(128, 128)):
    with pytest.raises(ConfigError) as caught:
        resolve_acquisition(file_values, config_values, needed, detector)
    return caught.value.mistakes


# ---- acquisition ------------------------------------------------------------------------------------------


def test_the_configuration_overrides_the_file_and_origins_say_so():
    acquisition, origins = resolve_acquisition(
        SOUND | {"scan_step_angstrom": [20, 20]}, {"beam_energy_kev": 300, "convergence_mrad": None, "mask": "m.png"}
    )
    assert acquisition.beam_energy_kev == 300
    assert acquisition.convergence_mrad == 1.0
    assert acquisition.scan_step_angstrom == (20, 20)
    assert origins["beam_energy_kev"] == "config" and origins["convergence_mrad"] == "file"
    assert origins["precession_mrad"] == "default" and origins["mask"] == "config"
    assert set(origins) == {f.name for f in dataclasses.fields(Acquisition)}


def test_a_pixel_of_the_configuration_replaces_either_pixel_of_the_file():
    acquisition, origins = resolve_acquisition(SOUND, {"detector_pixel_mrad": 0.5})
    assert acquisition.detector_pixel_inv_angstrom is None
    assert acquisition.detector_pixel_mrad == 0.5
    assert origins["detector_pixel_inv_angstrom"] == "default"


def test_two_pixels_in_the_configuration_are_refused():
    assert "both given" in mistakes({}, {"detector_pixel_mrad": 0.5, "detector_pixel_inv_angstrom": 0.02})[0]


def test_every_missing_value_is_named_at_once_with_its_unit_and_its_stages():
    found = mistakes({}, {}, {"beam_energy_kev": ["orientation"], "detector_pixel_inv_angstrom": ["orientation"]})
    assert len(found) == 2
    assert "acquisition.beam_energy_kev" in found[0] and "keV" in found[0] and "needed by orientation" in found[0]
    assert "detector_pixel_inv_angstrom or acquisition.detector_pixel_mrad" in found[1]
    assert all("under `acquisition` of the sample" in m for m in found)


def test_either_pixel_serves_whatever_is_needed():
    resolve_acquisition({"detector_pixel_mrad": 0.5}, {}, ["detector_pixel_inv_angstrom"])
    resolve_acquisition({"detector_pixel_inv_angstrom": 0.5}, {}, ["detector_pixel_mrad"])


@pytest.mark.parametrize(
    ("file_values", "config_values", "words"),
    [
        ({"beam_energy_kev": 200000.0}, {}, ("200000", "from the file", "eV", "beam_energy_kev: 200")),
        ({}, {"beam_energy_kev": 0.2}, ("0.2", "from the config", "> 1")),
        ({}, {"beam_energy_kev": float("nan")}, ("nan",)),
        ({}, {"scan_step_angstrom": [20, 0]}, ("[20, 0]", ">= 0.001")),
        ({"scan_step_angstrom": 20.0}, {}, ("20.0", "from the file", "[scan_y, scan_x]")),
        ({"beam_energy_kev": "200 kV"}, {}, ("200 kV", "from the file", "one number")),
        ({}, {"convergence_mrad": -1}, ("-1", ">= 0 and <= 200")),
        (SOUND, {"detector_pixel_inv_angstrom": 0.203}, ("0.203", "1/nm", "326 mrad")),
        (SOUND, {"detector_pixel_mrad": 66}, ("66", "whole detector")),
        (SOUND, {"convergence_mrad": 40}, ("157 px", "128 px", "semi-angle")),
        (SOUND, {"beam_energy": 200}, ("beam_energy", "Did you mean `beam_energy_kev`")),
        (SOUND, {"zzz": 1}, ("zzz", "The keys are")),
    ],
)
def test_absurd_values_are_refused_with_the_likely_cause(file_values, config_values, words):
    found = mistakes(file_values, config_values)
    assert len(found) == 1
    for word in words:
        assert word in found[0], found[0]


def test_sound_values_of_very_different_instruments_pass():
    resolve_acquisition(SOUND, {}, detector_shape=(128, 128))
    for energy, convergence, pixel, side in ((300, 1.03, 0.017, 256), (200, 1, 0.803, 144), (30, 2, 4.0, 256)):
        values = {"beam_energy_kev": energy, "convergence_mrad": convergence, "detector_pixel_mrad": pixel}
        resolve_acquisition(values, {}, detector_shape=(side, side))


# ---- scan shape -------------------------------------------------------------------------------------------


def test_a_stack_takes_the_stated_shape_and_four_axes_speak_for_themselves():
    assert resolve_scan_shape((12, 8, 8), (3, 4)) == (3, 4)
    assert resolve_scan_shape((3, 4, 8, 8), None) == (3, 4)
    assert resolve_scan_shape((3, 4, 8, 8), [3, 4]) == (3, 4)
    assert resolve_scan_shape((1, 12, 8, 8), (3, 4)) == (3, 4)


def test_a_stack_without_a_shape_is_an_error_that_lists_what_would_fit():
    with pytest.raises(InputError) as caught:
        resolve_scan_shape((12, 8, 8), None)
    assert caught.value.where == "acquisition.scan_shape"
    assert "12 frames" in caught.value.found
    assert "[3, 4], [4, 3], [2, 6]" in caught.value.expected


@pytest.mark.parametrize(
    ("shape", "scan_shape", "words"),
    [
        ((12, 8, 8), (3, 5), ("[3, 5] (15 positions)", "12 frames")),
        ((12, 8, 8), (3, 3), ("[3, 3]", "12 frames")),
        ((3, 4, 8, 8), (4, 3), ("[4, 3]", "a scan of [3, 4]")),
        ((3, 4, 8, 8), (2, 6), ("[2, 6]", "[3, 4]")),
    ],
)
def test_a_contradicted_scan_shape_is_refused_naming_both(shape, scan_shape, words):
    with pytest.raises(InputError) as caught:
        resolve_scan_shape(shape, scan_shape)
    for word in words:
        assert word in caught.value.found


def test_an_interrupted_scan_is_accepted_only_inside_what_was_recorded():
    assert resolve_scan_shape((10, 8, 8), (4, 4), roi=(0, 2, 0, 4)) == (4, 4)
    assert resolve_scan_shape((10, 8, 8), (4, 4), roi=(0, 3, 0, 2)) == (4, 4)
    with pytest.raises(InputError):
        resolve_scan_shape((10, 8, 8), (4, 4), roi=(0, 3, 0, 3))
    with pytest.raises(InputError):
        resolve_scan_shape((20, 8, 8), (4, 4), roi=(0, 2, 0, 4))


def test_candidates_multiply_to_the_number_of_frames_squarest_first():
    for frames in (1, 7, 12, 4096, 65536):
        pairs = scan_shape_candidates(frames)
        assert all(y * x == frames for y, x in pairs)
        assert len(set(pairs)) == len(pairs) <= 8
    assert scan_shape_candidates(4096)[:3] == [(64, 64), (32, 128), (128, 32)]


# ---- selection --------------------------------------------------------------------------------------------


def whole(selection):
    return np.stack([selection[y, 0 : selection.shape[1]] for y in range(selection.shape[0])])


@pytest.mark.parametrize("roi", [None, (1, 6, 3, 37), (2, 3, 5, 6)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("layout", ["scan", "stack", "one row", "one column"])
def test_a_selection_equals_slicing_the_whole_array(roi, stride, layout):
    ny, nx = COUNTS.shape[:2]
    shapes = {"scan": (ny, nx), "stack": (ny * nx,), "one row": (1, ny * nx), "one column": (ny * nx, 1)}
    data = COUNTS.reshape(*shapes[layout], *COUNTS.shape[2:])
    selection = select(data, (ny, nx), Params(roi=roi, stride=stride))
    y0, y1, x0, x1 = roi or (0, ny, 0, nx)
    expected = COUNTS[y0:y1:stride, x0:x1:stride]
    assert selection.shape == expected.shape
    np.testing.assert_array_equal(whole(selection), expected)
    np.testing.assert_array_equal(selection[0, 0], expected[0, 0])
    for a, b in ((0, 1), (1, 5), (3, 99), (4, 4)):
        np.testing.assert_array_equal(selection[0, a:b], expected[0, a:b])


def test_a_selection_is_a_cube():
    cube = Cube(select(COUNTS, COUNTS.shape[:2], Params(stride=2)))
    assert cube.shape == (3, 19, 9, 10)
    total = sum(float(s) for _, s in cube.map_units(lambda patterns, unit: patterns.sum(dtype=np.float64)))
    assert total == COUNTS[::2, ::2].sum()


@pytest.mark.parametrize(
    ("dtype", "n", "summed"),
    [
        ("u1", 1, "u1"),
        (">u2", 1, "u2"),
        ("u1", 2, "u2"),
        ("u1", 16, "u2"),
        ("u1", 17, "u4"),
        (">u2", 2, "u4"),
        ("u4", 2, "u8"),
        ("i2", 4, "i4"),
        ("f4", 2, "f4"),
        (">f8", 1, "f8"),
        ("f2", 2, "f4"),
    ],
)
def test_binning_sums_full_wells_without_overflow(dtype, n, summed):
    value = 2.5 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    data = np.full((1, 2, 2 * n + 1, 2 * n), value, dtype)
    selection = select(data, (1, 2), Params(bin=n))
    assert selection.shape == (1, 2, (2 * n + 1) // n, 2)
    assert selection.dtype == np.dtype(summed) and selection.dtype.isnative
    block = selection[0, 0:2]
    assert block.dtype == selection.dtype
    assert np.all(block == value * n * n)


def test_the_lowest_signed_count_survives_binning():
    data = np.full((1, 1, 4, 4), -128, np.int8)
    assert np.all(select(data, (1, 1), Params(bin=4))[0, 0:1] == -2048)


def test_binning_equals_sums_over_blocks_and_crops_the_odd_remainder():
    block = select(COUNTS, COUNTS.shape[:2], Params(bin=4))[2, 3:5]
    assert block.shape == (2, 2, 2)
    np.testing.assert_array_equal(block[1, 1, 0], COUNTS[2, 4, 4:8, 0:4].astype(int).sum())


@pytest.mark.parametrize("roi", [(0, 7, 0, 5), (3, 3, 0, 5), (0, 5, 0, 38), (4, 2, 0, 5), (-1, 2, 0, 5)])
def test_a_roi_that_leaves_the_scan_is_refused(roi):
    with pytest.raises(InputError, match="roi") as caught:
        select(COUNTS, COUNTS.shape[:2], Params(roi=roi))
    assert "<= 37" in caught.value.expected


def test_a_bin_larger_than_the_detector_is_refused():
    with pytest.raises(InputError, match="at most 9"):
        select(COUNTS, COUNTS.shape[:2], Params(bin=10))


def test_stride_and_bin_scale_what_they_must():
    given = Acquisition(
        scan_step_angstrom=(20, 10),
        detector_pixel_inv_angstrom=0.02,
        counts_per_electron=3,
        offset_counts=5,
        readout_noise_counts=0.5,
    )
    after = selected_acquisition(given, Params(stride=3, bin=4), (7, 8))
    assert after.scan_shape == (7, 8)
    assert after.scan_step_angstrom == (60, 30)
    assert after.detector_pixel_inv_angstrom == pytest.approx(0.08)
    assert after.detector_pixel_mrad is None
    assert (after.counts_per_electron, after.offset_counts, after.readout_noise_counts) == (3, 80, 2)


def test_binned_noise_has_the_offset_and_the_readout_noise_that_are_stated():
    given = Acquisition(offset_counts=7.0, readout_noise_counts=2.0)
    data = np.random.default_rng(1).normal(7, 2, (1, 8, 128, 128)).astype(np.float32)
    after = selected_acquisition(given, Params(bin=2), (1, 8))
    binned = whole(select(data, (1, 8), Params(bin=2)))
    assert binned.mean() == pytest.approx(after.offset_counts, rel=0.01)
    assert binned.std() == pytest.approx(after.readout_noise_counts, rel=0.02)


def test_a_binned_pixel_is_used_only_if_all_its_pixels_are():
    mask = np.ones((9, 10), np.uint8)
    mask[0, 5] = 0
    mask[8, 0] = 0
    expected = np.ones((4, 5))
    expected[0, 2] = 0
    np.testing.assert_array_equal(compute((9, 10), Params(bin=2), mask).mask, expected)
    np.testing.assert_array_equal(compute((9, 10), Params(), mask).mask, mask)
    assert compute((9, 10), Params()).mask.all()


def test_the_schema_of_the_settings_is_that_of_the_contract():
    properties = json_schema(Params)["properties"]
    assert set(properties) == {"roi", "stride", "bin"}
    assert properties["roi"]["type"] == ["array", "null"]
    assert properties["roi"]["minItems"] == 4


# ---- linking ----------------------------------------------------------------------------------------------


def raw_like(shape=(8, 8, 64, 64), dtype="u2", chunks=(1, 8, 64, 64), location=("a.h5", "/d")):
    return SimpleNamespace(shape=shape, dtype=np.dtype(dtype), chunks=chunks, hdf5_location=location)


@pytest.mark.parametrize(
    ("raw", "params", "scan_shape", "expected"),
    [
        (raw_like(), Params(), None, True),
        (raw_like(chunks=None), Params(), (8, 8), True),
        (raw_like(chunks=(4, 4, 64, 64)), Params(), None, True),
        (raw_like(chunks=(8, 8, 32, 32)), Params(), None, False),
        (raw_like(shape=(64, 64, 256, 256), chunks=(64, 2, 256, 256)), Params(), None, False),
        (raw_like(dtype=">u2"), Params(), None, False),
        (raw_like(shape=(64, 64, 64), chunks=(1, 64, 64)), Params(), None, False),
        (raw_like(location=None), Params(), None, False),
        (raw_like(shape=(1, 64, 64, 64)), Params(), (8, 8), False),
        (raw_like(), Params(roi=(0, 8, 0, 8)), None, False),
        (raw_like(), Params(stride=2), None, False),
        (raw_like(), Params(bin=2), None, False),
    ],
)
def test_only_a_whole_well_chunked_dataset_is_linked(raw, params, scan_shape, expected):
    assert linkable(raw, params, scan_shape) is expected
