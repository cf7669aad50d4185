"""What the README shows of things that go wrong is what the program says, to the letter."""

import logging
import os
import re
import signal
import time
from types import SimpleNamespace

import pytest
from mini_workflow import ROOT
from named import Named

from fourdstem import config, files, provenance
from fourdstem.errors import ConfigError
from fourdstem.methods import scan
from fourdstem.stage import log, stage

SHOWN = re.search(r"## When something goes wrong\n(.*?)\n## ", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)[
    1
]
BLOCKS = [re.sub(r"\s+", " ", block).strip() for block in re.findall(r"```text\n(.*?)```", SHOWN, re.S)]


@pytest.fixture
def said(tmp_path, monkeypatch):
    """Run a job of the sample `film` whose body fails; return the last line of its log, without the time."""
    monkeypatch.chdir(tmp_path)
    for path in ("raw/film.mib", "results/film/scan.h5"):
        files.write_text(tmp_path / path, path)
    record = {"stage": "scan", "inputs": provenance.describe(["raw/film.mib"])}
    provenance.write_record(
        "results/film/provenance/scan.json", record | {"outputs": provenance.describe(["results/film/scan.h5"])}
    )
    yield lambda rule, body, **inputs: _failed(rule, body, inputs)
    for handler in list(log.handlers):
        log.removeHandler(handler)
        logging.getLogger("py.warnings").removeHandler(handler)


def _failed(rule, body, inputs):
    result = f"results/film/{rule}.h5"
    job = SimpleNamespace(
        log=Named(log=f"results/film/logs/{rule}.log"),
        threads=1,
        input=Named(**inputs),
        output=Named(result=result, sidecar=f"results/film/provenance/{rule}.json"),
        params=Named(code="abc", settings={}),
        wildcards={"sample": "film"},
        resources={},
        rule=rule,
    )
    with pytest.raises(SystemExit), stage(job):
        body(result)
    with open(job.log[0], encoding="utf-8") as file:
        return file.read().splitlines()[-1].split(" ", 1)[1]


def shown(text):
    return re.sub(r"\s+", " ", text).strip() in BLOCKS


def test_every_block_is_compared_here():
    assert len(BLOCKS) == 5


MISTAKEN = """\
phases: [{name: gold, cif: config/cif/gould.cif}]
samples: [{name: film, simulate: {}, phases: [gold], stages: [orientation]}]
orientation: {samplingdeg: 2.0}
"""


def test_a_mistake_in_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files.write_text("my.yaml", MISTAKEN)
    files.write_text("config/cif/gold.cif", "")
    with pytest.raises(ConfigError) as found:
        config.check(config.load("my.yaml"), "my.yaml")
    assert shown(str(found.value).replace(str(tmp_path), "/data/gold")), found.value


def test_a_scan_shape_that_does_not_fit(said):
    line = said("scan", lambda _: scan.resolve_scan_shape((65000, 256, 256), (256, 256), None))
    assert shown(line), line


def test_a_full_disk(said, monkeypatch):
    monkeypatch.setattr("fourdstem.stage._leave_at_once", lambda: None)

    def body(result):
        with files.complete_or_absent(result):
            raise OSError(28, "No space left on device")

    line = said("nonlocal_average", body)
    assert shown(line), line


def test_a_raw_file_that_changed(said, tmp_path):
    (tmp_path / "raw/film.mib").write_text("other")
    line = said("preprocess", lambda _: None, sidecars="results/film/provenance/scan.json")
    assert shown(re.sub("sha256 [0-9a-f]{64}", "sha256 51f0…", line)), line


def test_a_job_that_was_ended(said):
    line = said("orientation", lambda _: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(10)))
    assert shown(line), line
