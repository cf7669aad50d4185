"""The whole workflow on a small simulated scan, run as a user runs it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from mini_workflow import CONFIG, MAPS, NAME, RESULTS, TEXTS, hashes, snakemake


def planned(folder, *arguments):
    """The rules that a dry run would execute, from its table of jobs."""
    output = snakemake(folder, "-n", *arguments)
    if "Nothing to be done" in output:
        return set()
    table = output.split("Job stats:")[1].split("total")[0].splitlines()
    return {line.split()[0] for line in table if line and not line.startswith(("job ", "---"))}


@pytest.fixture(scope="module")
def folder(mini):
    """A copy of the project in a folder with a space and an umlaut, run once to its reports."""
    return mini


def test_every_file_of_the_contract_is_made(folder):
    sample = folder / "results" / "mini"
    for name in (*RESULTS, *MAPS, *TEXTS, "report.html", "report.ipynb"):
        assert (sample / name).stat().st_size > 0
    assert list((sample / "figures").glob("*.png"))
    for name in ("summary.html", "summary.csv", "provenance.json"):
        assert (folder / "results" / name).stat().st_size > 0


def test_every_module_of_every_job_came_from_the_environment_that_ran_it(folder):
    paths = list(folder.glob("results/**/provenance/*.json"))
    assert len(paths) == 12
    assert {path.name: json.loads(path.read_text())["leaked_modules"] for path in paths} == {p.name: [] for p in paths}


def test_snakemake_makes_its_own_report_of_the_results(folder):
    snakemake(folder, "--report", "report.zip")
    with zipfile.ZipFile(folder / "report.zip") as archive:
        names = archive.namelist()
    assert any(name.endswith("report.html") for name in names)
    assert sum(name.endswith(".png") for name in names) >= 5
    (folder / "report.zip").unlink()


def test_the_audit_finds_nothing_and_then_finds_a_flipped_byte(folder):
    command = [sys.executable, "-I", "-c", "import sys; sys.path.insert(0, 'scripts'); from fourdstem.__main__ import main; sys.exit(main(['audit', 'results']))"]  # fmt: skip  # noqa: E501
    sound = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert sound.returncode == 0, sound.stdout + sound.stderr
    path = folder / "results/mini/preprocess.h5"
    original, stat = path.read_bytes(), path.stat()
    path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    path.write_bytes(original)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert found.returncode == 1
    assert f"changed {path}" in found.stdout


def test_patterns_are_exported_on_request_beside_the_results(folder):
    snakemake(folder, "--cores", "2", "exports/mini/averaged.blo", "exports/mini/corrected.hspy")
    for name in ("averaged_blo", "corrected_hspy"):
        record = json.loads((folder / f"exports/mini/provenance/{name}.json").read_text(encoding="utf-8"))
        (output,) = record["outputs"]
        assert output["sha256"] == hashlib.sha256((folder / output["path"]).read_bytes()).hexdigest()
    assert planned(folder) == set()


def test_a_second_run_does_nothing_whatever_was_touched(folder):
    for path in [*folder.glob("scripts/**/*.py"), folder / NAME, *folder.glob("workflow/**/*.smk"),
                 folder / "config/cif/gold.cif", folder / "notebooks/report.ipynb"]:  # fmt: skip
        path.touch()
    assert planned(folder) == set()
    assert planned(folder, "--cores", "1", "--set-resources", "nonlocal_average:mem_mb=600") == set()


def test_comments_and_docstrings_rerun_nothing(folder):
    path = folder / "scripts/fourdstem/methods/virtual_image.py"
    original = path.read_text(encoding="utf-8")
    path.write_text(original.replace('"""', '"""Edited. ', 1) + "\n# a comment\n", encoding="utf-8")
    assert planned(folder) == set()
    path.write_text(original, encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "rules"),
    [
        ("scripts/fourdstem/methods/virtual_image.py", {"virtual_image", "report"}),
        ("scripts/nonlocal_average.py", {"nonlocal_average", "orientation", "grains", "evaluation", "report"}),
        ("scripts/fourdstem/methods/grains/clean.py", {"grains", "report"}),
        ("scripts/summary.py", set()),
    ],
)
def test_an_edit_of_the_library_reruns_exactly_the_stages_that_use_it(folder, file, rules):
    path = folder / file
    original = path.read_text(encoding="utf-8")
    path.write_text(original + "\nUNUSED = 1\n", encoding="utf-8")
    assert planned(folder) == rules | {"summary", "provenance", "default"}
    path.write_text(original, encoding="utf-8")


def test_an_edit_of_one_setting_reruns_exactly_what_reads_it(folder):
    path = folder / NAME
    original = path.read_text(encoding="utf-8")
    path.write_text(original + "nonlocal_average: {window_half_width_px: 2}\n", encoding="utf-8")
    expected = {"nonlocal_average", "orientation", "grains", "evaluation", "report", "summary", "provenance", "default"}
    assert planned(folder) == expected
    path.write_text(original, encoding="utf-8")


def test_both_entry_points_plan_the_same_jobs(folder):
    one = planned(folder, "--forceall")
    two = planned(folder, "--forceall", "--snakefile", "workflow/Snakefile")
    assert one - {"default"} == two - {"all"}
    assert {"simulate", "scan", "orientation", "report"} <= two


def test_a_rerun_with_other_threads_and_memory_gives_the_same_bytes(folder):
    before = hashes(folder)
    shutil.rmtree(folder / "results" / "mini")
    names = ("preprocess", "nonlocal_average", "orientation", "virtual_image", "evaluation")
    snakemake(folder, "--cores", "1", "--set-resources", *(f"{name}:mem_mb=300" for name in names))
    assert hashes(folder) == before


def test_a_wrong_setting_stops_before_any_job(folder):
    (folder / "wrong.yaml").write_text(CONFIG.replace("sampling_deg", "samplingdeg"), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "-n", "--configfile", "wrong.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode != 0
    assert "did you mean sampling_deg" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
