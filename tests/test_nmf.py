"""The stage nmf: maps of a scan whose components are known, and what cannot be factorised."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from peak_memory import peak_growth_mb

from fourdstem.cube import Cube
from fourdstem.errors import InputError
from fourdstem.methods import nmf
from fourdstem.methods.nmf import analysis, maps, on_device
from fourdstem.methods.nmf.prepare import features_of, gather, prepare

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
    expected = dose * np.einsum("yxk,kij->yxij", shares(label), patterns())
    return np.random.default_rng(seed).poisson(expected).astype(np.float32), label


def shares(label):
    """Share of each stripe (scan_y, scan_x, 3): half of each in one column where they meet."""
    share = np.eye(3)[label]
    for edge in np.flatnonzero(np.diff(label[0])):
        share[:, edge] = (share[:, edge] + share[:, edge + 1]) / 2
    return share


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
    compared = ("weight", "component", "label", "residual", "loss", "overlap", "cluster_mean")
    for name in (*compared, "fidelity_by_metric", "redundancy_by_metric", "raw_match_by_metric", "stability"):
        assert np.array_equal(getattr(one, name), getattr(two, name), equal_nan=True), name
    assert list(tmp_path.iterdir()) == []


def test_the_stage_for_graphics_cards_finds_the_same(tmp_path, monkeypatch):
    """Runs on torch's CPU device where there is no card: the arithmetic is the same, the hardware is not."""
    place, alternate, met = "cuda" if torch.cuda.is_available() else "cpu", on_device.alternate, []
    monkeypatch.setattr(on_device, "alternate", lambda *given: met.append(given[-1]) or alternate(*given[:-1], place))
    cube, params = Cube(film()[0]), nmf.Params(rank_range=(2, 5), starts=2)
    own, found = (nmf.compute(cube, cube, params, RADIUS, tmp_path, device=device) for device in ("cpu", "cuda"))
    assert len(met) == 4 * 2 + 2 and set(met) == {
        "cuda"
    }  # all fits, and the final one with few directions and with all
    assert found.chosen_rank == own.chosen_rank == 3 and found.converged
    np.testing.assert_array_equal(found.label, own.label)
    np.testing.assert_allclose(found.weight, own.weight, atol=0.005 * own.weight.max())
    np.testing.assert_allclose(found.loss, own.loss, rtol=1e-3)


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


def test_a_fit_by_divergence_was_not_compressed_and_tells_no_share_of_squares(tmp_path):
    counts, label = film()
    result = run(counts, tmp_path, rank=3, method="mu", loss="kl")
    assert (result.captured, result.compression_error) == (1, 0)
    assert np.isnan(result.unexplained_share).all() and np.isfinite(result.loss).all()
    assert len({int(np.bincount(result.label[label == j] + 1).argmax()) for j in range(3)}) == 3


def test_counts_of_unknown_gain_tell_how_noisy_the_clusters_are_that_are_compared(tmp_path, monkeypatch):
    told, measure = [], analysis.measure
    monkeypatch.setattr(analysis, "measure", lambda *given: told.append(given[-1]) or measure(*given))
    run(7 * film(dose=200)[0], tmp_path, rank_range=(2, 3))
    assert told == pytest.approx([7], rel=0.1)


def test_patterns_that_are_nowhere_alone_come_from_the_narrowest_cone(tmp_path):
    """Particles on a support: a support less a little of the particles fits as well, and is then not alone either."""
    share = np.zeros((20, 20, 3))
    share[3:9, 3:9, 0] = share[11:17, 11:17, 1] = 0.7
    share[..., 2] = 1 - share.sum(axis=2)
    expected = 1e5 * np.einsum("yxk,kij->yxij", share, patterns())
    counts = np.random.default_rng(3).poisson(expected).astype(np.float32)
    pure, error = share[..., 2] == 1, []
    for l1_weight in (0.0, 0.001):
        result = run(counts, tmp_path, rank=3, starts=1, start="random", background="none", l1_weight=l1_weight)
        weight, recorded = result.weight[pure], counts[pure][:, result.used > 0].sum(axis=1)
        assert np.median(weight.sum(axis=1) / recorded) == pytest.approx(1, abs=0.003)  # the penalty leaves no bias
        error.append(1 - np.median(weight.max(axis=1) / weight.sum(axis=1)))
    assert error[1] < 0.5 * error[0] and error[1] < 0.01


def test_a_pattern_that_no_mixture_explains_has_no_label(tmp_path):
    counts, _ = film()
    counts[4, 5] = np.random.default_rng(5).permutation(counts[4, 5].ravel()).reshape(counts.shape[2:])
    result = run(counts, tmp_path, rank=3)
    assert result.label[4, 5] == -1 and result.unexplained[4, 5] == 1
    assert result.unexplained.sum() < 5


def test_mixtures_along_a_boundary_are_overlap_and_not_unexplained(tmp_path):
    """Averages there hold few patterns and much noise, which without their number is taken for a misfit."""
    _, label = film(scan=(30, 30))
    edge = np.flatnonzero(np.diff(label[0]))
    number = np.where(np.isin(np.arange(30), edge), 1.5, 60.0)
    expected = 400 * np.einsum("yxk,kij->yxij", shares(label), patterns())
    draw = np.random.default_rng(2)
    averaged = (draw.poisson(expected * number[:, None, None]) / number[:, None, None]).astype(np.float32)
    averaged[7, 3] = draw.permutation(averaged[7, 3].ravel()).reshape(averaged.shape[2:])
    cube, params = Cube(averaged), nmf.Params(rank=3, starts=1)
    behind = np.broadcast_to(number, (30, 30))
    without, told = (nmf.compute(cube, cube, params, RADIUS, tmp_path, effective_number=n) for n in (None, behind))
    assert without.unexplained[:, edge].mean() > 0.3
    assert told.unexplained.sum() == told.unexplained[7, 3] == 1
    assert (told.label[:, edge] >= 0).all() and told.overlap[0][:, edge].mean() > 0.6


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
            again = np.zeros((1, features.count), np.float32)
            gather.py_func(counts[1, 1].reshape(1, -1), features.index.ravel(), np.float32(1), again)
            assert np.allclose(again[0], data.matrix.x[4])


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
    assert "negative" not in said and "negative" in " ".join(nmf.doubts(replace(result, clipped=0.01)))


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
    assert peak_growth_mb(PREPARE, "run(160)") < 150  # the matrix alone: 160 MB, and the recorded one again
