"""Raw files: what is read is what was written, lazily, and what is wrong is said in four parts."""

import logging
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from fourdstem.errors import InputError
from fourdstem.formats import SUFFIXES, list_candidates, open_raw, read_mask
from fourdstem.formats.raw import JoinedFrames
from fourdstem.formats.units import angle_mrad, axes_metadata, length_angstrom, reciprocal_inv_angstrom

SHAPE = (3, 5, 8, 6)
COUNTS = np.random.default_rng(0).integers(0, 60000, SHAPE).astype(np.uint16)


@pytest.fixture(scope="module")
def vendor_files():
    folder = os.environ.get("FOURDSTEM_TEST_DATA")
    if not folder:
        pytest.skip("FOURDSTEM_TEST_DATA is not set")
    return Path(folder) / "rsciio_formats"


@pytest.fixture(scope="module")
def merlin(vendor_files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("merlin")
    for archive in (vendor_files / "quantumdetector").glob("*.zip"):
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
    return folder


def signal(data, axes, tem=None):
    """A signal as RosettaSciIO's writers want it; axes are (name, scale, unit, navigate)."""
    named = [
        {"name": n, "scale": s, "offset": 0.0, "units": u, "navigate": nav, "size": size, "index_in_array": i}
        for i, ((n, s, u, nav), size) in enumerate(zip(axes, data.shape, strict=True))
    ]
    metadata = {"General": {"title": "scan"}, "Signal": {"signal_type": "electron_diffraction"}}
    return {
        "data": data,
        "axes": named,
        "metadata": metadata | ({"Acquisition_instrument": {"TEM": tem}} if tem else {}),
        "original_metadata": {},
        "attributes": {"_lazy": False, "ragged": False},
        "package_info": {},
        "learning_results": {},
        "models": None,
        "tmp_parameters": {},
        "post_process": [],
    }


def axes_of(step, step_unit, pixel, pixel_unit):
    return [
        ("y", step, step_unit, True),
        ("x", step, step_unit, True),
        ("ky", pixel, pixel_unit, False),
        ("kx", pixel, pixel_unit, False),
    ]


def refuses(path, *words, **options):
    """The error has its four parts and names the file and the given words."""
    with pytest.raises(InputError) as caught:
        open_raw(path, **options)
    error = caught.value
    assert error.found and error.expected and error.do and Path(path).name in error.where
    for word in words:
        assert word in str(error), str(error)
    return error


# ---- units ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "inv_angstrom"),
    [("1/nm", 0.1), ("nm^-1", 0.1), ("[n_m^-1]", 0.1), ("1/Å", 1.0), ("A^-1", 1.0), ("$A^{-1}$", 1.0), ("Å⁻¹", 1.0)],
)
def test_reciprocal_units_are_read_however_they_are_written(unit, inv_angstrom):
    assert reciprocal_inv_angstrom(unit) == pytest.approx(inv_angstrom)
    assert length_angstrom(unit) is None
    assert angle_mrad(unit) is None


@pytest.mark.parametrize(("unit", "angstrom"), [("nm", 10), ("Å", 1), ("A", 1), ("µm", 1e4), ("pm", 0.01), (b"nm", 10)])
def test_lengths_become_angstrom(unit, angstrom):
    assert length_angstrom(unit) == pytest.approx(angstrom)
    assert reciprocal_inv_angstrom(unit) is None


def test_angles_become_milliradians():
    assert angle_mrad("mrad") == 1
    assert angle_mrad("rad") == 1000
    assert angle_mrad("°") == pytest.approx(17.4533, rel=1e-5)


@pytest.mark.parametrize("unit", ["px", "", None, "pixels", "1", "<undefined>", "s"])
def test_uncalibrated_axes_say_nothing(unit):
    assert axes_metadata([(1.0, unit)] * 4) == ({}, [])


def test_pixels_that_are_not_square_are_not_taken_but_noted():
    metadata, notes = axes_metadata([(1.0, "nm"), (1.0, "nm"), (0.02, "1/Å"), (0.03, "1/Å")])
    assert metadata == {"scan_step_angstrom": (10.0, 10.0)}
    assert "not square" in notes[0]


# ---- formats that we can write ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<u2", ">u2", ">i4", "<f4", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_reads_back_in_either_byte_order_and_axis_order(tmp_path, dtype, order):
    data = np.asarray(COUNTS % 200, dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", data)
    with open_raw(tmp_path / "a.npy") as raw:
        assert raw.shape == SHAPE
        assert raw.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(raw.data[1, 2:4], data[1, 2:4])
        np.testing.assert_array_equal(raw.data[2], data[2])
        assert raw.metadata == {"scan_shape": (3, 5)}
        assert bool(raw.notes) == (order == "F")


def test_hspy_reads_back_with_its_calibration(tmp_path):
    from rsciio.hspy import file_writer

    tem = {"beam_energy": 200.0, "convergence_angle": 1.2, "rocking_angle": 0.5}
    file_writer(str(tmp_path / "a.hspy"), signal(COUNTS, axes_of(2.0, "nm", 0.2, "1/nm"), tem))
    with open_raw(tmp_path / "a.hspy") as raw:
        np.testing.assert_array_equal(raw.data[2, 1:4], COUNTS[2, 1:4])
        assert raw.dtype == np.uint16
        assert raw.metadata == {
            "scan_shape": (3, 5),
            "scan_step_angstrom": (20.0, 20.0),
            "detector_pixel_inv_angstrom": pytest.approx(0.02),
            "beam_energy_kev": 200.0,
            "convergence_mrad": 1.2,
            "precession_mrad": pytest.approx(8.7266, rel=1e-4),
        }
        assert raw.hdf5_location == (str(tmp_path / "a.hspy"), "/Experiments/scan/data")


def test_hspy_with_the_detector_first_is_refused(tmp_path):
    from rsciio.hspy import file_writer

    file_writer(str(tmp_path / "a.hspy"), signal(COUNTS, axes_of(1, "px", 1, "px")[::-1]))
    refuses(tmp_path / "a.hspy", "navigate", "transpose")


def test_blo_reads_back_with_its_calibration(tmp_path):
    from rsciio.blockfile import file_writer

    data = (COUNTS[:, :, :6, :6] % 256).astype(np.uint8)
    file_writer(str(tmp_path / "a.blo"), signal(data, axes_of(2.5, "nm", 0.02, "cm")), navigator=None)
    with open_raw(tmp_path / "a.blo") as raw:
        assert raw.shape == data.shape
        np.testing.assert_array_equal(raw.data[1, 1:5], data[1, 1:5])
        assert raw.metadata == {"scan_step_angstrom": (25.0, 25.0), "scan_shape": (3, 5)}


def test_tvips_reads_back_as_a_stack_whose_integer_pixel_is_not_taken(tmp_path):
    from rsciio.tvips import file_writer

    file_writer(str(tmp_path / "a_000.tvips"), signal(COUNTS, axes_of(1.0, "nm", 1.0, "1/nm"), {"beam_energy": 200}))
    with open_raw(tmp_path / "a_000.tvips") as raw:
        assert raw.shape == (15, 8, 6)
        np.testing.assert_array_equal(raw.data[6:9], COUNTS.reshape(15, 8, 6)[6:9])
        assert "detector_pixel_inv_angstrom" not in raw.metadata
        assert "scan_shape" not in raw.metadata


def test_mrc_reads_back_as_a_stack(tmp_path):
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, 6, 8, 15, 6)
    struct.pack_into("<3i", header, 28, 6, 8, 15)
    header[208:214] = b"MAP DD"
    (tmp_path / "a.mrc").write_bytes(bytes(header) + COUNTS.tobytes())
    with open_raw(tmp_path / "a.mrc") as raw:
        assert raw.shape == (15, 8, 6)
        np.testing.assert_array_equal(raw.data[4:7], COUNTS.reshape(15, 8, 6)[4:7])
        assert raw.metadata == {}


def test_a_merlin_file_reads_as_rosettasciio_reads_it(tmp_path, caplog):
    from rsciio.quantumdetector import file_reader

    write_merlin(tmp_path / "a.mib", COUNTS.reshape(15, 8, 6))
    caplog.set_level(logging.ERROR)
    other = file_reader(str(tmp_path / "a.mib"), navigation_shape=(5, 3))[0]["data"]
    with open_raw(tmp_path / "a.mib") as raw:
        assert raw.shape == (15, 8, 6)
        assert raw.dtype == np.dtype(">u2")
        np.testing.assert_array_equal(raw.data[5:8], other[1, :3])
        np.testing.assert_array_equal(raw.data[5:8], COUNTS[1, :3, ::-1])
        assert raw.metadata == {}
        assert raw.notes == ("no .hdr beside it",)


def write_merlin(path, frames, hdr=None):
    """Write frames as Merlin does, ``hdr`` as the lines of the header file."""
    ny, nx = frames.shape[1:]
    head = f"MQ1,000001,00384,01,{nx:04d},{ny:04d},U16,   1x1,01,2024-07-02 13:49:15.390226,0.001,0,"
    head = (head + "0," * 30 + "MQ1A,2024-07-02T11:49:15.390226675Z,1000000ns,12,").encode().ljust(384, b"\0")
    path.write_bytes(b"".join(head + frame.astype(">u2").tobytes() for frame in frames))
    if hdr:
        path.with_suffix(".hdr").write_text("HDR,\t\n" + "\n".join(f"{k}:\t{v}" for k, v in hdr.items()) + "\nEnd\t")


@pytest.mark.parametrize(
    ("hdr", "shape"),
    [
        ({"ScanX": 5, "ScanY": 3}, (3, 5)),
        ({"Frames in Acquisition (Number)": 15, "Frames per Trigger (Number)": 5}, (3, 5)),
        ({"Frames in Acquisition (Number)": 15, "Frames per Trigger (Number)": 1}, None),
        ({"Frames in Acquisition (Number)": 15, "Frames per Trigger (Number)": 15}, None),
        ({"Frames in Acquisition (Number)": 15, "Frames per Trigger (Number)": 4}, None),
    ],
)
def test_a_merlin_scan_shape_comes_from_its_header_or_not_at_all(tmp_path, hdr, shape):
    write_merlin(tmp_path / "a.mib", COUNTS.reshape(15, 8, 6), hdr | {"Counter Depth (number)": 12})
    with open_raw(tmp_path / "a.mib") as raw:
        assert raw.metadata.get("scan_shape") == shape
        assert raw.saturation_counts == 4095


def test_an_interrupted_merlin_scan_keeps_its_complete_frames_and_says_so(tmp_path):
    write_merlin(tmp_path / "a.mib", COUNTS.reshape(15, 8, 6), {"Frames in Acquisition (Number)": 15})
    content = (tmp_path / "a.mib").read_bytes()
    (tmp_path / "a.mib").write_bytes(content[:-50])
    with open_raw(tmp_path / "a.mib") as raw:
        assert raw.shape == (14, 8, 6)
        assert any("incomplete" in note for note in raw.notes)
        assert any("15 frames" in note and "14" in note for note in raw.notes)


def test_an_empad_scan_reads_its_raw_file(vendor_files, tmp_path):
    frames = np.random.default_rng(1).normal(size=(16, 130, 128)).astype("<f4")
    (tmp_path / "map4x4.xml").write_bytes((vendor_files / "empad" / "map4x4.xml").read_bytes())
    frames.tofile(tmp_path / "scan_x4_y4.raw")
    with open_raw(tmp_path / "map4x4.xml") as raw:
        np.testing.assert_array_equal(raw.data[2, 1:3], frames.reshape(4, 4, 130, 128)[2, 1:3, :128])
        assert raw.metadata["scan_step_angstrom"] == pytest.approx((11415.857, 11415.857), rel=1e-6)
        assert raw.metadata["detector_pixel_inv_angstrom"] == pytest.approx(0.01826537, rel=1e-6)


# ---- HDF5 -------------------------------------------------------------------------------------------------


def test_our_own_simulated_file_is_read_whatever_else_it_holds(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("counts", data=COUNTS, chunks=(1, 5, 8, 6), **hdf5plugin.Bitshuffle(cname="lz4"))
        file["truth/grain_fraction"] = np.zeros((3, 5, 4))
        file["truth/expected"] = np.zeros(SHAPE)
        acquisition = {"beam_energy_kev": 200.0, "scan_step_angstrom": [20.0, 10.0], "scan_rotation_deg": -90.0}
        for key, value in (acquisition | {"detector_flip_y": True}).items():
            file[f"acquisition/{key}"] = value
    with open_raw(tmp_path / "a.h5") as raw:
        np.testing.assert_array_equal(raw.data[1, 1:3], COUNTS[1, 1:3])
        assert raw.hdf5_location == (str(tmp_path / "a.h5"), "/counts")
        assert raw.chunks == (1, 5, 8, 6)
        assert raw.metadata == {
            "beam_energy_kev": 200.0,
            "scan_step_angstrom": (20.0, 10.0),
            "scan_rotation_deg": -90.0,
            "detector_flip_y": True,
            "scan_shape": (3, 5),
        }


def test_loose_attributes_give_values_but_no_conventions(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/data"] = COUNTS
        file["entry"].attrs["beam_energy_kev"] = 300.0
        file["entry/data"].attrs.update({"scan_rotation_deg": -126.0, "camera": "K3"})
    with open_raw(tmp_path / "a.h5") as raw:
        assert raw.metadata == {"beam_energy_kev": 300.0, "scan_shape": (3, 5)}
        assert "scan_rotation_deg = -126.0" in raw.notes[0]
        assert "camera = K3" in raw.notes[0]


def test_nexus_axes_calibrate_a_scan(tmp_path):
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        group = file.create_group("entry/data")
        group["data"] = COUNTS
        group.attrs["axes"] = ["y", "x", "ky", "kx"]
        for name, n, step, unit in (
            ("y", 3, 2, "nm"),
            ("x", 5, 2, "nm"),
            ("ky", 8, 0.3, "mrad"),
            ("kx", 6, 0.3, "mrad"),
        ):
            group[name] = np.arange(n) * step
            group[name].attrs["units"] = unit
    with open_raw(tmp_path / "a.nxs") as raw:
        assert raw.metadata["scan_step_angstrom"] == (20.0, 20.0)
        assert raw.metadata["detector_pixel_mrad"] == pytest.approx(0.3)


def test_several_candidates_are_listed_and_one_can_be_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = COUNTS
        file["deep/b"] = COUNTS[:2]
        file["again"] = h5py.SoftLink("/a")
    refuses(tmp_path / "a.h5", "/a (3, 5, 8, 6) uint16", "/deep/b (2, 5, 8, 6)", "dataset: /a")
    assert {name for name, _, _ in list_candidates(tmp_path / "a.h5")} == {"/a", "/deep/b"}
    with open_raw(tmp_path / "a.h5", "deep/b") as raw:
        assert raw.shape == (2, 5, 8, 6)
    refuses(tmp_path / "a.h5", "no dataset `deep/c`", "/deep/b", "dataset:", dataset="deep/c")


def test_a_named_dataset_of_the_wrong_kind_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = COUNTS[0, 0]
        file["five"] = COUNTS[None]
        file["complex"] = COUNTS.astype(complex)
    for name in ("image", "five", "complex"):
        refuses(tmp_path / "a.h5", f"`{name}` of shape", dataset=name)
    refuses(tmp_path / "a.h5", "no scan", "/five (1, 3, 5, 8, 6)", "4 axes")


def test_a_link_to_a_file_that_is_not_there_is_named(tmp_path):
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["entry/data/data_000001"] = h5py.ExternalLink("gone.h5", "/entry/data")
    refuses(tmp_path / "master.h5", "gone.h5", "beside")


def test_blocks_of_frames_are_joined_and_read_across_their_borders(tmp_path):
    frames = COUNTS.reshape(15, 8, 6)
    with h5py.File(tmp_path / "master.h5", "w") as master:
        for i, (first, last) in enumerate(((0, 4), (4, 11), (11, 15)), 1):
            with h5py.File(tmp_path / f"d{i}.h5", "w") as file:
                file["frames"] = frames[first:last]
            master[f"entry/data/data_{i:06d}"] = h5py.ExternalLink(f"d{i}.h5", "frames")
        master["entry/instrument/detector/detectorSpecific/photon_energy"] = 300000.0
    with open_raw(tmp_path / "master.h5") as raw:
        assert raw.shape == (15, 8, 6)
        assert raw.hdf5_location is None
        assert raw.metadata == {"beam_energy_kev": 300.0}
        for where in (slice(2, 13), slice(5, 6), slice(1, 15, 3), slice(3, 12, 2), slice(15, 20)):
            np.testing.assert_array_equal(raw.data[where], frames[where])
        np.testing.assert_array_equal(raw.data[11], frames[11])


def test_joined_frames_agree_with_one_array_for_every_slice():
    frames = np.arange(11)[:, None, None] * np.ones((1, 2, 2))
    joined = JoinedFrames((frames[:3], frames[3:4], frames[4:]))
    for a in range(11):
        for b in range(a, 12):
            for step in (1, 2, 3):
                np.testing.assert_array_equal(joined[a:b:step], frames[a:b:step])
    np.testing.assert_array_equal(joined[-1], frames[-1])


def test_blocks_of_different_shapes_are_not_joined(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data_1"], file["data_2"] = COUNTS[0], COUNTS[0, :, 1:]
    refuses(tmp_path / "a.h5", "differ in shape", "dataset:")


# ---- files of the vendors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["test1", "test2"])
def test_a_real_blockfile_reads_as_rosettasciio_reads_it(vendor_files, name):
    from rsciio.blockfile import file_reader

    path = vendor_files / "blockfile" / f"{name}.blo"
    other = file_reader(str(path))[0]["data"]
    with open_raw(path) as raw:
        assert raw.shape == other.shape
        for y in range(raw.shape[0]):
            np.testing.assert_array_equal(raw.data[y, 0 : raw.shape[1]], other[y])
        assert raw.metadata["scan_shape"] == other.shape[:2]
        assert raw.metadata["beam_energy_kev"] == 200.0
        # 62.26 px per cm at a camera length of 200 mm
        assert raw.metadata["detector_pixel_mrad"] == pytest.approx(10 / 62.26 / 200 * 1e3)


def test_real_merlin_files_read_as_rosettasciio_reads_them(merlin):
    from rsciio.quantumdetector import file_reader

    names = [p for p in sorted(merlin.rglob("*.mib")) if "RAW" not in p.name]
    assert len(names) == 20
    for path in names:
        with open_raw(path) as raw:
            other = np.asarray(file_reader(str(path), navigation_shape=(raw.shape[0],))[0]["data"])
            np.testing.assert_array_equal(raw.data[0 : raw.shape[0]], other.reshape(raw.shape))


def test_a_real_merlin_region_of_interest_states_its_scan(merlin):
    path = next(merlin.rglob("002_merlin_test_roi*.mib"))
    with open_raw(path) as raw:
        assert raw.shape == (8, 128, 256)
        assert raw.metadata == {"scan_shape": (2, 4)}
        assert raw.saturation_counts == 4095


def test_raw_mode_merlin_files_are_refused(merlin):
    for path in merlin.rglob("*RAW.mib"):
        refuses(path, "R64", "raw mode off")


def test_a_real_arina_master_finds_its_data_file(vendor_files):
    with open_raw(vendor_files / "arina" / "test_00_master.h5") as raw:
        assert raw.shape == (16, 192, 192)
        assert raw.metadata == {"beam_energy_kev": 300.0}
        assert raw.saturation_counts == 8352
        assert raw.hdf5_location[0].endswith("test_00_data_000001.h5")


def test_a_real_py4dstem_file_keeps_its_calibration(vendor_files):
    with open_raw(vendor_files / "emd" / "py4DSTEM_size2x3x4x5.h5") as raw:
        assert raw.shape == (2, 3, 4, 5)
        assert raw.metadata["detector_pixel_inv_angstrom"] == pytest.approx(0.0442515666)
        assert raw.metadata["scan_step_angstrom"] == pytest.approx((1.26796875, 1.26796875))


def test_a_depth_series_of_cubes_asks_for_one_of_them(vendor_files):
    path = vendor_files / "emd" / "Si100_4D.emd"
    error = refuses(path, "depth0000", "depth0001", "dataset:")
    name = error.do.split("`")[-2].removeprefix("dataset: ")
    with open_raw(path, name) as raw:
        assert raw.shape == (11, 11, 8, 8)
        assert raw.metadata["scan_step_angstrom"] == pytest.approx((5.0, 5.0))
        assert raw.metadata["detector_pixel_inv_angstrom"] == pytest.approx(0.0184162, rel=1e-5)


def test_a_single_pattern_is_no_scan(vendor_files):
    refuses(vendor_files / "digitalmicrograph" / "2D" / "test_diffraction_pattern.dm3", "(87, 87)", "3 or 4 axes")


def test_a_later_part_of_a_tvips_series_is_refused_and_the_first_reads_all(vendor_files):
    refuses(vendor_files / "tvips" / "test_tvips_2345_split_001.tvips", "part 000")
    with open_raw(vendor_files / "tvips" / "test_tvips_2345_split_000.tvips") as raw:
        assert raw.shape == (6, 4, 5)
        whole = open_raw(vendor_files / "tvips" / "test_tvips_2345_000.tvips").data
        np.testing.assert_array_equal(raw.data[1:5], whole[1:5])


def test_an_empad_header_without_its_raw_file_is_refused(vendor_files):
    refuses(vendor_files / "empad" / "map4x4.xml", "scan_x4_y4.raw")


# ---- what is wrong with a file ----------------------------------------------------------------------------


def test_a_missing_file_a_folder_and_an_empty_file_are_told_apart(tmp_path):
    (tmp_path / "empty.mib").touch()
    refuses(tmp_path / "gone.mib", "no such file", "file:")
    refuses(tmp_path, "a folder")
    refuses(tmp_path / "empty.mib", "an empty file")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.npz", (".npy", "npz")),
        ("a.hdr", (".mib",)),
        ("a.xyz", (".xyz", ".hspy")),
        ("a", ("no suffix",)),
        ("a.h5", ("HDF5",)),
        ("a.npy", ("cannot be mapped",)),
        ("a.mib", ("no Merlin header",)),
        ("a.dm4", ("DigitalMicrograph",)),
        ("a.tvips", ("TVIPS",)),
        ("a.xml", ("EMPAD",)),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"this is not a scan" * 100)
    refuses(tmp_path / name, *words)


def test_dataset_is_refused_where_there_are_none(tmp_path):
    np.save(tmp_path / "a.npy", COUNTS)
    refuses(tmp_path / "a.npy", "dataset: x", "not HDF5", dataset="x")


@pytest.mark.parametrize("data", [COUNTS[0, 0], COUNTS[None], COUNTS.astype(complex), np.array(["a", "b"])])
def test_arrays_of_other_axes_or_types_are_refused(tmp_path, data):
    np.save(tmp_path / "a.npy", data)
    refuses(tmp_path / "a.npy", str(data.shape), "4 axes")


def test_truncated_files_are_refused_when_they_are_opened(vendor_files, tmp_path):
    np.save(tmp_path / "a.npy", COUNTS)
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, 6, 8, 15, 6)
    header[208:214] = b"MAP DD"
    (tmp_path / "a.mrc").write_bytes(bytes(header) + COUNTS.tobytes())
    (tmp_path / "a.blo").write_bytes((vendor_files / "blockfile" / "test1.blo").read_bytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["counts"] = np.zeros((4, 4, 64, 64))
    for name in ("a.npy", "a.mrc", "a.blo", "a.h5"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: int(len(content) * 0.8)])
        refuses(tmp_path / name, "truncated" if name != "a.npy" else "complete .npy")


# ---- laziness ---------------------------------------------------------------------------------------------

_READ_ROWS = """
import resource, sys
from fourdstem.formats import open_raw
path = sys.argv[1]
with open_raw(path) as raw:
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    before = peak()
    for row in range(4):
        for x in range(0, 64, 32):
            raw.data[row, x:x + 32] if len(raw.shape) == 4 else raw.data[row * 64 + x : row * 64 + x + 32]
    print(peak() - before)
"""


@pytest.mark.parametrize("kind", ["npy", "mib", "h5"])
def test_reading_rows_of_a_large_file_takes_little_memory(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "npy":
        with path.open("wb") as file:
            shape = (64, 64, 256, 256)
            np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": shape})
            file.truncate(file.tell() + 2 * 64 * 64 * 256 * 256)
    elif kind == "mib":
        write_merlin(path, np.zeros((1, 256, 256), np.uint16))
        os.truncate(path, path.stat().st_size * 4096)
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("counts", (64, 64, 256, 256), "u2")[-1, -1] = 1
    assert path.stat().st_size > 512 * 2**20
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "scripts"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _READ_ROWS, str(path)], capture_output=True, text=True, check=True, env=environment
    )
    assert float(done.stdout) < 40, "MB beyond what the program needs; one unit of 32 patterns is 4 MB"


# ---- mask -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.png", "m.tif", "m.npy"])
def test_a_mask_reads_back(tmp_path, name):
    import imageio.v3 as imageio

    mask = (np.random.default_rng(2).random((8, 6)) > 0.3).astype(np.uint8)
    np.save(tmp_path / name, mask * 255) if name.endswith("npy") else imageio.imwrite(tmp_path / name, mask * 255)
    np.testing.assert_array_equal(read_mask(tmp_path / name, (8, 6)), mask)


def test_the_alpha_channel_of_a_mask_does_not_count(tmp_path):
    import imageio.v3 as imageio

    mask = np.zeros((8, 6, 4), np.uint8)
    mask[..., 3] = 255
    mask[2:, :, 1] = 9
    imageio.imwrite(tmp_path / "m.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", (8, 6))[:, 0], [0, 0, 1, 1, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("content", "word"), [(np.ones((6, 8)), "shape (6, 8)"), (np.zeros((8, 6)), "0 everywhere"), (None, "no such file")]
)
def test_a_mask_that_cannot_be_used_is_refused(tmp_path, content, word):
    if content is not None:
        np.save(tmp_path / "m.npy", content)
    with pytest.raises(InputError) as caught:
        read_mask(tmp_path / "m.npy", (8, 6))
    assert word in caught.value.found
    assert caught.value.where.endswith("m.npy") and "8 by 6" in caught.value.expected and caught.value.do


def test_an_unreadable_mask_is_refused(tmp_path):
    (tmp_path / "m.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="no readable image"):
        read_mask(tmp_path / "m.png", (8, 6))


def test_every_suffix_that_is_offered_is_lower_case_and_once():
    assert len(set(SUFFIXES)) == len(SUFFIXES)
    assert all(s == s.lower() and s.startswith(".") for s in SUFFIXES)
