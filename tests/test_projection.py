"""The projection distance against truth, direct sums and Monte Carlo."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from averaging import two_grains
from disk_scans import disk

from fourdstem.calibration import Acquisition
from fourdstem.cube import UNIT, Correction, Cube, Unit
from fourdstem.errors import InputError
from fourdstem.geometry import corrected_to_recorded
from fourdstem.methods import nonlocal_average as method
from fourdstem.methods.nonlocal_average import axes, features, kernels, projection
from fourdstem.methods.nonlocal_average.window import Ring, members_of

PARAMS = method.Params()
SECOND = (1.0, 0.5)


def project(cube, radius_px=1.5, params=PARAMS):
    return projection.project(SimpleNamespace(cube=cube), params, radius_px)


def corrected(counts, centre=None, matrix=None, **values):
    """Cube whose beams lie where they are said to, or else in the middle."""
    n = counts.shape[2:]
    if centre is None:
        centre = np.broadcast_to((np.array(n) - 1) / 2, (*counts.shape[:2], 2)).copy()
    return Cube(
        counts, correction=Correction(centre, np.eye(2) if matrix is None else matrix, np.zeros(n, bool), **values)
    )


def trust_of(found, half=4):
    """Effective number and self-weight (2, scan_y, scan_x) and weights (scan_y, scan_x, window)."""
    ny, nx, _ = found.coordinates.shape
    width = kernels.window_width(half, ny) * kernels.window_width(half, nx)
    weights = np.empty((ny, nx, width), np.float32)
    rows = [projection.window_weights(found, y, 0, nx, (half, ny, nx, 0), SECOND, weights[y]) for y in range(ny)]
    return np.stack(rows, axis=1), weights


def members(ny, nx, half=4):
    ring = Ring((ny, nx), half, 0, 1, 1, (0, nx))
    return np.stack([members_of(ring, y) for y in range(ny)])


def lamella_scan(dose=240, ny=24, nx=28, n=32, seed=0):
    """Poisson counts of three grains and a lamella two positions wide, and the grain of each position."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    expected = np.empty((4, n, n))
    for grain in range(4):
        expected[grain] = 40 * np.exp(-np.hypot(y, x) / 2) + 0.02
        for angle in np.arange(6) * np.pi / 3 + 0.27 * grain:
            for radius in (7.0, 12.0):
                spot = np.hypot(y - radius * np.sin(angle), x - radius * np.cos(angle)) < 1.6
                expected[grain] += spot * (1 if grain < 3 else np.cos(angle) > -0.5)
    expected *= dose / expected.sum(axis=(1, 2), keepdims=True)
    grain = np.zeros((ny, nx), int)
    grain[:, nx // 2 :] = 1
    grain[: ny // 3] = 2
    along = np.arange(ny)[:, None] + np.arange(nx) - (ny + nx) // 2 + 1
    grain[(along >= 0) & (along < 3) & (grain != 2)] = 3  # diagonal: two positions across
    return rng.poisson(expected[grain]).astype(np.uint16), grain


@pytest.mark.parametrize("compiled", [True, False])
def test_a_count_keeps_its_sum_and_its_place_in_the_corrected_frame(compiled, monkeypatch):
    if not compiled:
        for name in ("splat", "add_line", "spread"):
            monkeypatch.setattr(features, name, getattr(features, name).py_func)
    matrix = corrected_to_recorded(1.1, 20.0, 50.0, True)
    for pixel, centre in [((9, 12), (9.3, 10.6)), ((14, 8), (10.2, 9.9)), ((6, 6), (9.0, 9.75))]:
        counts = np.zeros((1, 1, 20, 20), np.uint16)
        counts[0, 0][pixel] = 30
        cube = corrected(counts, np.array(centre).reshape(1, 1, 2), matrix, counts_per_electron=10.0)
        bins = features.open_bins(cube, PARAMS, 1.5)
        found = bins.features(counts[0], Unit(0, 0, 1))[0].astype(float)
        place = (np.stack(np.unravel_index(bins.used, bins.shape)) - bins.half) * bins.pitch
        assert found.sum() == pytest.approx(3.0, rel=1e-5)
        expected = np.linalg.solve(matrix, np.subtract(pixel, centre))
        np.testing.assert_allclose(place @ found / found.sum(), expected, atol=1e-4)


def test_a_descan_of_fractions_of_a_pixel_changes_nothing_when_the_centres_are_known():
    rng = np.random.default_rng(0)
    centre = 15.5 + rng.uniform(-1.2, 1.2, (1, 32, 2))
    spots = [(0, 0), (7, 3), (-4, 8)]
    counts = np.stack([sum(disk((32, 32), c + s, 2.0) for s in spots) for c in centre[0]])[None] * 1000
    known, unknown = corrected(counts, centre), corrected(counts)
    scatter = []
    for cube in (known, unknown):
        bins = features.open_bins(cube, PARAMS, 2.0)
        found = bins.features(counts[0], Unit(0, 0, 32))
        scatter.append(found.std(axis=0).max() / found.mean(axis=0).max())
    assert scatter[0] < 0.02
    assert scatter[1] > 0.1  # what an error of the centre costs


def test_offset_gain_and_bad_pixels_are_undone():
    electrons = np.random.default_rng(0).poisson(4.0, (1, 5, 24, 24))
    plain = corrected(electrons.astype(np.float32))
    bad = np.zeros((24, 24), bool)
    bad[9, 13] = True
    counts = (electrons * 7 + 20).astype(np.int32)
    counts[:, :, 9, 13] = 65535
    cube = corrected(counts, offset_counts=20.0, counts_per_electron=7.0)
    cube = replace(cube, correction=replace(cube.correction, bad=bad))
    expected = features.open_bins(plain, PARAMS, 2.0).features(plain.data[0], Unit(0, 0, 5))
    found = features.open_bins(cube, PARAMS, 2.0).features(counts[0], Unit(0, 0, 5))
    assert np.abs(found - expected).max() < 8  # the repaired pixel
    far = np.abs(found - expected).max(axis=0) < 1e-3
    assert far.sum() >= len(far) - 16  # the bins that it reaches


@pytest.mark.parametrize("what", ["hole", "saturated", "edge"])
def test_a_bin_that_is_not_recorded_in_full_everywhere_is_not_compared(what):
    counts = np.ones((1, 4, 32, 32), np.uint16)
    centre = np.full((1, 4, 2), 15.5)
    centre[0, 1] = 15.5, 19.5
    cube = corrected(counts, centre)
    mask = np.zeros((32, 32), bool)
    if what != "edge":
        mask[10:14, 20:24] = True
        cube = replace(cube, correction=replace(cube.correction, **{"bad" if what == "hole" else "saturated": mask}))
    counts[:, :, mask] = 50000
    found = features.open_bins(cube, PARAMS, 2.0).features(counts[0], Unit(0, 0, 4))
    # Tents of a whole pitch sum to its square wherever they lie.
    np.testing.assert_allclose(found, 4.0, rtol=1e-5)


def test_too_few_bins_are_an_error():
    centre = np.full((1, 3, 2), 15.5)
    centre[0, 0], centre[0, 1] = (1.0, 1.0), (30.0, 30.0)
    with pytest.raises(InputError, match="bins to compare"):
        features.open_bins(corrected(np.ones((1, 3, 32, 32), np.uint16), centre), PARAMS, 2.0)


def test_the_pitch_is_a_whole_number_of_pixels_about_the_beams_radius():
    about = Acquisition(beam_energy_kev=200.0, convergence_mrad=1.0, detector_pixel_inv_angstrom=0.0203)

    def pitch(n, radius_px, **values):
        return features.open_bins(Cube(np.zeros((1, 1, n, n), np.uint8), **values), PARAMS, radius_px).pitch

    assert pitch(64, 2.2) == 3
    assert pitch(64, None, acquisition=about) == 2  # 1.96 px
    assert pitch(64, None) == 2  # 64 px / 64 is 1, but then there would be too many bins
    assert pitch(256, 1.0) == 6
    assert pitch(64, 30.0) == 6  # a wide disk is not one number


def test_the_direct_beam_can_be_masked():
    counts = np.zeros((1, 1, 32, 32), np.uint16)
    counts[..., 14:18, 14:18] = 9
    bins = features.open_bins(Cube(counts), replace(PARAMS, mask_direct_beam=True), 2.0)
    assert not bins.features(counts[0], Unit(0, 0, 1)).any()


def test_the_noise_table_equals_a_monte_carlo_estimate():
    rng = np.random.default_rng(1)
    n, size = 150_000, 16
    counts = np.zeros((1, 1, size, size), np.uint8)
    bins = features.open_bins(Cube(counts), PARAMS, 2.0)
    vectors = rng.normal(size=(len(bins.used), 3))
    patterns = np.zeros((n, size, size), np.uint8)
    patterns[np.arange(n), *rng.integers(1, size - 1, (2, n))] = 1
    centre = (size - 1) / 2 + rng.uniform(-1, 1, (n, 2))
    out = np.empty((n, len(bins.used)), np.float32)
    scale = (np.float32(0), np.float32(1))
    features.splat(patterns, centre, np.eye(2), (bins.pitch, bins.half), scale, bins.used, out)
    estimate = out.T @ (out @ vectors) ** 2 / out.sum(axis=0)[:, None]
    place = np.stack(np.unravel_index(bins.used, bins.shape)) - bins.half
    inner = np.abs(place).max(axis=0) * bins.pitch <= 4  # reached from everywhere
    assert inner.sum() == 25
    ratio = features.noise_table(vectors, bins)[inner] / estimate[inner]
    np.testing.assert_allclose(ratio, 1, atol=0.12)
    assert ratio.mean() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("threads", [1, 3])
def test_one_product_per_row_equals_a_direct_sum_over_pairs_of_neighbours(threads):
    rng = np.random.default_rng(2)
    ny, nx, n = 5, 7, 300
    f = (rng.normal(size=(ny, nx, n)) + 10).astype(np.float32)
    beam = rng.random((ny, nx)) > 0.15
    moments = axes.Moments(n)
    with ThreadPoolExecutor(threads) as pool:
        for y in range(ny):
            moments.add_row(f[y].copy(), beam[y], pool)
        moments.multiply(pool)
    m = f[beam].mean(axis=0, dtype=np.float64)
    expected, pairs = np.zeros((n, n)), 0
    for y, x in np.argwhere(beam):
        for y2, x2 in np.argwhere(beam):
            if (y, x) != (y2, x2) and abs(y - y2) <= 1 and abs(x - x2) <= 1:
                expected += np.outer(f[y, x] - m, f[y2, x2] - m)
                pairs += 1
    assert moments.pairs == pairs
    np.testing.assert_allclose(moments.mean(), m, rtol=1e-6)
    np.testing.assert_allclose(moments.covariance(), expected / pairs, atol=2e-6)


def three_grains(ny=40, nx=42, n=32, dose=400.0, seed=3):
    """Poisson counts of three grains side by side whose patterns are smooth on the scale of bins."""
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    expected = np.empty((3, n, n))
    for grain in range(3):
        spots = [np.hypot(y - 7 * np.sin(a), x - 7 * np.cos(a)) for a in 2 * np.pi * np.arange(2) / 2 + grain]
        expected[grain] = 0.3 + sum(np.exp(-((distance / 3) ** 2) / 2) for distance in spots)
    expected *= dose / expected.sum(axis=(1, 2), keepdims=True)
    return np.random.default_rng(seed).poisson(expected[np.arange(nx) * 3 // nx], (ny, nx, n, n)).astype(np.uint16)


@pytest.mark.parametrize(("gain", "offset", "readout"), [(1.0, 0.0, 0.0), (40.0, 100.0, 20.0)])
def test_distances_of_patterns_that_differ_by_noise_alone_have_mean_0_and_deviation_1(gain, offset, readout):
    electrons = three_grains()
    rng = np.random.default_rng(4)
    counts = electrons * gain + offset + rng.normal(0, readout, electrons.shape) if readout else electrons
    cube = corrected(counts, counts_per_electron=gain, offset_counts=offset, readout_noise_counts=readout)
    bins = features.open_bins(cube, PARAMS, 1.5)
    y, v = projection.coordinates_of(cube, bins, axes.find_axes(axes.moments_of(cube, bins), bins))
    assert y.shape[2] >= 2
    distances = []
    for x in (0, 14, 28):
        one, noise = y[:, x : x + 14].reshape(560, -1), v[:, x : x + 14].reshape(560, -1)
        for shift in (111, 222, 333):
            pair = one, noise, np.roll(one, shift, axis=0), np.roll(noise, shift, axis=0)
            distances += [projection.pair_distance(*p, 1.0) for p in zip(*pair, strict=True)]
    assert np.mean(distances) == pytest.approx(0, abs=0.1)
    assert np.std(distances) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("size", "least"), [(16, 0.75), (28, 0.95), (56, 0.98)])
@pytest.mark.parametrize("dose", [30, 1000])
def test_a_scan_of_noise_alone_is_averaged(size, least, dose):
    expected = disk((32, 32), (15.5, 15.5), 2.5) + disk((32, 32), (15.5, 15.5), 12, edge=4)
    counts = np.random.default_rng(size).poisson(dose / 2 * expected, (size, size, 32, 32)).astype(np.uint16)
    found = project(Cube(counts))
    (number, _), _ = trust_of(found)
    assert found.coordinates.shape[-1] == 1
    assert number.mean() > least * 81


def own_share(counts, grain, **settings):
    ny, nx = grain.shape
    out = method.Output(
        np.empty(counts.shape, np.float32), np.empty((ny, nx, 81), np.int32), np.empty((ny, nx, 81), np.float32)
    )
    result = method.compute(Cube(counts), method.Params(**settings), out, 1.6)
    return (out.weight * (grain.ravel()[out.member] == grain[..., None])).sum(axis=-1), result.effective_number


def test_a_lamella_two_positions_wide_keeps_its_own_weight_where_the_published_distance_does_not():
    counts, grain = lamella_scan()
    published, _ = own_share(counts, grain, distance="pattern")
    own, number = own_share(counts, grain, distance="projection")
    assert published[grain == 3].mean() < 0.6
    assert own[grain == 3].mean() > 0.8
    assert own[grain != 3].mean() > 0.95
    assert number[grain != 3].mean() > 50


def test_threads_and_memory_change_no_bit():
    counts, _ = two_grains(9, 70, n=24, dose=100.0)
    first = project(Cube(counts))
    for threads, memory_mb in [(1, 0.1), (3, 2000.0), (2, 0.1)]:
        again = project(Cube(counts, threads=threads, memory_mb=memory_mb))
        for name in ("coordinates", "noise", "eigenvalues"):
            assert getattr(first, name).tobytes() == getattr(again, name).tobytes()


def test_the_scan_is_read_twice_unit_by_unit():
    counts, _ = two_grains(6, 40, n=20)
    asked = []

    class Counting:
        shape = counts.shape

        def __getitem__(self, where):
            asked.append((where[0], where[1].start, where[1].stop))
            return counts[where]

    project(Cube(Counting()))
    once = [(y, x, min(x + UNIT, 40)) for y in range(6) for x in (0, 32)]
    assert asked == once * 2


def plain_weights(found, half):
    """The second pass position by position, (scan_y, scan_x, window)."""
    y, v = found.coordinates.astype(float), found.noise.astype(float)
    ny, nx, r = y.shape
    y, v = y.reshape(-1, r), v.reshape(-1, r)
    near = members(ny, nx, half).reshape(ny * nx, -1)
    out = np.zeros(near.shape)
    for i, partners in enumerate(near):
        d = ((y[i] - y[partners]) ** 2 / (v[i] + v[partners])).sum(axis=1) / np.sqrt(2 * r)
        out[i] = np.where(partners == i, 1, np.nan_to_num(np.exp(-np.maximum(d - SECOND[1], 0) / SECOND[0] ** 2)))
    return (out / out.sum(axis=1, keepdims=True)).reshape(ny, nx, -1), near


def test_weights_over_the_window_equal_the_formula_and_those_of_a_table():
    rng = np.random.default_rng(5)
    shape = (6, 7, 4)
    y, v = rng.normal(size=shape).astype(np.float32), rng.uniform(0.5, 2, shape).astype(np.float32)
    y[2, 3], v[2, 3] = np.nan, np.nan
    found = projection.Projection(y, v, np.ones(4))
    expected, near = plain_weights(found, 2)
    (number, own), weights = trust_of(found, 2)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(number, 1 / (expected**2).sum(axis=-1), rtol=1e-5)
    assert number[2, 3] == own[2, 3] == 1
    itself = np.arange(42)[:, None]
    index = np.concatenate([itself, np.where(near == itself, -1, near)], axis=1).astype(np.int32)
    table = projection.index_weights(found, index, SECOND)
    flat = expected.reshape(42, -1)
    np.testing.assert_allclose(table[:, 0], flat[near == itself], rtol=1e-5)
    np.testing.assert_allclose(table[:, 1:], np.where(near == itself, 0, flat), atol=1e-6)


def test_kernels_do_the_same_without_compilation(monkeypatch):
    rng = np.random.default_rng(6)
    y, v = rng.normal(size=(3, 4, 5)).astype(np.float32), rng.uniform(0.5, 2, (3, 4, 5)).astype(np.float32)
    found = projection.Projection(y, v, np.ones(5))
    index = np.array([[0, 5, -1], [7, 2, 3]], np.int32)

    def everything():
        return *projection.smoothed(y, v, 1, 1), *trust_of(found, 1), projection.index_weights(found, index, SECOND)

    compiled = everything()
    pixels, centres = np.array([[3, 9], [5, 5]]), np.array([[8.2, 7.7], [7.0, 7.1]])
    touched = np.zeros((2, 9, 9), np.uint8)
    features.touch(pixels, centres, np.eye(2), (2.0, 4), touched[0])
    features.touch.py_func(pixels, centres, np.eye(2), (2.0, 4), touched[1])
    np.testing.assert_array_equal(*touched)
    for name in ("pair_distance", "distance_weight", "row_weights", "smooth_row", "table_weights"):
        monkeypatch.setattr(projection, name, getattr(projection, name).py_func)
    for one, other in zip(compiled, everything(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_search_coordinates_rank_pairs_of_even_noise_as_the_distance_does():
    rng = np.random.default_rng(7)
    y = rng.normal(size=(4, 5, 3)).astype(np.float32)
    v = np.broadcast_to(np.array([0.5, 1, 4], np.float32), y.shape).copy()
    y[1, 1], v[1, 1] = np.nan, np.nan
    found = projection.search_coordinates(projection.Projection(y, v, np.ones(3)))
    flat, noise = y.reshape(20, 3), v.reshape(20, 3)
    d = [projection.pair_distance(flat[0], noise[0], flat[j], noise[j], 0.0) * np.sqrt(6) for j in range(20)]
    np.testing.assert_allclose(((found - found[0]) ** 2).sum(axis=1) / 2, d, rtol=1e-5)
    assert np.isnan(found[6]).all()


def test_a_position_without_a_beam_takes_part_in_nothing():
    counts, _ = two_grains(8, 9, n=20)
    cube = corrected(counts)
    cube.correction.centre_px[3, 4] = np.nan
    found = project(cube)
    assert np.isnan(found.coordinates[3, 4]).all()
    assert np.isfinite(np.delete(found.coordinates.reshape(72, -1), 31, axis=0)).all()
    changed = counts.copy()
    changed[3, 4] = 60000
    again = project(replace(cube, data=changed))
    assert found.coordinates.tobytes() == again.coordinates.tobytes()
    (number, own), weights = trust_of(found)
    assert number[3, 4] == own[3, 4] == 1
    assert not weights[members(8, 9) == 31].sum() > 1  # its own


@pytest.mark.parametrize("shape", [(1, 30), (30, 1), (1, 1), (2, 2)])
def test_a_scan_of_one_row_column_or_position_works(shape):
    counts, _ = two_grains(30, 30, n=20, dose=1000.0)
    found = project(Cube(counts[: shape[0], 15 - shape[1] // 2 :][:, : shape[1]]))
    (number, _), weights = trust_of(found)
    assert np.isfinite(found.coordinates).all()
    assert (number >= 1).all()
    assert number.max() <= weights.shape[2] * (1 + 1e-6)
    if shape == (1, 30):
        own = np.arange(30) >= 15
        share = (weights[0] * (own[members(1, 30)[0]] == own[:, None])).sum(axis=-1)
        assert share.mean() > 0.95


@pytest.mark.parametrize("value", [0, 7])
def test_equal_patterns_are_averaged_evenly(value):
    found = project(Cube(np.full((5, 6, 16, 16), value, np.uint16)))
    (number, _), _ = trust_of(found)
    np.testing.assert_allclose(number, 30, rtol=1e-5)


def test_a_scan_without_any_beam_is_left_alone():
    cube = corrected(np.ones((3, 4, 16, 16), np.uint16), np.full((3, 4, 2), np.nan))
    found = project(cube)
    assert np.isnan(projection.search_coordinates(found)).all()
    (number, _), _ = trust_of(found)
    assert (number == 1).all()
