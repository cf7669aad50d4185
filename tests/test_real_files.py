"""Files written by vendors' software, from file to report: needs FOURDSTEM_TEST_DATA."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fourdstem import io

ROOT = Path(__file__).resolve().parents[1]
DATA = os.environ.get("FOURDSTEM_TEST_DATA")
pytestmark = pytest.mark.skipif(not DATA, reason="FOURDSTEM_TEST_DATA names no folder of third-party data")

CONFIG = """\
samples:
  - name: astar
    file: {data}/rsciio_formats/blockfile/test1.blo
    acquisition: {{convergence_mrad: 1.0}}
  - name: merlin
    file: 001_4x2_6bit.mib
    acquisition: {{scan_shape: [2, 4]}}
  - name: cryo
    file: {data}/cryo_counts/virus_crop24x24_det256_raw.h5
    acquisition: {{beam_energy_kev: 300, convergence_mrad: 1.03, scan_step_angstrom: [31.25, 31.25]}}
"""


def snakemake(folder, *arguments):
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """An ASTAR block file, a Merlin file and a cryo scan, run to their reports."""
    folder = tmp_path_factory.mktemp("real files")
    with zipfile.ZipFile(Path(DATA) / "rsciio_formats/quantumdetector/Merlin_navigation4x2_ROI.zip") as archive:
        archive.extractall(folder)
    (folder / "real.yaml").write_text(CONFIG.format(data=DATA), encoding="utf-8")
    status, output = snakemake(folder, "--configfile", "real.yaml")
    assert status == 0, output[-4000:]
    return folder / "results"


@pytest.mark.parametrize(
    ("sample", "shape"), [("astar", (3, 2, 144, 144)), ("merlin", (2, 4, 256, 256)), ("cryo", (24, 24, 256, 256))]
)
def test_a_vendor_file_goes_all_the_way_to_its_report(results, sample, shape):
    with io.open_scan(results / sample / "scan.h5") as cube:
        assert cube.shape == shape
    image = io.read(results / sample / "virtual_image.h5", "bright_field")
    assert image.shape == shape[:2]
    assert np.isfinite(image).all()
    page = (results / sample / "report.html").read_text(encoding="utf-8")
    assert sample in page
    assert (results / sample / "figures" / "virtual_image_images.png").exists()


def test_the_cryo_beam_is_where_its_publishers_measured_it(results):
    centre = io.read(results / "cryo" / "preprocess.h5", "centre_px").mean(axis=(0, 1))
    np.testing.assert_allclose(centre, [127.69, 125.99], atol=0.5)
    assert io.read(results / "cryo" / "preprocess.h5", "beam_radius_px") == pytest.approx(60.7, abs=1)


def test_an_ellipse_is_declined_where_there_are_no_rings(results):
    verdict = json.loads(io.read(results / "cryo" / "preprocess.h5", "verdict"))
    assert verdict["ellipse"]["pass"] is False
    assert verdict["ellipse"]["reason"]
    assert io.read(results / "cryo" / "preprocess.h5", "ellipse_ratio") == 1


def test_what_the_file_says_is_told_from_what_the_user_says(results):
    origins = io.read_acquisition_origins(results / "astar" / "scan.h5")
    assert origins["beam_energy_kev"] == (200.0, "file")
    assert origins["convergence_mrad"] == (1.0, "config")


def test_a_touched_raw_file_reruns_nothing(results):
    (results.parent / "001_4x2_6bit.mib").touch()
    status, output = snakemake(results.parent, "-n", "--configfile", "real.yaml")
    assert status == 0
    assert "Nothing to be done" in output


WRONG = {
    "scan shape that does not fit": ("acquisition: {scan_shape: [3, 4]}", "scan_shape [3, 4]"),
    "scan shape missing": ("acquisition: {scan_shape: null}", "without a scan shape"),
    "calibration missing": (
        "acquisition: {scan_shape: [2, 4]}, phases: [gold], stages: [orientation]",
        "beam_energy_kev is missing",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_or_value_fails_in_its_first_job_with_one_clear_line(results, case):
    settings, message = WRONG[case]
    folder = results.parent
    (folder / "wrong.yaml").write_text(
        f"phases: [{{name: gold, cif: '{ROOT}/config/cif/gold.cif'}}]\n"
        f"samples: [{{name: wrong, file: 001_4x2_6bit.mib, {settings}}}]\n",
        encoding="utf-8",
    )
    status, _ = snakemake(folder, "results/wrong/scan.h5", "--configfile", "wrong.yaml")
    log = (results / "wrong" / "logs" / "scan.log").read_text(encoding="utf-8")
    assert status == 1
    assert message in log[log.rindex("ERROR") :]
    assert not (results / "wrong" / "scan.h5").exists()


def test_an_unreadable_cif_fails_before_any_long_job(results):
    folder = results.parent
    (folder / "bad.cif").write_text("this is no CIF", encoding="utf-8")
    (folder / "wrong.yaml").write_text(
        "phases: [{name: gold, cif: bad.cif}]\n"
        "samples: [{name: bad_cif, file: 001_4x2_6bit.mib, acquisition: {scan_shape: [2, 4]}, phases: [gold]}]\n",
        encoding="utf-8",
    )
    status, _ = snakemake(folder, "results/bad_cif/scan.h5", "--configfile", "wrong.yaml")
    last = (results / "bad_cif" / "logs" / "scan.log").read_text(encoding="utf-8").splitlines()[-1]
    assert status == 1
    assert "bad.cif" in last
