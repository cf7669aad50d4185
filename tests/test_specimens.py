"""Simulated specimens: columns, counts, detectors; the multislice itself runs in an environment of its own."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from fourdstem import config as configuration
from fourdstem import crystal, multislice, specimens
from fourdstem.errors import InputError
from fourdstem.methods.template_mask import registration


def columns(name, element):
    return np.array([row[1:3] for row in specimens.truth(name)[1:] if row[0] == element]).reshape(-1, 2)


def spacings(place, cell):
    """All distances between columns of a cell that repeats, sorted: what does not depend on origin and rotation."""
    off = (place[:, None] - place[None]) / cell
    return np.sort(np.linalg.norm((off - np.round(off)) * cell, axis=-1).reshape(-1))


@pytest.mark.parametrize(("element", "number"), [("Fe", 26), ("P", 15), ("O", 8), ("Li", 3)])
def test_columns_of_the_olivine_are_those_that_the_cif_projects(element, number):
    """The CIF and its symmetry are read by other code."""
    cell = registration.project(crystal.read_cif("config/cif/LiFePO4.cif", "LiFePO4"), (0, 1, 0))
    size = np.linalg.norm(cell.basis, axis=1)
    expected = np.array([p for p, a in zip(cell.place, cell.atoms, strict=True) if number in a])
    axes = cell.basis / size[:, None]
    found = columns("lifepo4", element)
    assert len(found) == len(expected)
    np.testing.assert_allclose(spacings(found, (4.692, 10.332)), spacings(expected @ axes.T, size), atol=2e-3)


def test_half_of_lithium_is_missing_in_order_and_all_of_it_in_the_heterosite():
    whole, half = columns("lifepo4", "Li"), columns("half", "Li")
    assert len(whole) == 2
    np.testing.assert_allclose(half, whole[whole[:, 1] < 5])
    assert len(columns("fepo4", "Li")) == 0
    for name in ("lifepo4", "half", "fepo4"):
        assert len(columns(name, "O")) == 12


def test_displaced_columns_lie_a_tenth_of_an_angstrom_beside_their_sites():
    for element, count in (("O", 6), ("Li", 1), ("Fe", 0)):
        away, index = cKDTree(columns("lifepo4", element)).query(columns("displaced", element))
        moved = away > 1e-3
        assert moved.sum() == count
        off = columns("displaced", element)[moved] - columns("lifepo4", element)[index[moved]]
        np.testing.assert_allclose(off, np.broadcast_to(specimens.DISPLACED_ANGSTROM, off.shape), atol=2e-4)


def test_the_wall_turns_the_polarisation_round_and_lead_stays():
    x = np.linspace(0, 46.848, 500)
    polarised = specimens.polarised(x, 46.848)
    tail = 1 - np.tanh(0.25 * 46.848 / specimens.WALL_HALF_WIDTH_ANGSTROM)  # of a wall, in the middle of a domain
    assert polarised[0] == pytest.approx(-1 + tail, abs=1e-6)
    assert specimens.polarised(0.5 * 46.848, 46.848) == pytest.approx(1 - 2 * tail, abs=1e-6)  # walls on both sides
    assert specimens.polarised(0.25 * 46.848, 46.848) == pytest.approx(0, abs=1e-4)
    assert (np.diff(polarised[125:250]) > 0).all()
    assert (np.diff(polarised[250:375]) < 0).all()
    rows = [r for r in specimens.truth("wall")[1:] if r[0] == "O"]
    ideal = [r for r in specimens.without_wall(1.0) if r[0] == "O"]
    place, right = (np.array([r[1:3] for r in found]) for found in (rows, ideal))
    far = np.abs(place[:, 1] - (0.5 - 0.05) * 46.848) < 4  # in the middle of the right domain
    assert far.sum() > 4
    assert cKDTree(right).query(place[far])[0].max() < 0.03
    assert {r[1] for r in specimens.truth("wall")[1:] if r[0] == "Pb"} == {0.0}


def test_patterns_on_other_pixels_keep_their_intensity_and_their_place():
    x, y = ((np.arange(n) - n // 2) * w for n, w in ((40, 0.05), (30, 0.06)))
    spots = [(0.3, -0.2), (-0.4, 0.1)]
    seen = np.stack([np.exp(-((x[:, None] - a) ** 2 + (y - b) ** 2) / 0.02) for a, b in spots])
    made = specimens.rebinned(seen, (0.05, 0.06), 64, 0.07)
    assert made.shape == (2, 64, 64)
    total = seen.sum(axis=(1, 2))
    np.testing.assert_allclose(made.sum(axis=(1, 2)), total, rtol=1e-5)
    k = (np.arange(64) - 31.5) * 0.07
    for place, share, (at, width), axis in (
        ([s[0] for s in spots], seen.sum(axis=2), (x, 0.05), 1),
        ([s[1] for s in spots], seen.sum(axis=1), (y, 0.06), 2),
    ):
        found = made.sum(axis=axis) @ k / total
        limit = [strayed(one / one.sum(), at, width, 0.07) for one in share]
        assert (np.abs(found - place) <= np.array(limit) + 1e-6).all()
        assert max(limit) < 0.07 / 50


def strayed(share, at, width, pixel):
    """How far the centroid of intensities moves at most when all within a pixel is put into its middle.

    The way to the middle is a sawtooth of amplitude ``pixel / (π m)`` in its Fourier components ``m / pixel``; the
    intensities, even over the ``width`` of the pixels that they come from, bring what they have of these.
    """
    m = np.arange(1, 200)
    wave = np.exp(-2j * np.pi * np.outer(m / pixel, at)) @ share * np.sinc(m * width / pixel)
    return (pixel / (np.pi * m) * np.abs(wave)).sum()


def test_patterns_on_other_pixels_are_the_sums_of_parts_that_make_both_kinds_of_pixels():
    seen = np.random.default_rng(3).uniform(size=(2, 40, 30))  # (…, x, y) of 0.05 and 0.06: 10 and 12 parts of 0.005
    parts = np.repeat(np.repeat(seen / 120, 10, axis=1), 12, axis=2)
    whole = np.zeros((2, 896, 896))  # 64 pixels of 14 parts, the beam in the middle
    whole[:, 448 - 205 : 448 + 195, 448 - 186 : 448 + 174] = parts  # 20.5 and 15.5 pixels lie before the beam
    expected = whole.reshape(2, 64, 14, 64, 14).sum(axis=(2, 4)).swapaxes(1, 2)
    np.testing.assert_allclose(specimens.rebinned(seen, (0.05, 0.06), 64, 0.07), expected, rtol=1e-5, atol=1e-6)


def test_counts_are_poisson_by_tile_and_depend_on_the_seed_alone():
    cell = np.random.default_rng(1).uniform(0.2, 1.0, (3, 4, 5, 5)) / 25
    counts = specimens.recorded(cell, (20, 10), 500.0, 3)
    assert counts.dtype == np.uint16
    assert counts.shape == (60, 40, 5, 5)
    tiles = counts.reshape(20, 3, 10, 4, 5, 5).astype(float)
    mean, variance = tiles.mean(axis=(0, 2)), tiles.var(axis=(0, 2), ddof=1)
    np.testing.assert_allclose(mean, cell * 500, atol=5 * np.sqrt(20 / 200))
    assert (variance / mean).mean() == pytest.approx(1.0, abs=0.05)
    np.testing.assert_array_equal(counts, specimens.recorded(cell, (20, 10), 500.0, 3))
    assert (counts != specimens.recorded(cell, (20, 10), 500.0, 4)).mean() > 0.5


@pytest.mark.parametrize("name", specimens.NAMES)
def test_what_a_configuration_says_of_a_scan_is_accepted_and_its_steps_make_whole_cells(name):
    optics = {"energy_kev": 200, "convergence_mrad": 22, "step_angstrom": 0.29, "pixel_inv_angstrom": 0.07}
    told = specimens.acquisition(name, optics)
    assert configuration.check({"samples": [{"name": "a", "file": __file__, "acquisition": told}]}) is None
    one = specimens.specimen(name)
    span = np.array([one.cell[1], one.scanned[1] - one.scanned[0]])
    many = span / told["scan_step_angstrom"]
    np.testing.assert_allclose(many, specimens.grid(one, 0.29), rtol=1e-5)


def test_phonons_are_averaged_in_the_order_of_names(tmp_path):
    rng, files = np.random.default_rng(2), []
    for k in range(3):
        files.append(tmp_path / f"{k}.npy")
        specimens.save(files[-1], rng.uniform(size=(2, 3)).astype(np.float32))
    one, other = specimens.averaged(files), specimens.averaged(files[::-1])
    assert one.tobytes() == other.tobytes()
    np.testing.assert_allclose(one, np.mean([np.load(f) for f in files], axis=0), rtol=1e-6)


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match="specimen gold"):
        specimens.specimen("gold")
    with pytest.raises(InputError, match="a thickness of 123 Å"):
        specimens.at_thickness(tmp_path / "none.npy", "wall", 123.0)


def test_abtem_that_is_missing_is_told_with_the_way_to_have_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "abtem", None)
    with pytest.raises(InputError, match="simulate_atomic --sdm conda"):
        multislice.simulate("lifepo4", {}, (50.0,), 0)
