"""Second orientations of overlapping crystals, on many-beam patterns of an independent code with known shares."""

import dataclasses

import numpy as np
import pytest
from test_crystal import build
from test_dynamical_patterns import FIXTURE, OPTICS, patterns

from fourdstem.cube import Cube
from fourdstem.methods import orientation as method
from fourdstem.methods.orientation import index, overlap
from fourdstem.methods.orientation.filtering import convolve

COUNT = 40
PRECESSED = dataclasses.replace(OPTICS, precession_mrad=float(FIXTURE["precession_mrad"][1]))
PARAMS = method.Params(thickness_angstrom=150.0, sampling_deg=1.5, overlap=True)
SHARES = (0.0, 0.2, 0.35, 0.5)
SIZE = 128


@pytest.fixture(scope="module")
def gold():
    return build("m-3m")


def clean():
    """Patterns of single crystals with diffuse scattering, for one incident electron."""
    images = patterns(1, COUNT) / 1e4
    images /= np.maximum(images.sum(axis=(1, 2), keepdims=True), 1e-9) / 0.4  # area of a disk, then 40 % in disks
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    diffuse = 1 / (1 + (np.hypot(y, x) * OPTICS.pixel_inv_angstrom / 0.35) ** 2) ** 1.5
    return images + 0.2 * diffuse / diffuse.sum()


def scan(electrons, seed=3):
    """One row of patterns for each share of a second crystal, (share, COUNT, SIZE, SIZE)."""
    single = clean()
    other = np.roll(single, -7, axis=0)
    rng = np.random.default_rng(seed)
    return np.stack([rng.poisson(electrons * ((1 - f) * single + f * other)) for f in SHARES]).astype(np.float32)


def right(result, gold):
    """Where the first orientation is one of the two crystals', and where the second is the other's; (share, COUNT)."""
    truth = FIXTURE["orientation"][:COUNT]
    other = np.roll(truth, -7, axis=0)
    apart = [method.misorientation_deg(result.orientation, q, gold) for q in (truth, other)]
    first = np.where(np.arange(len(SHARES))[:, None] == 0, apart[0], np.minimum(*apart)) < 3
    expected = np.where((apart[0] < apart[1])[..., None], other, truth)
    return first, method.misorientation_deg(result.overlap_orientation, expected, gold) < 3


@pytest.fixture(scope="module")
def found(gold):
    return {dose: method.compute(Cube(scan(dose), PRECESSED), [gold], PARAMS) for dose in (2e3, 2e4)}


@pytest.mark.parametrize(("electrons", "recall"), [(2e3, (0.5, 0.65, 0.65)), (2e4, (0.7, 0.8, 0.8))])
def test_the_second_crystal_is_found_at_known_shares_and_few_single_crystals_are_taken_for_two(
    found, gold, electrons, recall
):
    result = found[electrons]
    first, second = right(result, gold)
    sure = (result.overlap_significance >= 0.99) & (result.overlap_share >= 0.05)
    assert first.mean() > 0.6
    assert np.mean(sure[0][first[0]]) <= 0.05
    for row, least in zip(range(1, len(SHARES)), recall, strict=True):
        assert np.mean((sure & second)[row][first[row]]) >= least


def test_the_share_is_that_of_the_second_crystal(found, gold):
    result = found[2e4]
    first, second = right(result, gold)
    assert np.median(result.overlap_share[0][first[0]]) < 0.01
    for row, share in enumerate(SHARES[1:], 1):
        here = result.overlap_share[row][first[row] & second[row]]
        assert abs(np.median(here) - share) < 0.03
        assert np.quantile(np.abs(here - share), 0.8) < 0.15


def test_first_and_second_are_distinct_and_absent_where_there_is_no_first(gold):
    images = scan(2e4)[:2, :6]
    images[0, 2] = 0
    result = method.compute(Cube(images, PRECESSED), [gold], PARAMS)
    assert result.phase[0, 2] == result.overlap_phase[0, 2] == -1
    for name in ("overlap_orientation", "overlap_correlation", "overlap_share", "overlap_significance"):
        assert np.isnan(getattr(result, name)[0, 2]).all()
    known = result.overlap_phase >= 0
    assert known.sum() == 11
    assert np.all(method.misorientation_deg(result.orientation, result.overlap_orientation, gold)[known] > 5)
    assert np.all(result.overlap_orientation[known][:, 0] >= 0)
    assert np.all((result.overlap_share[known] >= 0) & (result.overlap_share[known] <= 1))


def test_the_first_orientations_are_those_without_overlap_which_is_off_by_default(gold):
    images = scan(2e4)[1:2, :8]
    both = method.compute(Cube(images, PRECESSED), [gold], PARAMS)
    one = method.compute(Cube(images, PRECESSED), [gold], dataclasses.replace(PARAMS, overlap=False))
    assert not method.Params().overlap
    assert one.overlap_orientation is None
    assert one.overlap_significance is None
    assert np.array_equal(one.candidate_orientation, both.candidate_orientation, equal_nan=True)


def test_threads_memory_and_blocks_do_not_change_second_orientations(gold):
    images = scan(2e4)[::2, :35]  # no second crystal, and a strong one, whose significance is the largest
    first = method.compute(Cube(images, PRECESSED), [gold], PARAMS)
    assert np.median(first.overlap_share[1]) > 0.25
    again = method.compute(Cube(images, PRECESSED, threads=2, memory_mb=8), [gold], PARAMS)
    for field in dataclasses.fields(method.Result):
        if field.name.startswith("overlap_"):
            assert np.array_equal(getattr(first, field.name), getattr(again, field.name), equal_nan=True)
    seed = method.compute(Cube(images, PRECESSED), [gold], dataclasses.replace(PARAMS, overlap_seed=1))
    assert not np.array_equal(first.overlap_significance, seed.overlap_significance)
    assert np.array_equal(first.overlap_correlation, seed.overlap_correlation, equal_nan=True)


def test_an_overlap_of_two_phases_gives_both(gold):
    titanium = build("6/mmm")
    seen = detector([titanium])
    rng, truth = np.random.default_rng(8), FIXTURE["orientation"][50:62]
    images = 0.6 * clean()[:12]
    for image, quaternion in zip(images, truth, strict=True):
        place, weight = overlap.disks(quaternion, 0, seen)
        overlap.render_disks(place, 0.16 * weight / weight.sum(), seen.optics.disk_px, image)
    images = rng.poisson(1e5 * images[None]).astype(np.float32)
    result = method.compute(Cube(images, PRECESSED), [gold, titanium], PARAMS)
    pair = np.sort(np.stack([result.phase[0], result.overlap_phase[0]]), axis=0)
    assert np.mean((pair == [[0], [1]]).all(axis=0)) >= 0.75


def detector(crystals):
    optics, rings = index._geometry(Cube(np.zeros((1, 1, SIZE, SIZE)), PRECESSED), crystals, PARAMS)
    return overlap.detector(crystals, optics, rings, np.ones((SIZE, SIZE)))


def drawn(seen, quaternion, electrons=1e4, level=2.0):
    """A template's own disks over a flat background."""
    place, weight = overlap.disks(quaternion, 0, seen)
    image = np.full((SIZE, SIZE), level)
    overlap.render_disks(place, electrons * weight / weight.sum(), seen.optics.disk_px, image)
    return image.astype(np.float32), place, weight


def test_subtracting_a_crystal_from_its_own_pattern_leaves_the_background(gold):
    seen = detector([gold])
    image, place, weight = drawn(seen, FIXTURE["orientation"][4])
    left, explained, background, owner = overlap.subtract(image, place, weight, seen)
    ring = seen.ring >= 0
    assert np.abs(background[np.unique(seen.ring[ring])] - 2).max() < 0.05
    assert np.abs(left - 2)[ring].max() < 0.2
    inside = np.array([ring[owner == i].sum() > 0.95 * (owner == i).sum() > 0 for i in range(len(weight))])
    expected = 1e4 * weight / weight.sum()
    assert np.median(explained[inside] / expected[inside]) == pytest.approx(1, abs=0.02)
    assert np.array_equal(left[owner < 0], image[owner < 0])


def test_a_bright_disk_where_the_first_crystal_has_almost_none_stays(gold):
    seen = detector([gold])
    image, place, weight = drawn(seen, FIXTURE["orientation"][4])
    middle = np.hypot(*(place - (SIZE - 1) / 2).T)
    faint = np.flatnonzero((middle > 12) & (middle < 50) & (weight < 3e-3 * weight.max()))[0]
    alone = np.zeros(len(weight))
    alone[faint] = 5e3
    overlap.render_disks(place, alone, seen.optics.disk_px, image)
    left, explained, _, owner = overlap.subtract(image, place, weight, seen)
    assert (left - 2)[owner == faint].sum() > 4e3
    assert explained[faint] < 1e3


def test_the_compiled_kernels_do_what_their_python_does(gold):
    seen = detector([gold])
    image, place, weight = drawn(seen, FIXTURE["orientation"][9])
    owner = [np.full(image.shape, -1) for _ in range(2)]
    overlap.own(place, 3.0, owner[0])
    overlap.own.py_func(place, 3.0, owner[1])
    assert np.array_equal(*owner)
    smooth = np.empty_like(image)
    convolve(image, seen.kernel / seen.kernel.sum(), smooth)
    background = overlap.radial(image, smooth, seen.ring, owner[0])
    assert np.allclose(background, overlap.radial.py_func(image, smooth, seen.ring, owner[0]))
    made = [(np.empty_like(image), np.zeros(len(weight))) for _ in range(2)]
    overlap.take(image, seen.ring, owner[0], weight, background, *made[0])
    overlap.take.py_func(image, seen.ring, owner[0], weight, background, *made[1])
    assert np.allclose(made[0][0], made[1][0], atol=1e-4)
    assert np.allclose(made[0][1], made[1][1])


@pytest.mark.parametrize(("members", "moved"), [(1, False), (1, True), (20, False), (20, True)])
def test_the_noise_of_counts_averages_and_interpolated_patterns_is_measured(gold, members, moved):
    seen = detector([gold])
    rng = np.random.default_rng(2)
    mean = np.full((SIZE, SIZE), 3.0)
    image = rng.poisson(mean * members) / members
    if moved:  # by half a pixel along both axes
        image = (image + np.roll(image, 1, 0) + np.roll(image, 1, 1) + np.roll(image, (1, 1), (0, 1))) / 4
    free = seen.ring >= 0
    level, spread = overlap.noise(image - mean, mean, free, seen.kernel)
    # The kernel of a disk is hardly wider than the shift, which takes some of its variance too.
    assert (0.7 if moved else 0.93) / members < level < 1.1 / members
    assert level * spread * members == pytest.approx(0.25 if moved else 1.0, rel=0.1)


def test_noise_of_nothing_is_that_of_counts():
    nothing = np.zeros((9, 9))
    assert overlap.noise(nothing, nothing, nothing == 0, np.ones((3, 3), np.float32)) == (1.0, 1.0)


def test_a_single_crystal_made_of_a_pattern_has_its_disks_and_its_noise(gold):
    seen = detector([gold])
    quaternion = FIXTURE["orientation"][4]
    mean, place, weight = drawn(seen, quaternion, 4e4, 5.0)
    rng = np.random.default_rng(0)
    made = overlap.alone(rng.poisson(mean).astype(np.float32), (quaternion, 0), None, seen, rng)
    ring = seen.ring >= 0
    # Sums over bright disks agree, and what is elsewhere scatters like counts.
    _, explained, _, owner = overlap.subtract(made, place, weight, seen)
    _, expected, *_ = overlap.subtract(mean, place, weight, seen)
    strong = expected > 500
    assert strong.sum() > 3
    assert np.abs(explained[strong] / expected[strong] - 1).max() < 0.25
    off = (made - 5.0)[ring & (owner < 0)]
    assert off.mean() == pytest.approx(0, abs=0.15)
    assert off.var() == pytest.approx(5.0, rel=0.2)
