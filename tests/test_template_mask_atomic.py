"""Masks on a simulated crystal whose truth is known: LiFePO4 along [010], lithium missing on the right.

The simulation (scattering matrices of many beams) shares no code with registration, masks or columns.
"""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import cKDTree
from template_scans import atomic, laid_out, olivine, recorded, settings, simulation, told

from fourdstem.errors import InputError
from fourdstem.methods import simulate, template_mask
from fourdstem.methods.simulate import atomic as simulator
from fourdstem.methods.template_mask import registration

NUMBERS = {"Fe": 26, "P": 15, "O": 8, "Li": 3}
DOSE = 5e4
WIDE = {"region": [0, 44, 0, 26], "control": [0, 44, 54, 108]}


def params(*species, **given):
    blocks = [{"species": s, "element": s, **(WIDE if s == "Li" else {})} for s in species or NUMBERS]
    return settings(**{"templates": blocks, "zone_axis": (0, 1, 0), "image": "integrated_centre_of_mass", **given})


def compute(cube, chosen=None, phases=None):
    radius = simulate.beam_radius_px(simulation())
    return template_mask.compute(cube, chosen or params(), radius, phases or {"LiFePO4": olivine()})


@pytest.fixture(scope="module")
def cube():
    return recorded(*atomic(), DOSE, 0)


@pytest.fixture(scope="module")
def found(cube):
    return compute(cube, params(partial=True))


def nearest(places, truth, number, step):
    """Return the true column nearest to each place, and the distance in Å."""
    columns = truth.column_px[truth.column_number == number].astype(float)
    distance, index = cKDTree(columns * step).query(places * step)
    return columns[index], distance


# ---- the simulation -----------------------------------------------------------------------------------------


def test_every_electron_is_somewhere_and_the_pattern_is_a_disk():
    counts, truth, known = atomic()
    assert counts.sum(axis=(2, 3)).mean() == pytest.approx(known.electrons_per_pattern, rel=0.02)
    mean = counts.mean(axis=(0, 1))
    y, x = np.indices(mean.shape) - 15.5
    inside = np.hypot(y, x) < simulate.beam_radius_px(known) - 1
    assert mean[inside].sum() > 0.6 * mean.sum()
    assert truth.vacant.mean() == pytest.approx(0.5)


def test_a_pattern_repeats_with_the_lattice():
    known = simulation(crystal_rotation_deg=0.0, scan_step_angstrom=(0.27, 4.692 / 16), vacancy_element=None)
    seen = simulator.columns(known, olivine())
    waves = [simulator._waves(known, seen, k) for k in simulator._zone_points(known, seen)]
    centre = np.broadcast_to(np.array([15.5, 15.5]), (44, 108, 2))
    quiet = dataclasses.replace(known, electrons_per_pattern=1e7)
    places = np.array([[3, 2], [3, 18], [3, 10]])
    a, again, other = simulator._record(quiet, waves, places, centre, np.zeros((32, 32), np.uint8))
    scatter = np.sqrt(np.maximum(a, 1))
    assert np.std((a.astype(float) - again) / scatter) < 1.6
    assert np.std((a.astype(float) - other) / scatter) > 5


def test_what_scatters_is_unitary_and_thin_specimens_hardly_do():
    known = simulation(thickness_angstrom=(20.0, 20.0))
    seen = simulator.columns(known, olivine())
    waves = simulator._waves(known, seen, np.zeros(2))
    np.testing.assert_allclose(np.abs(waves.matrix.conj().T @ waves.matrix), np.eye(len(waves.incident)), atol=1e-4)
    thin = simulator._waves(dataclasses.replace(known, thickness_angstrom=(0.1, 0.1)), seen, np.zeros(2))
    assert np.abs(thin.matrix).max(axis=0).min() > 0.999


def test_the_compiled_sampling_gives_what_its_python_gives():
    rng = np.random.default_rng(0)
    offset, intensity = rng.uniform(-3, 3, (20, 2)), rng.uniform(size=20)
    arguments = (intensity, offset, np.array([4.2, 3.9]))
    made = simulator.gather(*arguments, np.zeros((9, 9)))
    np.testing.assert_allclose(made, simulator.gather.py_func(*arguments, np.zeros((9, 9))))


def test_elements_and_axes_that_are_not_there_are_refused():
    for given, match in (({"vacancy_element": "Au"}, "vacancy_element = Au"), ({"zone_axis": (0, 0, 0)}, "zone_axis")):
        with pytest.raises(InputError, match=match):
            simulate.compute(simulation(**given), [olivine()], None)


# ---- templates from a CIF -------------------------------------------------------------------------------------


@pytest.mark.parametrize("species", NUMBERS)
def test_columns_projected_from_the_cif_lie_on_the_true_ones(found, species):
    _, truth, known = atomic()
    sites = found.column_site_px[found.column_species == list(NUMBERS).index(species)]
    inner = ((sites > 2) & (sites < np.array(known.scan_shape) - 3)).all(axis=1)  # the truth ends with the scan
    _, distance = nearest(sites[inner], truth, NUMBERS[species], np.array(known.scan_step_angstrom))
    assert inner.sum() >= 0.7 * (truth.column_number == NUMBERS[species]).sum() / (2 if species == "O" else 1)
    assert distance.max() < 0.12


def test_the_cell_is_projected_with_its_area_and_columns():
    cell = registration.project(olivine(), (0, 1, 0))
    assert abs(np.linalg.det(cell.basis)) == pytest.approx(10.332 * 4.692, rel=1e-6)
    count = {z: sum(z in atoms for atoms in cell.atoms) for z in NUMBERS.values()}
    assert count == {26: 4, 15: 4, 8: 12, 3: 2}
    along_c = registration.project(olivine(), (0, 0, 2))
    assert abs(np.linalg.det(along_c.basis)) == pytest.approx(10.332 * 6.01, rel=1e-6)


def test_a_zone_axis_that_is_not_the_one_recorded_is_refused(cube):
    with pytest.raises(InputError, match="LiFePO4 along"):
        compute(cube, params(zone_axis=(1, 0, 0)))


def test_an_element_or_phase_that_is_not_there_is_refused(cube):
    with pytest.raises(InputError, match="element Au of template Au"):
        compute(cube, params("Au"))
    block = {"species": "O", "element": "O", "phase": "rutile"}
    with pytest.raises(InputError, match="phase rutile of template O"):
        compute(cube, params(templates=[block]))


# ---- guards -----------------------------------------------------------------------------------------------------


def test_lithium_is_seen_but_not_called_detected_as_its_vacancies_keep_a_fifth_of_the_contrast(found):
    k = found.species.index("Li")
    assert found.statement == ("consistent with",) * 4
    assert "not empty; the excess over the control is" in found.reason[k]
    assert 0.1 * found.contrast[k] < found.control_contrast[k] < 0.25 * found.contrast[k]
    assert found.control_contrast[k] > 10 * found.control_contrast_sigma[k]


@pytest.fixture(scope="module")
def faint():
    """Five scans of a tenth of the dose."""
    return [recorded(*atomic(), 5e3, seed) for seed in range(5)]


@pytest.fixture(scope="module")
def scene(faint):
    return laid_out(faint[0], params(partial=True), simulate.beam_radius_px(simulation()), {"LiFePO4": olivine()})


def lithium(scene, cube):
    return told(scene, cube, simulate.beam_radius_px(simulation()))[3]


def test_power_to_tell_lithium_from_its_vacancies_at_a_tenth_of_the_dose(scene, faint):
    made = [lithium(scene, cube) for cube in faint]
    whole = compute(faint[0], params(partial=True))
    assert (made[0].statement, made[0].reason) == (whole.statement[3], whole.reason[3])
    excess = [(m.seen.value - m.control.value) / np.hypot(m.seen.sigma, m.control.sigma) for m in made]
    assert [m.statement for m in made] == ["consistent with"] * 5
    assert min(excess) > stats.norm.isf(0.01)
    assert all(m.seen.p < 0.01 and m.control.value < 0.25 * m.seen.value for m in made)


@pytest.mark.parametrize("electrons", [2e2, 5e2])
def test_fewer_electrons_make_no_stronger_statement(scene, electrons):
    made = [lithium(scene, recorded(*atomic(), electrons, seed)) for seed in range(3)]
    assert [m.statement for m in made] == ["consistent with"] * 3


def test_decoys_stay_below_the_columns_and_their_images_are_kept(found):
    assert (np.abs(found.decoy_contrast_to_noise) < 0.35 * found.contrast_to_noise).all()
    assert found.decoy_image.shape == found.image.shape


def test_asymmetric_masks_pull_peaks_along_and_symmetric_ones_do_not(cube, found):
    asymmetric = compute(cube, params(symmetrise=False))
    assert (asymmetric.pull > 0.2).all()
    assert np.isnan(asymmetric.column_position_px).all()
    assert (np.abs(found.pull) < 0.05).all()


def test_partial_masks_reported_beside_plain_ones_are_those_of_the_setting(cube, found):
    plain = compute(cube, params("Fe", "P", "O"))
    partial = compute(cube, params("Fe", "P", "O", partial=True))
    np.testing.assert_allclose(plain.cross_talk_partial, partial.cross_talk, atol=0.02)


def test_iron_is_found_where_it_is_and_lithium_is_seen_better_than_in_any_classical_image(found):
    _, truth, known = atomic()
    step = np.array(known.scan_step_angstrom)
    iron = found.column_species == 0
    true, _ = nearest(found.column_site_px[iron], truth, 26, step)
    error = (found.column_position_px[iron] - true) * step
    assert np.sqrt(np.nanmean(error**2)) < 0.05
    k = found.species.index("Li")
    assert found.contrast_to_noise[k] > np.nanmax(np.abs(found.classical_contrast_to_noise[:, k]))


def test_joined_images_have_more_contrast_to_noise_than_any_classical_one_and_follow_no_template(found):
    """Those of masks alone have less than the integrated centre of mass, for all but lithium."""
    best = np.nanmax(np.abs(found.classical_contrast_to_noise), axis=0)
    assert (found.joined_contrast_to_noise[:3] > 1.1 * best[:3]).all()
    assert found.joined_contrast_to_noise[3] > 2 * best[3]
    assert (found.contrast_to_noise[:3] < best[:3]).all()
    assert (np.abs(found.joined_pull) < 0.05).all()
    assert (np.abs(found.joined_decoy_contrast_to_noise) < 0.35 * found.joined_contrast_to_noise).all()


def test_columns_that_lie_beside_the_template_are_found_where_they_are():
    counts, truth, known = atomic(displaced=True)
    _, straight, _ = atomic()
    made = compute(recorded(counts, truth, known, DOSE, 0))
    base = compute(recorded(*atomic(), DOSE, 0))
    step = np.array(known.scan_step_angstrom)
    both = (made.column_species == made.species.index("O")) & np.isfinite(made.column_position_px).all(axis=1)
    moved = []
    for site, place in zip(made.column_site_px[both], made.column_position_px[both], strict=True):
        other = np.linalg.norm((base.column_site_px - site) * step, axis=1) + 9 * (base.column_species != 2)
        moved.append((place - base.column_position_px[other.argmin()]) * step)
    true = np.mean(truth.column_px[truth.column_number == 8], axis=0)
    true = true - np.mean(straight.column_px[straight.column_number == 8], axis=0)
    assert len(moved) >= 10
    assert np.linalg.norm(np.nanmedian(moved, axis=0)) == pytest.approx(0.1, abs=0.04)
    assert np.linalg.norm(true) > 0


def test_the_table_of_columns_and_the_log_say_what_the_result_holds(found):
    rows = template_mask.column_rows(found, (0.27, 0.27))
    assert len(rows[0]) == len(template_mask.COLUMN_NAMES)
    assert len(rows) == len(found.column_species)
    lines = template_mask.summary(found)
    assert [line.split(":")[0] for line in lines[:4]] == list(found.species)
