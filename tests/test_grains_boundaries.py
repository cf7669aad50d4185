"""Boundaries: coincidence site lattices against enumeration and closed forms, axes, lengths."""

import itertools
from math import gcd

import numpy as np
import orientations as make
import pytest

from fourdstem import rotations
from fourdstem.methods import grains
from fourdstem.methods.grains import boundaries

GOLD = make.gold()
OPERATIONS = rotations.from_matrix(GOLD.operations)
NAMES = boundaries.class_names(GOLD)
IDENTITY = np.array([[1.0, 0, 0, 0]])
# Smallest angle and axis of each class, as printed in tables (Grimmer, Bollmann & Warrington 1974).
PRINTED = {
    "Σ3": (60.00, 111), "Σ5": (36.87, 100), "Σ7": (38.21, 111), "Σ9": (38.94, 110), "Σ11": (50.48, 110),
    "Σ13a": (22.62, 100), "Σ13b": (27.80, 111), "Σ15": (48.19, 210), "Σ17a": (28.07, 100), "Σ17b": (61.93, 221),
    "Σ19a": (26.53, 110), "Σ19b": (46.83, 111), "Σ21a": (21.79, 111), "Σ21b": (44.42, 211), "Σ23": (40.46, 311),
    "Σ25a": (16.26, 100), "Σ25b": (51.68, 331), "Σ27a": (31.59, 110), "Σ27b": (35.43, 210), "Σ29a": (43.60, 100),
    "Σ29b": (46.40, 221),
}  # fmt: skip


def smallest(turn, crystal=GOLD):
    return rotations.disorientation(IDENTITY, np.atleast_2d(turn), rotations.from_matrix(crystal.operations))


def exact(name):
    return smallest(np.array(boundaries.CUBIC[name], float))


def named(turn):
    return [NAMES[k] for k in boundaries.classify(turn, GOLD)]


def double_coset(turn):
    """Every equivalent of a misorientation: symmetry of both crystals, and their exchange."""
    found = rotations.multiply(rotations.multiply(OPERATIONS[:, None], turn), OPERATIONS[None]).reshape(-1, 4)
    return np.concatenate([found, rotations.conjugate(found)])


@pytest.mark.parametrize("name", boundaries.CUBIC)
def test_a_coincidence_lattice_has_the_angle_and_axis_that_are_printed(name):
    turn = exact(name)
    angle, axis = PRINTED[name]
    assert rotations.angle_deg(turn)[0] == pytest.approx(angle, abs=0.006)
    wanted = np.sort([int(digit) for digit in str(axis)])
    found = np.sort(np.abs(boundaries.reduced_axes(turn, GOLD)[0]))
    np.testing.assert_allclose(found, wanted / np.linalg.norm(wanted), atol=1e-6)
    assert named(turn) == [name]
    norm = sum(v**2 for v in boundaries.CUBIC[name])
    assert norm // (norm & -norm) == boundaries.sigma_of(name)  # Σ is the odd part


def test_the_list_of_coincidence_lattices_up_to_29_is_complete():
    # Every rotation with rational matrix is an integer quaternion; those with an odd part up to 29 in their squared
    # length are enumerated and told apart by their smallest angle and reduced axis.
    found = {}
    for q in itertools.product(range(-11, 12), repeat=4):
        norm = sum(v * v for v in q)
        if 0 < norm <= 4 * 29 and gcd(*q) == 1 and q[0] > 0 and 1 < norm // (norm & -norm) <= 29:
            found[q] = norm // (norm & -norm)
    turn = smallest(np.array(list(found), float))
    keys = np.round(np.sort(np.abs(turn[:, 1:]), axis=1), 6)
    classes = {(sigma, *key) for sigma, key in zip(found.values(), keys.tolist(), strict=True)}
    counts = {}
    for sigma, *_ in classes:
        counts[sigma] = counts.get(sigma, 0) + 1
    listed = [boundaries.sigma_of(name) for name in boundaries.CUBIC]
    assert counts == {sigma: listed.count(sigma) for sigma in listed}


@pytest.mark.parametrize("name", ["Σ3", "Σ9", "Σ13b", "Σ29a"])
def test_a_class_ends_at_the_criterion_of_brandon(name):
    limit = 15 / np.sqrt(boundaries.sigma_of(name))
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(25, 3))
    # Against the distance to every equivalent, the slow way.
    for factor in (0.95, 1.05):
        turn = np.concatenate([rotations.multiply(make.about(a, factor * limit), exact(name)) for a in axes])
        turn = smallest(turn)
        cosine = np.abs(turn @ double_coset(exact(name)[0]).T).max(axis=1)
        inside = np.rad2deg(2 * np.arccos(cosine)) <= limit
        chosen = [n == name for n in named(turn)]
        assert inside.mean() > 0.9 if factor < 1 else inside.mean() < 0.6
        assert not (np.array(chosen) & ~inside).any()
        others = [n for n, is_in in zip(named(turn), inside, strict=True) if is_in and n != name]
        assert name != "Σ3" or not others  # the widest class: none other comes relatively nearer


def test_every_equivalent_has_the_same_class_angle_and_axis():
    rng = np.random.default_rng(1)
    for name in ("Σ3", "Σ5", "Σ11"):
        turn = rotations.multiply(make.about(rng.normal(size=3), 1.5), exact(name)[0])
        same = smallest(double_coset(turn))
        assert set(named(same)) == {name}
        assert np.ptp(rotations.angle_deg(same)) < 1e-6
    general = smallest(make.about([0.6, 0.3, 0.1], 33.0))
    axes = boundaries.reduced_axes(smallest(double_coset(general[0])), GOLD)
    np.testing.assert_allclose(axes, np.broadcast_to(axes[0], axes.shape), atol=1e-6)


def test_low_angles_are_low_and_the_rest_is_general():
    assert named(smallest(make.about([1, 2, 3], 14.9))) == ["low angle"]
    assert named(smallest(make.about([0.9, 0.35, 0.1], 33.0))) == ["general"]
    hexagonal = make.magnesium()
    assert boundaries.class_names(hexagonal) == ("low angle", "general")
    assert boundaries.classify(smallest(make.about([1, 0, 0], 60), hexagonal), hexagonal).tolist() == [1]


def test_shares_at_random_are_volumes_of_balls():
    # A ball of radius r holds (r - sin r)/pi of all rotations; a class has as many balls as distinct equivalents.
    turn = boundaries.random_turns(GOLD, 40000, np.random.default_rng(2))
    share = np.bincount(boundaries.classify(turn, GOLD), minlength=len(NAMES)) / len(turn)
    for name in ("low angle", "Σ3", "Σ5", "Σ7", "Σ11"):
        one = IDENTITY[0] if name == "low angle" else exact(name)[0]
        same = double_coset(one)
        same *= np.where(same[:, :1] < -1e-9, -1, 1)
        radius = np.deg2rad(15 / np.sqrt(1 if name == "low angle" else boundaries.sigma_of(name)))
        balls = len(np.unique(np.round(rotations.to_matrix(same), 6).reshape(-1, 9) + 0.0, axis=0))
        expected = balls * (radius - np.sin(radius)) / np.pi
        error = np.sqrt(expected / len(turn))
        assert share[NAMES.index(name)] == pytest.approx(expected, abs=4 * error + 2e-4), name


@pytest.mark.parametrize("crystal", [make.gold(), make.primitive_gold()], ids=["cubic cell", "primitive cell"])
def test_a_twin_is_sigma_3_about_111_whatever_cell_describes_it(crystal):
    normal = np.array([1.0, 1, 1]) if len(crystal.numbers) == 4 else crystal.reciprocal.sum(axis=0)
    rng = np.random.default_rng(3)
    parent = rotations.random_orientations(1, rng)[0]
    twin = rotations.multiply(make.about(normal, 60), parent)
    orientation = np.broadcast_to(parent, (10, 12, 4)).copy()
    orientation[:, 5:7] = twin
    result = grains.compute(make.indexed(orientation), [crystal], grains.Params(), source="x", scan_step=(20, 10))
    assert result.grain.max() == 2
    np.testing.assert_allclose(result.boundary_angle_deg, 60, atol=1e-3)
    assert {result.class_name[k] for k in result.boundary_class} == {"Σ3"}
    row = result.class_name.index("Σ3")
    assert result.class_segments[row] == 20
    assert result.class_length_nm[row] == pytest.approx(20 * 2.0)  # edges along y, 2 nm each
    assert result.class_share[row] == 1
    np.testing.assert_array_equal(np.unique(result.boundary_position_px[:, 1]), [4.5, 6.5])
    along = np.abs(result.boundary_axis @ (crystal.operations @ normal / np.linalg.norm(normal)).T)
    np.testing.assert_allclose(along.max(axis=1), 1, atol=1e-5)


def test_the_twin_of_magnesium_is_found_by_angle_and_axis():
    # {10-12} tension twins: 86.3° about <11-20> at c/a = 1.6236.
    crystal = make.magnesium()
    a, c = crystal.lattice[0], crystal.lattice[2]
    twin = make.about(a, 86.3)
    orientation = np.broadcast_to([1.0, 0, 0, 0], (6, 6, 4)).copy()
    orientation[:3] = twin
    result = grains.compute(make.indexed(orientation), [crystal], grains.Params(), source="x", scan_step=(20, 10))
    np.testing.assert_allclose(result.boundary_angle_deg, 86.3, atol=1e-3)
    assert {result.class_name[k] for k in result.boundary_class} == {"general"}
    assert result.class_length_nm.sum() == pytest.approx(6 * 1.0)  # edges along x, 1 nm each
    unit = a / np.linalg.norm(a)
    np.testing.assert_allclose(np.abs(crystal.operations @ unit @ result.boundary_axis[0]).max(), 1, atol=1e-5)
    assert abs(result.boundary_axis[0] @ c) < 1e-5


def test_the_table_of_classes_adds_up_and_says_its_phase():
    rng = np.random.default_rng(4)
    label = make.voronoi((30, 30), 12, rng)
    phase = label % 2
    found = make.indexed(rotations.random_orientations(12, rng)[label], phase)
    result = grains.compute(found, [make.gold(), make.magnesium()], grains.Params(), source="x", scan_step=(20, 20))
    horizontal = label[:, :-1] != label[:, 1:]
    vertical = label[:-1] != label[1:]
    assert result.class_segments.sum() == horizontal.sum() + vertical.sum() == len(result.boundary_class)
    assert result.class_length_nm.sum() == pytest.approx(2 * len(result.boundary_class))
    between = (phase[:, :-1] != phase[:, 1:]).sum() + (phase[:-1] != phase[1:]).sum()
    assert result.class_segments[-1] == between and result.class_phase[-1] == -1
    for k in (0, 1):
        mine = result.class_phase == k
        assert result.class_share[mine].sum() == pytest.approx(1)
        assert result.class_random_share[mine].sum() == pytest.approx(1)
    rows = grains.boundary_rows(result)
    assert [r[0] for r in rows] == ["gold"] * len(NAMES) + ["magnesium"] * 2 + [""]
