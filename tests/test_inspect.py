"""`inspect` says what a file holds, and its block can be pasted."""

import os
import signal
from pathlib import Path

import h5py
import jsonschema
import numpy as np
import pytest
import yaml

from fourdstem import config
from fourdstem.__main__ import main
from fourdstem.calibration import Acquisition
from fourdstem.faults import damage
from fourdstem.inspection import inspect, sample_name
from fourdstem.schema import json_schema
from fourdstem.watch import apart

GAIN, CENTRE, RADIUS = 3.0, (30.0, 34.0), 8.0
FILLED = {
    "beam_energy_kev": 200,
    "convergence_mrad": 1.0,
    "scan_shape": [12, 20],
    "scan_step_angstrom": [20, 20],
    "detector_pixel_inv_angstrom": 0.02,
}


@pytest.fixture(scope="module")
def counts():
    """A disk that darkens to the right of the scan, on a weak background, with a gain of 3."""
    y, x = np.mgrid[:64, :64]
    disk = np.hypot(y - CENTRE[0], x - CENTRE[1]) < RADIUS
    level = np.where(np.arange(20) < 12, 40.0, 30.0)
    expected = disk * level[:, None, None] + 3.0 + 4.0 * np.exp(-np.hypot(y - 30, x - 34) / 15)
    electrons = np.random.default_rng(0).poisson(np.broadcast_to(expected, (12, 20, 64, 64)))
    return (electrons * GAIN).astype(np.uint16)


@pytest.fixture(scope="module")
def stack(counts, tmp_path_factory):
    path = tmp_path_factory.mktemp("inspect") / "my film, 2.npy"
    np.save(path, counts.reshape(-1, 64, 64))
    return path


def test_facts_of_a_stack(stack, counts):
    found = inspect(stack)
    assert "NumPy, shape (240, 64, 64), uint16" in found.text
    assert "240 frames could be [15, 16], [16, 15], [12, 20]" in found.text
    assert f"to {counts.max()}" in found.text
    assert "0 pixels reach 65535 counts" in found.text
    assert found.gain == pytest.approx(GAIN, rel=0.15)
    np.testing.assert_allclose(found.mean_pattern, counts.mean(axis=(0, 1)), rtol=0.2, atol=2)
    assert found.max_pattern.max() == counts.max()


def test_the_brightest_region_is_the_disk(stack):
    line = next(line for line in inspect(stack).text.splitlines() if line.startswith("brightest"))
    y, x, radius = (float(word.strip(",")) for word in line.split() if word.strip(",").replace(".", "").isdigit())
    assert (y, x) == pytest.approx(CENTRE, abs=0.5)
    assert radius == pytest.approx(RADIUS, abs=0.7)


def test_virtual_images_are_drawn_for_candidates_when_the_shape_is_not_known(stack, counts):
    found = inspect(stack)
    image = found.bright_field["if the scan is 12 x 20"]
    assert image.shape == (12, 20)
    assert np.corrcoef(image.ravel(), (np.arange(240) % 20 < 12))[0, 1] > 0.9
    total = image + found.dark_field["if the scan is 12 x 20"]
    np.testing.assert_allclose(total, counts.sum(axis=(2, 3), dtype=float))
    assert all(min(i.shape) > 1 for i in found.bright_field.values())


def test_a_known_shape_gives_one_image(counts, tmp_path):
    np.save(tmp_path / "a.npy", counts)
    found = inspect(tmp_path / "a.npy")
    assert list(found.bright_field) == ["scan 12 x 20"]
    assert "scan shape: [12, 20], as the file states" in found.text


def test_a_saturated_detector_is_told(counts, tmp_path):
    data = np.minimum(counts, 255).astype(np.uint8)
    data[:, :, 3, 4] = 255
    np.save(tmp_path / "a.npy", data)
    assert "saturation: 1 pixels reach 255" in inspect(tmp_path / "a.npy").text


def test_the_block_marks_what_is_missing_and_passes_the_schema_once_filled(stack):
    found = inspect(stack)
    for key in FILLED:
        assert f"{key}: null  # needed" in found.stanza
    block = yaml.safe_load(found.stanza)["samples"]
    assert [s["name"] for s in block] == ["my_film_2"]
    assert block[0]["file"] == str(stack)
    block[0]["acquisition"] |= FILLED
    jsonschema.validate(block[0]["acquisition"], json_schema(Acquisition))
    if config.SCHEMA.is_file():
        config.check({"samples": block})


def test_the_block_keeps_what_the_file_says(counts, tmp_path):
    with h5py.File(tmp_path / "scan-1.h5", "w") as file:
        file["a/b"], file["c"] = counts[:2], counts[:3]
        file["acquisition/beam_energy_kev"] = 200.0
        file["acquisition/detector_pixel_mrad"] = 0.5
        file["acquisition/detector_flip_y"] = True
        file["acquisition/scan_step_angstrom"] = [20.0, 10.0]
    found = inspect(tmp_path / "scan-1.h5", "a/b")
    sample = yaml.safe_load(found.stanza)["samples"][0]
    assert sample["dataset"] == "a/b"
    assert sample["acquisition"] == {
        "beam_energy_kev": 200.0,
        "convergence_mrad": None,
        "scan_shape": [2, 20],
        "scan_step_angstrom": [20.0, 10.0],
        "detector_pixel_mrad": 0.5,
        "detector_flip_y": True,
    }
    jsonschema.validate(sample["acquisition"], json_schema(Acquisition))
    assert "in the file: beam_energy_kev = 200.0 keV" in found.text


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 1, 8, 8), (5, 1, 8, 8), (1, 7, 8, 8)])
def test_tiny_scans_are_inspected(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).poisson(2.0, shape).astype(np.int32))
    assert "a.npy" in inspect(tmp_path / "a.npy").text


def test_dark_negative_and_not_a_number_counts_are_inspected(tmp_path):
    data = np.random.default_rng(0).normal(0, 1, (4, 5, 16, 16)).astype(np.float32)
    data[0, 0, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", data)
    found = inspect(tmp_path / "a.npy")
    assert "saturation: not known" in found.text
    assert np.isfinite(found.mean_pattern).all()
    np.save(tmp_path / "b.npy", np.zeros((4, 5, 16, 16), np.uint8))
    assert "no line of variance" in inspect(tmp_path / "b.npy").text


@pytest.mark.parametrize(
    ("path", "name"), [("raw/film 1.mib", "film_1"), ("ä.blo", "sample"), ("a.b-c_d.h5", "a_b-c_d"), ("_x_.npy", "x")]
)
def test_sample_names_hold_only_what_the_contract_allows(path, name):
    assert sample_name(path) == name


def test_pictures_are_written(stack, tmp_path):
    from fourdstem.figures.inspection import save_inspection

    paths = save_inspection(inspect(stack), tmp_path / "new", "film")
    assert [p.name for p in paths] == ["film_patterns.png", "film_virtual_images.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths)


# ---- the command ------------------------------------------------------------------------------------------


def test_a_file_whose_damage_crashes_its_reader_ends_in_one_message(tmp_path, capfd):
    sound, _ = damage.prepared("hdf5, as simulated", tmp_path)
    command = ["inspect", str(sound.path), "--out", str(tmp_path)]
    assert main(command) == 0
    assert "scan shape: [3, 5]" in capfd.readouterr().out
    content = bytearray(sound.path.read_bytes())
    content[sound.payload[0][0] + 5] ^= 16  # of the length that the first chunk claims to have
    sound.path.write_bytes(content)
    assert main(command) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert f"dies of (Segmentation fault) (in {sound.path})" in line and "Copy it again" in line


def test_a_file_that_is_refused_is_told_once(tmp_path, capfd):
    assert main(["inspect", str(tmp_path / "no.npy")]) == 1
    output = capfd.readouterr()
    assert output.out == "" and output.err.count("no such file") == 1


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda: 3, (3, "")),
        (lambda: 1 / 0, (1, "")),
        (
            lambda: signal.default_int_handler(signal.SIGINT, None),
            (130, ""),
        ),  # a shell may have its jobs ignore the signal
        (lambda: os.kill(os.getpid(), signal.SIGKILL), (1, "Killed")),
    ],
)
def test_what_becomes_of_a_copy_of_the_process_is_known(action, expected, capfd):
    assert apart(action) == expected
    assert ("ZeroDivisionError" in capfd.readouterr().err) == (expected == (1, ""))


def test_real_files_are_inspected():
    folder = os.environ.get("FOURDSTEM_TEST_DATA")
    if not folder:
        pytest.skip("FOURDSTEM_TEST_DATA is not set")
    found = inspect(Path(folder) / "cryo_counts" / "virus_crop24x24_det256_raw.h5")
    assert found.gain == pytest.approx(1.0, abs=0.15), "a counting detector"
    assert "semiangle_mrad = 1.03" in found.text
    assert "detector_pixel_mrad: 0.803" in inspect(Path(folder) / "rsciio_formats" / "blockfile" / "test1.blo").stanza
