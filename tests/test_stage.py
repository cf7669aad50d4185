"""What surrounds a job: log, settings, sidecar, and what a user sees when it fails."""

import dataclasses
import json
import logging
from types import SimpleNamespace

import pytest

from fourdstem import provenance
from fourdstem.errors import InputError
from fourdstem.schema import setting
from fourdstem.stage import log, stage


class Named(list):
    """A list whose items also have names, as Snakemake's are."""

    def __init__(self, **named):
        super().__init__(named.values())
        self._named = named

    def __getattr__(self, name):
        try:
            return self.__dict__["_named"][name]
        except KeyError:
            raise AttributeError(name) from None

    def items(self):
        return self._named.items()


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
