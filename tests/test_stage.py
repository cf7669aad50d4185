"""What surrounds a job: log, settings, sidecar, and what a user sees when it fails."""

import dataclasses
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from named import Named

from fourdstem import files, provenance
from fourdstem.errors import InputError
from fourdstem.schema import setting
from fourdstem.stage import log, stage


@dataclasses.dataclass(frozen=True)
class Params:
    """Settings."""

    width_px: int = setting(4, "Width.", minimum=1)
    limits: tuple[float, float] = setting((0.0, 1.0), "Limits.")


@pytest.fixture
def snakemake(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw.bin").write_bytes(b"raw")
    (tmp_path / "provenance").mkdir()
    (tmp_path / "provenance" / "before.json").write_text("{}")
    yield SimpleNamespace(
        log=Named(log="logs/job.log"),
        threads=2,
        input=Named(raw="raw.bin", sidecars="provenance/before.json"),
        output=Named(result="result.bin", sidecar="provenance/job.json"),
        params=Named(code="abc", settings={"width_px": 2, "limits": [0.0, 2.0]}, phases=["gold"]),
        wildcards={"sample": "film"},
        resources={"mem_mb": 700, "device": "cpu"},
        rule="job",
    )
    for handler in list(log.handlers):
        log.removeHandler(handler)
        logging.getLogger("py.warnings").removeHandler(handler)


def test_a_job_leaves_a_sidecar_that_names_what_it_read_and_wrote(snakemake, tmp_path):
    with stage(snakemake) as job:
        assert job.settings(Params) == Params(2, (0.0, 2.0))
        assert job.memory_mb == 700
        (tmp_path / "result.bin").write_bytes(b"result")
    record = json.loads((tmp_path / "provenance/job.json").read_text())
    assert record["digest"] == provenance.digest(record)
    assert [entry["path"] for entry in record["inputs"]] == ["raw.bin", "provenance/before.json"]
    assert record["outputs"] == provenance.describe(["result.bin"])
    assert record["settings"] == {"width_px": 2, "limits": [0.0, 2.0], "phases": ["gold"]}
    assert {"commit", "dirty", "device", "threads", "seconds", "peak_memory_mb", "versions"} <= set(record)


def test_what_goes_into_a_result_does_not_vary_between_equal_runs(snakemake, tmp_path):
    with stage(snakemake) as job:
        process = job.process
        (tmp_path / "result.bin").write_bytes(b"result")
    assert set(process) == {"stage", "settings", "seed", "code", "inputs", "versions"}
    assert [entry["path"] for entry in process["inputs"]] == ["raw.bin"]


def test_a_failed_job_ends_its_log_with_the_cause(snakemake, tmp_path):
    with pytest.raises(SystemExit) as stopped, stage(snakemake):
        raise InputError("3 frames", where="raw.bin", expected="4 frames", do="Record again.")
    assert stopped.value.code == 1
    lines = (tmp_path / "logs/job.log").read_text().splitlines()
    assert "3 frames (in raw.bin). Expected 4 frames. Record again." in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert not (tmp_path / "provenance/job.json").exists()


def test_an_error_of_ours_leaves_its_traceback_too(snakemake, tmp_path):
    with pytest.raises(SystemExit), stage(snakemake):
        raise KeyError("inside")
    text = (tmp_path / "logs/job.log").read_text()
    assert "Traceback" in text
    assert "KeyError: 'inside'" in text.splitlines()[-1]


def test_a_result_that_was_changed_after_it_was_made_is_refused(snakemake, tmp_path):
    outputs = provenance.describe(["raw.bin"])
    provenance.write_record("provenance/before.json", {"outputs": outputs})
    (tmp_path / "raw.bin").write_bytes(b"rax")
    with pytest.raises(SystemExit), stage(snakemake):
        pass
    assert "changed after it was made (in raw.bin)" in (tmp_path / "logs/job.log").read_text()


def test_a_job_that_forgets_an_output_leaves_no_sidecar(snakemake, tmp_path):
    with pytest.raises(SystemExit), stage(snakemake):
        pass
    assert not (tmp_path / "provenance/job.json").exists()


# ---- jobs that are stopped, and files that change meanwhile --------------------------------------------------


def last_line(folder):
    return (folder / "logs/job.log").read_text().splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_end_leaves_a_cause_and_no_result(snakemake, tmp_path, number):
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped, stage(snakemake), tempfile.TemporaryDirectory(dir=tmp_path):
        (tmp_path / "result.bin").write_bytes(b"half")
        os.kill(os.getpid(), number)
        time.sleep(10)
    assert stopped.value.code == 130
    assert f"ended by {number.name}; nothing of this job was kept. Run again to go on.  [log: " in last_line(tmp_path)
    assert "Traceback" not in (tmp_path / "logs/job.log").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".snakemake", "logs", "provenance", "raw.bin"]
    assert signal.getsignal(number) is before


def test_a_signal_is_the_cause_even_where_tidying_fails_after_it(snakemake, tmp_path):
    with pytest.raises(SystemExit), stage(snakemake):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            raise OSError(39, "Directory not empty")
    assert "ended by SIGTERM" in last_line(tmp_path)


def rewrite(path, content, *, hide=False):
    """Write other bytes of the same length; hidden, with the time of the old ones."""
    old = path.stat()
    path.write_bytes(content)
    if hide:
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))


@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize("read", ["before", "after", "never"])
def test_a_file_that_changes_while_a_job_reads_it_leaves_no_result(snakemake, tmp_path, hide, read):
    with pytest.raises(SystemExit), stage(snakemake) as job:
        if read == "before":
            assert job.process
        rewrite(tmp_path / "raw.bin", b"rax", hide=hide)
        if read == "after":
            assert job.process
        (tmp_path / "result.bin").write_bytes(b"of old and new bytes")
    assert "a file that was changed while this job read it (in raw.bin)" in last_line(tmp_path)
    assert not (tmp_path / "result.bin").exists()
    assert not (tmp_path / "provenance/job.json").exists()


def test_a_file_that_is_only_touched_while_a_job_reads_it_does_no_harm(snakemake, tmp_path):
    with stage(snakemake) as job:
        assert job.process
        (tmp_path / "raw.bin").touch()
        (tmp_path / "result.bin").write_bytes(b"result")
    assert (tmp_path / "provenance/job.json").exists()


@pytest.fixture
def later(snakemake, tmp_path):
    """A job that reads a result of `scan`, which has read raw.bin."""
    (tmp_path / "scan.bin").write_bytes(b"scan")
    record = {"stage": "scan", "inputs": provenance.describe(["raw.bin"])}
    provenance.write_record("provenance/before.json", {**record, "outputs": provenance.describe(["scan.bin"])})
    snakemake.input = Named(scan="scan.bin", sidecars="provenance/before.json")
    return snakemake


@pytest.mark.parametrize("hide", [False, True])
def test_a_raw_file_that_changed_after_it_was_read_stops_the_stages_after(later, tmp_path, hide):
    rewrite(tmp_path / "raw.bin", b"rax", hide=hide)
    with pytest.raises(SystemExit), stage(later):
        pytest.fail("the job began")
    assert "a file that was changed after scan had read it (in raw.bin)." in last_line(tmp_path)
    assert "Delete scan.bin and run again" in last_line(tmp_path)


@pytest.mark.parametrize("change", ["touched", "written again", "copied", "gone"])
def test_a_raw_file_with_the_same_bytes_or_none_stops_nothing(later, tmp_path, change):
    raw = tmp_path / "raw.bin"
    if change == "touched":
        raw.touch()
    elif change == "written again":
        raw.write_bytes(raw.read_bytes())
    else:
        raw.rename(tmp_path / "moved.bin")
        if change == "copied":
            shutil.copy(tmp_path / "moved.bin", raw)
    with stage(later):
        (tmp_path / "result.bin").write_bytes(b"result")
    assert (tmp_path / "provenance/job.json").exists()


def test_a_job_waits_for_a_process_that_still_makes_the_same_result(snakemake, tmp_path, capsys):
    lock = tmp_path / ".snakemake/fourdstem/logs%job.log.lock"
    with stage(snakemake):
        assert lock.read_text().startswith(f"{os.getpid()} on ")
        (tmp_path / "result.bin").write_bytes(b"first")
    code = (
        "import fcntl, pathlib, sys, time; file = open(sys.argv[1], 'a'); fcntl.flock(file, fcntl.LOCK_EX); "
        "print('locked', flush=True); time.sleep(0.4); pathlib.Path('released').touch()"
    )
    with subprocess.Popen([sys.executable, "-c", code, lock], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline()
        with stage(snakemake):
            assert (tmp_path / "released").exists()
            (tmp_path / "result.bin").write_bytes(b"second")
    assert f"waiting for process {os.getpid()} on " in capsys.readouterr().err


# ---- disks and rights ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["result", "log too"])
def test_a_full_disk_ends_the_log_in_one_line(snakemake, tmp_path, place, capsys, monkeypatch):
    left = []
    monkeypatch.setattr("fourdstem.stage._leave_at_once", lambda: left.append(True))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(SystemExit), stage(snakemake), files.complete_or_absent("results/film/result.h5") as path:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096 if place == "result" else 10, limits[1]))
            path.write_bytes(bytes(9000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    shown = capsys.readouterr().err
    wanted = "ERROR no room left to write to (File too large) (in results/film/result.h5). Expected space for"
    assert wanted in shown
    assert "Traceback" not in shown
    assert "Logging error" not in shown
    assert left
    assert place != "result" or wanted in last_line(tmp_path)


def test_a_full_disk_in_hdf5_ends_a_job_without_a_crash(tmp_path):
    code = """
import resource, sys
from types import SimpleNamespace
sys.path[:0] = sys.argv[1:]
from named import Named
from fourdstem.stage import stage
named = {"log": Named(log="job.log"), "input": Named(), "output": Named(result="a.h5"), "params": Named(settings={})}
with stage(SimpleNamespace(threads=1, wildcards={}, resources={}, rule="job", **named)):
    import numpy as np
    from fourdstem import io
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    with io.create("a.h5", {}) as file:
        file.write_one("map", np.random.default_rng(0).random((300, 300)), long_name="map")
"""
    paths = [str(Path(__file__).parent), str(Path(files.__file__).parents[1])]
    done = subprocess.run([sys.executable, "-c", code, *paths], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ERROR no room left to write to (File too large) (in a.h5)" in done.stderr.splitlines()[-1]


def test_a_cause_of_many_lines_is_told_in_one(snakemake, tmp_path):
    with pytest.raises(SystemExit), stage(snakemake):
        raise RuntimeError("first\n  second\nthird")
    assert "ERROR RuntimeError: first second third  [log: logs/job.log]" in last_line(tmp_path)


def test_results_that_may_not_be_written_are_named_before_there_is_a_log(snakemake, tmp_path, capsys, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(SystemExit) as stopped, stage(snakemake):
        pytest.fail("the job began")
    assert stopped.value.code == 1
    assert (
        f"ERROR a folder that may not be written to (Permission denied) (in {tmp_path}/logs)" in capsys.readouterr().err
    )
