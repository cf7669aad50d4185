"""Factorisation: solvers against scikit-learn, the scan over ranks, maps, and what cannot be factorised."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from peak_memory import peak_growth_mb

from fourdstem.cube import Cube
from fourdstem.errors import InputError
from fourdstem.methods import nmf
from fourdstem.methods.nmf import kernels, maps, on_device
from fourdstem.methods.nmf.compressed import captured, compress
from fourdstem.methods.nmf.matrix import Matrix, wrap
from fourdstem.methods.nmf.prepare import features_of, prepare
from fourdstem.methods.nmf.sparse import solve_sparse

KNOWN = json.loads((Path(__file__).parent / "fixtures" / "nmf.json").read_text(encoding="utf-8"))


def mixture():
    draw = np.random.default_rng(0)
    weight, component = draw.gamma(0.5, 1, (600, 5)), draw.gamma(0.3, 1, (5, 300))
    return draw.poisson(3 * weight @ component).astype(np.float32)


@pytest.fixture(scope="module")
def v():
    made = mixture()
    assert made.sum() == KNOWN["sum"]
    return made


def squares(v, fit):
    return float(np.square(v - fit.weight @ fit.component, dtype=np.float64).sum())


# ---- solvers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [3, 5, 8])
@pytest.mark.parametrize("start", ["nndsvda", "random"])
def test_hals_reaches_the_loss_of_scikit_learn(v, rank, start):
    fit = nmf.solve(v, rank, start=start, seed=1)
    assert fit.converged
    assert fit.weight.min() >= 0 and fit.component.min() >= 0
    assert fit.weight.dtype == fit.component.dtype == np.float32
    assert squares(v, fit) == pytest.approx(fit.loss, rel=1e-4)
    assert fit.loss < 1.01 * KNOWN[f"frobenius {rank}"]


@pytest.mark.parametrize("method", ["als", "mu"])
def test_the_other_solvers_come_within_a_part_in_a_hundred(v, method):
    fit = nmf.solve(v, 5, method=method)
    assert squares(v, fit) == pytest.approx(fit.loss, rel=1e-4)
    assert fit.loss < 1.01 * KNOWN["frobenius 5"]


def test_multiplicative_updates_reach_the_divergence_of_scikit_learn(v):
    fit = nmf.solve(v, 5, method="mu", loss="kl")
    assert fit.loss < 1.01 * KNOWN["kl 5"]
    model = np.maximum(fit.weight.astype(float) @ fit.component, 1e-12)
    logs = np.where(v > 0, v * np.log(np.where(v > 0, v, 1) / model), 0)
    assert fit.loss == pytest.approx((logs - v + model).sum(), rel=1e-4)


def test_noise_free_mixtures_are_taken_apart_exactly():
    draw = np.random.default_rng(1)
    weight, component = draw.random((400, 3)), draw.random((3, 200)) * (draw.random((3, 200)) < 0.3)
    weight[:60] = np.eye(3)[draw.integers(0, 3, 60)]  # pure positions make the factors unique
    fit = nmf.solve((weight @ component).astype(np.float32), 3, max_iter=4000, tol=1e-8)
    unit = [c / np.linalg.norm(c, axis=1, keepdims=True) for c in (fit.component, component)]
    assert (unit[0] @ unit[1].T).max(axis=0).min() > 0.999


def test_an_iterate_of_least_squares_that_is_worse_is_not_kept(v):
    fits = [nmf.solve(v, 8, method="als", max_iter=n, tol=0) for n in (2, 5, 12)]
    assert all(a.loss >= b.loss for a, b in pairwise(fits))


def test_the_penalty_makes_weights_smaller_and_fewer(v):
    plain, sparse = nmf.solve(v, 5), nmf.solve(v, 5, l1_weight=20.0)
    size = np.linalg.norm(plain.component, axis=1)
    assert sparse.weight.sum() < (plain.weight * size).sum()
    assert (sparse.weight == 0).mean() > (plain.weight == 0).mean()


def test_the_sparse_part_takes_what_a_hot_pixel_adds(v):
    spoilt = v.copy()
    spoilt[np.random.default_rng(2).random(v.shape) < 0.001] += 100
    fit = nmf.solve(spoilt, 5)
    mended = solve_sparse(wrap(spoilt), fit.weight, fit.component, 30.0)
    least = squares(v, nmf.solve(v, 5))
    assert squares(v, mended) - least < 0.4 * (squares(v, fit) - least)


def test_bits_do_not_depend_on_threads_or_on_where_the_rows_lie(v, tmp_path):
    tall = np.tile(v, (15, 1))
    tall.tofile(tmp_path / "rows")
    matrix = wrap(tall)
    assert len(matrix.spans()) > 2
    on_disk = Matrix(tmp_path / "rows", tall.shape, matrix.squared)
    one = nmf.solve(matrix, 4, max_iter=5)
    for other in (nmf.solve(matrix, 4, max_iter=5, threads=3), nmf.solve(on_disk, 4, max_iter=5, threads=2)):
        assert np.array_equal(one.weight, other.weight) and np.array_equal(one.component, other.component)
        assert one.loss == other.loss


def test_the_path_for_graphics_cards_agrees_with_the_processor(v):
    low = compress(wrap(v), 12, 0)
    for matrix in (wrap(v), low):
        own = nmf.solve(matrix, 5, low=low)
        first = nmf.solve(matrix, 5, low=low, max_iter=1)
        start = np.ascontiguousarray(first.weight.T), first.component
        weight, component, loss, _, converged = on_device.alternate(matrix, *start, (1e-6, 1000), 0.0, "cpu")
        assert converged
        assert loss == pytest.approx(own.loss, rel=1e-3)
        assert np.allclose(weight @ component, own.weight @ own.component, atol=0.02 * v.max())


def test_the_kernel_solves_the_problem_of_one_row():
    draw = np.random.default_rng(3)
    h, x = draw.random((6, 40)).astype(np.float32), draw.random((3, 40)).astype(np.float32)
    gram, cross = h @ h.T, h @ x.T
    w, same = np.zeros((6, 3), np.float32), np.zeros((6, 3), np.float32)
    kernels.hals(w, cross, gram, 0.0, 2000)
    kernels.hals.py_func(same, cross, gram, 0.0, 20)
    fewer = np.zeros((6, 3), np.float32)
    kernels.hals(fewer, cross, gram, 0.0, 20)
    assert np.allclose(same, fewer, atol=1e-5)
    from scipy.optimize import nnls

    assert np.allclose(w.T, [nnls(h.T.astype(float), row.astype(float))[0] for row in x], atol=1e-3)
    start = np.full((6, 3), 0.5, np.float32)
    twice = start.copy()
    kernels.multiply(start, cross, gram, 0.0)
    kernels.multiply.py_func(twice, cross, gram, 0.0)
    assert np.allclose(start, 0.5 * cross / (gram @ np.full((6, 3), 0.5, np.float32)), rtol=1e-5)
    assert np.allclose(start, twice, rtol=1e-5)


@pytest.mark.parametrize("named", [{"method": "hal"}, {"loss": "kl"}, {"start": "svd"}])
def test_a_name_that_is_not_known_is_refused(v, named):
    with pytest.raises(ValueError, match="method"):
        nmf.solve(v, 2, **named)


# ---- compression and the scan over ranks -----------------------------------------------------------------------


def test_the_directions_are_those_of_the_singular_value_decomposition(v):
    low = compress(wrap(v), 8, 0, passes=8)
    _, values, right = np.linalg.svd(v.astype(float), full_matrices=False)
    found = np.linalg.norm(low.x, axis=0)
    assert np.allclose(found[:5], values[:5], rtol=1e-5)  # beyond is noise, in which no direction stands out
    assert np.allclose(found[5:], values[5:8], rtol=0.05) and (found[5:] < values[5:8] * (1 + 1e-5)).all()
    assert captured(low) == pytest.approx((found**2).sum() / (values**2).sum(), rel=1e-5)
    assert np.abs((low.basis[:4] * right[:4]).sum(axis=1)) == pytest.approx(np.ones(4), abs=1e-3)


def test_the_scan_over_ranks_tells_true_losses_near_those_of_whole_patterns(v):
    found = nmf.sweep(v, [3, 5, 8], 2, threads=2)
    assert 0 < found.error < 0.1
    for rank, fits in found.fits.items():
        assert len(fits) == 2
        for fit in fits:
            assert fit.component.shape == (rank, v.shape[1])
            assert fit.loss == pytest.approx(squares(v, fit), rel=1e-4)
        assert min(fit.loss for fit in fits) < 1.01 * KNOWN[f"frobenius {rank}"]


def test_the_scan_is_the_same_to_the_bit_on_any_number_of_threads(v):
    one, two = (nmf.sweep(v, [3, 4], 2, threads=threads) for threads in (1, 3))
    for rank in (3, 4):
        for a, b in zip(one.fits[rank], two.fits[rank], strict=True):
            assert np.array_equal(a.weight, b.weight) and np.array_equal(a.component, b.component)


def test_multiplicative_updates_are_swept_on_whole_patterns(v):
    found = nmf.sweep(v[:200], [2], 1, method="mu", loss="kl")
    assert found.error == 0 and found.fits[2][0].loss > 0


# ---- the stage -------------------------------------------------------------------------------------------------

RADIUS = 2.0


def patterns(detector=(20, 22), seed=0):
    """Three patterns with a direct beam each."""
    draw = np.random.default_rng(seed)
    y, x = (np.arange(n) - (n - 1) / 2 for n in detector)
    out = np.full((3, *detector), 0.02)
    for one in out:
        one[np.hypot(y[:, None], x) < RADIUS] += 5
        for cy, cx in draw.uniform(-8, 8, (5, 2)):
            one += draw.uniform(0.5, 1.5) * (np.hypot(y[:, None] - cy, x - cx) < 1.5)
    return out / out.sum(axis=(1, 2), keepdims=True)


def film(dose=3000, scan=(18, 20), seed=0):
    """Three stripes whose neighbours overlap in one column; returns counts and labels."""
    x = np.arange(scan[1])
    label = np.broadcast_to(np.minimum(3 * x // scan[1], 2), scan)
    share = np.eye(3)[label]
    for edge in np.flatnonzero(np.diff(label[0])):
        share[:, edge] = (share[:, edge] + share[:, edge + 1]) / 2
    expected = dose * np.einsum("yxk,kij->yxij", share, patterns())
    return np.random.default_rng(seed).poisson(expected).astype(np.float32), label


def run(counts, tmp_path, threads=1, memory_mb=2000, **settings):
    cube = Cube(counts, threads=threads, memory_mb=memory_mb)
    params = nmf.Params(**{"rank_range": (2, 5), "starts": 2, **settings})
    return nmf.compute(cube, cube, params, RADIUS, tmp_path)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    counts, label = film()
    return run(counts, tmp_path_factory.mktemp("nmf")), label


def test_the_number_of_stripes_is_found_and_each_has_a_label_of_its_own(found):
    result, label = found
    assert result.chosen_rank == 3
    pure = np.ones(label.shape, bool)
    pure[:, np.flatnonzero(np.diff(label[0]))] = False
    groups = [set(result.label[pure & (label == j)].tolist()) for j in range(3)]
    assert all(len(group) == 1 for group in groups) and len(set.union(*groups)) == 3
    assert result.converged and nmf.doubts(result) == []


def test_the_columns_where_two_stripes_overlap_are_flagged_and_no_others(found):
    result, label = found
    overlap = result.overlap[0] > 0
    mixed = np.zeros(label.shape, bool)
    mixed[:, np.flatnonzero(np.diff(label[0]))] = True
    assert overlap[mixed].mean() > 0.8 and not overlap[~mixed].any()
    assert (np.diff(result.overlap.astype(int), axis=0) <= 0).all()


def test_components_are_patterns_at_every_pixel_and_weights_are_counts(found):
    result, label = found
    truth = patterns()
    for j in range(3):
        own = int(result.label[label == j][0])
        cosine = (result.component[own] * truth[j]).sum()
        assert cosine / np.linalg.norm(result.component[own]) / np.linalg.norm(truth[j]) > 0.99
        share = truth[j][result.used > 0].sum()
        assert np.median(result.weight[..., own][label == j]) == pytest.approx(3000 * share, rel=0.05)
    assert result.component_match.min() > 0.99
    assert np.array_equal(np.sort(result.component_size_px), np.sort(np.bincount(result.label[result.label >= 0])))


def test_curves_have_an_entry_for_every_rank(found):
    result, _ = found
    assert result.rank.tolist() == [2, 3, 4, 5]
    for name in ("loss", "fidelity", "redundancy", "raw_match", "stability", "distinct", "unexplained_share"):
        assert getattr(result, name).shape == (4,)
    assert np.isfinite(result.fidelity_by_metric).all() and len(result.metric) == 4
    assert "noise" in result.reason


def test_memory_and_threads_do_not_change_a_bit_of_the_result(tmp_path):
    counts, _ = film()
    one, two = run(counts, tmp_path, rank=3), run(counts, tmp_path, rank=3, threads=3, memory_mb=0.5)
    for name in ("weight", "component", "label", "residual", "loss", "overlap", "cluster_mean"):
        assert np.array_equal(getattr(one, name), getattr(two, name), equal_nan=True), name
    assert list(tmp_path.iterdir()) == []


def test_two_halves_of_a_bent_stripe_are_two_components_and_one_cluster(tmp_path):
    three, (_, label) = patterns(), film()
    bent = three[0] * np.linspace(0.8, 1.2, three.shape[2])
    made = np.where((label == 0)[..., None, None], three[0], three[label])
    made[:9][label[:9] == 0] = bent
    counts = np.random.default_rng(0).poisson(2e4 * made).astype(np.float32)
    result = run(counts, tmp_path, rank=4, merge_correlation=0.9)
    assert result.reason.startswith("rank 4 was set")
    assert (result.component_size_px > 0).all() and len(result.cluster_size_px) == 3
    assert result.merge_made.tolist() == [1, 0, 0]
    first, second = result.merge_first[0], result.merge_second[0]
    assert set(result.label[label == 0].tolist()) == {first, second}
    assert len(set(result.cluster[label == 0].tolist())) == 1
    assert result.cluster_size_px.sum() == (result.label >= 0).sum()


@pytest.mark.parametrize(
    "settings",
    [
        {"representation": "radial"},
        {"representation": "polar", "sectors": 12},
        {"bin": 2},
        {"weighting": "poisson"},
        {"weighting": "sqrt"},
        {"method": "als"},
        {"sparse_residual": 50.0},
        {"inner": 0.0, "outer_px": 8.0},
    ],
    ids=str,
)
def test_every_representation_and_weighting_finds_the_stripes(settings, tmp_path):
    counts, label = film()
    result = run(counts, tmp_path, rank=3, **settings)
    pure = ~np.isin(np.arange(label.shape[1]), np.flatnonzero(np.diff(label[0])))
    votes = [np.bincount(result.label[:, pure][label[:, pure] == j] + 1, minlength=4) for j in range(3)]
    assert len({int(vote.argmax()) for vote in votes}) == 3
    assert min(vote.max() / vote.sum() for vote in votes) > 0.9
    assert result.component.shape == (3, *counts.shape[2:])
    assert (result.sparse_share is not None) == ("sparse_residual" in settings)


def test_a_pattern_that_no_mixture_explains_has_no_label(tmp_path):
    counts, _ = film()
    counts[4, 5] = np.random.default_rng(5).permutation(counts[4, 5].ravel()).reshape(counts.shape[2:])
    result = run(counts, tmp_path, rank=3)
    assert result.label[4, 5] == -1 and result.unexplained[4, 5] == 1
    assert result.unexplained.sum() < 5


def test_an_empty_pattern_has_no_label_and_no_residual(tmp_path):
    counts, _ = film()
    counts[0, 0] = 0
    result = run(counts, tmp_path, rank=3)
    assert result.label[0, 0] == -1 and np.isnan(result.residual[0, 0]) and (result.weight[0, 0] == 0).all()


def test_features_are_sums_of_the_pixels_that_belong_to_them(tmp_path):
    counts, _ = film(scan=(2, 3))
    cube = Cube(counts)
    for settings in ({"bin": 3}, {"representation": "radial", "bin": 2}, {"representation": "polar", "sectors": 8}):
        params = nmf.Params(inner=0.0, **settings)
        features = features_of(cube, params, RADIUS)
        with prepare(cube, params, features, tmp_path) as data:
            assert np.allclose(data.matrix.x.sum(axis=1), counts.sum(axis=(2, 3)).ravel())
            one = features.image(data.matrix.x)[4]
            some = np.argwhere(features.mask)[3]
            picked = features.index == np.cumsum(features.mask).reshape(features.mask.shape)[tuple(some)] - 1
            assert one[tuple(some)] == pytest.approx(counts[1, 1][picked].sum())


# ---- maps ------------------------------------------------------------------------------------------------------


def test_what_lies_under_everything_is_a_background_and_hands_over():
    weight = np.array([[5, 0.1, 0], [5, 4, 0.1], [5, 1, 3.5], [5, 6, 5.9], [4, 0.2, 0.1]], np.float32)
    assert maps.find_background(weight, 0.3) == 0
    assert maps.find_background(weight[:, 1:], 0.3) == -1
    lit = np.ones(5, bool)
    found = maps.labels(weight, lit, 0, 0.65, (0.75, 0.95))
    assert found.label.tolist() == [0, 1, 2, 1, 0]
    assert found.overlap.tolist() == [[0, 0, 0, 1, 0], [0, 0, 0, 1, 0]]
    plain = maps.labels(weight, lit, -1, 0.65, (0.75, 0.95))
    assert plain.label.tolist() == [0, 0, 0, 1, 0]
    assert plain.overlap[0].tolist() == [0, 1, 0, 1, 0]


def test_the_size_of_a_component_does_not_matter_to_its_label(v):
    fit = nmf.solve(v, 4)
    for scaling in ("sum", "norm", "max"):
        plain = fit.weight * maps.sizes(fit.component, scaling)
        factor = np.array([1, 10, 0.1, 3], np.float32)
        other = (fit.weight / factor) * maps.sizes(fit.component * factor[:, None], scaling)
        assert np.array_equal(plain.argmax(axis=1), other.argmax(axis=1))


def test_clusters_that_are_alike_are_merged_and_the_tree_is_whole():
    draw = np.random.default_rng(0)
    a, b = draw.random((2, 50))
    mean = np.stack([a, b, a + 0.01 * draw.random(50), np.zeros(50)])
    found = maps.merge(mean, np.array([10, 8, 5, 0]), 0.9)
    assert found.of_component.tolist() == [0, 1, 0, -1]
    assert (found.first.tolist(), found.second.tolist()) == ([0, 1], [2, 4])
    assert found.made.tolist() == [1, 0]


# ---- what cannot be factorised ------------------------------------------------------------------------------------


def broken(name):
    counts, _ = film(scan=(6, 8))
    settings, valid = {}, None
    if name == "rank":
        settings = {"rank": 60}
    elif name == "empty":
        counts[:] = 0
    elif name == "constant":
        counts[:] = counts[0, 0]
    elif name == "negative":
        counts -= 5
    elif name == "nan":
        counts[2, 3, 5, 5] = np.nan
    elif name == "one":
        counts = counts[:1, :1]
    elif name == "mask":
        valid = np.zeros(counts.shape[2:], np.uint8)
    elif name == "limits":
        settings = {"inner": 20.0}
    elif name == "background":
        settings = {"rank": 3, "background": "given", "background_component": 3}
    return counts, settings, valid


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rank", "rank 60, but the data allow at most 48"),
        ("empty", "0 of 48 positions have counts"),
        ("constant", "all patterns are alike"),
        ("negative", "of the counts are negative"),
        ("nan", "not finite at scan position y 2, x 3"),
        ("one", "1 of 1 positions has counts"),
        ("mask", "no pixel is valid"),
        ("limits", "no pixel is valid from 41.0 px"),
        ("background", "background_component 3, but there are 3 components"),
    ],
)
def test_what_cannot_be_factorised_is_told_in_one_message(name, said, tmp_path):
    counts, settings, valid = broken(name)
    cube = Cube(counts, valid=valid)
    params = nmf.Params(**{"rank_range": (2, 3), "starts": 1, **settings})
    with pytest.raises(InputError) as error:
        nmf.compute(cube, cube, params, RADIUS, tmp_path)
    assert said in str(error.value)
    assert "Expected" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_ranks_that_the_data_do_not_allow_are_left_out(tmp_path):
    counts, _ = film(scan=(1, 6))
    result = run(counts, tmp_path, rank_range=(2, 20), starts=1)
    assert result.rank[-1] <= 6


def test_a_fit_that_did_not_converge_is_told(tmp_path):
    counts, _ = film(scan=(6, 8))
    result = run(counts, tmp_path, rank=4, starts=2, max_iterations=1)
    said = " ".join(nmf.doubts(result))
    assert "did not converge" in said and not result.converged
    assert replace(result, clipped=0.01).clipped and "negative" in " ".join(nmf.doubts(replace(result, clipped=0.01)))


PREPARE = """
import sys, tempfile
import numpy as np
from pathlib import Path
from fourdstem.cube import Cube
from fourdstem.methods import nmf

class Counts:
    def __init__(self, n):
        self.shape, self.draw = (n, 64, 64, 64), np.random.default_rng(0).random((4, 64, 64)).astype(np.float32)
    def __getitem__(self, where):
        y, x = where
        n = len(range(*x.indices(64)))
        return self.draw[(np.arange(n) + y) % 4] * 20

def run(n):
    cube = Cube(Counts(n), memory_mb=300)
    with tempfile.TemporaryDirectory() as folder:
        nmf.compute(cube, cube, nmf.Params(rank=3, starts=1), 2.0, Path(folder))
run(2)
"""


def test_a_scan_larger_than_the_memory_stays_within_it():
    assert peak_growth_mb(PREPARE, "run(160)") < 300  # the matrix alone: 160 MB, and the recorded one again
