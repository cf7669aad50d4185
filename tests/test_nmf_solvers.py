"""Factorisation: solvers against scikit-learn, compression, the scan over ranks."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import nnls

from fourdstem.methods import nmf
from fourdstem.methods.nmf import kernels, maps, on_device, whole
from fourdstem.methods.nmf.compressed import captured, compress
from fourdstem.methods.nmf.matrix import Matrix, wrap
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
@pytest.mark.parametrize("start", ["nndsvda", "nndsvd", "random"])
def test_hals_reaches_the_loss_of_scikit_learn(v, rank, start):
    fit = nmf.solve(v, rank, start=start, seed=1)
    assert fit.converged
    assert fit.weight.min() >= 0 and fit.component.min() >= 0
    assert fit.weight.dtype == fit.component.dtype == np.float32
    assert squares(v, fit) == pytest.approx(fit.loss, rel=1e-4)
    assert fit.loss < 1.01 * KNOWN[f"frobenius {rank}"]


def test_the_seed_alone_decides_where_a_random_start_begins(v):
    one, same, other = (nmf.solve(v, 5, start="random", seed=seed, max_iter=3) for seed in (1, 1, 2))
    assert np.array_equal(one.weight, same.weight) and np.array_equal(one.component, same.component)
    assert not np.allclose(one.component, other.component, rtol=0.1)
    again = [nmf.sweep(v, [5], 2, seed=seed, max_iter=3).fits[5] for seed in (1, 1, 2)]
    assert np.array_equal(again[0][1].weight, again[1][1].weight)
    assert not np.allclose(again[0][1].weight, again[2][1].weight, rtol=0.1)


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


def test_weights_fitted_anew_know_no_penalty_and_leave_the_fit_that_was_given(v):
    sparse = nmf.solve(v, 5, l1_weight=20.0)
    before = sparse.weight.copy()
    anew = whole.unbiased(wrap(v), sparse)
    assert np.array_equal(sparse.weight, before)
    best = [nnls(sparse.component.T.astype(float), row)[0] for row in v[:40].astype(float)]
    assert np.allclose(anew.weight[:40], best, atol=1e-3 * np.max(best))
    assert squares(v, anew) == pytest.approx(anew.loss, rel=1e-4) and anew.loss < squares(v, sparse)


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


def test_what_a_card_holds_of_the_rows_does_not_change_a_bit(v, monkeypatch):
    matrix = wrap(np.tile(v, (15, 1)))
    assert len(matrix.spans()) > 2
    start = np.abs(np.random.default_rng(4).standard_normal((4, len(matrix.x)), np.float32)), v[:4].copy()
    given = (matrix, *start, (1e-6, 4), 10.0, "cpu")
    whole_there = on_device.alternate(*given)
    monkeypatch.setattr(on_device.devices, "free_bytes", lambda device: 1e6)
    in_turn = on_device.alternate(*given)
    assert all(np.array_equal(a, b) for a, b in zip(whole_there, in_turn, strict=True))
    own = nmf.solve(matrix, 4, first=(start[0].T, start[1]), tol=1e-6, max_iter=4, l1_weight=10.0)
    assert in_turn[2] == pytest.approx(own.loss, rel=1e-5)
    assert np.allclose(in_turn[0], own.weight, atol=1e-3 * own.weight.max())


def test_the_kernel_solves_the_problem_of_one_row():
    draw = np.random.default_rng(3)
    h, x = draw.random((6, 40)).astype(np.float32), draw.random((3, 40)).astype(np.float32)
    gram, cross = h @ h.T, h @ x.T
    w, same = np.zeros((6, 3), np.float32), np.zeros((6, 3), np.float32)
    kernels.hals(w, 0, cross, gram, 0.0, 2000)
    kernels.hals.py_func(same, 0, cross, gram, 0.0, 20)
    fewer = np.zeros((6, 3), np.float32)
    kernels.hals(fewer, 0, cross, gram, 0.0, 20)
    assert np.allclose(same, fewer, atol=1e-5)
    assert np.allclose(w.T, [nnls(h.T.astype(float), row.astype(float))[0] for row in x], atol=1e-3)
    start = np.full((6, 3), 0.5, np.float32)
    twice = start.copy()
    kernels.multiply(start, 0, cross, gram, 0.0)
    kernels.multiply.py_func(twice, 0, cross, gram, 0.0)
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


def test_the_size_of_a_component_does_not_matter_to_its_label(v):
    fit = nmf.solve(v, 4)
    for scaling in ("sum", "norm", "max"):
        plain = fit.weight * maps.sizes(fit.component, scaling)
        factor = np.array([1, 10, 0.1, 3], np.float32)
        other = (fit.weight / factor) * maps.sizes(fit.component * factor[:, None], scaling)
        assert np.array_equal(plain.argmax(axis=1), other.argmax(axis=1))
