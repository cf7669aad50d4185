"""Non-local averaging against an oracle, a plain NumPy reference, closed forms and simulated truth."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from peak_memory import peak_growth_mb

from fourdstem.calibration import Acquisition
from fourdstem.cube import Correction, Cube
from fourdstem.errors import InputError
from fourdstem.methods import nonlocal_average as method
from fourdstem.methods.nonlocal_average import kernels, source, window

ORACLE = Path(__file__).parent / "fixtures" / "nlpar.npz"
EVERYTHING = 1000.0  # a λ so large that the window is averaged evenly


def average(cube, beam_radius_px=None, **settings):
    out = np.full(cube.shape, np.nan, np.float32)
    return out, method.compute(cube, method.Params(**settings), out, beam_radius_px)


def two_grains(ny=12, nx=14, n=20, dose=300.0, seed=0):
    """Poisson counts of two grains, left and right, and their expected patterns (2, n, n)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    expected = np.full((2, n, n), 0.05)
    expected += 5.0 * (np.hypot(y, x) < 1.6)
    for grain in range(2):
        for angle in np.arange(4) * np.pi / 2 + 0.8 * grain:
            expected[grain] += np.hypot(y - 6 * np.sin(angle), x - 6 * np.cos(angle)) < 1.5
    expected *= dose / expected.sum(axis=(1, 2), keepdims=True)
    grain = (np.arange(nx) >= nx // 2).astype(int)
    counts = rng.poisson(expected[np.broadcast_to(grain, (ny, nx))])
    return counts.astype(np.uint16), expected


def uniform(mean, ny=10, nx=10, n=24, seed=0):
    return np.random.default_rng(seed).poisson(mean, (ny, nx, n, n)).astype(np.uint16)


def windows(n, half):
    width = min(2 * half + 1, n)
    return [range(b, b + width) for b in (min(max(i - half, 0), n - width) for i in range(n))]


def reference(counts, half, lam, offset=0.0, fraction=0.98, root=False):
    """The published equations, position by position. Returns patterns, σ and weights (y, x, y2, x2)."""
    ny, nx, n_y, n_x = counts.shape
    y, x = np.mgrid[:n_y, :n_x]
    mask = np.hypot(y - (n_y - 1) / 2, x - (n_x - 1) / 2) < fraction * min(n_y, n_x) / 2
    low = counts.min()
    root_counts = np.sqrt(counts.astype(np.float64) - low)
    z, n = root_counts[:, :, mask], mask.sum()
    square = ((z[:, :, None, None] - z[None, None]) ** 2).sum(-1)
    sigma, weights = np.full((ny, nx), np.nan), np.zeros((ny, nx, ny, nx))
    for i in np.ndindex(ny, nx):
        near = square[i][max(i[0] - 1, 0) : i[0] + 2, max(i[1] - 1, 0) : i[1] + 2]
        near = near[near > 1e-3]  # leaves out the pattern itself and its duplicates
        sigma[i] = np.sqrt(near.min() / (2 * n)) if near.size else np.nan
    rows, columns = windows(ny, half), windows(nx, half)
    for i in np.ndindex(ny, nx):
        for j in ((a, b) for a in rows[i[0]] for b in columns[i[1]]):
            noise = sigma[i] ** 2 + sigma[j] ** 2
            distance = (square[i][j] - n * noise) / (noise * np.sqrt(2 * n))
            weights[i][j] = 0 if np.isnan(noise) else np.exp(-max(distance - offset, 0) / lam**2)
        weights[i][i] = 1
        weights[i] /= weights[i].sum()
    averaged = np.einsum("yxab,abmn->yxmn", weights, root_counts if root else counts.astype(np.float64))
    return (averaged**2 + low if root else averaged), sigma, weights


def test_faithful_mode_equals_the_authors_code():
    oracle = np.load(ORACLE)
    out, result = average(Cube(oracle["counts"]), average_in="sqrt", lambda_value=float(oracle["lambda_value"]))
    np.testing.assert_allclose(out, oracle["averaged"], rtol=3e-6)
    np.testing.assert_allclose(result.sigma, oracle["sigma"], rtol=1e-6)


@pytest.mark.parametrize("shape", [(12, 14), (9, 9), (4, 11), (1, 13), (13, 1), (3, 2), (10, 12), (19, 5), (1, 1)])
@pytest.mark.parametrize("mode", ["counts", "sqrt"])
def test_averages_equal_a_plain_reference(shape, mode):
    counts = two_grains(*shape, n=11, dose=80)[0] + 1
    out, result = average(Cube(counts), average_in=mode, lambda_value=1.5, distance_offset=0.5)
    patterns, sigma, weights = reference(counts, 4, 1.5, offset=0.5, root=mode == "sqrt")
    np.testing.assert_allclose(out, patterns, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result.sigma, sigma, rtol=1e-6)
    np.testing.assert_allclose(result.self_weight, np.einsum("yxyx->yx", weights), rtol=1e-5)
    np.testing.assert_allclose(result.effective_number, 1 / (weights**2).sum(axis=(2, 3)), rtol=1e-5)


@pytest.mark.parametrize("half", [1, 2, 3, 6])
def test_every_half_width_equals_the_reference(half):
    counts, _ = two_grains(11, 15, n=9, dose=60)
    out, _ = average(Cube(counts), window_half_width_px=half)
    np.testing.assert_allclose(out, reference(counts, half, 1.7)[0], rtol=1e-5, atol=1e-6)


def test_uncompiled_kernels_agree_with_compiled_ones():
    counts, _ = two_grains(5, 6, n=9, dose=60)
    ny, nx, half = 5, 6, 1
    patterns = counts.reshape(30, 9, 9).astype(np.float32)
    pixels, shift = np.argwhere(np.ones((7, 7), bool)) + 1, np.tile([[0, 1]], (30, 1))
    roots = np.empty((30, len(pixels)), np.float32)
    source.shifted_roots.py_func(patterns, shift, pixels, 0.0, roots)
    np.testing.assert_allclose(roots, np.sqrt(patterns[:, 1:8, 2:9].reshape(30, -1)), rtol=1e-6)

    roots, n = roots.reshape(ny, nx, -1), roots.shape[-1]
    tables = np.zeros((2, ny, nx, 9))
    kernels.pair_distances(roots, (0, ny, 0, nx), half, ny, tables[0])
    kernels.pair_distances.py_func(roots, (0, ny, 0, nx), half, ny, tables[1])
    np.testing.assert_array_equal(tables[0], tables[1])
    sums = np.zeros(5)
    kernels.squared_differences.py_func(roots[0, 0], roots[1], 0, 5, 0, n, sums)
    np.testing.assert_allclose(sums, ((roots[0, 0] - roots[1, :5]) ** 2).sum(-1), rtol=1e-5)

    variance = np.empty((2, ny, nx))
    for y in range(ny):
        kernels.noise_variances(tables[0], y, half, ny, n, variance[0, y])
        kernels.noise_variances.py_func(tables[0], y, half, ny, n, variance[1, y])
    np.testing.assert_array_equal(variance[0], variance[1])
    weights, trust = np.empty((2, nx, 9), np.float32), []
    for kernel, out in zip((kernels.row_weights, kernels.row_weights.py_func), weights, strict=True):
        trust.append(kernel(tables[0], variance[0], 2, half, ny, n, (1.7, 0.0), out))
    np.testing.assert_allclose(weights[0], weights[1], rtol=1e-6)
    np.testing.assert_allclose(*trust, rtol=1e-6)
    assert kernels.pair_weight.py_func(50.0, 1.0, 50, (1.0, 0.0)) == 1.0
    total = np.zeros(n, np.float32)
    kernels.add_row.py_func(weights[0, 0, :5], roots[0], 0, n, total)
    np.testing.assert_allclose(total, weights[0, 0, :5] @ roots[0, :5], rtol=1e-5)
    sums = np.empty((2, 1, nx, n), np.float32)
    for kernel, out in zip((kernels.weighted_sums, kernels.weighted_sums.py_func), sums, strict=True):
        kernel(roots, weights[:1], (2, 3, 0, nx), half, ny, out)
    np.testing.assert_array_equal(sums[0], sums[1])


@pytest.mark.parametrize("n", [1, 2, 5, 9, 10, 23])
@pytest.mark.parametrize("half", [1, 4])
def test_windows_are_full_and_every_pair_is_met_once(n, half):
    expected = windows(n, half)
    for i in range(n):
        begin = kernels.window_begin.py_func(i, half, n)
        assert range(begin, begin + kernels.window_width.py_func(half, n)) == expected[i]
        first, last = kernels.seen_from.py_func(i, half, n)
        assert list(range(first, last)) == [j for j in range(n) if i in expected[j]]
        for y2 in range(i + 1):
            for x in range(n):
                first, last = kernels.partners.py_func(i, x, y2, half, n, n)
                met = set(range(first, last))
                mine = {x2 for x2 in expected[x] if y2 in expected[i]}
                theirs = {x2 for x2 in range(n) if i in expected[y2] and x in expected[x2]}
                assert met == {x2 for x2 in mine | theirs if y2 < i or x2 < x}


@pytest.mark.parametrize(("mean", "loss"), [(0.1, 0.015), (1.0, 0.001), (10.0, 0.001)])
def test_counts_mode_conserves_counts(mean, loss):
    counts = uniform(mean)
    for settings in ({}, {"window_half_width_px": 1}, {"distance_offset": 3.0}):
        assert average(Cube(counts), **settings)[0].mean() == pytest.approx(counts.mean(), rel=loss)


@pytest.mark.parametrize(("mean", "share"), [(0.1, 0.09), (1.0, 0.60)])
def test_square_root_mode_has_the_bias_of_the_mean_root(mean, share):
    out, result = average(Cube(uniform(mean)), average_in="sqrt", lambda_value=EVERYTHING)
    drawn = np.random.default_rng(1).poisson(mean, 1_000_000)
    # What is left of the variance of a root after averaging 81 of them adds to the square of their mean.
    left = np.sqrt(drawn).var() / result.effective_number.mean()
    assert (np.sqrt(drawn).mean() ** 2) / mean == pytest.approx(share, abs=0.006)
    assert (out.mean() - left) / mean == pytest.approx(share, abs=0.01)


def test_averaging_everything_is_a_box_average_of_81_patterns():
    counts = uniform(2.0, ny=11, nx=12, n=12)
    out, result = average(Cube(counts), lambda_value=EVERYTHING)
    np.testing.assert_allclose(result.effective_number, 81, rtol=1e-3)
    np.testing.assert_allclose(out[5, 6], counts[1:10, 2:11].mean(axis=(0, 1)), rtol=1e-3)
    np.testing.assert_allclose(out[0, 0], counts[:9, :9].mean(axis=(0, 1)), rtol=1e-3)


def test_effective_number_and_self_weight_stay_within_their_limits():
    _, result = average(Cube(two_grains()[0]))
    assert (result.effective_number >= 1).all() and (result.effective_number <= 81).all()
    assert (result.self_weight >= 1 / 81).all() and (result.self_weight <= 1).all()
    assert result.effective_number.mean() > 10
    assert result.lambda_ == np.float32(1.7)


def test_identical_expected_patterns_are_not_at_distance_zero():
    counts = uniform(0.5, n=40)
    _, small = average(Cube(counts), lambda_value=0.7)
    _, offset = average(Cube(counts), lambda_value=0.7, distance_offset=2.5)
    assert small.effective_number.mean() < 0.5 * offset.effective_number.mean()


def test_weight_across_a_boundary_is_far_below_that_of_a_box():
    counts, expected = two_grains(dose=600)
    only_right = (expected[1] > 2) & (expected[0] < 1)
    out, _ = average(Cube(counts))
    box, _ = average(Cube(counts), lambda_value=EVERYTHING)
    beside = slice(5, 7)  # the two columns of the left grain next to the boundary

    def leaked(patterns):
        level = patterns[:, beside][..., only_right].mean()
        bottom, top = expected[0][only_right].mean(), expected[1][only_right].mean()
        return (level - bottom) / (top - bottom)

    assert leaked(box) > 0.35
    assert abs(leaked(out)) < 0.05
    error = (out[:, :7] - expected[0]).std() / (counts[:, :7] - expected[0]).std()
    assert error < 0.35


def test_a_whole_pixel_descan_changes_nothing():
    counts, _ = two_grains(n=24)
    rng = np.random.default_rng(3)
    shift = rng.integers(-3, 4, (*counts.shape[:2], 2))
    moved = np.stack(
        [[np.roll(p, s, (0, 1)) for p, s in zip(*row, strict=True)] for row in zip(counts, shift, strict=True)]
    )
    bad = np.zeros((24, 24), bool)
    still = Correction(np.full((*shift.shape[:2], 2), 11.5), np.eye(2), bad)
    wandering = Correction(11.5 + shift, np.eye(2), bad)
    a, maps_a = average(Cube(counts, correction=still), mask_fraction=0.7)
    b, maps_b = average(Cube(moved, correction=wandering), mask_fraction=0.7)
    np.testing.assert_array_equal(a[..., 3:-3, 3:-3], b[..., 3:-3, 3:-3])
    np.testing.assert_array_equal(maps_a.effective_number, maps_b.effective_number)
    uncorrected, _ = average(Cube(counts), mask_fraction=0.7)
    np.testing.assert_array_equal(a, uncorrected)


def test_what_is_averaged_is_interpolated_once_and_what_is_compared_never():
    counts, _ = two_grains()
    correction = Correction(np.full((12, 14, 2), 9.8), np.eye(2), np.zeros((20, 20), bool))
    plain, maps_plain = average(Cube(counts))
    out, maps = average(Cube(counts, correction=correction))
    np.testing.assert_array_equal(maps.sigma, maps_plain.sigma)
    corrected = correction.apply(plain.reshape(-1, 20, 20), np.s_[:, :])
    np.testing.assert_allclose(out.reshape(-1, 20, 20), corrected, atol=1e-4)


def test_threads_and_memory_change_no_bit():
    counts, _ = two_grains(13, 45, n=12)
    correction = Correction(np.random.default_rng(0).normal(5.5, 0.8, (13, 45, 2)), np.eye(2), np.zeros((12, 12), bool))
    first, maps = average(Cube(counts, correction=correction))
    # 4, 2 and 1 rows at a time; the last with as little as it accepts
    needs = [window.needed_mb(Cube(counts), method.Params(), 108, rows) + 0.01 for rows in (4, 2, 1)]
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
        method.compute(Cube(Endless(ny)), method.Params(), Endless(ny))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(20)  # compiles
    low, high = peak(24), peak(160)
    assert high < 1.1 * low
    assert high < 1.6 * window.rows_held(4, 4) * 20 * (2 * 24 * 24 * 4 + 81 * 8)


PREPARE = """
import numpy as np
from fourdstem.cube import Cube
from fourdstem.methods import nonlocal_average as method

class Endless:
    dtype = np.dtype(np.uint16)
    stored = np.random.default_rng(0).poisson(1.0, (64, 128, 128)).astype(np.uint16)

    def __init__(self, ny):
        self.shape = (ny, 8, 128, 128)

    def __getitem__(self, where):
        return self.stored[where[0] % 8 * 8 :][where[1]].copy()

    def __setitem__(self, where, patterns):
        assert np.isfinite(patterns).all()

def average(ny):
    settings = method.Params(window_half_width_px=2)
    method.compute(Cube(Endless(ny), memory_mb=40, threads=2), settings, Endless(ny))
average(12)
"""


def test_a_tall_scan_larger_than_memory_mb_is_averaged_within_it():
    assert 320 * 8 * 128**2 * 2 / 2**20 == 80
    assert peak_growth_mb(PREPARE, "average(320)") < 40


@pytest.mark.parametrize("rows", [4, 2, 1])
@pytest.mark.parametrize("shape", [(19, 5), (10, 12), (9, 3), (30, 2)])
@pytest.mark.parametrize("half", [1, 4])
def test_fewer_rows_at_a_time_give_the_same_bits(rows, shape, half):
    cube = Cube(two_grains(*shape, n=11, dose=80)[0])
    settings = method.Params(window_half_width_px=half)
    opened, outs = source.open_source(cube, settings, None), np.zeros((2, *cube.shape), np.float32)
    maps = [window.average_window(opened, settings, out, r) for out, r in zip(outs, (8, rows), strict=True)]
    assert outs[0].tobytes() == outs[1].tobytes()
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*maps, strict=True))


def test_rows_that_do_not_fit_into_memory_are_refused_with_what_they_need():
    class Wide:
        shape, dtype = (512, 512, 256, 256), np.dtype(np.uint16)

        def __getitem__(self, where):
            raise AssertionError("the scan was read before its need was known")

    with pytest.raises(InputError, match="512 patterns of 256x256") as error:
        method.compute(Cube(Wide(), memory_mb=2000), method.Params(), Wide())
    need = int(error.value.found.split()[1])
    held = 10 * 512 * (256**2 + np.pi / 4 * (0.98 * 256) ** 2) * 4 / 2**20  # s = 4: a window and a row
    assert held < need < 1.25 * held
    assert f"nonlocal_average:mem_mb={need}" in error.value.do
    assert window.rows_together(Cube(Wide(), memory_mb=need), method.Params(), 49000) == 1
    assert window.rows_together(Cube(Wide(), memory_mb=2 * need), method.Params(), 49000) == 4


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
