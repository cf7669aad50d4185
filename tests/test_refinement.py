"""Refinement of orientations off the grid: against drawn patterns, scipy and the definition of the score."""

import dataclasses

import numpy as np
import pytest
from scipy.ndimage import correlate
from test_crystal import build
from test_orientation import COARSE, DISK, OPTICS, PIXEL, SIZE, cube_of, from_diffsims, random_orientations

from fourdstem.methods import orientation as method
from fourdstem.methods.orientation import filtering, matching, polar, refinement, rotations, search, templates
from fourdstem.methods.orientation.filtering import convolve
from fourdstem.methods.orientation.spots import _kernel
from fourdstem.methods.orientation.spots import spots as spots_of

LENS = matching.Optics(OPTICS.wavelength_angstrom, PIXEL, DISK, 1e-3, 0.0, 100.0)
STEP = np.deg2rad(1.0)


def drawn(crystal, quaternions):
    """Kinematical patterns of known orientations."""
    g, f2 = templates.bright_reflections(crystal, SIZE * PIXEL)
    patterns = np.zeros((len(quaternions), SIZE, SIZE))
    for pattern, matrix in zip(patterns, rotations.to_matrix(quaternions), strict=True):
        lab = g @ matrix
        templates.render(
            lab, f2 * templates.relrod(lab, LENS.wavelength, np.full(len(lab), 100.0), 0.0, 1e-3), PIXEL, DISK, pattern
        )
    return (patterns / patterns.max() * 1000).astype(np.float32)


def turned(quaternions, degrees, seed=5):
    axis = np.random.default_rng(seed).normal(size=(len(quaternions), 3))
    axis *= np.sin(np.deg2rad(degrees) / 2) / np.linalg.norm(axis, axis=1, keepdims=True)
    return rotations.multiply(quaternions, np.column_stack([np.full(len(axis), np.cos(np.deg2rad(degrees) / 2)), axis]))


@pytest.fixture(scope="module")
def gold():
    return build("m-3m")


@pytest.fixture(scope="module")
def truth():
    return random_orientations(16, 8)


@pytest.fixture(scope="module")
def patterns(gold, truth):
    return drawn(gold, truth)


@pytest.fixture(scope="module")
def symmetry(gold):
    return rotations.from_matrix(gold.operations), np.array([0, len(gold.operations)]), np.deg2rad(5)


def disks(gold, valid=None):
    valid = np.ones((SIZE, SIZE)) if valid is None else valid
    return spots_of([gold], LENS, polar.choose_rings(4, (SIZE - 1) / 2, DISK), valid, 0.25)


def reflections_of(spots):
    where = np.ascontiguousarray(np.column_stack([spots.g, (spots.g**2).sum(axis=1), spots.amplitude[0]]).T)
    return where, spots.row, spots.table[0], (spots.s_max[0], *spots.optics)


def detector_of(spots, pattern):
    """What `search` asks of a pattern, and its norm."""
    explained, _, norm = prepared(pattern, spots)
    return (explained, spots.seen, spots.per_ring), norm


def prepared(pattern, spots, prepare=filtering.prepare):
    rings = spots.ring, spots.order, spots.first
    return prepare(pattern, spots.inside, (spots.box, spots.disk), spots.weight, rings, spots.power, True)


def refined(pattern, spots, symmetry, starts):
    quaternion, phase = np.array(starts, float), np.zeros(len(starts), int)
    score = np.full(len(starts), 0.5)
    refinement.refine(pattern[None], spots, STEP, symmetry, len(starts), quaternion[None], phase[None], score[None])
    return quaternion, phase, score


def test_an_orientation_off_by_a_degree_finds_the_truth(gold, truth, patterns, symmetry):
    spots = disks(gold)
    starts = turned(truth, 1.0)
    found = [refined(p, spots, symmetry, [q]) for p, q in zip(patterns, starts, strict=True)]
    error = method.misorientation_deg(np.array([f[0][0] for f in found]), truth, gold)
    assert np.median(error) < 0.35
    assert np.all(np.array([f[2][0] for f in found]) <= 1)


def test_maps_are_more_accurate_and_ranked_better_with_refinement(gold, truth, patterns):
    params = dataclasses.replace(COARSE, candidates=4)
    with_it, without = (
        method.compute(cube_of(patterns), [gold], dataclasses.replace(params, refine=refine))
        for refine in (True, False)
    )
    sharp, blunt = (method.misorientation_deg(r.orientation[0], truth, gold) for r in (with_it, without))
    assert np.median(sharp) < 0.6 * np.median(blunt)
    assert np.sum(sharp > 3) <= np.sum(blunt > 3)
    assert not np.any(np.diff(with_it.candidate_correlation, axis=-1) > 0)  # NaN where a candidate is missing
    assert np.all((with_it.correlation > 0) & (with_it.correlation <= 1))


def test_candidates_that_meet_become_one_and_a_spare_takes_the_place(gold, truth, patterns, symmetry):
    near = turned(truth[:1], 1.0)
    starts = np.concatenate([near, truth[:1], turned(truth[:1], 20.0), turned(truth[:1], 40.0)])
    quaternion, phase, score = np.array(starts), np.zeros(4, int), np.full(4, 0.5)
    refinement.refine(patterns[:1], disks(gold), STEP, symmetry, 3, quaternion[None], phase[None], score[None])
    assert phase.tolist() == [0, 0, 0, -1]
    assert np.isnan(quaternion[3]).all()
    assert np.isnan(score[3])
    assert method.misorientation_deg(quaternion[0], truth[0], gold) < 1
    assert score[0] > score[1] >= score[2]


def test_what_a_mask_hides_does_not_matter(gold, truth, patterns, symmetry):
    valid = np.ones((SIZE, SIZE), np.uint8)
    valid[:, : SIZE // 3] = 0
    spots = disks(gold, valid)
    clean = refined(patterns[0], spots, symmetry, truth[:1])
    dirty = refined(np.where(valid, patterns[0], 1e4).astype(np.float32), spots, symmetry, truth[:1])
    assert np.array_equal(clean[0], dirty[0])
    assert clean[2] == dirty[2]


def test_a_dark_or_constant_pattern_leaves_candidates_as_they_are(gold, truth, symmetry):
    for level in (0, 7):
        quaternion, _, score = refined(np.full((SIZE, SIZE), level, np.float32), disks(gold), symmetry, truth[:1])
        assert np.array_equal(quaternion, truth[:1])
        assert score[0] == 0.5


def test_the_score_of_drawn_disks_equals_their_correlation_with_the_pattern(gold, truth, patterns):
    spots = disks(gold)
    detector, norm = detector_of(spots, patterns[0])
    lab = spots.g @ rotations.to_matrix(truth[0])
    amplitude = spots.amplitude[0] * templates.relrod(
        lab, LENS.wavelength, np.full(len(lab), 100.0), 0.0, np.hypot(1e-3, np.deg2rad(0.5))
    ) ** (0.25 * 1.2)
    template, rows = np.zeros((SIZE, SIZE)), np.mgrid[:SIZE, :SIZE]
    for (x, y, _), a in zip(lab / PIXEL + (SIZE - 1) / 2, amplitude, strict=True):
        template += a * np.clip(1.2 * DISK + 0.5 - np.hypot(rows[0] - y, rows[1] - x), 0, 1)
    pattern = np.zeros((SIZE, SIZE), np.float32)
    convolve(patterns[0] * spots.inside, spots.box, pattern)
    rings = spots.ring, spots.order, spots.first
    norm_again = filtering.flatten(pattern, spots.weight, rings, 0.25, np.empty_like(pattern))
    for ring in range(spots.ring.max() + 1):
        chosen = spots.ring == ring
        template[chosen] -= template[chosen].mean() if chosen.any() else 0
    template[spots.ring < 0] = 0
    expected = (template * pattern).sum() / np.linalg.norm(template)
    reflections = reflections_of(spots)
    rest = reflections, detector, search._shown(reflections), search._room(reflections, detector)
    assert norm_again == norm
    assert search.match(truth[0], *rest) == pytest.approx(
        expected, rel=0.12
    )  # disks of neighbouring rings share a mean
    assert search.match.py_func(truth[0], *rest) == pytest.approx(search.match(truth[0], *rest))


def test_a_look_around_equals_templates_made_as_a_whole(gold, truth, patterns):
    spots = disks(gold)
    (detector, _), reflections = detector_of(spots, patterns[2]), reflections_of(spots)
    here, there, room = search._shown(reflections), search._shown(reflections), search._room(reflections, detector)
    start = turned(truth[2:3], 0.7)[0]
    middle = search.match(start, reflections, detector, here, room)
    for step in np.deg2rad([0.5, 0.1]):
        expected = [
            search.match(search._rotated(start, axis, step), reflections, detector, there, room)
            for axis in search._AXES
        ]
        for tilted, about in ((search.tilted, search.turned), (search.tilted.py_func, search.turned.py_func)):
            value = np.zeros(10)
            tilted(here, step, reflections, room[2], value)
            about(here, step, reflections, detector, room[2], value)
            assert np.abs(value - expected).max() < 0.03 * np.abs(np.array(expected) - middle).max()


def test_convolution_equals_that_of_scipy():
    rng = np.random.default_rng(0)
    image, kernel = rng.random((13, 9)).astype(np.float32), _kernel(2.3)
    for function in (convolve, convolve.py_func):
        out = np.empty_like(image)
        function(image, kernel, out)
        assert np.allclose(out, correlate(image, kernel, mode="constant"), atol=1e-4)


def test_between_pixels_a_parabola_is_met_exactly():
    y, x = np.mgrid[:9, :9].astype(np.float32)
    image = (3 - 0.2 * (y - 4.3) ** 2 - 0.1 * (x - 3.8) ** 2).astype(np.float32)
    for between in (search.between, search.between.py_func):
        assert between(image, 4.6, 3.1) == pytest.approx(3 - 0.2 * 0.3**2 - 0.1 * 0.7**2, abs=1e-5)


def test_a_step_of_the_search_is_a_rotation_about_a_lab_axis(truth):
    for axis in search._AXES:
        assert np.linalg.norm(axis) == pytest.approx(1)
        by = np.array([np.cos(0.1), *(np.sin(0.1) * axis)])
        for rotated in (search._rotated, search._rotated.py_func):
            assert np.allclose(rotated(truth[0], axis, 0.2), rotations.multiply(truth[0], by))
    assert np.allclose(search._matrix.py_func(truth[0]), rotations.to_matrix(truth[0]))


def test_the_compiled_search_equals_the_interpreted_one(gold, truth, patterns):
    spots = disks(gold)
    detector, _ = detector_of(spots, patterns[1])
    steps = STEP, np.deg2rad(0.1), spots.reach, 0.0
    rest = steps, reflections_of(spots), detector
    start = turned(truth[1:2], 0.8)[0]
    compiled, interpreted = search.search(start, *rest), search.search.py_func(start, *rest)
    assert np.allclose(compiled[0], interpreted[0])
    assert compiled[1] == pytest.approx(interpreted[1])
    both = prepared(patterns[1], spots), prepared(patterns[1], spots, filtering.prepare.py_func)
    assert all(np.allclose(one, other, atol=1e-4) for one, other in zip(*both, strict=True))
    one, other = np.empty((2, *patterns[1].shape), np.float32)
    sums, again = patterns[1] * spots.inside, patterns[1] * spots.inside
    given = spots.weight, (spots.ring, spots.order, spots.first), 0.25
    norm = filtering.flatten(sums, *given, one)
    assert filtering.flatten.py_func(again, *given, other) == pytest.approx(norm, rel=1e-4)
    assert np.allclose(sums, again, atol=1e-4)
    assert np.allclose(one, other, atol=1e-4)


def test_a_search_that_falls_behind_ends_at_its_first_step(gold, truth, patterns):
    spots = disks(gold)
    detector, _ = detector_of(spots, patterns[1])
    start, given = turned(truth[1:2], 0.8)[0], (reflections_of(spots), detector)
    steps = STEP, np.deg2rad(0.1), spots.reach
    whole, short = (
        search.search(start, (*steps, 0.0), *given),
        search.search(start, (STEP, STEP / 2, spots.reach, 0.0), *given),
    )
    assert short[1] < whole[1]
    for enough, expected in ((short[1] * 1.01, short), (short[1] * 0.99, whole)):
        found = search.search(start, (*steps, enough), *given)
        assert np.array_equal(found[0], expected[0])
        assert found[1] == expected[1]


def test_the_pattern_for_the_final_place_is_that_of_twice_the_power(gold, patterns):
    spots = disks(gold)
    _, final, _ = prepared(patterns[0], spots)
    sharper, _, _ = prepared(patterns[0], dataclasses.replace(spots, power=0.5))
    assert np.allclose(final, sharper, atol=1e-4 * sharper.max())


def test_the_top_of_a_paraboloid_is_found_from_what_a_round_sees():
    top, bend = np.array([0.6, -0.4, 0.7]), np.array([[-2.0, 0.8, 0.0], [0.8, -1.0, 0.0], [0.0, 0.0, -1.5]])

    def height(place):
        return 5 + 0.5 * (place - top) @ bend @ (place - top)

    values = np.array([height(axis) for axis in search._AXES])
    for function in (search._top, search._top.py_func):
        assert np.allclose(function(height(np.zeros(3)), values), top)


def test_candidates_are_sorted_by_score_and_those_that_are_none_come_last():
    score, phase = np.array([0.2, 0.9, 0.5, 0.9, 0.7]), np.array([0, 1, -1, 2, 3])
    for sort in (refinement._sort, refinement._sort.py_func):
        found = np.arange(20.0).reshape(5, 4), phase.copy(), score.copy()
        sort(found, 5)
        assert found[1].tolist() == [1, 2, 3, 0, -1]  # of equals the first stays first
        assert np.array_equal(found[0][0], [4, 5, 6, 7])


def test_ideal_kinematical_patterns_of_independent_code_are_indexed_within_a_quarter_of_a_degree(gold):
    truth = random_orientations(48, 21)
    patterns = from_diffsims("m-3m", truth)
    params = dataclasses.replace(COARSE, sampling_deg=1.5, intensity="kinematical", thickness_angstrom=100 / 2**0.5)
    found = method.compute(cube_of(patterns), [gold], params)
    error = method.misorientation_deg(found.orientation.reshape(-1, 4)[:48], truth, gold)
    assert np.median(error) < 0.25
