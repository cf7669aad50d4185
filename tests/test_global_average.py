"""The global search: neighbours against brute force, averages against plain NumPy, memory, threads, scratch files."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from averaging import EVERYTHING, average, two_grains
from peak_memory import peak_growth_mb

from fourdstem.cube import Correction, Cube
from fourdstem.errors import InputError
from fourdstem.methods import nonlocal_average as method
from fourdstem.methods.nonlocal_average import everywhere, neighbours, sparse
from fourdstem.methods.nonlocal_average.average import Output
from fourdstem.methods.nonlocal_average.source import open_source

PLANS = [everywhere.Plan(32, 32), everywhere.Plan(100, 64), everywhere.Plan(10_000, 1024)]


class Stored:
    """Looks like a dataset of a file: can only be sliced."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, where):
        return self.array[where].copy()


def clusters(n, count=15, r=20, seed=0):
    """Coordinates of grains of uneven size, with noise of standard deviation 1."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(count, r)) * 6
    return (centre[rng.choice(count, n, p=rng.dirichlet(np.ones(count)))] + rng.normal(size=(n, r))).astype(np.float32)


def brute_force(coordinates, k, some):
    """Indices (len(some), k) of the nearest others, nearest first."""
    exact = coordinates.astype(np.float64)
    square = ((exact[some, None] - exact[None]) ** 2).sum(-1)
    square[np.arange(len(some)), some] = np.inf
    return np.argsort(square, axis=1, kind="stable")[:, :k]


def few_lists(monkeypatch):
    """Make 32,768 positions a case for lists, with as small a share of them looked through as at 262,144."""
    monkeypatch.setattr(neighbours, "EXACT", 8192)
    monkeypatch.setattr(neighbours, "PROBED", neighbours.PROBED // 8)


def table(n, k, seed=0):
    """A table of neighbours drawn at random; the last column lacks some."""
    rng = np.random.default_rng(seed)
    index = np.array([np.append(i, rng.permutation(np.delete(np.arange(n), i))[:k]) for i in range(n)], np.int32)
    index[::3, 1:][:, -1:] = -1
    return index


def averaged(cube, index, weights=None, variance=None, scale=(1.7, 0.5), scratch=None, **settings):
    source = open_source(cube, method.Params(**settings), None)
    shape = (*cube.scan_shape, index.shape[1])
    out = Output(np.full(cube.shape, np.nan, np.float32), np.full(shape, -9, np.int32), np.full(shape, np.nan))
    variance = np.ones(cube.scan_shape) if variance is None else variance
    return out, everywhere.average_everywhere(source, index, weights, variance, scale, out, scratch)


def published_weights(roots, index, variance, scale):
    """Weights (N, 1 + k) by the equations of the paper, position by position."""
    n, out = roots.shape[1], np.zeros(index.shape)
    for i, row in enumerate(index):
        for slot, j in enumerate(row):
            noise = variance[i] + variance[j]
            distance = (((roots[i] - roots[j]) ** 2).sum() - n * noise) / (noise * np.sqrt(2 * n))
            if j >= 0 and noise > 0:
                out[i, slot] = np.exp(-max(distance - scale[1], 0) / scale[0] ** 2)
        out[i, 0] = 1
    return out / out.sum(axis=1, keepdims=True)


def weighted_means(weights, patterns, index):
    return np.einsum("nk,nkyx->nyx", np.where(index < 0, 0, weights), patterns[index])


# ---- neighbours ----------------------------------------------------------------------------------------------


def test_neighbours_of_a_scan_of_usual_size_are_the_true_ones():
    coordinates = clusters(9000)
    some = np.arange(0, 9000, 97)
    found = neighbours.nearest(coordinates, 80, 0, 2)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found[some], brute_force(coordinates, 80, some))


def test_neighbours_far_from_the_origin_are_not_lost_to_rounding():
    coordinates = (clusters(2000, r=5) / 100 + 1000).astype(np.float32)
    both = neighbours.nearest(coordinates, 10, 0, 1), brute_force(coordinates, 10, np.arange(2000))
    near, true = (np.linalg.norm(coordinates[:, None] - coordinates[found], axis=-1) for found in both)
    np.testing.assert_allclose(near, true, rtol=1e-3)


@pytest.mark.parametrize("grains", [40, 4])
def test_lists_find_95_percent_of_the_true_neighbours(monkeypatch, grains):
    few_lists(monkeypatch)
    coordinates, some = clusters(32_768, count=grains), np.arange(5, 32_768, 307)
    found, truth = neighbours.nearest(coordinates, 80, 0, 2)[some], brute_force(coordinates, 80, some)
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)])
    assert recall >= 0.95
    assert all(len(set(row)) == 80 and i not in row for i, row in zip(some, found, strict=True))


@pytest.mark.parametrize("lists", [False, True])
def test_neighbours_do_not_depend_on_threads(monkeypatch, lists):
    if lists:
        few_lists(monkeypatch)
    coordinates = np.repeat(clusters(8192, r=6), 2, axis=0)  # everything twice: many are equally near
    one, three, again = (neighbours.nearest(coordinates, 20, 5, threads) for threads in (1, 3, 3))
    np.testing.assert_array_equal(one, three)
    np.testing.assert_array_equal(three, again)
    assert (one[::2, 0] == np.arange(1, 16_384, 2)).all()


def test_positions_without_coordinates_have_no_neighbours_and_are_none():
    coordinates = clusters(50, r=3)
    dark = [0, 7, 49]
    coordinates[dark, 1] = np.nan
    found = neighbours.nearest(coordinates, 60, 0, 1)
    assert (found[dark] == -1).all()
    lit = np.delete(np.arange(50), dark)
    for i in lit:
        assert sorted(found[i, :46]) == sorted(set(lit) - {i})
    assert (found[lit, 46:] == -1).all()
    assert (neighbours.nearest(np.full((4, 3), np.nan, np.float32), 2, 0, 1) == -1).all()


# ---- averages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 11), (1, 40), (37, 1), (1, 1)])
@pytest.mark.parametrize("mode", ["counts", "sqrt"])
def test_published_weights_and_averages_equal_a_plain_reference(shape, mode):
    counts = two_grains(*shape, n=17, dose=200)[0] + 1
    total, scale = counts.shape[0] * counts.shape[1], (1.7, 0.5)
    index = table(total, min(12, total - 1))
    variance = np.random.default_rng(1).uniform(0.1, 0.4, total)
    variance[[0, total // 2]] = np.nan
    out, trust = averaged(Cube(counts), index, None, variance.reshape(shape), scale, average_in=mode)

    y, x = np.mgrid[:17, :17] - 8.0
    flat = counts.reshape(total, 17, 17).astype(np.float64)
    roots = np.sqrt(flat - flat.min())
    weights = published_weights(roots[:, np.hypot(y, x) < 0.98 * 8.5], index, variance, scale)
    expected = weighted_means(weights, flat if mode == "counts" else roots, index)
    expected = expected if mode == "counts" else expected**2 + flat.min()
    np.testing.assert_allclose(out.patterns.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out.weight.reshape(index.shape), weights, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(out.member.reshape(index.shape), index)
    np.testing.assert_allclose(trust[0].ravel(), 1 / (weights**2).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(trust[1].ravel(), weights[:, 0], rtol=1e-5)
    assert trust[0, 0, 0] == trust[1, 0, 0] == 1  # without a noise estimate it stays as it is


@pytest.mark.parametrize("data", [np.asarray, Stored])
def test_given_weights_average_corrected_patterns(data, tmp_path):
    counts, _ = two_grains(7, 45, n=26, dose=300)
    centre = np.random.default_rng(0).normal(12.5, 1.5, (7, 45, 2))
    centre[2, 3] = np.nan
    bad = np.zeros((26, 26), bool)
    bad[5, 6] = True
    cube = Cube(data(counts), correction=Correction(centre, np.eye(2), bad), threads=2)
    index = table(315, 20)
    weights = np.random.default_rng(1).random(index.shape).astype(np.float32) * (index >= 0)
    weights[:, 4] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    out, trust = averaged(cube, index, weights, scratch=tmp_path)
    corrected = np.concatenate([cube.read(unit) for unit in cube.units()]).astype(np.float64)
    expected = weighted_means(weights, corrected, index).reshape(cube.shape)
    np.testing.assert_allclose(out.patterns, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(trust[0].ravel(), 1 / (weights**2).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("given", [True, False])
def test_the_answer_depends_neither_on_threads_nor_on_memory(monkeypatch, given):
    counts, _ = two_grains(9, 50, n=30, dose=300)
    index = table(450, 33)
    weights = np.full(index.shape, 1 / 34, np.float32) if given else None
    variance, answers = np.random.default_rng(1).uniform(0.1, 0.4, (9, 50)), []
    for plan, threads in zip(PLANS, (1, 2, 3), strict=True):
        monkeypatch.setattr(everywhere, "plan_for", lambda *_, plan=plan: plan)
        monkeypatch.setattr(everywhere, "TASK", 100 * threads)
        out, trust = averaged(Cube(counts, threads=threads), index, weights, variance)
        answers.append((out.patterns, out.weight, trust))
    for answer in answers[1:]:
        for one, first in zip(answer, answers[0], strict=True):
            np.testing.assert_array_equal(one, first)
    assert np.unique(answers[0][1]).size > (1 if given else 100)


def test_groups_cover_the_scan_in_order_and_within_their_size():
    cube = Cube(np.zeros((5, 70, 2, 2), np.uint8))
    for size in (32, 75, 1000):
        found = list(everywhere.groups(cube, size))
        assert [unit for group in found for unit in group] == cube.units()
        assert all(sum(unit.count for unit in group) <= size for group in found)


def test_the_walk_visits_all_and_keeps_grains_together():
    grain = np.random.default_rng(0).integers(0, 4, 2000)
    coordinates = (1000.0 * grain[:, None] + clusters(2000, 1, 5)).astype(np.float32)
    coordinates[3] = np.nan
    index = np.column_stack([np.arange(2000, dtype=np.int32), neighbours.nearest(coordinates, 20, 0, 1)])
    order = everywhere.walk(index)
    assert sorted(order) == list(range(2000))
    assert (np.diff(grain[order[order != 3]]) != 0).sum() == 3


def test_distant_grains_of_one_orientation_are_averaged_together():
    counts, expected = two_grains(6, 40, n=24, dose=300)
    counts = np.concatenate([counts[:, :20], counts[:, 20:], counts[:, :20]], axis=1)
    for distance in ("pattern", "projection"):
        settings = {"search": "global", "distance": distance, "neighbours": 80, "lambda_value": None}
        shape = (6, 60, 81)
        out = Output(np.empty(counts.shape, np.float32), np.empty(shape, np.int32), np.empty(shape, np.float32))
        method.compute(Cube(counts), method.Params(**settings), out, 1.6)
        grain = np.where(out.member < 0, -1, out.member % 60 // 20)
        share = np.array([out.weight[:, :20][grain[:, :20] == g].sum() for g in range(3)]) / 120
        assert share[2] > 0.25
        assert share[1] < 0.02
        far = ((out.patterns[:, :10] - expected[0]) ** 2).mean()
        near, _ = average(Cube(counts), 1.6, **{**settings, "search": "window", "window_half_width_px": 1})
        assert far < ((near[:, :10] - expected[0]) ** 2).mean() / 2


def test_more_neighbours_than_positions_average_the_whole_scan():
    counts, _ = two_grains(4, 5, n=16, dose=300)
    out, result = average(Cube(counts), search="global", neighbours=50, lambda_value=EVERYTHING)
    np.testing.assert_allclose(out[0, 0], counts.mean(axis=(0, 1)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(result.effective_number, 20, rtol=1e-3)


# ---- memory and scratch files --------------------------------------------------------------------------------


def test_the_scratch_folder_is_left_empty(tmp_path):
    counts, _ = two_grains(5, 40, n=16)
    index = table(200, 10)
    weights = np.full(index.shape, 1 / 11, np.float32)
    files = []

    class Watch:
        def __setitem__(self, where, patterns):
            files.append(list(tmp_path.iterdir()))
            if len(files) > 5:
                raise RuntimeError("the disk is full")

    source = open_source(Cube(Stored(counts)), method.Params(), None)
    with pytest.raises(RuntimeError, match="disk is full"):
        everywhere.average_everywhere(source, index, weights, None, None, Output(Watch()), tmp_path)
    averaged(Cube(Stored(counts)), index, weights, scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert files == [[]] * 6  # the copy has no name even while it is used: nothing is left by a process that is killed


def test_a_disk_without_room_is_an_error_before_anything_is_read(tmp_path, monkeypatch):
    usage = everywhere.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(everywhere.shutil, "disk_usage", lambda _: usage._replace(free=12_800))
    cube = Cube(Stored(two_grains(5, 10, n=12)[0]))
    source = open_source(cube, method.Params(), None)
    monkeypatch.setattr(Stored, "__getitem__", lambda *_: pytest.fail("was read"))
    with pytest.raises(InputError, match="14400|1.44e-05 GB"):
        everywhere.average_everywhere(source, table(50, 3), np.ones((50, 4)), None, None, None, tmp_path)


def test_too_little_memory_is_an_error_that_says_how_much_is_needed():
    cube = Cube(np.zeros((10, 10, 64, 64), np.uint16), memory_mb=1)
    with pytest.raises(InputError, match="mem_mb=") as error:
        everywhere.plan_for(cube, 81, 100)
    need = int(error.value.do.split("mem_mb=")[1].split(",")[0])
    assert everywhere.plan_for(Cube(cube.data, memory_mb=need), 81, 100).positions >= 32


PREPARE = """
import h5py, numpy as np
from fourdstem.cube import Cube
from fourdstem.methods.nonlocal_average import average, everywhere
from fourdstem.methods.nonlocal_average.source import open_source
class Nowhere:
    def __setitem__(self, where, patterns):
        pass
def run(data, memory_mb):
    total, cube = data.shape[0] * data.shape[1], Cube(data, memory_mb=memory_mb, threads=2)
    own = np.arange(total)[:, None]
    index = ((own + np.arange(81) * 7) % total).astype(np.int32)
    source = open_source(cube, average.Params(), None)
    out = average.Output(Nowhere())
    everywhere.average_everywhere(source, index, None, np.ones(cube.scan_shape), (1.7, 0.0), out, sys.argv[2])
class Few(np.ndarray):
    pass
class File:
    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
    def __getitem__(self, where):
        return self.array[where]
run(File(np.random.default_rng(0).integers(0, 9, (3, 40, 128, 128), dtype=np.uint16)), 60)
"""
WORK = """
with h5py.File(sys.argv[1]) as file:
    run(file["data"], 60)
"""


def test_memory_stays_below_the_limit_for_a_file_larger_than_it(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        data = file.create_dataset("data", (48, 64, 128, 128), np.uint16, chunks=(1, 16, 128, 128))
        for y in range(48):
            data[y] = rng.integers(0, 9, (64, 128, 128), dtype=np.uint16)
    assert Path(tmp_path / "scan.h5").stat().st_size > 60 * 2**20
    assert peak_growth_mb(PREPARE, WORK, tmp_path / "scan.h5", tmp_path) < 60


# ---- kernels -------------------------------------------------------------------------------------------------


def test_uncompiled_kernels_agree_with_compiled_ones():
    rng = np.random.default_rng(0)
    own, room = (rng.random((count, 1, 512)).astype(np.float32) for count in (3, 9))
    place = np.sort(np.array([rng.permutation(14)[:7] for _ in range(3)]), axis=1).astype(np.int32)
    queue, weights, results = np.array([2, 0, 1]), rng.random((3, 7)).astype(np.float32), []
    for plain in (False, True):
        advance, compare, add, weigh = (
            kernel.py_func if plain else kernel
            for kernel in (sparse.advance, sparse.compare, sparse.add, sparse.weights_from)
        )
        at, sums, out = np.zeros((3, 2), np.int64), np.zeros((3, 7)), np.zeros((3, 1, 512), np.float32)
        for begin, end in ((0, 5), (5, 14)):
            advance(place, end, at)
            compare(own, room, place, at, begin, queue, 0, 3, sums)
            add(room, place, at, begin, queue, 0, 3, 0, weights, out)
        entry, members = np.argsort(place, axis=1), np.array([[0, 1, 2, -1, 4, 5, 6]] * 3, np.int32)
        found = np.empty((3, 7), np.float32)
        weigh(sums, entry, members, np.full(7, 0.2), 0, 512, (9.0, 0.0), found)
        results.append((at, sums, out, found))
    for compiled, plain in zip(*results, strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-4)
    pairs = (zip(own[:, 0], place, strict=True), room[:, 0])
    true = [[((z - pairs[1][p if p < 5 else p - 5]) ** 2).sum() for p in row] for z, row in pairs[0]]
    np.testing.assert_allclose(results[0][1], true, rtol=1e-4)
    np.testing.assert_allclose(
        sparse.four_differences.py_func(own, 0, room, 1, 2, 3, 4, 0)[1], ((own[0] - room[2]) ** 2).sum(), rtol=1e-4
    )
