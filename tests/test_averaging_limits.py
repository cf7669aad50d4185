"""Non-local averaging at its limits: memory, threads, wide scans, bad input."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from averaging import average, two_grains, uniform
from peak_memory import peak_growth_mb

from fourdstem.calibration import Acquisition
from fourdstem.cube import Correction, Cube
from fourdstem.errors import InputError
from fourdstem.methods import nonlocal_average as method
from fourdstem.methods.nonlocal_average import on_device, source, survey, window
from fourdstem.methods.nonlocal_average.arrays import padded

PATTERN = {"distance": "pattern", "lambda_value": 1.7}


def test_threads_and_memory_change_no_bit():
    counts, _ = two_grains(13, 45, n=12)
    correction = Correction(np.random.default_rng(0).normal(5.5, 0.8, (13, 45, 2)), np.eye(2), np.zeros((12, 12), bool))
    first, maps = average(Cube(counts, correction=correction))
    # 4, 2 and 1 rows at a time; the last with as little as it accepts
    needs = [window.needed_mb(Cube(counts), method.Params(**PATTERN), 108, rows) + 0.01 for rows in (4, 2, 1)]
    for threads, memory_mb in [(2, 2000.0), (3, needs[0]), (1, needs[1]), (2, needs[2]), (1, needs[2])]:
        again, other = average(Cube(counts, correction=correction, threads=threads, memory_mb=memory_mb))
        assert first.tobytes() == again.tobytes()
        assert maps.effective_number.tobytes() == other.effective_number.tobytes()


def test_memory_does_not_grow_with_the_height_of_the_scan():
    class Endless:
        dtype = np.dtype(np.uint16)

        def __init__(self, ny):
            self.shape = (ny, 20, 24, 24)

        def __setitem__(self, where, patterns):
            assert np.isfinite(patterns).all()

        def __getitem__(self, where):
            rng = np.random.default_rng(where[0])
            return rng.poisson(1.0, (where[1].stop - where[1].start, 24, 24)).astype(np.uint16)

    def peak(ny):
        tracemalloc.start()
        method.compute(Cube(Endless(ny)), method.Params(**PATTERN), Endless(ny))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(20)  # compiles
    low, high = peak(24), peak(160)
    maps = (160 - 24) * 20 * 200  # bytes of the maps, their differences and temporaries: no patterns
    assert high < 1.1 * low + maps
    assert maps < 0.25 * (160 - 24) * 20 * 24 * 24 * 2  # of the counts that were read
    assert high < 1.6 * window.rows_held(4, 4) * 20 * (2 * padded(24 * 24) * 4 + 81 * 8) + maps


PREPARE = """
import os, tempfile
import h5py
import numpy as np
from fourdstem.cube import Cube
from fourdstem.methods import nonlocal_average as method

class Nowhere:
    def __setitem__(self, where, patterns):
        assert np.isfinite(patterns).all()

stored = np.random.default_rng(0).poisson(1.0, (8, 8, 128, 128)).astype(np.uint16)
file = h5py.File(os.path.join(tempfile.mkdtemp(), "tall.h5"), "w")
for name, ny in (("short", 16), ("tall", 320)):
    data = file.create_dataset(name, (ny, 8, 128, 128), np.uint16, chunks=(1, 8, 128, 128))
    for y in range(0, ny, 8):
        data[y : y + 8] = stored

def average(name):
    settings = method.Params(window_half_width_px=2, distance="DISTANCE", lambda_value=1.7)
    method.compute(Cube(file[name], memory_mb=MEMORY, threads=2), settings, Nowhere())
average("short")
"""


@pytest.mark.parametrize(("distance", "memory_mb"), [("pattern", 40), ("projection", 62)])
def test_a_file_larger_than_memory_mb_is_averaged_within_it(distance, memory_mb):
    assert 320 * 8 * 128**2 * 2 / 2**20 == 80
    prepare = PREPARE.replace("DISTANCE", distance).replace("MEMORY", str(memory_mb))
    assert peak_growth_mb(prepare, "average('tall')") < memory_mb


@pytest.mark.parametrize("rows", [4, 2, 1])
@pytest.mark.parametrize("shape", [(19, 5), (10, 12), (9, 3), (30, 2)])
@pytest.mark.parametrize("half", [1, 4])
def test_fewer_rows_at_a_time_give_the_same_bits(rows, shape, half):
    cube = Cube(two_grains(*shape, n=11, dose=80)[0])
    settings = method.Params(window_half_width_px=half, **PATTERN)
    opened, outs = source.open_source(cube, settings, None), np.zeros((2, *cube.shape), np.float32)
    likeness = window.Likeness(opened.n, (1.7, 0.0), survey.look(opened).variance)
    maps = [
        window.average_window(opened, likeness, settings, method.Output(o), r)
        for o, r in zip(outs, (8, rows), strict=True)
    ]
    assert outs[0].tobytes() == outs[1].tobytes()
    assert maps[0].tobytes() == maps[1].tobytes()


@pytest.mark.parametrize(("nx", "half"), [(45, 1), (45, 4), (64, 2), (33, 4)])
def test_strips_of_a_wide_scan_fit_together(monkeypatch, nx, half):
    cube = Cube(two_grains(7, nx, n=11, dose=80)[0])
    whole, maps = average(cube, window_half_width_px=half)
    monkeypatch.setattr(window, "STRIP", 16)
    read = []
    monkeypatch.setattr(
        Cube, "units", lambda self, columns=None, units=Cube.units: read.append(columns) or units(self, columns)
    )
    strips, other = average(cube, window_half_width_px=half)
    assert len([columns for columns in read if columns]) == -(-nx // 16)
    np.testing.assert_allclose(strips, whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(other.effective_number, maps.effective_number, rtol=1e-5)


def test_rows_that_do_not_fit_into_memory_are_refused_with_what_they_need():
    class Wide:
        shape, dtype = (512, 512, 256, 256), np.dtype(np.uint16)

        def __getitem__(self, where):
            raise AssertionError("the scan was read before its need was known")

    params = method.Params(**PATTERN)
    with pytest.raises(InputError, match="256 patterns of 256x256") as error:
        method.compute(Cube(Wide(), memory_mb=500), params, Wide())
    need = int(error.value.found.split()[1])
    held = 10 * 264 * (256**2 + np.pi / 4 * (0.98 * 256) ** 2) * 4 / 2**20  # s = 4: a window and a row, strip and halo
    assert held < need < 1.4 * held
    assert f"nonlocal_average:mem_mb={need}" in error.value.do
    assert window.rows_together(Cube(Wide(), memory_mb=need), params, 49000) == 1
    assert window.rows_together(Cube(Wide(), memory_mb=2 * need), params, 49000) == 4


def test_duplicated_frames_do_not_make_the_noise_vanish():
    counts = uniform(2.0, n=16)
    twice = counts.copy()
    twice[5, 5] = twice[5, 4]
    _, before = average(Cube(counts))
    out, after = average(Cube(twice))
    np.testing.assert_allclose(after.sigma, before.sigma, rtol=0.2)
    np.testing.assert_array_equal(np.isnan(out), False)


@pytest.mark.parametrize("mode", ["counts", "sqrt"])
@pytest.mark.parametrize("level", [0, 5])
def test_constant_patterns_stay_as_they_are_and_say_that_nothing_is_known(mode, level):
    counts = np.full((6, 7, 10, 10), level, np.uint16)
    out, result = average(Cube(counts), average_in=mode)
    np.testing.assert_array_equal(out, level)
    assert np.isnan(result.sigma).all()
    np.testing.assert_array_equal(result.effective_number, 1)


def test_dark_frames_spoil_nothing():
    counts = uniform(3.0, ny=12, nx=12, n=48)
    counts[4:8, 4:8] = 0
    out, result = average(Cube(counts))
    dark = np.zeros((12, 12), bool)
    dark[4:8, 4:8] = True
    assert np.isfinite(out).all()
    assert out[dark].max() < 0.05  # at the rim, where the noise is estimated from bright neighbours
    np.testing.assert_allclose(out[~dark].mean(axis=(1, 2)), 3.0, rtol=0.02)
    np.testing.assert_array_equal(out[5:7, 5:7], 0)
    assert np.isnan(result.sigma[5:7, 5:7]).all() and np.isfinite(result.sigma[~dark]).all()


def test_a_pattern_without_a_beam_takes_no_part():
    counts, _ = two_grains()
    centre = np.full((12, 14, 2), 9.5)
    centre[3, 4] = np.nan
    out, result = average(Cube(counts, correction=Correction(centre, np.eye(2), np.zeros((20, 20), bool))))
    np.testing.assert_array_equal(out[3, 4], 0)
    assert np.isnan(result.sigma[3, 4]) and result.self_weight[3, 4] == 1
    kept = np.ones((12, 14), bool)
    kept[3, 4] = False
    np.testing.assert_allclose(out[kept].sum(axis=(1, 2)), 300, rtol=0.15)


def test_bad_pixels_neither_set_the_minimum_nor_the_distances():
    counts, _ = two_grains()
    bad = np.zeros((20, 20), bool)
    bad[5, 6] = bad[12, 3] = bad[15, 15] = True
    centre = np.random.default_rng(0).integers(-1, 2, (12, 14, 2)) + 9.5
    clean = counts.astype(np.float32) + 3
    faulty = clean.copy()
    faulty[:, :, 5, 6], faulty[:, :, 12, 3], faulty[:, :, 15, 15] = -1e4, np.nan, 1e6
    correction = Correction(centre, np.eye(2), bad)
    a, maps_a = average(Cube(faulty, correction=correction), average_in="sqrt")
    b, maps_b = average(Cube(np.where(bad, 0, clean), correction=correction), average_in="sqrt")
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(maps_a.sigma, maps_b.sigma)


def test_a_hopeless_region_is_left_out_of_the_comparison():
    counts, _ = two_grains()
    bad = np.zeros((20, 20), bool)
    bad[:, 8:12] = True
    correction = Correction(np.full((12, 14, 2), 9.5), np.eye(2), bad)
    changed = counts.copy()
    changed[:, :, :, 9:11] = 60000
    assert 9 not in source.open_source(Cube(changed, correction=correction), method.Params(), None).pixels[:, 1]
    a, maps_a = average(Cube(counts, correction=correction, valid=(~bad).astype(np.uint8)))
    b, maps_b = average(Cube(changed, correction=correction, valid=(~bad).astype(np.uint8)))
    np.testing.assert_array_equal(maps_a.sigma, maps_b.sigma)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(b[..., bad], 0)
    np.testing.assert_array_equal(maps_b.valid, ~bad)


def test_an_offset_is_subtracted_from_the_averages_in_both_modes():
    counts, _ = two_grains(dose=3000)
    bad = np.zeros((20, 20), bool)
    plain = Correction(np.full((12, 14, 2), 9.5), np.eye(2), bad)
    raised = Correction(plain.centre_px, plain.matrix, bad, offset_counts=100.0)
    for mode in ("counts", "sqrt"):
        a, _ = average(Cube(counts, correction=plain), average_in=mode)
        b, _ = average(Cube(counts + 100, correction=raised), average_in=mode)
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_the_direct_beam_can_be_left_out():
    counts, _ = two_grains(dose=3000)
    flicker = np.random.default_rng(0).uniform(0.5, 2, (12, 14, 1, 1))
    y, x = np.mgrid[:20, :20] - 9.5
    changed = np.where(np.hypot(y, x) < 2, (counts * flicker).astype(np.uint16), counts)
    _, with_beam = average(Cube(changed))
    _, without = average(Cube(changed), beam_radius_px=1.6, mask_direct_beam=True)
    _, still = average(Cube(counts), beam_radius_px=1.6, mask_direct_beam=True)
    np.testing.assert_array_equal(without.effective_number, still.effective_number)
    assert without.effective_number.mean() > 1.5 * with_beam.effective_number.mean()


def test_the_radius_of_the_beam_comes_from_the_acquisition_or_is_asked_for():
    counts, _ = two_grains()
    with pytest.raises(InputError, match="convergence_mrad"):
        average(Cube(counts), mask_direct_beam=True)
    about = Acquisition(beam_energy_kev=200, convergence_mrad=1.0, detector_pixel_mrad=0.5)
    opened = source.open_source(Cube(counts, about), method.Params(mask_direct_beam=True), None)
    distance = np.hypot(*(opened.pixels - 9.5).T)
    assert 2.0 + source.BEAM_MARGIN_PX <= distance.min() < 2.0 + source.BEAM_MARGIN_PX + 1


def test_a_pixel_that_is_not_a_number_is_named():
    counts = uniform(2.0, n=12).astype(np.float32)
    counts[3, 4, 5, 6] = np.nan
    with pytest.raises(InputError, match="scan row 3"):
        average(Cube(counts))


def test_centres_that_leave_nothing_to_compare_are_reported():
    counts, _ = two_grains()
    centre = np.full((12, 14, 2), 9.5)
    centre[0, 0], centre[5, 5] = -8.0, 25.0
    with pytest.raises(InputError, match="usable at every scan position"):
        average(Cube(counts, correction=Correction(centre, np.eye(2), np.zeros((20, 20), bool))))


@pytest.mark.parametrize("shape", [(12, 14), (5, 21), (1, 9), (20, 3)])
def test_the_path_of_the_graphics_card_gives_the_same_numbers(shape):
    """Runs on torch's CPU device where there is no card: the arithmetic is the same, the hardware is not."""
    cube = Cube(two_grains(*shape, n=11, dose=80)[0])
    settings = method.Params(**PATTERN)
    opened, outs = source.open_source(cube, settings, None), np.zeros((2, *cube.shape), np.float32)
    members = np.zeros((2, *shape, method.members(settings, shape)), np.int32)
    likeness = window.Likeness(opened.n, (1.7, 0.0), survey.look(opened).variance)
    made = [method.Output(outs[k], members[k], np.zeros(members[k].shape, np.float32)) for k in range(2)]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = window.average_window(opened, likeness, settings, made[0], 4)
    b = on_device.average_window_on(device, opened, likeness, settings, made[1])
    np.testing.assert_allclose(outs[1], outs[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(b, a, rtol=1e-5)
    np.testing.assert_array_equal(members[1], members[0])
    np.testing.assert_allclose(made[1].weight, made[0].weight, rtol=1e-4, atol=1e-9)


def test_a_detector_with_readout_noise_is_compared_by_the_anscombe_transform():
    rng = np.random.default_rng(5)
    electrons, _ = two_grains(dose=600)
    recorded = 100 + 20 * electrons + rng.normal(0, 12, electrons.shape)
    still = np.full((12, 14, 2), 9.5)
    known = Correction(still, np.eye(2), np.zeros((20, 20), bool), 100.0, 20.0, 12.0)
    cube = Cube(recorded.astype(np.float32), correction=known)
    out, auto = average(cube, lambda_value=None)
    root, published = average(cube, lambda_value=None, transform="root")
    left, expected = electrons[:, :7], two_grains(dose=600)[1][0] * 20
    assert np.abs(out[:, :7] - expected).mean() < 0.5 * np.abs(20.0 * left - expected).mean()
    # √(I - min I) of counts with an offset of 100 - 4 x 12 is not even: bright pixels lose their say
    assert np.abs(out[:, :7] - expected).mean() < np.abs(root[:, :7] - expected).mean()
    assert auto.sigma.mean() != pytest.approx(published.sigma.mean(), rel=0.01)
    unknown = Cube(recorded, correction=Correction(still, np.eye(2), np.zeros((20, 20), bool)))
    with pytest.raises(InputError, match="gain"):
        average(unknown, transform="anscombe")


def test_saturated_pixels_are_averaged_but_not_compared():
    counts, _ = two_grains()
    saturated = np.zeros((20, 20), bool)
    saturated[9:11, 9:11] = True
    correction = Correction(np.full((12, 14, 2), 9.5), np.eye(2), np.zeros((20, 20), bool), saturated=saturated)
    clipped = np.where(saturated, np.random.default_rng(0).integers(0, 9, counts.shape), counts)
    opened = source.open_source(Cube(clipped, correction=correction), method.Params(), None)
    assert len(opened.pixels) == source.most_compared(Cube(counts), method.Params()) - 4
    out, maps = average(Cube(clipped, correction=correction))
    _, without = average(Cube(counts, correction=correction))
    np.testing.assert_array_equal(maps.effective_number, without.effective_number)
    assert (out[:, :, 9:11, 9:11] > 0).all()


def test_averages_of_nothing_and_of_everything_are_told():
    counts, _ = two_grains()
    usual = average(Cube(counts))[1]
    assert not method.doubts(usual)
    few = replace(usual, effective_number=np.full((12, 14), 1.5))
    assert any("little is averaged" in told and "1.5 of 81" in told for told in method.doubts(few))
    assert any("nearly everything" in told for told in method.doubts(average(Cube(counts), lambda_value=900)[1]))
    assert any("with no other" in told for told in method.doubts(average(Cube(np.ones((4, 4, 9, 9))))[1]))


def test_a_beam_radius_that_was_not_measured_is_taken_from_the_semi_angle():
    about = Acquisition(beam_energy_kev=200, convergence_mrad=1.0, detector_pixel_mrad=0.5)
    cube = Cube(two_grains()[0], about)
    settings = {"distance": "projection", "lambda_value": None, "mask_direct_beam": True}
    a, _ = average(cube, beam_radius_px=np.nan, **settings)
    b, _ = average(cube, **settings)
    np.testing.assert_array_equal(a, b)
