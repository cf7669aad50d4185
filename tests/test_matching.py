"""The correlation with all templates, its peaks and the choice of candidates: against their definitions."""

import numba
import numpy as np
import pytest
import torch
from test_crystal import build
from test_orientation import DISK, OPTICS, PIXEL, SIZE, from_diffsims, random_orientations

from fourdstem.methods import orientation as method
from fourdstem.methods.orientation import azimuth, candidates, matching, polar, rotations, transform
from fourdstem.vectors import LANES

LENS = matching.Optics(OPTICS.wavelength_angstrom, PIXEL, DISK, 1e-3, 0.0, 100.0)
RINGS = polar.choose_rings(4, (SIZE - 1) / 2, DISK)


@numba.njit
def compiled_second(work, at, azimuths, apart, score, place, to, step):
    transform.second(work, at, azimuths, apart, score, place, to, step)


@pytest.fixture(scope="module")
def gold():
    return build("m-3m")


@pytest.fixture(scope="module")
def matched(gold):
    """A coarse bank, two prepared patterns and their peaks."""
    weights, valid = polar.polar_map(RINGS, (SIZE, SIZE))
    bank = matching.build_bank([gold], LENS, RINGS, valid, 6.0, 0.25, 5.0, "cpu")
    flat = from_diffsims("m-3m", random_orientations(2, 3)).reshape(2, -1)
    prepared, usable = matching.prepare((weights @ flat.T).T.reshape(2, *valid.shape), bank)
    assert usable.all()
    return bank, prepared, matching.correlate(prepared, bank)


@pytest.mark.parametrize("size", [16, 64, 128, 192, 256, 512, 768])
def test_the_transform_is_the_sum_of_its_frequencies(size):
    rng = np.random.default_rng(size)
    series = rng.normal(size=(size, 3, 4 * LANES)).astype(np.float32)
    at, work = 4 * LANES + LANES, np.empty((4, size * LANES), np.float32)  # the second template's second lanes
    expected = np.fft.ifft(series[:, 1, LANES : 2 * LANES] + 1j * series[:, 1, 3 * LANES :], axis=0) * size
    for inverse in (azimuth.inverse_transform, azimuth.inverse_transform.py_func):
        at_last = inverse(series, at, work, size, azimuth.turns_of(size))
        real, imaginary = work.reshape(-1)[at_last : at_last + 2 * size * LANES].reshape(2, size, LANES)
        assert np.abs(real + 1j * imaginary - expected).max() < 1e-4 * size**0.5


def test_every_number_of_azimuths_can_be_transformed():
    for disk in (0.5, 1, 2, 4, 10):
        size = polar.choose_rings(3 * disk, 120, disk).azimuths
        while size % 4 == 0:
            size //= 4
        assert size in (1, 2, 3)


@pytest.mark.parametrize("apart", [0, 1, 2, 7])
def test_the_peaks_are_the_highest_of_each_curve_and_alike_on_both_paths(apart):
    rng = np.random.default_rng(0)
    azimuths, templates, patterns = 64, 3, 2 * LANES
    decay = np.exp(-np.abs(np.fft.fftfreq(azimuths, 1 / azimuths)) / 12)[:, None, None]
    product = (decay * rng.normal(size=(azimuths, templates, 2 * patterns))).astype(np.float32)
    norm = rng.uniform(0.5, 1, size=(2, templates, azimuths)).astype(np.float32)
    both = np.fft.ifft(product[..., :patterns] + 1j * product[..., patterns:], axis=0) * azimuths
    room, turns = np.empty((4, azimuths * LANES), np.float32), azimuth.turns_of(azimuths)
    score, place = np.empty((2, templates, 2, 2, patterns), np.float32)
    interpreted = np.empty((2, templates, 2, 2, patterns), np.float32)
    azimuth.peaks(product, norm, 0, apart, turns, room, score, place)
    azimuth.peaks.py_func(product, norm, 0, apart, turns, room, *interpreted)
    assert np.allclose(interpreted[0], score, atol=1e-4)
    assert np.allclose(interpreted[1], place, atol=1e-2)
    again = azimuth.peaks_torch(torch.from_numpy(product), torch.from_numpy(norm), apart)
    assert np.allclose(again[0], score, atol=1e-4)
    assert np.allclose(again[1], place, atol=1e-2)
    for t, mirror, pattern in np.ndindex(templates, 2, patterns):
        curve = (both.real + (1 - 2 * mirror) * both.imag)[:, t, pattern] * norm[mirror, t]
        first = curve.argmax()
        distance = np.abs(np.arange(azimuths) - first)
        top = (curve > np.roll(curve, 1)) & (curve > np.roll(curve, -1))
        second = np.where(top & (np.minimum(distance, azimuths - distance) > apart), curve, 0).argmax()
        assert score[t, mirror, :, pattern] == pytest.approx(curve[[first, second]], abs=1e-4)
        assert np.abs(place[t, mirror, :, pattern] - [first, second]).max() <= 0.5


def shown(template):
    """A template without ring means and without detail that is finer than the last ring shows."""
    frequency = np.abs(np.fft.fftfreq(RINGS.azimuths, 1 / RINGS.azimuths))
    finest = np.ceil(RINGS.azimuths / 2 * RINGS.radius / RINGS.radius[-1])[:, None]
    kept = (frequency > 0) & (frequency < RINGS.azimuths / 2) & (frequency <= finest)
    return np.fft.ifft(np.fft.fft(template) * kept).real


def test_correlation_equals_the_sum_over_rings(gold, matched):
    bank, prepared, (score, place) = matched
    half = int(np.ceil((SIZE - 1) / 2 + DISK + 2))
    weights, _ = polar.polar_map(RINGS, (2 * half + 1, 2 * half + 1))
    for mirror, row in ((0, 3), (1, 3), (1, 8)):  # mirror orientations are drawn without mirroring
        image = matching.draw(gold, rotations.to_matrix(bank.quaternion[mirror, row])[None], LENS, half, 6.0)
        template = (weights @ image[0]).reshape(prepared.shape[1:]) ** 0.25
        template = shown(template)
        norm = np.sqrt((template**2 * RINGS.radius[:, None]).sum())
        curve = [
            (np.roll(template, step, axis=1) * prepared[0] * RINGS.radius[:, None]).sum() / norm
            for step in range(RINGS.azimuths)
        ]
        assert score[row, mirror, 0, 0] == pytest.approx(max(curve), abs=2e-3)
        assert abs(place[row, mirror, 0, 0] - np.argmax(curve)) <= 0.6


def test_neither_the_last_group_of_templates_nor_empty_lanes_change_what_is_found(matched):
    bank, prepared, _ = matched
    patterns = np.stack([np.roll(prepared[n % 2], n, axis=1) for n in range(LANES + 3)])
    score, place = matching.correlate(patterns, bank)
    templates = len(bank.phase)
    assert templates % transform.TALL
    assert score.shape == place.shape == (templates, 2, azimuth.PEAKS, LANES + 3)
    for some in (slice(None), slice(LANES), slice(LANES, None), slice(4, 5)):
        again = matching.correlate(np.ascontiguousarray(patterns[some]), bank)
        assert np.array_equal(again[0], score[..., some])
        assert np.array_equal(again[1], place[..., some])


def test_both_orders_of_the_coefficients_give_the_same_correlation(gold, matched, monkeypatch):
    """A card takes all templates of a frequency together; its path runs on a processor here."""
    packed, prepared, (score, place) = matched
    monkeypatch.setattr(matching, "_packed", lambda spectra, _: spectra)
    monkeypatch.setattr(matching, "_on_card", lambda _: True)
    valid = np.ones((len(RINGS.radius), RINGS.azimuths), bool)
    bank = matching.build_bank([gold], LENS, RINGS, valid, 6.0, 0.25, 5.0, "cpu")
    assert bank.spectra.shape == (RINGS.azimuths, len(packed.phase), len(RINGS.radius))
    for templates in (512, 7):
        monkeypatch.setattr(matching, "_TEMPLATES", templates)
        again = matching.correlate(prepared, bank)
        assert np.allclose(again[0], score, rtol=0, atol=1e-5)
        clear = score[:, :, 0] > score[:, :, 1] + 1e-4
        assert clear.mean() > 0.5
        assert np.allclose(again[1][:, :, 0][clear], place[:, :, 0][clear], atol=1e-2)


def test_frequencies_finer_than_the_last_ring_shows_are_left_out():
    used = matching._used(RINGS)
    frequency = np.abs(np.fft.fftfreq(RINGS.azimuths, 1 / RINGS.azimuths))
    assert not used[[0, RINGS.azimuths // 2]].any()
    finest = 2 * (2 * np.pi * RINGS.radius[-1] / RINGS.azimuths)
    for k in np.flatnonzero((frequency > 0) & (frequency < RINGS.azimuths // 2)):
        arc = 2 * np.pi * RINGS.radius / frequency[k]  # px from crest to crest
        assert np.all(arc[~used[k]] < finest)
        assert np.all(arc[used[k]] > finest * frequency[k] / (frequency[k] + 1) - 1e-9)
        assert np.all(np.diff(used[k].astype(int)) >= 0) and used[k, -1]  # from one ring on all


def test_candidates_equal_a_search_over_all_peaks(gold, matched):
    bank, _, (score, place) = matched
    operations = rotations.from_matrix(gold.operations)
    symmetry = operations, np.array([0, len(operations)]), np.deg2rad(5)
    half = np.pi * place / RINGS.azimuths
    turn = np.stack([np.cos(half), 0 * half, 0 * half, -np.sin(half)], -1)
    everything = rotations.multiply(bank.quaternion.swapaxes(0, 1)[:, :, None, None], turn)
    # The uncompiled kernels call compiled ones.
    for select in (candidates.select, candidates.select.py_func):
        found = np.full((2, 4, 4), np.nan), np.full((2, 4), -1), np.full((2, 4), np.nan)
        select(score, place, np.ones(2, bool), (bank.quaternion, bank.phase), symmetry, found, RINGS.azimuths)
        for b in range(2):
            left = score[..., b].copy()
            for quaternion, phase, value in zip(*(part[b] for part in found), strict=True):
                assert phase == 0
                assert value == left.max()
                left[method.misorientation_deg(quaternion, everything[:, :, :, b], gold) < 5] = 0


def test_a_curve_without_a_second_peak_has_none():
    azimuths, lanes = 64, np.arange(LANES)
    curve = np.cos(2 * np.pi * (np.arange(azimuths)[:, None] - lanes) / azimuths).astype(np.float32)
    for second in (transform.second, compiled_second):
        score, place = np.full((2, 2, LANES), -1, np.float32)
        score[0], place[0] = 1, lanes
        second(curve.copy(), 0, azimuths, 3, score, place, 0, LANES)
        assert np.allclose(score, [[1], [0]])
        assert np.allclose(place[0], lanes, atol=1e-3)
    norm = np.zeros((2, 1, azimuths), np.float32)
    norm[0], product = 1, np.zeros((azimuths, 1, 2 * LANES), np.float32)
    product[1, 0, :LANES], product[-1, 0, :LANES] = 0.5, 0.5
    room = np.empty((4, azimuths * LANES), np.float32)
    score, place = np.full((2, 1, 2, 2, LANES), -1, np.float32)
    azimuth.peaks(product, norm, 0, 3, azimuth.turns_of(azimuths), room, score, place)
    assert np.allclose(score[0, 0], [[1] * LANES, [0] * LANES], atol=1e-5)
    assert np.allclose(score[0, 1], 0)


def test_few_templates_leave_candidates_missing(gold, matched):
    bank, _, (score, place) = matched
    symmetry = rotations.from_matrix(gold.operations), np.array([0, len(gold.operations)]), np.deg2rad(60)
    found = np.full((2, 9, 4), np.nan), np.full((2, 9), -1), np.full((2, 9), np.nan)
    usable = np.array([True, False])
    candidates.select(score, place, usable, (bank.quaternion, bank.phase), symmetry, found, RINGS.azimuths)
    assert found[1][0, 0] == 0
    assert found[1][0, -1] == -1
    assert np.isnan(found[2][0, -1])
    assert np.all(found[1][1] == -1)
