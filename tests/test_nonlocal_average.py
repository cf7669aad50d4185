"""Non-local averaging against an oracle, a plain NumPy reference, closed forms and simulated truth."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from averaging import EVERYTHING, average, two_grains, uniform

from fourdstem.cube import Correction, Cube
from fourdstem.methods import nonlocal_average as method
from fourdstem.methods.nonlocal_average import kernels, source, sums, survey, vectors
from fourdstem.methods.nonlocal_average.arrays import BLOCK, PIECE, TALL, blocks, flat, joined, pieces

ORACLE = Path(__file__).parent / "fixtures" / "nlpar.npz"


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
    counts, _ = two_grains(5, 7, n=9, dose=60)
    ny, nx, half = 5, 7, 2
    patterns, along = counts.reshape(35, 81), np.array([9, 1])
    pixels, shift = (np.argwhere(np.ones((7, 7), bool)) + 1) @ along, np.ones(35, np.int64)
    found = np.empty((2, 35, len(pixels)), np.float32)
    for kernel, out in zip((source.shifted_roots, source.shifted_roots.py_func), found, strict=True):
        kernel(patterns, shift, *source.runs(pixels), 0.0, out)
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], np.sqrt(patterns[:, pixels + 1]), rtol=1e-6)

    n, scan, tile = len(pixels), (half, ny, nx, 0), (0, ny, 0, nx)
    roots = blocks(ny, nx, n)
    flat(roots)[..., :n] = found[0].reshape(ny, nx, n)
    tables = np.zeros((2, ny, nx, 25))
    near, trust = np.empty((2, nx, 4), np.float32), []
    weights, variance = np.empty((2, nx, 25), np.float32), np.full((ny, nx), 0.2)
    for k, form in enumerate((lambda kernel: kernel, lambda kernel: kernel.py_func)):
        form(kernels.pair_distances)(roots, tile, scan, tables[k])
        form(kernels.near_differences)(roots[1:3], 1, 0, nx, near[k])
        trust.append(form(kernels.row_weights)(tables[0], variance, 2, 0, nx, scan, n, (1.7, 0.0), weights[k]))
    np.testing.assert_allclose(*tables, rtol=1e-5)
    np.testing.assert_allclose(*near, rtol=1e-5)
    np.testing.assert_allclose(*weights, rtol=1e-6)
    np.testing.assert_allclose(*trust, rtol=1e-6)
    distances = np.array([[0.5, 3.0, np.nan], [2.0, -1.0, 7.0]])
    for kernel in (survey.self_weights, survey.self_weights.py_func):
        own = 1 / (1 + 3 * np.nanmean(np.exp(-np.maximum(distances, 0) / 4), axis=1))
        np.testing.assert_allclose(kernel(distances, 2.0, 0.0), own, rtol=1e-12)
    assert kernels.pair_weight.py_func(50.0, 1.0, 50, (1.0, 0.0)) == 1.0


@pytest.mark.parametrize("form", [lambda kernel: kernel, lambda kernel: kernel.py_func], ids=["compiled", "uncompiled"])
@pytest.mark.parametrize(("first", "last"), [(0, 7), (1, 6), (2, 4), (3, 7)])
def test_inner_kernels_agree_with_numpy(form, first, last):
    z = np.random.default_rng(0).random((2, 7, 2, BLOCK)).astype(np.float32)
    sums = np.full(2 * vectors.LANES + 3, 0.5)
    form(kernels.squared_differences)(z, (0, 0), (0, 1), 1, first, last, 1, sums, 3)
    expected = ((z[0, :2, None, 1] - z[1, :, 1]) ** 2).sum(axis=-1)
    for x2 in range(first, last):
        five, start = kernels.fifth(first, x2, 7)
        at = 3 + five * vectors.LANES + x2 - start
        np.testing.assert_allclose(sums[[at, at + vectors.PARTNERS]], expected[:, x2] + 0.5, rtol=1e-5)
    assert (sums[:3] == 0.5).all()  # what lies before is not touched
    assert kernels.difference.py_func(z, (0, 0), (1, 5), 1) == pytest.approx(expected[0, 5], rel=1e-5)


def test_vectors_want_arrays_that_lie_together():
    z, sums = np.zeros((2, 7, 2, BLOCK), np.float32), np.zeros(2 * vectors.LANES)
    with pytest.raises(TypeError, match="not C-contiguous"):
        kernels.squared_differences(z, (0, 0), (0, 1), 1, 0, 5, 0, sums[::2], 0)


@pytest.mark.parametrize("form", [lambda kernel: kernel, lambda kernel: kernel.py_func], ids=["compiled", "uncompiled"])
@pytest.mark.parametrize(("nx", "core", "n"), [(7, (0, 7), 75), (9, (2, 8), PIECE), (4, (1, 2), 130)])
def test_kernels_of_sums_agree_with_numpy(form, nx, core, n):
    ny, half, left = 6, 1, max(core[0] - 2, 0)
    rng = np.random.default_rng(0)
    counts = rng.poisson(2.0, (ny, nx - left, n)).astype(np.uint16)
    values = pieces(ny, nx - left, n)
    for y in range(ny):
        form(sums.put)(counts[y, :2], True, 1.0, y, 0, values)
        form(sums.put)(counts[y, 2:], True, 1.0, y, 2, values)
    roots = np.sqrt(np.maximum(counts.astype(float) - 1, 0))
    weights = rng.random((3, core[1] - core[0], 9)).astype(np.float32)
    weights[rng.random(weights.shape) < 0.5] = 0
    out, expected = joined(*weights.shape[:2], n), np.zeros((*weights.shape[:2], n))
    for i in np.ndindex(weights.shape[:2]):
        rows, columns = windows(ny, half)[3 + i[0]], windows(nx, half)[core[0] + i[1]]
        taken = roots[np.ix_(rows, np.array(columns) - left)].reshape(9, n)
        expected[i] = (weights[i] @ taken) ** 2 + 1
    found = form(sums.entries)(weights, 3, core[0], (half, ny, nx, left), ny, values.shape[2])
    most = (3 + TALL - 1) * 4  # windows of TALL × 2 neighbours
    assert found[2].max() <= most and found[2].min() < most  # what none of them takes is left out
    meant = np.ones((len(values), PIECE), np.uint8)
    meant[0, 1] = 0  # this pixel means nothing
    for first in range(len(values)):
        form(sums.weighted_sums)(values, *found, (first, first + 1), True, 1.0, meant, out)
    expected[..., 1] = 0
    np.testing.assert_allclose(flat(out)[..., :n], expected, rtol=1e-5)


def test_lambda_is_chosen_as_the_authors_code_chooses_it():
    oracle = np.load(ORACLE)
    seen = survey.look(source.open_source(Cube(oracle["counts"]), method.Params(), None))
    distances = seen.distances()
    theirs = np.nan_to_num(distances, nan=0.0)  # they take what lies beyond the edge for identical patterns
    assert survey.lambdas_for(theirs, oracle["targets"], 0.0) == pytest.approx(oracle["lambdas"], rel=0.01)
    assert survey.lambdas_for(distances, oracle["targets"], 0.0) == pytest.approx(oracle["lambdas"], rel=0.15)


def test_automatic_lambda_gives_uniform_patterns_the_self_weight_asked_for():
    cube = Cube(uniform(0.5, ny=14, nx=14, n=40))
    found = []
    for target in (0.5, 0.34, 0.25):
        _, result = average(cube, lambda_value=None, self_weight_target=target, window_half_width_px=1)
        assert result.self_weight[1:-1, 1:-1].mean() == pytest.approx(target, abs=0.05)
        at = method.average.TARGETS.index(target)
        assert float(result.lambda_) == pytest.approx(float(result.lambda_target[at]), rel=1e-5)
        found.append(float(result.lambda_))
    assert found == sorted(found)
    assert np.isnan(survey.lambdas_for(np.empty((0, 8)), [0.34], 0.0)).all()


def test_neighbours_of_the_survey_equal_a_plain_reference():
    counts = two_grains(5, 6, n=9, dose=60)[0].astype(float)
    seen = survey.look(source.open_source(Cube(counts), method.Params(mask_fraction=1.5), None))
    steps = ((0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1))
    for (y, x), (k, (dy, dx)) in product(np.ndindex(5, 6), enumerate(steps)):
        if 0 <= y + dy < 5 and 0 <= x + dx < 6:
            expected = ((np.sqrt(counts[y, x]) - np.sqrt(counts[y + dy, x + dx])) ** 2).sum()
            assert seen.differences[y, x, k] == pytest.approx(expected, rel=1e-5)
        else:
            assert np.isnan(seen.differences[y, x, k])


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
