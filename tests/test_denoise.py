"""Denoising of single patterns, and its patterns as a source."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from fourdstem import io
from fourdstem.calibration import Acquisition
from fourdstem.cube import Cube
from fourdstem.errors import InputError
from fourdstem.methods import denoise
from fourdstem.methods.training import examining, objectives, patterns, recording
from fourdstem.networks import weights
from fourdstem.networks.centre import Centre
from fourdstem.networks.denoise import Denoise
from fourdstem.networks.ellipse import Ellipse, unrolled
from fourdstem.networks.layers import features, parameters_of

SIZE = (70, 66)
DEFAULT = denoise.Params()
PERFECT = denoise.Electrons(np.zeros(SIZE, bool), 1.0, 0.0, 0.0)


def disks(shape=(2, 35), size=SIZE, electrons=2000.0, seed=0):
    """Poisson counts of a disk on a background, and what they scatter about."""
    y, x = np.indices(size)
    expected = 1.0 * (np.hypot(y - 34, x - 30) < 6) + 0.15 * (np.hypot(y - 14, x - 45) < 6) + 0.002
    expected = electrons * expected / expected.sum()
    counts = np.random.default_rng(seed).poisson(expected, (*shape, *size))
    return counts.astype(np.uint16), expected


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """Weights of every network as they begin, with an answer that is not zero."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    for kind, network in (("denoise", Denoise()), ("centre", Centre()), ("ellipse", Ellipse())):
        state = network.state_dict()
        if kind == "denoise":
            state["leave.weight"].normal_(0, 0.02)
        weights.save(folder / f"{kind}.safetensors", kind, state)
    return folder


def run(counts, file, known=PERFECT, params=DEFAULT, **options):
    out = np.zeros(counts.shape, np.float32)
    return out, denoise.compute(Cube(counts, **options), params, out, known, file / "denoise.safetensors")


# ---- the stage -----------------------------------------------------------------------------------------------


def test_the_sum_of_a_pattern_stays(untrained):
    counts, _ = disks()
    out, result = run(counts, untrained)
    assert np.allclose(out.sum(axis=(2, 3)), counts.sum(axis=(2, 3)), rtol=1e-5)
    assert np.allclose(result.sum_before, counts.sum(axis=(2, 3)))


@pytest.mark.parametrize("method", ["network", "gaussian"])
def test_the_answer_depends_on_neither_threads_nor_memory(untrained, method):
    counts, _ = disks()
    params = denoise.Params(method=method)
    one, first = run(counts, untrained, params=params, threads=1, memory_mb=1)
    two, second = run(counts, untrained, params=params, threads=3, memory_mb=4000)
    assert np.array_equal(one, two)
    assert np.array_equal(first.noise_ratio, second.noise_ratio)


def test_a_pattern_is_denoised_alike_whatever_stands_beside_it(untrained):
    counts, _ = disks((1, 34))
    whole, _ = run(counts, untrained)
    part, _ = run(counts[:, :3], untrained)
    assert np.allclose(whole[:, :3], part, rtol=1e-5, atol=1e-5)


def test_a_gaussian_takes_noise_off_and_says_that_it_was_noise():
    counts, expected = disks(electrons=300)
    out = np.zeros(counts.shape, np.float32)
    result = denoise.compute(Cube(counts), denoise.Params(method="gaussian"), out, PERFECT, None)
    assert ((out - expected) ** 2).mean() < 0.5 * ((counts - expected) ** 2).mean()
    assert 0.8 < np.median(result.noise_ratio) < 1.6


def test_taking_detail_off_shows_in_the_noise_ratio():
    counts, _ = disks(electrons=2e5)
    out = np.zeros(counts.shape, np.float32)
    wide = denoise.Params(method="gaussian", gaussian_sigma_px=4.0)
    assert np.median(denoise.compute(Cube(counts), wide, out, PERFECT, None).noise_ratio) > 3


def test_gain_and_offset_make_the_same_electrons(untrained):
    counts, _ = disks((1, 4))
    plain, _ = run(counts, untrained)
    scaled, _ = run(counts.astype(np.float32) * 4 + 100, untrained, denoise.Electrons(PERFECT.bad, 4.0, 100.0, 0.0))
    assert np.allclose(scaled, 4 * plain, rtol=1e-3, atol=1e-3)


def test_a_dark_pattern_stays_dark(untrained):
    counts, _ = disks((1, 3))
    counts[0, 1] = 0
    out, result = run(counts, untrained)
    assert not out[0, 1].any()
    assert np.isnan(result.noise_ratio[0, 1])


def test_a_bad_pixel_does_not_matter(untrained):
    counts, _ = disks((1, 3))
    bad = np.zeros(SIZE, bool)
    bad[30, 30] = True
    known = denoise.Electrons(bad, 1.0, 0.0, 0.0)
    spoilt = counts.copy()
    spoilt[..., 30, 30] = 60000
    assert np.array_equal(run(counts, untrained, known)[0], run(spoilt, untrained, known)[0])


# ---- bad input -----------------------------------------------------------------------------------------------


def test_counts_that_are_not_finite_are_named_by_place(untrained):
    counts = disks((2, 3))[0].astype(np.float32)
    counts[1, 2, 5, 5] = np.nan
    with pytest.raises(InputError, match=r"\(1, 2\)"):
        run(counts, untrained)


def test_a_detector_smaller_than_the_networks_know_is_refused():
    with pytest.raises(InputError, match="40 by 70"):
        denoise.electrons_of(Cube(np.zeros((1, 1, 40, 70), np.uint16)), np.zeros((40, 70), bool), 1.0, 0.0, 0.0)


def test_without_a_gain_only_whole_numbers_are_taken_for_electrons():
    bad = np.zeros(SIZE, bool)
    whole = denoise.electrons_of(Cube(np.zeros((1, 1, *SIZE), np.uint16)), bad, np.nan, np.nan, np.nan)
    assert (whole.gain, whole.offset, whole.noise) == (1.0, 0.0, 0.0)
    with pytest.raises(InputError, match="counts_per_electron"):
        denoise.electrons_of(Cube(np.zeros((1, 1, *SIZE), np.float32)), bad, np.nan, 0.0, 0.0)


# ---- networks and weights ------------------------------------------------------------------------------------


def test_weights_are_read_as_they_were_written(untrained):
    network, told = weights.load(untrained / "denoise.safetensors", "denoise")
    assert told["version"] == weights.VERSION
    torch.manual_seed(0)
    assert torch.equal(network.enter.weight, Denoise().enter.weight)


@pytest.mark.parametrize("damage", ["missing", "short", "text", "other network", "other version", "not a number"])
def test_weights_that_cannot_be_used_are_refused_with_their_path(untrained, tmp_path, damage, monkeypatch):
    path = tmp_path / "denoise.safetensors"
    state = Denoise().state_dict()
    if damage == "short":
        path.write_bytes((untrained / "denoise.safetensors").read_bytes()[:-100])
    elif damage == "text":
        path.write_bytes(b"hello, hello, hello")
    elif damage == "other network":
        path.write_bytes((untrained / "centre.safetensors").read_bytes())
    elif damage == "other version":
        with monkeypatch.context() as patch:
            patch.setattr(weights, "VERSION", "0")
            weights.save(path, "denoise", state)
    elif damage == "not a number":
        state["leave.bias"][0] = float("nan")
        weights.save(path, "denoise", state)
    with pytest.raises(InputError, match="denoise.safetensors"):
        weights.load(path, "denoise")


def test_the_three_networks_are_small():
    assert sum(parameters_of(n) for n in (Denoise(), Centre(), Ellipse())) <= 3_000_000


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (128, 128), (256, 130)])
def test_networks_take_any_detector(size):
    electrons = torch.rand(2, 1, *size)
    given, _, _ = features(electrons, torch.ones_like(electrons))
    assert Denoise()(given).shape == (2, 2, *size)
    centre, spread, _ = Centre()(given)
    assert centre.shape == (2, 2)
    assert (spread > 0).all()
    e, spread = Ellipse()(unrolled(electrons, torch.ones_like(electrons)))
    assert e.shape == (2, 2)
    assert (spread > 0).all()


def test_the_ellipse_turns_with_a_pattern_of_friedel_pairs():
    torch.manual_seed(0)
    network = Ellipse().eval()
    image = torch.rand(1, 1, 64, 64) * 50
    image = image + image.flip(2, 3)
    one = torch.ones_like(image)
    e = network(unrolled(image, one))[0]
    turned = network(unrolled(image.rot90(1, (2, 3)), one))[0]
    assert torch.allclose(turned, -e, atol=1e-5)


# ---- a pattern source ----------------------------------------------------------------------------------------


def test_denoised_patterns_are_corrected_once_and_by_what_preprocess_found(tmp_path):
    counts = np.random.default_rng(1).poisson(3.0, (2, 3, *SIZE)).astype(np.uint16)
    shape = Acquisition(scan_shape=(2, 3), beam_energy_kev=200)
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["counts"] = counts
    bad = np.zeros(SIZE, np.uint8)
    bad[10, 10] = 2
    with io.create(tmp_path / "scan.h5", {}, shape) as file:
        file.link("counts", tmp_path / "raw.h5", "/counts", unit="counts", long_name="counts", frame="recorded")
        file.write_one("mask", np.ones(SIZE, np.uint8))
        file.write_acquisition({})
    with io.create(tmp_path / "preprocess.h5", {}, shape) as file:
        values = {"bad_pixel": bad, "valid": np.ones(SIZE, np.uint8), "centre_px": np.full((2, 3, 2), [35.5, 32.5])}
        for name, value in (values | {"ellipse_ratio": 1.0, "ellipse_angle_deg": 0.0, "offset_counts": 1.0}).items():
            file.write_one(name, value)
    with io.create(tmp_path / "denoised.h5", {}, shape) as file:
        file.stream("patterns", counts.shape, "float32", long_name="x", frame="recorded")[...] = counts

    class Inputs:
        scan, preprocess, denoise = (tmp_path / f for f in ("scan.h5", "preprocess.h5", "denoised.h5"))

    with io.open_patterns("denoised", Inputs) as cube:
        pattern = cube.pattern(1, 2)
    # centre (35.5, 32.5) goes to (34.5, 32.5): one row up; no offset is taken off, a bad pixel was filled already
    assert np.allclose(pattern[:-1], counts[1, 2, 1:])


# ---- the weights that come with the library ------------------------------------------------------------------

TRAINED = Path(weights.__file__).with_name("trained")


@pytest.mark.parametrize("dose", [1e3, 1e4])
def test_on_structures_that_it_never_saw_the_network_halves_the_error_of_any_gaussian(dose):
    """Error outside the direct disk, mean of 48 patterns; the best of seven Gaussians on these very patterns."""
    made = [patterns.draw_pattern(77, "test", i) for i in range(48)]
    image = torch.from_numpy(np.stack([p.image for p in made]))
    centre = torch.tensor(np.stack([p.centre for p in made]), dtype=torch.float32)
    radius, doses = torch.tensor([p.radius for p in made], dtype=torch.float32), torch.full((48,), dose)
    r = recording.record(image, centre, radius, doses, torch.Generator().manual_seed(5), False)
    counts = r.electrons[:, 0].numpy()[None]
    out = np.zeros(counts.shape, np.float32)
    known = denoise.Electrons(np.zeros((128, 128), bool), 1.0, 0.0, 0.0)
    denoise.compute(Cube(counts), DEFAULT, out, known, TRAINED / "denoise.safetensors")

    def error(found):
        return float(objectives.normalised_error(found, r.expected, objectives.outside(r)).mean())

    rivals = [error(examining.gaussian(r.electrons, sigma)) for sigma in examining.SIGMAS]
    assert error(torch.from_numpy(out[0])[:, None]) < 0.5 * min(rivals)


def test_the_model_card_names_data_seed_code_hardware_time_and_failures():
    card = json.loads((TRAINED / "model_card.json").read_text(encoding="utf-8"))
    assert card["version"] == weights.VERSION
    assert not set(card["structures"]["train"]) & set(card["structures"]["test"])
    assert {"settings", "code", "device", "versions", "time", "data", "test table", "known failures"} <= set(card)
    assert weights.load(TRAINED / "denoise.safetensors", "denoise")[1]["code"] == card["code"]


def test_the_weights_are_small_files():
    sizes = [p.stat().st_size for p in TRAINED.iterdir()]
    assert sum(sizes) < 16e6
    assert max(sizes) < 5e6
