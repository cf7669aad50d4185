"""Simulated training patterns, and the training of the three networks."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fourdstem.crystal import make_crystal
from fourdstem.figures import training as figures
from fourdstem.geometry import ellipse_matrix
from fourdstem.methods import training
from fourdstem.methods.training import drawing, examining, objectives, patterns, recording, structures, supply
from fourdstem.methods.training.writing import write

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"batch": 2, "pool": 16, "held_back": 8, "steps": 2}


def crystal_of(structure):
    a = structure.lattice
    length = np.linalg.norm(a, axis=1)
    cosine = [
        a[1] @ a[2] / length[1] / length[2],
        a[2] @ a[0] / length[2] / length[0],
        a[0] @ a[1] / length[0] / length[1],
    ]
    return make_crystal(
        structure.name, (*length, *np.rad2deg(np.arccos(cosine))), structure.symbols, structure.positions
    )


# ---- structures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", structures.everything(), ids=lambda s: s.name)
def test_a_structure_has_the_symmetry_that_the_table_states(structure):
    assert crystal_of(structure).space_group == structure.space_group


@pytest.mark.parametrize("structure", structures.everything(), ids=lambda s: s.name)
def test_no_two_atoms_are_closer_than_a_short_bond(structure):
    apart = structure.positions[:, None] - structure.positions[None]
    steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3)
    distance = np.linalg.norm((apart[:, :, None] + steps) @ structure.lattice, axis=-1)
    assert distance[distance > 1e-6].min() > 1.25  # C-O in calcite: 1.28 Å


def test_structures_are_many_and_of_ten_laue_classes_and_kept_apart():
    everything = structures.everything()
    assert len(everything) >= 40
    assert len({s.name for s in everything}) == len(everything)
    assert len({crystal_of(s).laue_class for s in everything}) >= 10
    assert all(len(structures.of_share(share)) >= 8 for share in ("train", "validate", "test"))


def test_a_face_centred_crystal_reflects_from_unmixed_indices_only():
    gold = next(s for s in structures.everything() if s.name == "gold")
    g, _ = gold.table
    parity = np.round(g @ gold.lattice.T).astype(int) % 2
    assert (parity == parity[:, :1]).all()


# ---- patterns ------------------------------------------------------------------------------------------------


def test_a_pattern_depends_on_its_seed_and_index_alone():
    first, again = (patterns.draw_pattern(3, "train", 5) for _ in range(2))
    assert np.array_equal(first.image, again.image)
    for other in (patterns.draw_pattern(4, "train", 5), patterns.draw_pattern(3, "train", 6)):
        assert not np.array_equal(first.image, other.image)


def test_patterns_are_whole_positive_and_within_the_stated_ranges():
    some = [patterns.draw_pattern(1, "train", i) for i in range(60)]
    assert all(np.isfinite(p.image).all() and p.image.min() >= 0 and abs(p.image.sum() - 1) < 1e-3 for p in some)
    assert all(np.abs(p.centre - 63.5).max() <= patterns.LARGEST_SHIFT_PX for p in some)
    radii = np.array([p.radius for p in some])
    assert radii.min() < 2 and radii.max() > 14


def test_the_centre_of_mass_is_no_way_to_the_centre():
    some = [patterns.draw_pattern(1, "train", i) for i in range(60)]
    place = np.arange(patterns.SIZE)
    mass = np.array([[p.image.sum(1) @ place, p.image.sum(0) @ place] for p in some])
    off = np.linalg.norm(mass - [p.centre for p in some], axis=1)
    assert (off > 2).mean() > 0.3


def test_a_spot_of_the_list_lies_where_its_disk_does():
    structure = next(s for s in structures.everything() if s.name == "silicon")
    rng = np.random.default_rng(0)
    optics = patterns.Optics(0.025, 0.02, 3.0, 0.4, 1.1, 30.0, np.eye(2))
    position, flux, rock, thickness = patterns.grain(rng, structure, optics, mode=0)
    k = np.hypot(*position.T).argmin()
    image = np.zeros((128, 128))
    one = slice(k, k + 1)
    args = (position[one], flux[one], rock[one], thickness[one], (3.0, 0.4), np.array([60.0, 65.0]))
    drawing.add_disks(*args, optics.matrix, np.linalg.inv(optics.matrix), optics.probe, image)
    y, x = np.indices(image.shape)
    mass = np.array([(image * y).sum(), (image * x).sum()]) / image.sum()
    assert np.allclose(mass, [60.0, 65.0] + optics.matrix @ position[k], atol=0.03)
    assert image.sum() == pytest.approx(flux[k], rel=0.05)


def test_intensity_inside_a_disk_follows_the_rocking_curve_and_keeps_its_sum():
    rock = np.array([[0.0, 0.002, 0.0, 0.002]])
    image = np.zeros((64, 64))
    eye = np.eye(2)
    place, shape = np.array([31.5, 31.5]), (12.0, 0.4)
    drawing.add_disks(np.zeros((1, 2)), np.ones(1), rock, np.array([400.0]), shape, place, eye, eye, eye, image)
    assert image.sum() == pytest.approx(1, rel=0.05)
    column = image[24:40, 31] / image[31, 31]
    expected = [drawing.rocking.py_func(0.002 * (y - 31.5), 0.002, 400.0) for y in range(24, 40)]
    assert np.allclose(column, np.array(expected) / expected[7], atol=1e-6)


def test_two_beam_intensity_is_that_of_the_column_approximation_at_the_exact_position():
    assert drawing.rocking.py_func(0.0, 1 / 300, 150.0) == pytest.approx(np.sin(np.pi * 150 / 300) ** 2)


def test_a_ring_gets_the_ellipse_of_the_camera():
    matrix = ellipse_matrix(1.1, 35.0)
    profile = np.exp(-0.5 * ((np.arange(0, 90, 0.25) - 30) / 1.5) ** 2)
    image = np.zeros((128, 128))
    drawing.add_radial(profile, 0.25, np.array([63.5, 63.5]), np.linalg.inv(matrix), image)
    y, x = np.indices(image.shape) - 63.5
    moment = np.array([[(image * a * b).sum() for a in (x, y)] for b in (x, y)])
    value, vector = np.linalg.eigh(moment)
    assert np.sqrt(value[1] / value[0]) == pytest.approx(1.1, abs=2e-3)
    assert np.rad2deg(np.arctan2(vector[1, 1], vector[0, 1])) % 180 == pytest.approx(35.0, abs=0.5)


def test_a_hundred_patterns_take_less_than_a_second_of_one_core():
    supply.prepare()
    start = time.process_time()
    for index in range(100):
        patterns.draw_pattern(9, "train", index)
    assert time.process_time() - start < 1.0


# ---- recording -----------------------------------------------------------------------------------------------


def some_images(count=4):
    images, extras = supply.rows(0, "train", 0, count)
    return torch.from_numpy(images), torch.from_numpy(extras)


def test_recorded_counts_scatter_about_the_expected_ones_as_poisson_says():
    image = torch.full((40, 64, 64), 1 / 4096)
    dose = torch.full((40,), 4096 * 5.0)
    r = recording.record(image, torch.zeros(40, 2), torch.ones(40), dose, torch.Generator().manual_seed(0), False)
    assert r.electrons.mean().item() == pytest.approx(5, rel=0.01)
    assert r.electrons.var().item() == pytest.approx(5, rel=0.02)


def test_faults_leave_most_pixels_and_never_touch_the_truth():
    image, extra = some_images(32)
    dose = torch.full((32,), 1e4)
    r = recording.record(image, extra[:, :2], extra[:, 2], dose, torch.Generator().manual_seed(0))
    assert torch.equal(r.expected[:, 0], image * 1e4)
    assert 0.9 < r.valid.mean().item() < 1
    assert not (r.electrons * (1 - r.valid)).any()


@pytest.mark.parametrize("which", range(8))
def test_turning_a_pattern_turns_its_centre(which):
    image = torch.zeros(1, 32, 32)
    image[0, 5, 11] = 1
    turned, point = recording.dihedral(image, torch.tensor([[5.0, 11.0]]), which)
    assert turned[0, int(point[0, 0]), int(point[0, 1])] == 1


@pytest.mark.parametrize("which", range(8))
def test_turning_a_scan_mean_turns_its_ellipse(which):
    ring = np.zeros((128, 128))
    profile = np.exp(-0.5 * ((np.arange(0, 90, 0.25) - 30) / 1.5) ** 2)
    inverse = np.linalg.inv(ellipse_matrix(1.1, 20.0))
    drawing.add_radial(profile, 0.25, np.array([63.5, 63.5]), inverse, ring)
    e = 0.5 * np.log(1.1) * np.array([np.cos(np.deg2rad(40)), np.sin(np.deg2rad(40))])
    pool = objectives.Pool(2, supply.EXTRA, "cpu")
    extra = np.zeros((1, supply.EXTRA), np.float32)
    extra[0, :2] = e
    pool.add((ring / ring.sum()).astype(np.float32)[None], extra)
    got = objectives.mean_batch(pool, 16, torch.Generator().manual_seed(1), which)
    image = (got.electrons * got.valid).sum(0)[0].double().numpy()
    y, x = np.indices(image.shape) - 63.5
    doubled = np.angle(((image - np.median(image)) * (x + 1j * y) ** 2 * (np.hypot(x, y) > 20)).sum())
    wanted = np.angle(complex(*got.e[0].double().numpy()))
    assert abs(np.angle(np.exp(1j * (doubled - wanted)))) < np.deg2rad(12)


def test_a_smaller_detector_keeps_the_centre_on_the_same_counts():
    image, extra = some_images()
    small, centre = recording.cropped(image, extra[:, :2], 64)
    assert small.shape[-2:] == (64, 64)
    assert torch.equal(small, image[:, 32:96, 32:96])
    assert torch.allclose(centre, extra[:, :2] - 32)


def test_processes_compute_the_same_patterns_as_this_one():
    supply.prepare()
    source = supply.Supply(2, workers=2)
    try:
        until = time.monotonic() + 60
        got = []
        while len(got) < 2 and time.monotonic() < until:
            got += [(images.copy(), extras.copy()) for images, extras in source.take(most=32)]
        assert len(got) >= 2
    finally:
        source.close()
    assert np.array_equal(got[0][0], supply.rows(2, "train", 0, supply.CHUNK)[0])
    assert np.array_equal(got[1][0], supply.rows(2, "train", supply.CHUNK, supply.CHUNK)[0])


# ---- the tables ----------------------------------------------------------------------------------------------


def test_the_truth_itself_has_no_error_and_finds_every_spot():
    image, extra = some_images(16)
    numbers = examining.measured((image, extra), 1e4, 0, lambda r: r.expected)
    assert numbers["masked error"].max() == 0
    assert np.nanmin(numbers["recall"]) == 1
    assert np.nansum(numbers["false spot"]) == 0


def test_an_empty_answer_finds_no_spot():
    image, extra = some_images(16)
    numbers = examining.measured((image, extra), 1e4, 0, lambda r: torch.zeros_like(r.expected))
    assert np.nanmax(numbers["recall"]) == 0
    assert numbers["masked error"].min() == pytest.approx(1)


def test_correlation_with_the_true_disk_comes_near_the_bound():
    rng = np.random.default_rng(0)
    image, centre = np.zeros((64, 128, 128)), 63.5 + rng.uniform(-5, 5, (64, 2))
    eye, none = np.eye(2), (np.zeros((0, 4)), np.zeros(0), np.zeros(2))
    for i in range(64):
        drawing.add_direct(1.0, *none, (5.0, 0.5), centre[i], eye, eye, image[i])
    image = torch.tensor(image / image.sum(axis=(1, 2), keepdims=True) + 1e-7, dtype=torch.float32)
    centre = torch.tensor(centre, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    r = recording.record(image, centre, torch.full((64,), 5.0), torch.full((64,), 1e4), generator, False)
    error = (examining.correlated(r) - centre).norm(dim=1).square().mean().sqrt()
    assert 0.8 < error / examining.cramer_rao(r).mean() < 2


# ---- training ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    return training.compute(training.Params(**SMALL), "cpu")


def test_a_training_makes_weights_curves_and_tables_of_all_three(trained):
    assert trained.failures == {}
    assert set(trained.weights) == {"denoise", "centre", "ellipse"}
    assert {row[0] for row in trained.curves} == {"denoise", "centre", "ellipse"}
    assert {row[0] for row in trained.table} == {"denoise", "centre", "ellipse"}
    assert sum(n["parameters"] for n in trained.card["networks"].values()) <= 3_000_000


def test_a_training_by_steps_can_be_repeated(trained):
    again = training.compute(training.Params(**SMALL, shares=(0, 1, 0)), "cpu")
    alone = training.compute(training.Params(**SMALL, shares=(0, 1, 0)), "cpu")
    assert set(again.weights) == {"centre"}
    assert all(torch.equal(again.weights["centre"][k], v) for k, v in alone.weights["centre"].items())


def test_a_training_goes_on_from_its_checkpoint(tmp_path):
    lines = []
    settings = SMALL | {"shares": (0, 0, 1)}
    training.compute(training.Params(**settings), "cpu", checkpoints=str(tmp_path))
    more = training.Params(**settings | {"steps": 4})
    result = training.compute(more, "cpu", log=lines.append, checkpoints=str(tmp_path))
    assert any("goes on from step 2" in line for line in lines)
    assert result.card["networks"]["ellipse"]["steps"] == 4


def test_the_trouble_of_one_network_costs_only_that_network(monkeypatch):
    def broken(network, recorded, done):
        raise FloatingPointError("as if")

    monkeypatch.setattr(objectives, "centre_loss", broken)
    kept = []
    result = training.compute(training.Params(**SMALL), "cpu", keep=lambda r: kept.append(set(r.weights)))
    assert result.failures == {"centre": "FloatingPointError: as if"}
    assert kept == [{"denoise"}, {"denoise"}, {"denoise", "ellipse"}]


def test_what_is_written_can_be_read(trained, tmp_path):
    write(trained, tmp_path, "abc")
    names = {p.name for p in tmp_path.iterdir()}
    assert {"denoise.safetensors", "centre.safetensors", "ellipse.safetensors", "model_card.json"} <= names
    assert json.loads((tmp_path / "model_card.json").read_text())["code"] == "abc"
    assert sum(p.stat().st_size for p in tmp_path.glob("*.safetensors")) < 16e6


def test_training_loads_nothing_that_a_bare_machine_lacks():
    blocked = ["orix", "diffpy", "diffsims", "rsciio", "h5py", "hdf5plugin", "spglib", "skimage", "sklearn", "yaml"]
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); import fourdstem.methods.training.__main__"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


# ---- the rules -----------------------------------------------------------------------------------------------


def planned(folder, *arguments):
    """Rules of a dry run with a configuration that indexes denoised patterns."""
    (folder / "my.yaml").write_text(
        f"phases: [{{name: gold, cif: '{ROOT / 'config/cif/gold.cif'}'}}]\n"
        "samples: [{name: film, simulate: {specimen: film, seed: 1}, phases: [gold], stages: [orientation]}]\n"
        "orientation: {sources: [corrected, denoised]}\n"
    )
    command = [sys.executable, "-m", "snakemake", *arguments, "--dry-run", "--cores", "1"]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "my.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    table = (done.stdout + done.stderr).split("Job stats:")[1].split("total")[0].splitlines()
    return {line.split()[0] for line in table if line and not line.startswith(("job ", "---"))}


def test_patterns_are_denoised_only_where_a_stage_asks_for_them(tmp_path):
    assert "denoise" in planned(tmp_path, "results/film/orientation/denoised.h5")
    assert "denoise" in planned(tmp_path, "exports/film/denoised.blo")
    assert "denoise" not in planned(tmp_path, "results/film/orientation/corrected.h5")
    assert {"denoise", "evaluation", "report"} <= planned(tmp_path)


def test_training_is_a_target_of_its_own(tmp_path):
    assert planned(tmp_path, "train") == {"train"}


def test_the_curves_of_a_training_are_drawn(trained, tmp_path):
    figures.draw(trained.curves, tmp_path)
    assert (tmp_path / "training_curves.png").stat().st_size > 1000
