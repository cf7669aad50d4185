"""Result files: what is written is read, and the bytes do not depend on how it was computed."""

import dataclasses

import h5py
import numpy as np
import pytest

from fourdstem import io
from fourdstem.calibration import Acquisition
from fourdstem.cube import UNIT, Unit
from fourdstem.errors import InputError
from fourdstem.schema import quantity

PROCESS = {"stage": "test", "settings": {"seed": 1}, "code": "abc", "inputs": [], "versions": {}}
ACQUISITION = Acquisition(scan_shape=(3, 5), scan_step_angstrom=(20.0, 10.0), beam_energy_kev=200.0)


@dataclasses.dataclass(frozen=True)
class Result:
    """A result of every kind."""

    height: np.ndarray = quantity("scan_y scan_x", "px", "height")
    flag: np.ndarray = quantity("detector_y detector_x", "", "flag")
    ratio: float = quantity("", "", "ratio")
    reason: str = quantity("", "", "reason")
    names: tuple = quantity("phase", "", "names")
    lambda_: float = quantity("", "", "lambda")
    absent: np.ndarray | None = quantity("scan_y scan_x", "px", "absent", default=None)


@pytest.fixture
def result():
    height = np.arange(15, dtype=np.float32).reshape(3, 5)
    height[1, 1] = np.nan
    return Result(height, np.eye(4, dtype=bool), 1.03, "because α > β", ("gold", "Ni₃Al"), 0.7)


def test_a_result_is_read_as_it_was_written(tmp_path, result):
    with io.create(tmp_path / "r.h5", PROCESS, ACQUISITION) as file:
        file.write(result)
    again = io.read_result(tmp_path / "r.h5", Result)
    np.testing.assert_array_equal(again.height, result.height)
    np.testing.assert_array_equal(again.flag, result.flag)
    assert (again.ratio, again.reason, again.names, again.lambda_, again.absent) == (
        1.03, "because α > β", ("gold", "Ni₃Al"), 0.7, None,
    )  # fmt: skip
    assert io.read_settings(tmp_path / "r.h5") == {"seed": 1}


def test_a_nexus_viewer_finds_signal_axes_and_units(tmp_path, result):
    with io.create(tmp_path / "r.h5", PROCESS, ACQUISITION) as file:
        file.write(result)
    with h5py.File(tmp_path / "r.h5") as file:
        group = file["entry/height"]
        assert group.attrs["NX_class"] == "NXdata"
        assert list(group.attrs["axes"]) == ["scan_y", "scan_x"]
        assert group[group.attrs["signal"]].attrs["units"] == "px"
        np.testing.assert_allclose(group["scan_y"], [0, 20, 40])
        assert "lambda" in file["entry"]


def test_an_error_leaves_no_file(tmp_path, result):
    with pytest.raises(RuntimeError), io.create(tmp_path / "r.h5", PROCESS) as file:
        file.write(result)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def write_patterns(path, step):
    counts = np.random.default_rng(0).poisson(1.0, (2, 70, 16, 12)).astype(np.float32)
    with io.create(path, PROCESS) as file:
        out = file.stream("patterns", counts.shape, "float32", unit="counts", long_name="p", frame="corrected")
        for y in range(2):
            for x in range(0, 70, step):
                out[y, x : x + step] = counts[y, x : x + step]
    return counts


def test_the_bytes_do_not_depend_on_how_many_units_are_written_at_once(tmp_path):
    counts = write_patterns(tmp_path / "a.h5", UNIT)
    write_patterns(tmp_path / "b.h5", 2 * UNIT)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["entry/patterns/data"], counts)
        assert file["entry/patterns"].attrs["frame"] == "corrected"


@pytest.fixture
def linked(tmp_path):
    """A scan that links to a raw HDF5 file, with what preprocess says of it."""
    counts = np.random.default_rng(1).poisson(3.0, (2, 3, 9, 8)).astype(np.uint16)
    with h5py.File(tmp_path / "räw.h5", "w") as file:
        file["counts"] = counts
    (tmp_path / "results").mkdir()
    with io.create(tmp_path / "results/scan.h5", PROCESS, ACQUISITION) as file:
        file.link("counts", tmp_path / "räw.h5", "/counts", unit="counts", long_name="counts", frame="recorded")
        file.write_one("mask", np.ones((9, 8), np.uint8), ("detector_y", "detector_x"))
        file.write_acquisition({"beam_energy_kev": "config", "scan_shape": "file"})
    with io.create(tmp_path / "results/preprocess.h5", PROCESS, ACQUISITION) as file:
        centre = np.full((2, 3, 2), [5.0, 3.5])
        centre[0, 0] += [-1, 2]
        for name, value in {
            "bad_pixel": np.zeros((9, 8), np.uint8), "valid": np.ones((9, 8), np.uint8), "centre_px": centre,
            "ellipse_ratio": 1.0, "ellipse_angle_deg": 0.0,
        }.items():  # fmt: skip
            file.write_one(name, value)
    return tmp_path, counts


def test_a_linked_scan_is_read_with_its_acquisition(linked):
    folder, counts = linked
    with io.open_scan(folder / "results/scan.h5") as cube:
        assert cube.acquisition.beam_energy_kev == 200
        assert cube.acquisition.scan_step_angstrom == (20.0, 10.0)
        np.testing.assert_array_equal(cube.read(Unit(1, 0, 3)), counts[1])
    assert io.read_acquisition_origins(folder / "results/scan.h5")["scan_shape"] == ([3, 5], "file")


def test_corrected_patterns_have_the_beam_at_the_centre(linked):
    folder, counts = linked
    with io.open_corrected(folder / "results/scan.h5", folder / "results/preprocess.h5") as cube:
        pattern = cube.pattern(1, 2)
        shifted = cube.pattern(0, 0)
    # centre (5, 3.5) goes to (4, 3.5): one row up, no interpolation; (4, 5.5) goes there two columns to the left
    np.testing.assert_allclose(pattern[:-1], counts[1, 2, 1:], rtol=1e-6)
    assert (pattern[-1] == 0).all()
    np.testing.assert_allclose(shifted[:, :-2], counts[0, 0, :, 2:], rtol=1e-6)


def test_a_raw_file_that_has_gone_is_named(linked):
    folder, _ = linked
    (folder / "räw.h5").unlink()
    with pytest.raises(InputError, match="räw.h5"), io.open_scan(folder / "results/scan.h5"):
        pass
