"""What the study of simulated specimens measures, on scans drawn by hand, and its figures."""

import numpy as np
import pytest
from template_scans import disk

from fourdstem import study
from fourdstem.figures import study_atomic as figures
from fourdstem.methods.template_mask import columns, examine, wall
from fourdstem.methods.template_mask.settings import Result
from fourdstem.methods.template_mask.sites import gaussians

STEP, CELL = (0.25, 0.25), (4.0, 4.5)


@pytest.fixture(scope="module")
def scan():
    """Columns of one element on a lattice; they dim the inner half of the disk."""
    truth = [("Fe", 1.0, 1.25, 1)]
    empty = examine.Scan(np.zeros((48, 54, 12, 12)), STEP, 5.0, truth, CELL)
    seen = gaussians(empty.columns("Fe") / STEP, 0.35, (48, 54), np.array(STEP))
    y, x = np.indices((12, 12)) - 5.5
    effect = np.where(np.hypot(y, x) < 3, -1.0, 1.0) * disk((12, 12))
    expected = 4 * disk((12, 12)) * (1 + 0.2 * seen[..., None, None] * effect) + 0.05
    counts = np.random.default_rng(101).poisson(expected).astype(np.uint16)
    return examine.Scan(counts, STEP, 5.0, truth, CELL), expected


def test_true_columns_repeat_over_the_scan(scan):
    place = scan[0].columns("Fe")
    inside = ((place > -0.2) & (place < np.array([47, 53]) * 0.25 + 0.2)).all(axis=1)
    assert inside.sum() == 9
    assert len(scan[0].columns("Li")) == 0


def found_at(one, place):
    values = dict.fromkeys(Result.__dataclass_fields__)
    return Result(**{**values, "column_site_px": place / STEP, "column_species": np.zeros(len(place), int)})


def test_the_limit_of_masks_is_that_of_the_expected_patterns(scan):
    one, expected = scan
    place = one.columns("Fe")
    inside = ((place >= 0) & (place <= np.array([47, 53]) * 0.25)).all(axis=1)
    found = found_at(one, place[inside])
    core = examine._cores(one, found, 0)
    at, off = expected[core.label >= 0].mean(axis=0), expected[core.background].mean(axis=0)
    true = np.sqrt(((at - off) ** 2 / off).sum())
    assert examine.limit(one, found, 0) == pytest.approx(true, rel=0.05)


def test_errors_of_positions_are_those_that_were_put_in(scan):
    true = scan[0].columns("Fe")
    site = true + np.array([0.02, -0.03])
    told = examine.errors(scan[0], "Fe", site, true + np.array([0.1, 0.0]))
    assert told["found"] == 1
    assert told["mean_y_pm"] == pytest.approx(10)
    assert told["rms_pm"] == pytest.approx(10 / np.sqrt(2))
    lost = np.where(np.arange(len(true))[:, None] < 3, np.nan, true)
    assert examine.errors(scan[0], "Fe", site, lost)["found"] == pytest.approx(1 - 3 / len(true))


def test_a_wall_is_found_where_it_was_put():
    x = np.linspace(0, 18, 10)
    told = wall._profile(x, 0.02 + 0.46 * np.tanh((x - 9.3) / 4.0))
    assert told["wall_angstrom"] == pytest.approx(9.3, abs=1e-3)
    assert told["wall_half_width_angstrom"] == pytest.approx(4.0, abs=1e-2)
    assert told["domain_shift_angstrom"] == pytest.approx(0.46, abs=1e-3)


def test_columns_beside_their_sites_are_found_by_the_brightest_position_near(scan):
    place = np.array([[20.0, 20.0]])
    picture = gaussians(np.array([[22.0, 19.0]]), 0.35, (48, 54), np.array(STEP))
    np.testing.assert_array_equal(columns.tops(picture, place, np.array(STEP), 0.8), [[22.0, 19.0]])


def test_tables_of_thicknesses_become_one_with_numbers_as_numbers(tmp_path):
    for k, row in enumerate(
        [("lifepo4", "50", "5e+04", "Fe", "mask", "own", "0.5"), ("wall", 50, 7, "Pb", "", "a", "nan")]
    ):
        study.write_table(tmp_path / f"{k}.csv", [examine.COLUMNS, row])
    rows = study.joined([tmp_path / "0.csv", tmp_path / "1.csv"])
    assert rows[:2] == [examine.COLUMNS, ("lifepo4", 50, 5e4, "Fe", "mask", "own", 0.5)]
    assert rows[2][:6] == ("wall", 50, 7, "Pb", "", "a")
    assert np.isnan(rows[2][6])


def test_figures_are_drawn_and_the_same_to_the_byte_when_made_twice(tmp_path):
    rng, rows = np.random.default_rng(0), []
    images = (*figures.OURS, "integrated_centre_of_mass", "bright_field", figures.LIMIT)
    for thick, dose in ((50.0, 50000), (700.0, 50000), (700.0, 100)):
        for species in figures.SPECIES:
            for image in images:
                told = {"contrast_to_noise": rng.uniform(1, 99), "own": rng.uniform(), "cross_talk": rng.uniform()}
                rows += [("lifepo4", thick, dose, species, image, k, v) for k, v in told.items()]
    walls = [(50.0, s, x, 4, 0.1 * x, 0.0, 0.01, 0.09 * x, 0.01) for s in ("Pb", "O", "O against Pb") for x in range(5)]
    figures.draw(rows, walls, tmp_path)
    made = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert {f"atomic_{n}.{k}" for n in ("thickness", "dose", "talk", "wall") for k in ("png", "pdf")} <= set(made)
    figures._wall(walls, tmp_path)
    assert (tmp_path / "atomic_wall.png").read_bytes() == made["atomic_wall.png"]
