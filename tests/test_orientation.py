"""Orientation mapping: recovery of orientations from patterns of diffsims, which shares no code with the matcher."""

import dataclasses

import numpy as np
import pytest
from diffpy.structure import Atom, Lattice, Structure
from diffsims.generators.simulation_generator import SimulationGenerator
from orix.crystal_map import Phase
from orix.io import load
from orix.quaternion import Rotation
from scipy.ndimage import rotate
from scipy.spatial.transform import Rotation as Turn
from test_crystal import build, expand

from fourdstem.calibration import Acquisition
from fourdstem.cube import Correction, Cube
from fourdstem.errors import InputError
from fourdstem.geometry import corrected_to_recorded
from fourdstem.methods import orientation as method
from fourdstem.methods.orientation import rotations

PIXEL, SIZE, DISK = 0.032, 80, 2.0
OPTICS = Acquisition(
    beam_energy_kev=200, convergence_mrad=1.0, scan_step_angstrom=(20, 30), detector_pixel_inv_angstrom=PIXEL
)
COARSE = method.Params(sampling_deg=2.5, thickness_angstrom=100, beam_radius_px=DISK, candidates=2)
# Spacing of zone axes in degrees: coarser where the sector is larger.
SPACING = {"-1": 5.0, "2/m": 4.0, "mmm": 3.5, "4/m": 3.5, "-3": 4.0, "4/mmm": 3.0, "-3m": 3.0, "6/m": 3.0}
SPACING |= {"6/mmm": 2.0, "m-3": 2.5, "m-3m": 2.0}
# diffsims lets electrons travel along -z with y up; ours travel along +z with y down. The turn between the two
# frames about x is a proper rotation, so handedness is the same.
TO_DIFFSIMS = np.diag([1.0, -1.0, -1.0])


def random_orientations(count, seed):
    return Turn.random(count, random_state=seed).as_quat(canonical=True)[:, [3, 0, 1, 2]]


def disks(y, x, intensity, size=SIZE):
    """Patterns drawn by a formula of their own: smooth-edged disks."""
    rows, columns = np.mgrid[:size, :size]
    distance = np.hypot(rows - y[:, None, None], columns - x[:, None, None])
    return (intensity[:, None, None] / (1 + np.exp(4 * (distance - DISK)))).sum(axis=0)


def from_diffsims(laue, quaternions, size=SIZE):
    """Corrected patterns (n, size, size) by diffsims."""
    cell, symbols, positions = expand(laue)
    structure = Structure([Atom(s, x) for s, x in zip(symbols, positions, strict=True)], Lattice(*cell))
    phase = Phase(name=laue, space_group=1, structure=structure)
    generator = SimulationGenerator(200, "xtables")
    patterns = []
    for matrix in rotations.to_matrix(quaternions):
        found = generator.calculate_diffraction2d(
            phase,
            Rotation.from_matrix(matrix @ TO_DIFFSIMS),
            reciprocal_radius=PIXEL * size / 2,
            with_direct_beam=False,
            max_excitation_error=0.2,
            shape_factor_width=0.01,
        ).coordinates
        y, x = (size - 1) / 2 - found.data[:, 1] / PIXEL, (size - 1) / 2 + found.data[:, 0] / PIXEL
        patterns.append(disks(y, x, found.intensity, size))
    return np.array(patterns, np.float32)


def cube_of(patterns, **options):
    return Cube(np.asarray(patterns, np.float32)[None], OPTICS, **options)


@pytest.fixture(scope="module")
def gold():
    return build("m-3m")


@pytest.fixture(scope="module")
def gold_truth():
    return random_orientations(20, 3)


@pytest.fixture(scope="module")
def gold_patterns(gold_truth):
    return from_diffsims("m-3m", gold_truth)


@pytest.fixture(scope="module")
def gold_result(gold, gold_patterns):
    return method.compute(cube_of(gold_patterns), [gold], dataclasses.replace(COARSE, candidates=4))


@pytest.mark.parametrize(("laue", "spacing"), SPACING.items())
def test_orientations_of_independent_patterns_are_recovered_in_every_laue_class(laue, spacing):
    crystal = build(laue)
    truth = random_orientations(8, 11)
    params = dataclasses.replace(COARSE, sampling_deg=spacing, candidates=5)
    result = method.compute(cube_of(from_diffsims(laue, truth)), [crystal], params)
    error = method.misorientation_deg(result.candidate_orientation[0], truth[:, None], crystal)
    # A cell with few reflections fits several orientations, so the best may be another than the truth; a wrong
    # frame (mirrored, inverse, turned) would not leave the truth among the candidates at all.
    assert np.sum(error.min(axis=1) < spacing + 1) >= 7
    assert np.sum(error[:, 0] < spacing + 1) >= (6 if len(crystal.numbers) > 4 else 4)


def test_a_wrong_frame_would_be_noticed():
    crystal, truth = build("m-3"), random_orientations(8, 11)
    patterns = from_diffsims("m-3", truth)
    for wrong in (patterns[:, ::-1], patterns[:, :, ::-1], np.swapaxes(patterns, 1, 2), patterns[:, ::-1, ::-1]):
        result = method.compute(cube_of(wrong), [crystal], COARSE)
        assert np.sum(method.misorientation_deg(result.orientation[0], truth, crystal) < 3.5) <= 2


def test_orientations_of_gold_are_recovered_at_one_degree(gold, gold_truth, gold_patterns):
    params = dataclasses.replace(COARSE, sampling_deg=1.0, candidates=5)
    result = method.compute(cube_of(gold_patterns), [gold], params)
    error = method.misorientation_deg(result.orientation[0], gold_truth, gold)
    nearest = method.misorientation_deg(result.candidate_orientation[0], gold_truth[:, None], gold).min(axis=1)
    # Gold has few reflections: twin-related orientations share most of them, and at the spacing of the grid some
    # outrank the truth, which stays among the candidates.
    assert np.median(error) < 1.0
    assert np.sum(error < 2) >= 14
    assert np.sum(nearest < 3) >= 19


@pytest.mark.parametrize(("angle", "flip"), [(37.0, False), (-120.0, True), (90.0, True)])
def test_scan_rotation_and_detector_flip_are_undone(angle, flip):
    crystal, truth = build("m-3"), random_orientations(8, 11)
    # What a turned and mirrored detector records, by another interpolation than ours. Undoing turns the image by
    # +angle (x towards y) as seen with y down, so it was recorded turned by -angle; scipy counts likewise.
    recorded = np.array([rotate(p, angle, reshape=False, order=1) for p in from_diffsims("m-3", truth)])
    if flip:
        recorded = recorded[:, ::-1]
    middle = np.full((1, len(recorded), 2), (SIZE - 1) / 2)
    correction = Correction(middle, corrected_to_recorded(1.0, 0.0, angle, flip), np.zeros((SIZE, SIZE), bool))
    result = method.compute(cube_of(recorded, correction=correction), [crystal], COARSE)
    assert np.sum(method.misorientation_deg(result.orientation[0], truth, crystal) < 3) >= 7


def test_turning_the_pattern_turns_the_orientation_about_the_beam(gold, gold_truth):
    turn = np.deg2rad(25.0)
    turned = rotations.multiply(gold_truth[:6], [np.cos(turn / 2), 0, 0, -np.sin(turn / 2)])
    spots = method.template_pattern(gold, gold_truth[0], OPTICS, (SIZE, SIZE))
    after = method.template_pattern(gold, turned[0], OPTICS, (SIZE, SIZE))
    middle = (SIZE - 1) / 2
    y, x = spots[0, :2] - middle
    moved = [middle + x * np.sin(turn) + y * np.cos(turn), middle + x * np.cos(turn) - y * np.sin(turn)]
    assert np.abs(after[:, :2] - moved).sum(axis=1).min() < 1e-6


def test_the_answer_is_the_same_for_any_number_of_threads_and_any_memory(gold, gold_patterns):
    data = np.tile(gold_patterns[:9], (3, 5, 1, 1))[:, :40]
    first = method.compute(Cube(data, OPTICS, threads=1), [gold], COARSE)
    second = method.compute(Cube(data, OPTICS, threads=2, memory_mb=8), [gold], COARSE)
    for field in dataclasses.fields(method.Result):
        one, two = (np.asarray(getattr(result, field.name)) for result in (first, second))
        assert np.array_equal(one, two, equal_nan=one.dtype.kind == "f")  # None where there is nothing


def test_dark_and_constant_patterns_are_not_indexed(gold):
    patterns = np.zeros((3, SIZE, SIZE))
    patterns[1] = 40.0
    patterns[2] = -3.0
    result = method.compute(cube_of(patterns), [gold], COARSE)
    assert np.all(result.phase == -1)
    assert np.isnan(result.orientation).all()
    assert np.isnan(result.correlation).all()


def test_a_pattern_below_the_threshold_is_not_indexed_but_keeps_its_candidates(gold, gold_patterns):
    params = dataclasses.replace(COARSE, minimum_correlation=0.999)
    result = method.compute(cube_of(gold_patterns[:4]), [gold], params)
    assert np.all(result.phase == -1)
    assert np.isnan(result.orientation).all()
    assert np.isfinite(result.candidate_orientation[:, :, 0]).all()
    assert np.all(result.correlation > 0.5)


def test_candidates_are_distinct_and_the_second_is_the_second_correlation(gold, gold_result):
    result, count = gold_result, gold_result.candidate_phase.shape[2]
    for i in range(count):
        for j in range(i):
            apart = method.misorientation_deg(
                result.candidate_orientation[0, :, i], result.candidate_orientation[0, :, j], gold
            )
            # Missing ones have met better ones.
            assert np.all(
                np.nan_to_num(apart, nan=180) > 4.0
            )  # 5° on the grid of in-plane angles, refined by up to half a step
    assert not np.any(np.diff(result.candidate_correlation, axis=2) > 0)
    assert np.array_equal(result.second_correlation, result.candidate_correlation[..., 1])
    assert np.array_equal(result.correlation, result.candidate_correlation[..., 0])
    assert np.allclose(result.reliability, 100 * (1 - result.second_correlation / result.correlation))
    assert np.all(result.orientation[..., 0] >= 0)


def test_half_a_turn_about_the_beam_is_a_distinct_candidate_of_nearly_equal_correlation():
    crystal = build("m-3m")
    # 114 m along the beam: a rotation of 180° about it is none of the cube's.
    zone = np.array([1.0, 2.0, 5.0])
    matrix = rotations.zone_orientations((zone / np.linalg.norm(zone))[None])
    pattern = from_diffsims("m-3m", rotations.from_matrix(matrix))
    pattern = pattern + pattern[:, ::-1, ::-1]
    result = method.compute(cube_of(pattern), [crystal], COARSE)
    turned = rotations.multiply(result.candidate_orientation[0, 0, 0], [0, 0, 0, 1])
    apart = method.misorientation_deg(turned, result.candidate_orientation[0, 0, 1], crystal)
    assert apart < 3
    assert result.reliability[0, 0] < 2
    assert result.ambiguous[0, 0] == 1


def test_half_a_turn_that_is_a_symmetry_or_fits_worse_is_not_flagged(gold, gold_result):
    along = rotations.from_matrix(rotations.zone_orientations(np.array([[0, 0, 1.0]])))
    result = method.compute(cube_of(from_diffsims("m-3m", along)), [gold], COARSE)
    assert result.ambiguous[0, 0] == 0
    tie = gold_result.candidate_correlation >= 0.99 * gold_result.candidate_correlation[..., :1]
    assert np.all(gold_result.ambiguous <= (tie.sum(axis=2) > 1))
    assert np.mean(gold_result.ambiguous) < 0.5


def test_a_masked_half_of_the_detector_still_gives_the_orientation(gold, gold_truth, gold_patterns):
    valid = np.ones((SIZE, SIZE), np.uint8)
    valid[:, : SIZE // 3] = 0
    patterns = gold_patterns.copy()
    patterns[:, :, : SIZE // 3] = 1e4  # what a mask hides must not matter
    result = method.compute(cube_of(patterns, valid=valid), [gold], COARSE)
    error = method.misorientation_deg(result.orientation[0], gold_truth, gold)
    assert np.sum(error < 3) >= 10


def test_phases_are_told_apart(gold, gold_truth, gold_patterns):
    hexagonal = build("6/mmm")
    truth = random_orientations(6, 4)
    patterns = np.concatenate([gold_patterns[:6], from_diffsims("6/mmm", truth)])
    result = method.compute(cube_of(patterns), [hexagonal, gold], COARSE)
    assert result.phase_name == ("6/mmm", "m-3m")
    assert np.sum(result.phase[0, :6] == 1) >= 5
    assert np.sum(result.phase[0, 6:] == 0) >= 5


def test_missing_calibration_and_phases_are_named(gold):
    cube = cube_of(np.zeros((1, SIZE, SIZE)))
    with pytest.raises(InputError, match="no phase"):
        method.compute(cube, [], COARSE)
    blind = dataclasses.replace(cube, acquisition=Acquisition(beam_energy_kev=200, convergence_mrad=1))
    with pytest.raises(InputError, match="detector_pixel_inv_angstrom"):
        method.compute(blind, [gold], COARSE)
    parallel = dataclasses.replace(cube, acquisition=dataclasses.replace(OPTICS, convergence_mrad=None))
    with pytest.raises(InputError, match="convergence_mrad"):
        method.compute(parallel, [gold], method.Params())
    far = dataclasses.replace(OPTICS, detector_pixel_inv_angstrom=1e-4)
    with pytest.raises(InputError, match="no reflection of m-3m between the direct beam, which reaches"):
        method.compute(dataclasses.replace(cube, acquisition=far), [gold], COARSE)


def test_the_ang_text_gives_back_the_map(gold, gold_result, tmp_path):
    two = dataclasses.replace(
        gold_result,
        phase=np.array([[0, -1], [0, 0]]),
        orientation=gold_result.orientation[0, :4].reshape(2, 2, 4),
        correlation=gold_result.correlation[0, :4].reshape(2, 2),
        reliability=gold_result.reliability[0, :4].reshape(2, 2),
    )
    text = method.ang_text(two, [gold], (20.0, 30.0))
    (tmp_path / "map.ang").write_text(text)
    back = load(tmp_path / "map.ang")
    assert back.shape == (2, 2)
    assert (back.dy, back.dx) == pytest.approx((0.002, 0.003))
    assert back.is_indexed.tolist() == [True, False, True, True]
    assert back.phases[1].point_group.name == "432"
    assert back.phases[1].structure.lattice.abcABG() == pytest.approx(gold.cell)
    ours = two.orientation.reshape(-1, 4)[[0, 2, 3]]
    theirs = back.rotations.data.reshape(-1, 4)[[0, 2, 3]]
    assert np.all(method.misorientation_deg(ours, theirs, gold) < 0.01)


def test_the_ang_euler_angles_of_a_crystal_worked_by_hand(gold, gold_result):
    # The crystal is turned by 30° about the beam from +x towards +y: phi1 = 30°, Phi = phi2 = 0.
    turn = np.deg2rad(30)
    q = rotations.from_matrix(np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]]))
    spots = method.template_pattern(gold, q, OPTICS, (SIZE, SIZE))
    offset = spots[:4, :2] - (SIZE - 1) / 2
    assert np.abs(np.rad2deg(np.arctan2(offset[:, 0], offset[:, 1])) - 30).min() < 1e-3  # 200 at 30°, +y is down
    one = dataclasses.replace(
        gold_result,
        phase=np.array([[0]]),
        orientation=q[None, None],
        correlation=np.ones((1, 1)),
        reliability=np.full((1, 1), 50.0),
    )
    numbers = np.array(method.ang_text(one, [gold], (20, 20)).splitlines()[-1].split(), float)
    assert (numbers[0] + numbers[2]) % (2 * np.pi) == pytest.approx(turn, abs=1e-4)
    assert numbers[1] == pytest.approx(0, abs=1e-4)
    assert numbers[6] == 0.5
