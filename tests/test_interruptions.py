"""Jobs killed half-way, other users' folders, odd paths, two runs at once, and bytes that flip: on the small run."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from mini_workflow import ROOT

from fourdstem import provenance


@pytest.fixture
def copy(mini, tmp_path):
    """The results of the small workflow, in a folder of their own."""
    shutil.copytree(mini / "results", tmp_path / "copy" / "results")
    shutil.copytree(mini / "config", tmp_path / "copy" / "config")
    return tmp_path / "copy"


def start(mini, folder, stage):
    """Start a job's script as Snakemake did."""
    (script,) = mini.glob(f".snakemake/scripts/*.{stage}.py")
    environment = os.environ | {"NUMBA_CACHE_DIR": str(mini / ".snakemake" / "numba")}
    return subprocess.Popen([sys.executable, script], cwd=folder, env=environment, stderr=subprocess.DEVNULL)


def wait_for(condition, process):
    while not (found := condition()):
        assert process.poll() is None, "the job ended before it could be killed"
        time.sleep(0.005)
    return found


def halves(folder):
    """Every unfinished file, with the time of its last change."""
    return {(path, path.stat().st_mtime_ns) for path in folder.rglob("*.part")}


# ---- kills ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["preprocess", "nonlocal_average"])
def test_a_job_killed_while_it_writes_leaves_no_half_file_and_its_rerun_the_same_bytes(mini, copy, stage):
    sample = copy / "results" / "mini"
    result, sidecar = sample / f"{stage}.h5", sample / "provenance" / f"{stage}.json"
    whole = result.read_bytes()
    result.unlink()
    sidecar.unlink()
    for number in (signal.SIGKILL, signal.SIGTERM):
        left = halves(sample)
        with start(mini, copy, stage) as process:
            wait_for(lambda left=left: halves(sample) - left, process)
            time.sleep(0.1)
            process.send_signal(number)
        assert process.returncode == (-9 if number == signal.SIGKILL else 130)
        assert not result.exists()
        assert not sidecar.exists()
    assert list(sample.rglob("*.part")) == [], "what a killed job left is gone with the next"
    assert "ended by SIGTERM" in (sample / "logs" / f"{stage}.log").read_text().splitlines()[-1]
    with start(mini, copy, stage) as process:
        pass
    assert process.returncode == 0
    assert result.read_bytes() == whole
    assert provenance.read_record(sidecar)["outputs"][0]["sha256"] == provenance.sha256(result)


# ---- bytes that flip -----------------------------------------------------------------------------------------


def flip(path, at, bit):
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


def test_two_hundred_of_two_hundred_flipped_bits_are_found_and_named(copy):
    audited = [p for p in sorted((copy / "results").rglob("*")) if p.is_file() and "logs" not in p.parts]
    audited = [p for p in audited if p.stat().st_size] + [copy / "config/cif/gold.cif"]
    kinds = {p.suffix for p in audited}
    assert {".h5", ".ang", ".csv", ".json", ".png", ".pdf", ".html", ".ipynb"} <= kinds
    assert provenance.audit(copy / "results") == []
    chance = random.Random(0)
    # Every file once, the others anywhere.
    for path in (*audited, *chance.choices(audited, k=200 - len(audited))):
        old, at, bit = path.stat(), chance.randrange(path.stat().st_size), chance.randrange(8)
        flip(path, at, bit)
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))  # the time does not give it away
        found = provenance.audit(copy / "results")
        assert any(line.split(" ", 1)[1] == str(path) for line in found), f"bit {bit} of byte {at} of {path}"
        flip(path, at, bit)
    assert provenance.audit(copy / "results") == []


@pytest.mark.parametrize("name", ["results/mini/preprocess.h5", "results/mini/provenance/scan.json"])
def test_the_audit_names_what_is_missing(copy, name):
    (copy / name).unlink()
    assert f"missing {copy / name}" in provenance.audit(copy / "results")


# ---- odd places ----------------------------------------------------------------------------------------------

RAW = "Größe 1 µm.h5"
BLOCK = """\
phases:
  - {name: gold, cif: config/cif/gold.cif}
samples:
  - name: film
    file: "../raw data/Größe 1 µm.h5"
    acquisition: {detector_pixel_inv_angstrom: 0.04}
    phases: [gold]
    stages: [virtual_image]
"""


@pytest.fixture(scope="module")
def places(mini, tmp_path_factory):
    """Code that nobody can write to, a raw file, and two folders to work in."""
    base = tmp_path_factory.mktemp("Örtlich keit")
    (base / "raw data").mkdir()
    shutil.copy(mini / "results/mini/simulated.h5", base / "raw data" / RAW)
    for name in ("erster", "zwei ter"):
        (base / name).mkdir()
        shutil.copytree(mini / "config", base / name / "config")
        shutil.copytree(mini / ".snakemake/numba", base / name / ".snakemake/numba")  # compiled code, to save time
        (base / name / "für mich.yaml").write_text(BLOCK, encoding="utf-8")
    return base


def read_only(mini):
    """Return words before a command that take the right to write to the code from it, even for root."""
    if os.getuid() != 0:
        pytest.skip("a code tree that cannot be written to is tried by mounting it so, which needs root")
    mounted = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && ! touch "$0/x" 2>/dev/null && exec "$@"'
    if subprocess.run(["unshare", "-m", "sh", "-c", mounted, mini, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not allow mounting a code tree so that it cannot be written to")
    return ["unshare", "-m", "sh", "-c", mounted, mini]


def run(mini, folder, *arguments, before=()):
    command = [*before, sys.executable, "-m", "snakemake", "--snakefile", mini / "Snakefile", "--cores", "1"]
    command += ["--profile", mini / "profiles/default", *arguments, "--configfile", "für mich.yaml"]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NUMBA_CACHE_DIR")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, encoding="utf-8", **pipes)


def test_two_folders_read_one_raw_file_by_code_they_cannot_write_to_and_a_second_run_in_one_is_refused(mini, places):
    first, second = places / "erster", places / "zwei ter"
    target = "results/film/scan.h5"
    runs = [
        run(mini, first, "results/film/virtual_image.h5", before=read_only(mini)),
        run(mini, second, target),
    ]
    wait_for(lambda: list(first.glob(".snakemake/locks/*")), runs[0])
    runs[0].send_signal(signal.SIGSTOP)  # so that it is still under way, however slow this machine is
    refused, _ = run(mini, first, target).communicate()
    runs[0].send_signal(signal.SIGCONT)
    output = [process.communicate()[0] for process in runs]
    assert [process.returncode for process in runs] == [0, 0], output
    assert "--unlock" in refused
    assert "LockException" in refused
    assert "Directory cannot be locked" in refused
    assert (first / target).read_bytes() == (second / target).read_bytes()
    record = json.loads((first / "results/film/provenance/scan.json").read_text(encoding="utf-8"))
    assert f"../raw data/{RAW}" in [entry["path"] for entry in record["inputs"]]
    assert (first / "results/film/virtual_image.h5").exists()


def test_the_table_of_kills_has_fifty_of_fifty():
    lines = (ROOT / "studies" / "kills.csv").read_text(encoding="utf-8").splitlines()
    columns, *rows = (line.split(",") for line in lines)
    rows = [dict(zip(columns, row, strict=True)) for row in rows]
    assert len(rows) >= 50
    assert {row["signal"] for row in rows} == {"KILL", "TERM", "INT"}
    assert {row["target"] for row in rows} == {"all", "job", "snakemake"}
    for row in rows:
        assert (row["files_wrong_after_kill"], row["resumed"], row["identical"]) == ("0", "True", "True"), row
