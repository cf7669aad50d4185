"""Displacements of columns against their neighbours: closed forms, and a 180° wall that is drawn by hand."""

import dataclasses

import numpy as np
import pytest
from template_scans import RADIUS, cube_of, disk, settings

from fourdstem import config as configuration
from fourdstem import crystal
from fourdstem.errors import ConfigError, InputError
from fourdstem.methods import template_mask
from fourdstem.methods.template_mask import columns, polarisation, registration
from fourdstem.methods.template_mask import wall as wall_rows
from fourdstem.methods.template_mask.sites import gaussians

STEP = np.array([0.3, 0.3])
SHAPE = (54, 96)
CELL = 13  # positions, 3.9 Å
POLAR = 0.45  # Å, of the anions in a domain, along y
WALL, WIDTH = 14.0, 4.0  # Å
PAIR = {"species": "O", "against": "Pb", "neighbours": 2}


def lattice(dy, dx):
    """Sites (y, x) in Å of one column per cell, those beyond the scan left out."""
    y, x = (np.arange(start, n, CELL) for start, n in zip((dy, dx), SHAPE, strict=True))
    return np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2) * STEP


def shift(place):
    """How far anions are moved along y at a place, Å."""
    return np.stack([POLAR * np.tanh((place[:, 1] - WALL) / WIDTH), np.zeros(len(place))], axis=1)


LEAD = lattice(4, 4)
ANIONS = np.concatenate([lattice(4 + CELL / 2, 4), lattice(4, 4 + CELL / 2)])


@pytest.fixture(scope="module")
def wall():
    """Lead brightens the outer ring of the disk, the anions its middle; the templates are those of the right domain."""
    y, x = np.indices((14, 14)) - 6.5
    radius = np.hypot(y, x)
    ring, middle = ((radius > 3.5) & (radius < RADIUS)) * 1.0, (radius < 2.5) * 1.0
    seen = [gaussians(p / STEP, 0.35, SHAPE, STEP)[..., None, None] for p in (LEAD, ANIONS + shift(ANIONS))]
    expected = 160 * (disk((14, 14)) + 0.3 * seen[0] * ring + 0.3 * seen[1] * middle) + 0.05
    counts = np.random.default_rng(101).poisson(expected).astype(np.uint16)
    right = ANIONS + np.array([POLAR, 0.0])
    pictures = {n: gaussians(p / STEP, 0.35, SHAPE, STEP) for n, p in (("Pb", LEAD), ("O", right))}
    area = [0, SHAPE[0], 68, SHAPE[1]]
    blocks = [{"species": n, "file": "-", "region": area, "search_angstrom": 1.1} for n in pictures]
    params = settings(templates=blocks, polarisation=[{**PAIR, "born_charge": -3.0, "volume_cubic_angstrom": 63.0}])
    return template_mask.compute(cube_of(counts, step=tuple(STEP)), params, RADIUS, pictures=pictures), params


def told(found):
    """Vectors that have a value, their standard deviations and the truth at their columns; pm."""
    site = found.column_site_px[found.polarisation_column] * STEP
    known = np.isfinite(found.polarisation_pm).all(axis=1)
    true = 100 * shift(site)
    return found.polarisation_pm[known], found.polarisation_sigma_pm[known], true[known], site[known]


def test_vectors_across_a_wall_are_those_that_were_put_in_with_the_errors_that_are_stated(wall):
    found, _ = wall
    assert (np.abs(found.pull) < 0.2).all()
    move, sigma, true, site = told(found)
    assert len(move) >= 0.8 * len(found.polarisation_pm) >= 20
    error = move - true
    assert np.sqrt((error**2).mean()) < 4
    assert 0.7 < np.sqrt(((error / sigma) ** 2).mean()) < 1.6
    profile = wall_rows._profile(site[:, 1], move[:, 0] / 100)
    assert profile["wall_angstrom"] == pytest.approx(WALL, abs=0.4)
    assert profile["wall_half_width_angstrom"] == pytest.approx(WIDTH, abs=0.8)
    assert profile["domain_shift_angstrom"] == pytest.approx(POLAR, abs=0.03)


def test_the_share_of_the_polarisation_is_charge_by_volume_times_displacement(wall):
    found, params = wall
    known = np.isfinite(found.polarisation_pm)
    factor = 1602.176634 * -3.0 / 63.0 / 100
    np.testing.assert_allclose(found.polarisation_uc_cm2[known], factor * found.polarisation_pm[known], rtol=1e-5)
    plain = polarisation.added(found, dataclasses.replace(params, polarisation=(PAIR,)), STEP)
    assert np.isnan(plain.polarisation_uc_cm2).all()
    np.testing.assert_array_equal(plain.polarisation_pm, found.polarisation_pm)


def test_nothing_is_published_where_peaks_follow_the_template(wall):
    found, params = wall
    held = np.where((found.column_species == 0)[:, None], np.nan, found.column_position_px)
    made = polarisation.added(dataclasses.replace(found, column_position_px=held), params, STEP)
    assert len(made.polarisation_pm) == len(found.polarisation_pm)
    for name in ("polarisation_pm", "polarisation_sigma_pm", "polarisation_centre_px", "polarisation_uc_cm2"):
        assert np.isnan(getattr(made, name)).all()


def test_the_table_has_a_row_per_vector_and_is_empty_where_none_was_asked_for(wall):
    found, _ = wall
    rows = template_mask.table_rows(found)
    assert len(rows) == len(found.polarisation_pm)
    assert all(len(row) == len(template_mask.TABLE_NAMES) and row[0] == "O against Pb" for row in rows)
    at = template_mask.TABLE_NAMES.index("dy_pm")
    np.testing.assert_array_equal([row[at] for row in rows], found.polarisation_pm[:, 0].astype(float))
    assert template_mask.table_rows(dataclasses.replace(found, polarisation_name=None)) == []


def test_columns_at_the_end_of_the_scan_whose_neighbours_are_missing_are_left_out():
    square = np.stack(np.meshgrid([0.0, 4.0, 8.0], [0.0, 4.0], indexing="ij"), -1).reshape(-1, 2)
    middle = np.array([[2.0, 2.0], [6.2, 2.1], [2.0, 6.0], [10.0, 2.0]])  # the last two lack two neighbours each
    cages = polarisation.surrounded(middle, square, 4)
    assert cages.site.tolist() == [0, 1]
    assert cages.around.tolist() == [[0, 1, 2, 3], [2, 3, 4, 5]]
    edge = np.array([[0.6, 2.0], [2.4, 0.0], [-1.4, 0.0]])
    assert polarisation.surrounded(edge, square, 2).site.tolist() == [0, 1]
    assert len(polarisation.surrounded(edge, square[:1], 2).site) == 0


def test_uncertainties_are_those_of_drawn_positions():
    rng = np.random.default_rng(3)
    own, other = np.array([[5.0, 5.0]]), np.array([[0.0, 0.0], [0.0, 10.0], [10.0, 0.0], [10.0, 10.0]])
    sigma = np.array([[0.3, 0.1]]), rng.uniform(0.1, 0.5, (4, 2))
    cages, drawn = polarisation.Cages(np.array([0]), np.arange(4)[None]), []
    for _ in range(4000):
        places = (v + s * rng.normal(size=v.shape) for v, s in zip((own, other), sigma, strict=True))
        drawn.append(polarisation.displaced(*places, *sigma, cages, STEP)[1][0])
    _, move, error = polarisation.displaced(own, other, *sigma, cages, STEP)
    np.testing.assert_allclose(move, 0, atol=1e-12)
    np.testing.assert_allclose(error[0], np.std(drawn, axis=0), rtol=0.05)


def test_columns_beside_their_sites_are_found_from_the_brightest_position_within_reach():
    site, true = np.array([[20.0, 20.0]]), np.array([[23.0, 20.3]])
    picture = gaussians(true, 0.35, (40, 40), STEP)
    assert np.isnan(columns.positions(picture, 1.0, site, STEP, 0.35)[0]).all()
    start = columns.tops(picture, site, STEP, 1.1)
    place, _ = columns.positions(picture, 1.0, site, STEP, 0.35, start)
    np.testing.assert_allclose(place, true, atol=0.05)


@pytest.mark.parametrize(
    ("pairs", "match"),
    [
        ([{**PAIR, "species": "F"}], "F against Pb"),
        ([{**PAIR, "against": "O"}], "O against O"),
        ([PAIR, PAIR], "twice"),
        ([{**PAIR, "born_charge": 2.0}], "born_charge alone"),
        ([{**PAIR, "volume_cubic_angstrom": 60.0}], "volume_cubic_angstrom alone"),
    ],
)
def test_pairs_that_cannot_be_measured_are_refused(pairs, match):
    blocks = [{"species": n, "sublattice": k} for k, n in enumerate(("Pb", "O"))]
    with pytest.raises(InputError, match=match):
        polarisation.read(settings(templates=blocks, polarisation=pairs))


def test_the_check_of_the_configuration_names_every_mistake_in_a_pair():
    sample = {"name": "a", "file": __file__, "stages": ["template_mask"]}
    pairs = [{"species": "0", "against": "Pb", "born_charge": 1}, {"species": "Pb", "against": "Pb"}]
    blocks = [{"species": n, "sublattice": k} for k, n in enumerate(("Pb", "O"))]
    text = str(check_fails({"samples": [sample], "template_mask": {"templates": blocks, "polarisation": pairs}}))
    for words in ("species '0' has no template", "name another species", "born_charge and volume_cubic_angstrom"):
        assert words in text


def check_fails(config):
    with pytest.raises(ConfigError) as caught:
        configuration.check(config)
    return caught.value


# ---- a polar crystal laid over one of two domains ----------------------------------------------------------------


@pytest.fixture(scope="module")
def polar():
    return crystal.read_cif("config/cif/PbTiO3.cif", "PbTiO3")


def laid(cell, sense):
    """The crystal on the scan, its polar axis up or down."""
    return registration.Registration(cell, sense * cell.basis, np.array([0.9, 1.1]), 1.0, None, 0)


def test_columns_that_are_alone_have_no_other_element_near(polar):
    cell = registration.project(polar, (0, 1, 0))
    one = laid(cell, 1)
    every, alone = (one.sites(8, SHAPE, STEP, alone=only) for only in (False, True))
    other = np.concatenate([one.sites(number, SHAPE, STEP) for number in (22, 82)])
    near = np.linalg.norm((alone[:, None] - other) * STEP, axis=2).min()
    assert near > 1.5
    assert len(alone) == pytest.approx(2 / 3 * len(every), rel=0.1)
    assert len(one.sites(22, SHAPE, STEP, alone=True)) == 0
    assert len(one.sites(22, SHAPE, STEP)) > 0


@pytest.mark.parametrize(("area", "sense"), [((0, SHAPE[0], 48, SHAPE[1]), 1), ((0, SHAPE[0], 0, 48), -1)])
def test_the_region_tells_in_which_sense_a_polar_crystal_lies(polar, area, sense):
    cell = registration.project(polar, (0, 1, 0))
    image = np.zeros(SHAPE)
    for side, here in ((1, slice(48, None)), (-1, slice(0, 48))):
        drawn = [n**1.6 * gaussians(laid(cell, side).sites(n, SHAPE, STEP), 0.35, SHAPE, STEP) for n in (82, 22, 8)]
        image[:, here] = sum(drawn)[:, here]
    found = registration.register(image, polar, (0, 1, 0), STEP, False, 0, area)
    site, true = found.sites(22, SHAPE, STEP), laid(cell, sense).sites(22, SHAPE, STEP)
    inner = ((site >= 2) & (site < np.array(SHAPE) - 3)).all(axis=1) & (site[:, 1] >= area[2]) & (site[:, 1] < area[3])
    apart = np.linalg.norm((site[inner][:, None] - true) * STEP, axis=2).min(axis=1)
    assert inner.sum() >= 10
    assert np.median(apart) < 0.08  # the other sense lies 0.31 Å away
