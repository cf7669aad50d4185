"""Crystals: reading, symmetry found from atoms, structure factors."""

import numpy as np
import pytest
from diffpy.structure import Atom, Lattice, Structure
from diffpy.structure.spacegroups import GetSpaceGroup
from diffsims.utils.sim_utils import get_kinematical_intensities

from fourdstem import crystal as method
from fourdstem.errors import InputError

GOLD = """data_gold
_cell_length_a 4.0782
_cell_length_b 4.0782
_cell_length_c 4.0782
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
{symmetry}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
{atoms}
"""
CUBIC_F = "_symmetry_space_group_name_H-M 'F m -3 m'\n_symmetry_Int_Tables_number 225"
P1 = "_symmetry_space_group_name_H-M 'P 1'"
FOUR = "Au1 Au 0 0 0\nAu2 Au 0 0.5 0.5\nAu3 Au 0.5 0 0.5\nAu4 Au 0.5 0.5 0"

# Space group, cell, one general or special atom after another: one crystal for each Laue class.
LAUE = {
    "-1": (2, (4.1, 5.3, 6.2, 82, 77, 95), [("Fe", (0.11, 0.23, 0.37)), ("O", (0.61, 0.29, 0.83))]),
    "2/m": (11, (4.4, 5.1, 6.0, 90, 104, 90), [("Fe", (0.13, 0.08, 0.31)), ("O", (0.62, 0.25, 0.87))]),
    "mmm": (62, (5.2, 6.1, 4.3, 90, 90, 90), [("Fe", (0.13, 0.25, 0.09)), ("O", (0.31, 0.06, 0.66))]),
    "4/m": (84, (5.0, 5.0, 6.4, 90, 90, 90), [("Fe", (0.17, 0.38, 0.5)), ("O", (0.31, 0.09, 0.19))]),
    "4/mmm": (136, (4.594, 4.594, 2.959, 90, 90, 90), [("Ti", (0, 0, 0)), ("O", (0.305, 0.305, 0))]),
    "-3": (147, (5.0, 5.0, 6.1, 90, 90, 120), [("Fe", (0.13, 0.41, 0.21)), ("O", (0.58, 0.17, 0.36))]),
    "-3m": (164, (4.9, 4.9, 6.3, 90, 90, 120), [("Fe", (0.17, 0.83, 0.21)), ("O", (0.4, 0, 0))]),
    "6/m": (176, (5.4, 5.4, 4.9, 90, 90, 120), [("Fe", (0.14, 0.4, 0.25)), ("O", (0.33, 0.08, 0.25))]),
    "6/mmm": (194, (2.95, 2.95, 4.68, 90, 90, 120), [("Ti", (1 / 3, 2 / 3, 0.25))]),
    "m-3": (205, (5.4, 5.4, 5.4, 90, 90, 90), [("Fe", (0, 0, 0)), ("S", (0.385, 0.385, 0.385))]),
    "m-3m": (225, (4.0782, 4.0782, 4.0782, 90, 90, 90), [("Au", (0, 0, 0))]),
}
ROTATIONS = {"-1": 1, "2/m": 2, "mmm": 4, "4/m": 4, "4/mmm": 8, "-3": 3, "-3m": 6, "6/m": 6, "6/mmm": 12, "m-3": 12}
ROTATIONS["m-3m"] = 24


def expand(laue):
    """All atoms of the cell: symbols and fractional positions."""
    number, cell, asymmetric = LAUE[laue]
    symbols, positions = [], []
    for symbol, xyz in asymmetric:
        here = []
        for operation in GetSpaceGroup(number).iter_symops():
            x = operation(np.array(xyz, float)) % 1
            if not any(np.abs((x - y + 0.5) % 1 - 0.5).max() < 1e-4 for y in here):
                here.append(x)
        symbols += [symbol] * len(here)
        positions += here
    return cell, symbols, np.array(positions)


def build(laue):
    """Crystal of a Laue class; also used by test_orientation."""
    return method.make_crystal(laue, *expand(laue))


@pytest.fixture
def write(tmp_path):
    def cif(text):
        path = tmp_path / "phase.cif"
        path.write_text(text)
        return path

    return cif


def test_a_cif_written_in_p1_has_the_symmetry_of_its_atoms(write):
    symbol = method.read_cif(write(GOLD.format(symmetry=CUBIC_F, atoms="Au1 Au 0 0 0")), "gold")
    plain = method.read_cif(write(GOLD.format(symmetry=P1, atoms=FOUR)), "gold")
    for crystal in (symbol, plain):
        assert (crystal.space_group, crystal.laue_class, len(crystal.operations)) == (225, "m-3m", 24)
        assert len(crystal.numbers) == 4
    assert symbol.u_iso == pytest.approx(0.005)


def test_the_gold_of_the_demo_is_gold(request):
    crystal = method.read_cif(request.config.rootpath / "config" / "cif" / "gold.cif", "gold")
    assert (crystal.space_group, len(crystal.numbers)) == (225, 4)
    assert crystal.cell == pytest.approx((4.0782, 4.0782, 4.0782, 90, 90, 90))


def test_a_supercell_keeps_all_rotations(write):
    text = GOLD.format(symmetry=P1, atoms=FOUR).replace("_cell_length_c 4.0782", "_cell_length_c 8.1564")
    half = [line.rsplit(" ", 1) for line in FOUR.splitlines()]
    atoms = [f"{head} {(float(z) + up) / 2}" for head, z in half for up in (0, 1)]
    text = text.replace(FOUR, "\n".join(atoms))
    assert len(method.read_cif(write(text), "gold").operations) == 24


def test_coordinates_rounded_to_three_digits_still_make_one_site(write):
    text = """data_x
_cell_length_a 2.95
_cell_length_b 2.95
_cell_length_c 4.68
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_symmetry_space_group_name_H-M 'P 63/m m c'
_symmetry_Int_Tables_number 194
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_B_iso_or_equiv
Ti1 Ti4+ 0.333 0.667 0.25 0.5
"""
    crystal = method.read_cif(write(text), "titanium")
    assert (len(crystal.numbers), crystal.space_group) == (2, 194)
    assert crystal.numbers.tolist() == [22, 22]
    assert crystal.u_iso == pytest.approx(0.5 / (8 * np.pi**2))


@pytest.mark.parametrize("laue", LAUE)
def test_each_laue_class_has_its_rotations(laue):
    crystal = build(laue)
    assert crystal.laue_class == laue
    assert len(crystal.operations) == ROTATIONS[laue]
    identity = crystal.operations @ np.swapaxes(crystal.operations, 1, 2)
    assert np.allclose(identity, np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(crystal.operations), 1)
    hkl, g = method.reflections(crystal, 0.8)
    intensity = {tuple(i): f for i, f in zip(hkl, np.abs(method.structure_factors(crystal, hkl)) ** 2, strict=True)}
    for rotation in crystal.operations:
        turned = np.rint((g @ rotation.T) @ crystal.lattice.T).astype(int)
        assert np.allclose([intensity[tuple(i)] for i in turned], list(intensity.values()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("laue", LAUE)
def test_every_setting_turns_into_the_axes_of_orix(laue):
    crystal = build(laue)
    symmetry, rotation = method.conventional_rotation(crystal)
    assert symmetry.name == laue
    wanted = symmetry.laue_proper_subgroup.to_matrix()
    turned = rotation @ crystal.operations @ rotation.T
    for matrix in turned:
        assert np.abs(matrix - wanted).max(axis=(1, 2)).min() < 1e-6


def test_an_unusual_setting_is_refused_by_name():
    with pytest.raises(InputError, match="conventional cell"):
        method.laue_symmetry(build("2/m"))
    assert method.laue_symmetry(build("m-3m")).name == "m-3m"


def test_lattice_and_reciprocal_follow_the_axes_convention():
    crystal = build("-1")
    assert np.allclose(crystal.lattice[0, 1:], 0)
    assert np.allclose(np.cross(crystal.reciprocal[2], [0, 0, 1]), 0, atol=1e-12)
    assert np.allclose(crystal.lattice @ crystal.reciprocal.T, np.eye(3))
    assert np.allclose(crystal.cell, LAUE["-1"][1])


def test_reflections_are_complete_and_without_the_beam():
    crystal = build("-1")
    hkl, g = method.reflections(crystal, 0.6)
    wide = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3, indexing="ij"), -1).reshape(-1, 3)
    inside = (np.linalg.norm(wide @ crystal.reciprocal, axis=1) <= 0.6) & wide.any(axis=1)
    assert {tuple(i) for i in hkl} == {tuple(i) for i in wide[inside]}
    assert np.allclose(g, hkl @ crystal.reciprocal)


def test_absent_reflections_have_no_structure_factor():
    hkl = np.array([[1, 0, 0], [1, 1, 0], [2, 1, 1], [1, 1, 1], [2, 0, 0]])
    factor = np.abs(method.structure_factors(build("m-3m"), hkl))
    assert np.all(factor[:3] < 1e-9)
    assert np.all(factor[3:] > 1)


@pytest.mark.parametrize("factors", ["lobato", "xtables"])
def test_intensities_agree_with_diffsims(factors):
    cell, symbols, positions = expand("mmm")
    crystal = build("mmm")
    hkl, g = method.reflections(crystal, 1.0)
    structure = Structure([Atom(s, x) for s, x in zip(symbols, positions, strict=True)], Lattice(*cell))
    damping = {"Fe": 8 * np.pi**2 * 0.005, "O": 8 * np.pi**2 * 0.005}
    other = get_kinematical_intensities(structure, hkl, np.linalg.norm(g, axis=1), damping, factors)
    ours = np.abs(method.structure_factors(crystal, hkl, factors)) ** 2
    assert np.allclose(ours, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (("Au1 Au 0 0 0", "Xq1 Xq 0 0 0"), "unknown element"),
        (("_cell_angle_gamma 90", "_cell_angle_gamma 200"), "no unit cell"),
        (("Au1 Au 0 0 0", "Au1 Au 0 0 0\nAu5 Au 0 0 0.001"), "occupied"),
        (("data_gold", "no cif at all"), "."),
    ],
)
def test_a_bad_cif_is_an_error_that_names_the_file(write, change, found):
    path = write(GOLD.format(symmetry=P1, atoms="Au1 Au 0 0 0").replace(*change))
    with pytest.raises(InputError, match=found) as error:
        method.read_cif(path, "gold")
    assert str(path) in str(error.value)


def test_a_missing_cif_is_an_error(tmp_path):
    with pytest.raises(InputError, match="cannot be opened"):
        method.read_cif(tmp_path / "none.cif", "gold")


def test_a_site_shared_by_two_elements_keeps_its_symmetry():
    positions = [(0, 0, 0), (0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)]
    crystal = method.make_crystal("alloy", (3, 3, 3, 90, 90, 90), ["Fe", "Ni"] * 2, positions, [0.5] * 4)
    assert crystal.space_group == 229


@pytest.mark.parametrize(("symbol", "number"), [("Fe3+", 26), ("O2-", 8), ("D", 1), ("Cs+", 55), ("cu", 29)])
def test_charges_and_isotopes_are_read(symbol, number):
    assert method.atomic_number(symbol) == number
