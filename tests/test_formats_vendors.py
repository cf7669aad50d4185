"""Velox, NCEM, TopSpin, DigitalMicrograph, ARINA, Direct Electron: axes, scan shape and calibration as written."""

import struct

import h5py
import numpy as np
import pytest
from raw_files import COUNTS, SHAPE, refuses, write_dm4

from fourdstem.faults.writers import FRAMES, GUID, rosetta_signal, write_topspin, write_velox
from fourdstem.formats import open_raw

# ---- Velox and NCEM ---------------------------------------------------------------------------------------


def test_a_velox_stack_reads_back_frame_by_frame_with_its_calibration(tmp_path):
    write_velox(tmp_path / "a.emd", FRAMES, more=(("survey", FRAMES[:1]),))
    with open_raw(tmp_path / "a.emd") as raw:
        assert raw.shape == (15, 8, 6)
        np.testing.assert_array_equal(raw.data[3:9], FRAMES[3:9])
        assert raw.metadata == {"beam_energy_kev": 200.0, "detector_pixel_inv_angstrom": pytest.approx(0.02)}
        assert raw.hdf5_location is None and raw.chunks is None


def test_two_velox_stacks_ask_for_one(tmp_path):
    write_velox(tmp_path / "a.emd", FRAMES, unit="m", more=(("8b", FRAMES[:4]),))
    refuses(tmp_path / "a.emd", "/Data/Image/7f2a/Data", "/Data/Image/8b/Data", "dataset:")
    with open_raw(tmp_path / "a.emd", "Data/Image/8b/Data") as raw:
        np.testing.assert_array_equal(raw.data[0:4], FRAMES[:4])
        assert raw.metadata == {"beam_energy_kev": 200.0}


def test_the_emd_that_rosettasciio_writes_detector_first_reads_back_scan_first(tmp_path):
    from rsciio.emd import file_writer

    file_writer(str(tmp_path / "a.emd"), rosetta_signal(COUNTS, "1/nm", 2.0, 0.2))
    with h5py.File(tmp_path / "a.emd") as file:
        assert file["signals/scan/data"].shape == SHAPE[::-1]
    with open_raw(tmp_path / "a.emd") as raw:
        assert raw.shape == SHAPE
        np.testing.assert_array_equal(raw.data[1, 2:4], COUNTS[1, 2:4])
        assert raw.metadata["scan_step_angstrom"] == (20.0, 20.0)
        assert raw.metadata["detector_pixel_inv_angstrom"] == pytest.approx(0.02)
        assert any("detector first" in note for note in raw.notes)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("calibrated", [False, True])
def test_an_ncem_emd_is_turned_only_where_its_units_say_so(tmp_path, turned, calibrated):
    axes = [(2.0, "nm"), (2.0, "nm"), (0.2, "n_m^-1"), (0.2, "n_m^-1")]
    with h5py.File(tmp_path / "a.emd", "w") as file:
        group = file.create_group("data/scan")
        group.attrs["emd_group_type"] = 1
        group["data"] = COUNTS.T if turned else COUNTS
        for i, (step, unit) in enumerate(axes[::-1] if turned else axes, 1):
            group[f"dim{i}"] = np.array([0.0, step])
            group[f"dim{i}"].attrs["units"] = unit if calibrated else ""
    with open_raw(tmp_path / "a.emd") as raw:
        expected = COUNTS.T if turned and not calibrated else COUNTS
        assert raw.shape == expected.shape
        np.testing.assert_array_equal(raw.data[1], expected[1])
        assert raw.metadata.get("scan_step_angstrom") == ((20.0, 20.0) if calibrated else None)
        assert any("states no units" in note for note in raw.notes) != calibrated


# ---- TopSpin ----------------------------------------------------------------------------------------------


RASTER = [(1.8e-7 + 2e-9 * y, 1.7e-7 + 4e-9 * x) for y in range(3) for x in range(5)]


def test_a_topspin_scan_reads_back_with_shape_and_steps_of_its_beam_positions(tmp_path):
    write_topspin(tmp_path / "a.app5", RASTER)
    with open_raw(tmp_path / "a.app5") as raw:
        assert raw.shape == SHAPE
        assert raw.dtype == np.float32
        np.testing.assert_array_equal(raw.data[1, 2:5], COUNTS[1, 2:5])
        assert raw.metadata == {"scan_shape": (3, 5), "scan_step_angstrom": pytest.approx((20.0, 40.0))}


@pytest.mark.parametrize("positions", [RASTER[:-1], RASTER[:13] + RASTER[:2], RASTER[:5], [(0.0, 0.0)] * 6])
def test_topspin_positions_that_are_no_raster_give_a_stack(tmp_path, positions):
    write_topspin(tmp_path / "a.app5", positions)
    with open_raw(tmp_path / "a.app5") as raw:
        assert raw.shape == (len(positions), 8, 6)
        assert raw.metadata == {}
        assert any("no raster" in note for note in raw.notes)


def test_a_topspin_session_of_two_scans_asks_for_one(tmp_path):
    second = f"{GUID}/{GUID[:-1]}0"
    write_topspin(tmp_path / "a.app5", RASTER, f"{GUID}/{GUID}")
    write_topspin(tmp_path / "a.app5", RASTER[:10], second)
    refuses(tmp_path / "a.app5", "2 scans", second, "dataset:")
    refuses(tmp_path / "a.app5", "no scan `x`", dataset="x")
    with open_raw(tmp_path / "a.app5", second) as raw:
        assert raw.shape == (2, 5, 8, 6)


def test_a_topspin_scan_with_a_lost_frame_is_refused(tmp_path):
    write_topspin(tmp_path / "a.app5", RASTER)
    with h5py.File(tmp_path / "a.app5", "a") as file:
        del file[f"{GUID}/7"]
    refuses(tmp_path / "a.app5", "number 7 is missing")


# ---- DigitalMicrograph ------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", [("nm", "nm", "1/nm", "1/nm"), ("",) * 4])
@pytest.mark.parametrize("dtype", ["u2", "f4"])
@pytest.mark.parametrize("scan_first", [True, False])
def test_a_dm4_cube_reads_back_in_either_order_of_its_axes(tmp_path, units, dtype, scan_first):
    data = COUNTS.astype(dtype)
    if scan_first:
        write_dm4(tmp_path / "a.dm4", data, units, swapped=1)
    else:
        write_dm4(
            tmp_path / "a.dm4", np.ascontiguousarray(data.transpose(2, 3, 0, 1)), units[2:] + units[:2], swapped=0
        )
    with open_raw(tmp_path / "a.dm4") as raw:
        assert raw.shape == SHAPE
        assert raw.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(raw.data[1, 2:4], data[1, 2:4])
        assert raw.metadata["beam_energy_kev"] == 200.0
        if units[0]:
            assert raw.metadata["scan_step_angstrom"] == (20.0, 20.0)
            assert raw.metadata["detector_pixel_inv_angstrom"] == pytest.approx(0.02)
        assert any("scan axes fastest" in note for note in raw.notes) != scan_first


def test_a_dm4_cube_that_does_not_say_its_order_is_refused(tmp_path):
    write_dm4(tmp_path / "a.dm4", COUNTS, ("",) * 4)
    refuses(tmp_path / "a.dm4", "which of them are the scan", "Calibrate")


def test_a_dm4_stack_reads_back(tmp_path):
    write_dm4(tmp_path / "a.dm4", FRAMES, ("", "1/nm", "1/nm"))
    with open_raw(tmp_path / "a.dm4") as raw:
        np.testing.assert_array_equal(raw.data[4:9], FRAMES[4:9])
        assert raw.metadata == {"beam_energy_kev": 200.0, "detector_pixel_inv_angstrom": pytest.approx(0.02)}


# ---- ARINA, Direct Electron, EMPAD, formats that are not read ---------------------------------------------


@pytest.mark.parametrize(("calibrated", "nx", "scan"), [(1, 5, (3, 5)), (0, 5, (3, 5)), (1, 4, None)])
def test_the_sidecar_of_an_arina_scan_gives_its_shape_where_it_fits(tmp_path, calibrated, nx, scan):
    with h5py.File(tmp_path / "s_data_000001.h5", "w") as file:
        file["entry/data/data"] = FRAMES
    with h5py.File(tmp_path / "s_master.h5", "w") as file:
        file["entry/data/data_000001"] = h5py.ExternalLink("s_data_000001.h5", "entry/data/data")
    with h5py.File(tmp_path / "s.h5", "w") as file:
        said = {"NumPixelsX": nx, "NumPixelsY": 3, "Pixel Size": [0.5], "IsPixelSizeCalibrated": [calibrated]}
        file.create_group("STEM Metadata").attrs.update(said)
    with open_raw(tmp_path / "s_master.h5") as raw:
        assert raw.shape == (15, 8, 6)
        assert raw.metadata.get("scan_shape") == scan
        assert raw.metadata.get("scan_step_angstrom") == ((5.0, 5.0) if calibrated and scan else None)


def test_a_movie_of_direct_electron_takes_its_scan_but_no_calibration_from_the_text_file(tmp_path):
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, 6, 8, 15, 6)
    header[208:214] = b"MAP DD"
    (tmp_path / "20251103_23389_movie.mrc").write_bytes(bytes(header) + COUNTS.tobytes())
    info = {
        "Instrument Project TEMorSTEM Mode": 1, "Scan - Enable": "Enable", "Scan - Type": "Raster",
        "Scan - Size X": 5, "Scan - Size Y": 3, "Image Size X (pixels)": 6, "Image Size Y (pixels)": 8,
        "Scan - Time (seconds)": 1, "Scan - Repeat Delay (seconds)": 0, "Diffraction Pixel Size X": 0.2,
        "Diffraction Pixel Size Y": 0.2,
    }  # fmt: skip
    (tmp_path / "20251103_23389_info.txt").write_text("\n".join(f"{k} = {v}" for k, v in info.items()))
    with open_raw(tmp_path / "20251103_23389_movie.mrc") as raw:
        assert raw.shape == SHAPE
        np.testing.assert_array_equal(raw.data[1, 2:4], COUNTS[1, 2:4])
        assert raw.metadata == {"scan_shape": (3, 5)}


def test_formats_that_are_not_read_say_what_to_do(tmp_path):
    (tmp_path / "scan_x4_y4.raw").write_bytes(b"0" * 64)
    refuses(tmp_path / "scan_x4_y4.raw", ".xml")


def test_an_empad_scan_of_more_columns_than_rows_keeps_its_axes(tmp_path):
    text = '<root><raw_file filename="scan_x5_y3.raw"/><pix_x>5</pix_x><pix_y>3</pix_y></root>'
    (tmp_path / "a.xml").write_text(text)
    frames = np.random.default_rng(3).normal(size=(3, 5, 130, 128)).astype("<f4")
    frames.tofile(tmp_path / "scan_x5_y3.raw")
    with open_raw(tmp_path / "a.xml") as raw:
        assert raw.shape == (3, 5, 128, 128)
        np.testing.assert_array_equal(raw.data[2, 1:4], frames[2, 1:4, :128])
        assert raw.metadata == {"scan_shape": (3, 5)}


@pytest.mark.parametrize("share", [0.2, 0.6, 0.98])
def test_cut_files_of_these_formats_are_refused(tmp_path, share):
    write_dm4(tmp_path / "a.dm4", COUNTS, ("nm", "nm", "1/nm", "1/nm"))
    write_topspin(tmp_path / "a.app5", RASTER)
    write_velox(tmp_path / "a.emd", FRAMES)
    for name in ("a.dm4", "a.app5", "a.emd"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: int(len(content) * share)])
        refuses(tmp_path / name)
