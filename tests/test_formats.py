"""Raw files of NumPy, HyperSpy, ASTAR, TVIPS, MRC and EMPAD, and units: what is read is what was written."""

import struct

import numpy as np
import pytest
from raw_files import COUNTS, SHAPE, refuses, vendor_folder

from fourdstem.formats import SUFFIXES, open_raw
from fourdstem.formats.units import angle_mrad, axes_metadata, length_angstrom, reciprocal_inv_angstrom

vendor_files = pytest.fixture(scope="module")(vendor_folder)


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


def test_an_empad_scan_reads_its_raw_file(vendor_files, tmp_path):
    frames = np.random.default_rng(1).normal(size=(16, 130, 128)).astype("<f4")
    (tmp_path / "map4x4.xml").write_bytes((vendor_files / "empad" / "map4x4.xml").read_bytes())
    frames.tofile(tmp_path / "scan_x4_y4.raw")
    with open_raw(tmp_path / "map4x4.xml") as raw:
        np.testing.assert_array_equal(raw.data[2, 1:3], frames.reshape(4, 4, 130, 128)[2, 1:3, :128])
        assert raw.metadata["scan_step_angstrom"] == pytest.approx((11415.857, 11415.857), rel=1e-6)
        assert raw.metadata["detector_pixel_inv_angstrom"] == pytest.approx(0.01826537, rel=1e-6)


# ---- what a header does not settle is not guessed ---------------------------------------------------------


def write_empad(folder, scan, frames, text="<pix_x>{1}</pix_x><pix_y>{0}</pix_y>"):
    name = f"scan_x{scan[1]}_y{scan[0]}.raw"
    (folder / "a.xml").write_text(f'<root><raw_file filename="{name}"/>{text.format(*scan)}</root>')
    stored = np.random.default_rng(1).normal(size=(frames, 130, 128)).astype("<f4")
    stored.tofile(folder / name)
    return stored[:, :128]


@pytest.mark.parametrize("text", ["<pix_x>{1}</pix_x><pix_y>{0}</pix_y>", "<software_version>1.2.2</software_version>"])
@pytest.mark.parametrize("scan", [(2, 4), (4, 2), (1, 5), (5, 1), (1, 1)])
def test_an_empad_scan_has_the_shape_of_its_header_whatever_it_is(tmp_path, scan, text):
    frames = write_empad(tmp_path, scan, scan[0] * scan[1], text)
    with open_raw(tmp_path / "a.xml") as raw:
        assert raw.shape == (*scan, 128, 128)
        np.testing.assert_array_equal(raw.data[scan[0] - 1], frames.reshape(*scan, 128, 128)[-1])


@pytest.mark.parametrize("frames", [7, 9, 10])
def test_an_empad_scan_whose_frames_do_not_fit_its_header_is_refused(tmp_path, frames):
    write_empad(tmp_path, (2, 4), frames)
    refuses(tmp_path / "a.xml", f"{frames} frames", "8 frames of 130 by 128 px", "(2, 4)", ".xml")


def test_an_empad_series_is_a_stack(tmp_path):
    text = "<scan_parameters><series_count>6</series_count></scan_parameters>"
    frames = write_empad(tmp_path, (1, 6), 6, text)
    with open_raw(tmp_path / "a.xml") as raw:
        assert raw.shape == (6, 128, 128) and "scan_shape" not in raw.metadata
        np.testing.assert_array_equal(raw.data[2:5], frames[2:5])


def test_a_blockfile_that_does_not_begin_as_one_is_refused(vendor_files, tmp_path):
    content = bytearray((vendor_files / "blockfile" / "test2.blo").read_bytes())
    content[6:8] = b"\x99\x99"
    (tmp_path / "a.blo").write_bytes(content)
    refuses(tmp_path / "a.blo", "0x9999", "0x0102")


def mrc(path, frames, announced, extended=0, name="a.mrc"):
    header = bytearray(1024 + extended)
    struct.pack_into("<4i", header, 0, frames.shape[2], frames.shape[1], announced, 6)
    struct.pack_into("<i", header, 92, extended)
    header[208:214] = b"MAP DD"
    (path / name).write_bytes(bytes(header) + frames.tobytes())


def test_the_header_of_an_mrc_is_held_against_its_length(tmp_path):
    frames = COUNTS.reshape(15, 8, 6)
    mrc(tmp_path, frames, 15, extended=131072)
    with open_raw(tmp_path / "a.mrc") as raw:
        np.testing.assert_array_equal(raw.data[13:15], frames[13:])
        assert not any("bytes behind" in note for note in raw.notes)
    mrc(tmp_path, frames, 16)
    refuses(tmp_path / "a.mrc", "15 complete frames", "16 frames")
    mrc(tmp_path, frames, 12)
    with open_raw(tmp_path / "a.mrc") as raw:
        assert raw.shape == (12, 8, 6)
        assert any(f"{3 * 96} bytes behind the last frame" in note for note in raw.notes)


@pytest.mark.parametrize(
    ("lines", "shape"),
    [
        ({"Scan - Size X": 5, "Scan - Size Y": 3}, (3, 5, 8, 6)),
        ({"Scan - Size X": 5, "Scan - Size Y": 2}, (15, 8, 6)),
        ({"Scan - ROI Enable": "Enable", "Scan - ROI Size X": 3, "Scan - ROI Size Y": 5}, (5, 3, 8, 6)),
    ],
)
def test_a_raster_of_direct_electron_is_taken_only_where_it_fits_the_frames(tmp_path, lines, shape):
    mrc(tmp_path, COUNTS.reshape(15, 8, 6), 15, name="20251103_23389_movie.mrc")
    said = {"Instrument Project TEMorSTEM Mode": 1, "Scan - Enable": "Enable", "Scan - Type": "Raster"}
    said |= {"Image Size X (pixels)": 6, "Image Size Y (pixels)": 8, "Scan - Time (seconds)": 1}
    said |= {"Scan - Repeat Delay (seconds)": 0} | lines
    (tmp_path / "20251103_23389_info.txt").write_text("\n".join(f"{k} = {v}" for k, v in said.items()))
    with open_raw(tmp_path / "20251103_23389_movie.mrc") as raw:
        assert raw.shape == shape
        np.testing.assert_array_equal(raw.data[:], COUNTS.reshape(shape))
        assert any("not taken" in note for note in raw.notes if "_info" in note) == (len(shape) == 3)


def test_a_tvips_stream_of_several_parts_is_joined_and_a_cut_one_is_refused(tmp_path):
    frames = COUNTS.reshape(15, 8, 6)
    head = struct.pack("<13I", 256, 2, 6, 8, 16, 0, 0, 1, 1, 1, 300, 80, 64).ljust(256, b" ")
    parts = [b"".join(bytes(64) + f.tobytes() for f in some) for some in (frames[:4], frames[4:9], frames[9:])]
    for i, part in enumerate(parts):
        (tmp_path / f"a_00{i}.tvips").write_bytes(head * (i == 0) + part)
    with open_raw(tmp_path / "a_000.tvips") as raw:
        assert raw.metadata == {"beam_energy_kev": 300.0}
        for where in (slice(2, 13), slice(3, 6), slice(0, 15, 4), 9):
            np.testing.assert_array_equal(raw.data[where], frames[where])
    (tmp_path / "a_001.tvips").write_bytes(parts[1][:-30])
    refuses(tmp_path / "a_000.tvips", "a_001.tvips", "truncated")


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


def test_every_suffix_that_is_offered_is_lower_case_and_once():
    assert len(set(SUFFIXES)) == len(SUFFIXES)
    assert all(s == s.lower() and s.startswith(".") for s in SUFFIXES)
