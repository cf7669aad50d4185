"""Properties of the index that hold for any lattice, and real half patterns whose matrix is known."""

import os
from pathlib import Path

import numpy as np
import pytest
from diffpy.structure import Atom, Lattice, Structure
from diffsims.generators.simulation_generator import SimulationGenerator
from hypothesis import given, settings
from hypothesis import strategies as st
from orientations import random_lattice
from orix.crystal_map import Phase
from orix.quaternion import Rotation
from test_orientation import COARSE, PIXEL, SIZE, TO_DIFFSIMS, cube_of, disks, random_orientations

from fourdstem import crystal as crystals
from fourdstem.calibration import Acquisition
from fourdstem.cube import Cube
from fourdstem.methods import orientation as method
from fourdstem.methods.orientation import rotations

FEW = settings(max_examples=5, derandomize=True, deadline=None, database=None)
PARAMS = method.Params(**{**COARSE.__dict__, "sampling_deg": 4.0, "candidates": 5})
seeds = st.integers(0, 10**6)


def simulated(crystal, quaternions):
    """Corrected patterns (n, SIZE, SIZE) of any crystal by diffsims."""
    symbols = [crystals.SYMBOLS[z - 1] for z in crystal.numbers]
    atoms = [Atom(s, x) for s, x in zip(symbols, crystal.positions, strict=True)]
    phase = Phase(name="random", space_group=1, structure=Structure(atoms, Lattice(*crystal.cell)))
    options = {"reciprocal_radius": PIXEL * SIZE / 2, "with_direct_beam": False, "max_excitation_error": 0.2}
    patterns = []
    for matrix in rotations.to_matrix(quaternions):
        turn = Rotation.from_matrix(matrix @ TO_DIFFSIMS)
        generator = SimulationGenerator(200, "xtables")
        found = generator.calculate_diffraction2d(phase, turn, shape_factor_width=0.01, **options).coordinates
        y, x = (SIZE - 1) / 2 - found.data[:, 1] / PIXEL, (SIZE - 1) / 2 + found.data[:, 0] / PIXEL
        patterns.append(disks(y, x, found.intensity))
    return np.array(patterns, np.float32)


@FEW
@given(seeds)
def test_the_orientation_of_any_lattice_is_among_the_candidates(seed):
    crystal, truth = random_lattice(seed), random_orientations(4, seed)
    result = method.compute(cube_of(simulated(crystal, truth)), [crystal], PARAMS)
    error = method.misorientation_deg(result.candidate_orientation[0], truth[:, None], crystal)
    assert np.sum(np.nanmin(error, axis=1) < 3) >= 3
    assert np.all((result.correlation > 0) & (result.correlation <= 1))
    assert np.all((result.reliability >= 0) & (result.reliability <= 100))


@FEW
@given(seeds)
def test_a_pattern_of_any_lattice_turned_by_a_quarter_turn_turns_the_orientation(seed):
    crystal, truth = random_lattice(seed), random_orientations(2, seed)
    patterns = simulated(crystal, truth)
    turned = np.rot90(patterns, -1, axes=(1, 2))  # from +x towards +y, which is down
    result = method.compute(cube_of(np.concatenate([patterns, turned])), [crystal], PARAMS)
    before, after = result.orientation[0, :2], result.orientation[0, 2:]
    half = np.sqrt(0.5)
    expected = rotations.multiply(before, [half, 0, 0, -half])
    apart = method.misorientation_deg(after, expected, crystal)
    alike = np.abs(result.correlation[0, :2] - result.correlation[0, 2:]) < 1e-3
    # Where half a turn about the beam fits as well, either may win.
    assert np.all((apart < 0.2) | (result.ambiguous[0, :2] == 1))
    assert np.all(alike)


@settings(FEW, max_examples=3)
@given(seeds, st.floats(0.97, 1.03))
def test_a_second_lattice_never_raises_or_lowers_the_score_of_the_first(seed, stretch):
    crystal, truth = random_lattice(seed), random_orientations(2, seed)
    cell = (*(stretch * np.array(crystal.cell[:3])), *crystal.cell[3:])
    symbols = [crystals.SYMBOLS[z - 1] for z in crystal.numbers]
    other = crystals.make_crystal("other", cell, symbols, crystal.positions)
    cube = cube_of(simulated(crystal, truth))
    both, alone = method.compute(cube, [crystal, other], PARAMS), method.compute(cube, [crystal], PARAMS)
    assert np.allclose(both.phase_correlation[0, :, 0], alone.correlation[0], atol=5e-3)
    assert np.array_equal(both.phase[0], both.phase_correlation[0].argmax(axis=1))
    assert np.all((both.phase_reliability >= 0) & (both.phase_reliability <= 100))


@pytest.fixture(scope="module")
def aluminium_half_patterns():
    """Six raw patterns of an Al-Cu-Li alloy along <001>; only the right half was recorded, the beam included."""
    folder = os.environ.get("FOURDSTEM_TEST_DATA")
    if not folder:
        pytest.skip("FOURDSTEM_TEST_DATA is not set")
    raw = np.load(Path(folder) / "sped_alculi" / "sped_alculi.npz")["selected_patterns_raw"]
    assert raw.shape == (6, 88, 47)
    patterns, valid = np.zeros((1, 6, 88, 88), np.float32), np.zeros((88, 88), np.uint8)
    # The beam lies at (43.5, 2.5): the half pattern is put where it comes to lie in the middle.
    patterns[0, :, :, 41:], valid[:, 41:] = raw, 1
    known = Acquisition(
        beam_energy_kev=200,
        convergence_mrad=1.1,
        precession_mrad=17.45,  # 1°
        detector_pixel_inv_angstrom=0.01904,
        scan_step_angstrom=(46.3, 46.3),
    )
    return Cube(patterns, known, valid=valid)


def test_real_half_patterns_of_an_aluminium_alloy_are_along_001_where_the_matrix_dominates(aluminium_half_patterns):
    fcc = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    aluminium = crystals.make_crystal("Al", (4.0495,) * 3 + (90,) * 3, ["Al"] * 4, fcc)
    result = method.compute(aluminium_half_patterns, [aluminium], method.Params())
    assert np.all(result.phase == 0)
    matrix = rotations.to_matrix(result.orientation[0].astype(float))
    tilt = np.rad2deg(np.arccos(np.abs(matrix[:, :, 2]).max(axis=1)))
    # Precipitates outshine the matrix in the fifth and sixth pattern.
    assert np.all(tilt[:4] < 2)
    # 200 lies at (66, 15) - (43.5, 2.5) in the file: 60.9° from +x towards +y.
    axes = np.rad2deg(np.arctan2(matrix[:4, :, 1], matrix[:4, :, 0])) % 90
    along = np.abs(matrix[:4, :, 2]).argmax(axis=1)
    for own, beam in zip(axes, along, strict=True):
        assert np.all(np.abs(np.delete(own, beam) - 60.9) < 1.5)
    assert np.all(result.correlation[0, :4] > 0.85)
    assert np.all(result.correlation[0, 4:] < result.correlation[0, :4].min())
