"""Patterns written for other programs: read back by our readers and by RosettaSciIO, streamed, the same every time."""

import hashlib
from dataclasses import replace

import h5py
import numpy as np
import pytest
from peak_memory import peak_growth_mb
from rsciio.blockfile import file_reader as read_blockfile
from rsciio.emd import file_reader as read_emd
from rsciio.hspy import file_reader as read_hspy

from fourdstem.calibration import Acquisition
from fourdstem.cube import Cube
from fourdstem.errors import InputError
from fourdstem.formats import open_raw
from fourdstem.formats.export import write_patterns

KNOWN = Acquisition(
    beam_energy_kev=200,
    convergence_mrad=1.5,
    precession_mrad=9,
    scan_step_angstrom=(20, 30),
    detector_pixel_inv_angstrom=0.0203,
)
SHAPE = (3, 70, 16, 16)  # rows of two whole units and a part


def counts(shape=SHAPE):
    data = np.random.default_rng(0).poisson(3, shape).astype(np.float32)
    data[..., 7:9, 7:9] += 400.5
    return data


def written(folder, kind, data, known=KNOWN, **options):
    path = folder / f"scan.{kind}"
    write_patterns(path, kind, Cube(data, known, **options), "film")
    assert [p.name for p in folder.iterdir()] == [path.name]
    return path


@pytest.mark.parametrize("kind", ["hspy", "emd"])
@pytest.mark.parametrize("shape", [SHAPE, (2, 3, 12, 20), (1, 1, 8, 8)])
def test_counts_and_calibration_are_read_back_by_our_reader(tmp_path, kind, shape):
    data = counts(shape)
    with open_raw(written(tmp_path, kind, data)) as raw:
        assert raw.shape == shape
        assert np.array_equal(raw.data[:], data)
        assert raw.metadata.pop("detector_pixel_inv_angstrom") == pytest.approx(0.0203)
        assert raw.metadata.pop("precession_mrad") == pytest.approx(9)
        expected = {"beam_energy_kev": 200, "convergence_mrad": 1.5, "scan_step_angstrom": (20, 30)}
        assert raw.metadata == expected | {"scan_shape": shape[:2]}


@pytest.mark.parametrize(("kind", "read"), [("hspy", read_hspy), ("emd", read_emd)])
def test_rosettasciio_reads_counts_and_axes_with_the_beam_at_the_origin(tmp_path, kind, read):
    data = counts((2, 5, 9, 12))
    (found,) = read(str(written(tmp_path, kind, data)))
    assert np.array_equal(found["data"], data)
    axes = sorted(found["axes"], key=lambda axis: axis["index_in_array"])
    assert [axis["size"] for axis in axes] == [2, 5, 9, 12]
    assert [axis["scale"] for axis in axes] == pytest.approx([2, 3, 0.0203, 0.0203])
    assert [axis["units"].replace(" ", "") for axis in axes] == ["nm", "nm", "1/Å", "1/Å"]
    for axis, middle in zip(axes, (0, 0, 4, 5.5), strict=True):
        assert axis["offset"] + middle * axis["scale"] == pytest.approx(0, abs=1e-12)
    if kind == "hspy":
        assert [axis["navigate"] for axis in axes] == [True, True, False, False]
        tem = found["metadata"]["Acquisition_instrument"]["TEM"]
        assert tem["beam_energy"] == 200
        assert tem["rocking_angle"] == pytest.approx(np.rad2deg(0.009))


def test_a_blockfile_holds_square_roots_and_says_so(tmp_path):
    data = counts()
    data[0, 0, 3, 3] = -2.0
    path = written(tmp_path, "blo", data)
    expected = np.round(255 * np.sqrt(np.clip(data, 0, None) / data.max()))
    (found,) = read_blockfile(str(path))
    assert np.array_equal(found["data"], expected)
    assert found["data"].max() == 255
    header = found["original_metadata"]["blockfile_header"]
    assert f"255 sqrt(counts / {data.max():.6g})" in header["Note"]
    assert (header["SX"], header["SY"], header["Beam_energy"]) == (3, 2, 200000)
    ids = np.fromfile(
        path, np.dtype([("mark", "<u2"), ("id", "<u4"), ("frame", "u1", 256)]), offset=header["Data_offset_2"]
    )
    assert np.all(ids["mark"] == 0x55AA)
    assert np.array_equal(ids["id"], np.arange(210))
    navigator = np.fromfile(path, "u1", 210, offset=header["Data_offset_1"]).reshape(3, 70)
    sums = data.sum(axis=(2, 3), dtype=float)
    assert np.array_equal(navigator, np.round(255 * sums / sums.max()))
    with open_raw(path) as raw:
        assert np.array_equal(raw.data[:], expected)
        assert raw.metadata["scan_step_angstrom"] == (20, 30)
        pixel = raw.metadata["detector_pixel_mrad"] * 1e-3 / KNOWN.wavelength_angstrom
        assert pixel == pytest.approx(0.0203, rel=2e-5)


@pytest.mark.parametrize("pixel", [1e-4, 0.0031, 0.038, 0.149, 0.9])
def test_a_blockfile_keeps_any_calibration_to_the_last_digit_it_has(tmp_path, pixel):
    known = Acquisition(beam_energy_kev=80, detector_pixel_inv_angstrom=pixel)
    path = written(tmp_path, "blo", counts((1, 2, 8, 8)), known)
    with open_raw(path) as raw:
        found = raw.metadata["detector_pixel_mrad"] * 1e-3 / known.wavelength_angstrom
        assert found == pytest.approx(pixel, rel=2e-5)
        assert "scan_step_angstrom" not in raw.metadata
    header = read_blockfile(str(path))[0]["original_metadata"]["blockfile_header"]
    mrad = 1e3 * pixel * known.wavelength_angstrom
    assert abs(header["SDP"] - 1e7 / mrad / header["Camera_length"]) <= 0.5


@pytest.mark.parametrize(("step", "known"), [((20, 20), {"R_pixel_size": 2.0, "R_pixel_units": b"nm"}), ((20, 30), {})])
def test_an_emd_has_the_layout_that_py4dstem_writes_and_no_step_that_it_cannot_hold(tmp_path, step, known):
    path = written(tmp_path, "emd", counts((2, 3, 8, 12)), replace(KNOWN, scan_step_angstrom=step))
    with h5py.File(path) as file:
        assert {"emd_group_type": "file", "version_major": 1, "version_minor": 0}.items() <= dict(file.attrs).items()
        assert dict(file["datacube_root"].attrs) == {"emd_group_type": "root", "python_class": "Root"}
        assert dict(file["datacube_root/datacube"].attrs) == {"emd_group_type": "array", "python_class": "DataCube"}
        found = file["datacube_root/metadatabundle/calibration"]
        values = {key: found[key][()] for key in found if isinstance(found[key], h5py.Dataset)}
        expected = {"Q_pixel_size": 0.0203, "Q_pixel_units": b"A^-1", "QR_flip": False}
        assert values == expected | known | {"_root_treepath": b""}
        assert {key: found[key].attrs["type"] for key in ("QR_flip", "Q_pixel_size", "Q_pixel_units")} == {
            "QR_flip": "bool", "Q_pixel_size": "number", "Q_pixel_units": "string"
        }  # fmt: skip
        assert found["_target_paths/0"][()] == b"/datacube"


@pytest.mark.parametrize("kind", ["hspy", "emd", "blo"])
def test_what_is_not_known_is_not_made_up(tmp_path, kind):
    with open_raw(written(tmp_path, kind, counts((2, 3, 8, 8)), Acquisition())) as raw:
        assert raw.metadata == {"scan_shape": (2, 3)}


@pytest.mark.parametrize("kind", ["hspy", "emd", "blo"])
def test_bytes_depend_neither_on_threads_nor_on_memory(tmp_path, kind):
    digests = set()
    for options in ({"threads": 1}, {"threads": 2, "memory_mb": 1}):
        path = written(tmp_path, kind, counts(), **options)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_dark_patterns_are_written(tmp_path):
    (found,) = read_blockfile(str(written(tmp_path, "blo", np.zeros((2, 3, 8, 8), np.float32))))
    assert not found["data"].any()


def test_a_detector_that_is_not_square_has_no_blockfile(tmp_path):
    with pytest.raises(InputError, match="8 x 9 px"):
        write_patterns(tmp_path / "a.blo", "blo", Cube(counts((2, 3, 8, 9)), KNOWN), "film")
    assert list(tmp_path.iterdir()) == []


PREPARE = """
import h5py, numpy as np
from fourdstem.calibration import Acquisition
from fourdstem.cube import Cube
from fourdstem.formats.export import write_patterns
folder = sys.argv[1]
for kind in ("hspy", "emd", "blo"):
    write_patterns(folder + "/small", kind, Cube(np.ones((1, 2, 8, 8), np.float32), Acquisition()), "film")
"""
WORK = """
with h5py.File(folder + "/scan.h5") as file:
    for kind in ("hspy", "emd", "blo"):
        cube = Cube(file["counts"], Acquisition(), memory_mb=20, threads=2)
        write_patterns(folder + "/large", kind, cube, "film")
"""


def test_a_scan_larger_than_the_memory_is_streamed(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:  # 128 MB as float32, all zero and absent on disk
        file.create_dataset("counts", (32, 64, 128, 128), np.float32, chunks=(1, 32, 128, 128))
    assert peak_growth_mb(PREPARE, WORK, tmp_path) < 60
