"""`--sdm conda` without conda: environments are solved on a channel of stubs, and made by a stand-in with pip."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import conda_stand_in
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_workflow import CONFIG

from fourdstem import environments

ROOT = Path(__file__).resolve().parents[1]
TABLE = environments.read_table(ROOT)
RULES = sorted(TABLE["environments"])
PYTHONS = ("3.11", "3.12", "3.13")
ASKED = TABLE["python"]["conda"]
CUDA = ("nvidia-", "cuda-", "triton")  # what torch's pip build asks for besides; conda has it by other names

# ---- satisfiability ------------------------------------------------------------------------------------------


def specs_of(rule):
    text = (ROOT / "envs" / f"{rule}.yaml").read_text(encoding="utf-8")
    return re.findall(r"^  - (\S+ =.+)$", text, re.M)


def conda_name(pip_name):
    names = {canonicalize_name(name): entry.get("conda", name) for name, entry in TABLE["packages"].items()}
    return names.get(canonicalize_name(pip_name), canonicalize_name(pip_name))


def pins():
    entries = {**TABLE["testing"], **TABLE["testing-needed"], **TABLE["apart"], **TABLE["packages"], **TABLE["needed"]}
    return {name: entry if isinstance(entry, str) else entry["version"] for name, entry in entries.items()}


def dependencies(package, python):
    """What a package needs with a Python, as conda says it, from its own metadata; Python itself likewise."""
    try:
        about = metadata.metadata(package)
    except metadata.PackageNotFoundError:  # needed with another Python than this
        return []
    where = {"python_version": python, "python_full_version": f"{python}.9", "extra": ""}
    asked = [Requirement(text) for text in metadata.requires(package) or []]
    asked = [r for r in asked if r.marker is None or r.marker.evaluate(where)]
    needed = [f"{conda_name(r.name)} {r.specifier}".strip() for r in asked if not r.name.startswith(CUDA)]
    return [f"python {about.get('Requires-Python', '')}".strip(), *needed]


def following(version):
    """The next two minor versions, which a channel offers sooner or later."""
    major, minor = version.split(".")[:2]
    return [f"{major}.{int(minor) + ahead}.0" for ahead in (1, 2)]


def record(name, version, depends, build=0):
    stub = {"name": name, "version": version, "build": f"stub_{build}", "build_number": build, "depends": depends}
    return f"{name}-{version}-stub_{build}.conda", {**stub, "subdir": "noarch", "size": 1, "sha256": "0" * 64}


@pytest.fixture(scope="module")
def channel(tmp_path_factory):
    """Every pinned package, with what it needs, for each Python; and later versions of each, as time brings."""
    import rattler

    records = dict(record("python", f"{python}.9", []) for python in (*PYTHONS, "3.14"))
    for name, version in pins().items():
        for build, python in enumerate(PYTHONS):
            depends = [f"python ={python}", *dependencies(name, python)]
            records |= [record(conda_name(name), version, depends, build)]
        records |= [record(conda_name(name), later, ["python"]) for later in following(version)]
    folder = tmp_path_factory.mktemp("conda-forge")
    for subdir, content in (("noarch", records), ("linux-64", {})):
        (folder / subdir).mkdir()
        index = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": content, "repodata_version": 1}
        (folder / subdir / "repodata.json").write_text(json.dumps(index))
    return rattler.Channel(folder.as_uri())


def solve(channel, specs):
    """Return {name: version} of the environment that a solver chooses."""
    import rattler

    wanted = [rattler.MatchSpec(spec, strict=True) for spec in specs]
    solved = rattler.solve([channel], wanted, platforms=["linux-64", "noarch"])
    return {found.name.normalized: str(found.version) for found in asyncio.run(solved)}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("rule", RULES)
def test_an_environment_can_be_solved_and_has_the_pinned_versions(channel, rule, python):
    specs = specs_of(rule)
    assert specs[0] == f"python ={ASKED}"
    solved = solve(channel, [f"python ={python}", *specs[1:]])
    assert solved["python"] == f"{python}.9"
    versions = pins()
    assert len(specs) - 1 == len(TABLE["environments"][rule])
    for package in TABLE["environments"][rule]:
        assert solved[conda_name(package)] == versions[package]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"numpy": "2.6"}, "numba"),  # there is such a numpy, but numba does not take it
        ({"numpy": "7.0"}, "numpy"),
        ({"python": "3.14"}, "python"),
        ({"left-pad": "1.3"}, "left-pad"),
    ],
)
def test_an_environment_that_cannot_be_is_refused(channel, change, reason):
    from rattler.exceptions import SolverError

    specs = dict(spec.split(" =") for spec in specs_of("summary")) | change
    with pytest.raises(SolverError, match=reason):
        solve(channel, [f"{name} ={version}" for name, version in specs.items()])


# ---- snakemake --sdm conda -----------------------------------------------------------------------------------

SNAKEFILE = """\
rule job:
    output:
        result="result.txt",
        sidecar="provenance/job.json",
    log:
        "job.log",
    conda:
        "job.yaml"
    params:
        code="none",
    script:
        "job.py"
"""
SCRIPT = """\
from fourdstem.stage import stage

with stage(snakemake) as job:
    import sys
    from pathlib import Path

    Path(job.output.result).write_text(sys.prefix)
"""


def snakemake(folder, *arguments, host=sys.executable, python=None):
    """Run Snakemake with the stand-in as its conda, without what this process has in its environment."""
    bin_folder = folder / "conda" / "bin"
    if not bin_folder.exists():
        conda_stand_in.install(bin_folder.parent)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "STAND_IN_PYTHON")}
    environment["PATH"] = os.pathsep.join([str(bin_folder), environment["PATH"]])
    if python is not None:
        environment["STAND_IN_PYTHON"] = str(python)
    command = [str(host), "-m", "snakemake", "--sdm", "conda", "--cores", "1", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def job_folder(tmp_path):
    """One rule whose environment holds Python only."""
    version = "{}.{}".format(*sys.version_info)
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "job.yaml").write_text(f"channels:\n  - conda-forge\ndependencies:\n  - python ={version}\n")
    (tmp_path / "fourdstem").symlink_to(ROOT / "scripts" / "fourdstem")
    return tmp_path


def test_a_rule_runs_in_the_environment_of_its_file(job_folder):
    (job_folder / "job.py").write_text(SCRIPT)
    code, output = snakemake(job_folder, python=sys.executable)
    assert code == 0, output[-3000:]
    prefix = Path((job_folder / "result.txt").read_text())
    assert prefix.parent == job_folder / ".snakemake" / "conda"
    assert json.loads((job_folder / "provenance/job.json").read_text())["leaked_modules"] == []


def test_a_package_that_its_environment_lacks_stops_a_rule_although_snakemake_has_it(job_folder):
    (job_folder / "job.py").write_text(SCRIPT + "    import yaml\n")
    code, output = snakemake(job_folder, python=sys.executable)
    assert code != 0
    last = (job_folder / "job.log").read_text().splitlines()[-1]
    assert "No module named 'yaml'" in last, output[-3000:]
    assert not (job_folder / "result.txt").exists()


def pinned(name):
    return f"{name}=={TABLE['packages'][name]['version']}"


APART = {
    "multislice",
    "specimen",
    "specimen_scan",
    "study_atomic",
    "study_atomic_part",
}  # abTEM's, an hour by themselves
STUDIES = tuple(f"studies/{name}.csv" for name in ("seeds", "averaging", "faults", "probability"))
TARGETS = ("default", "exports/mini/averaged.hspy", "training/model_card.json", *STUDIES)
EVERYTHING = CONFIG.replace("orientation: {", "orientation: {sources: [corrected, denoised, averaged], ")
EVERYTHING = EVERYTHING.replace("stages: [", "stages: [clusters, ")
EVERYTHING += "training: {batch: 2, pool: 16, held_back: 8, steps: 2}\n"
PLACES = ("results", "exports", "studies")


@pytest.mark.conda
def test_the_whole_workflow_runs_with_each_rule_in_an_environment_of_its_own(tmp_path):
    """From an environment that holds Snakemake only; the others are made with pip: 25 minutes, and a network.

    All rules but `study_kills`, which starts whole runs, with Snakemake's own Python only, that of `nmf`, abTEM's.
    """
    project, host = tmp_path / "project", tmp_path / "host"
    skip = shutil.ignore_patterns(".venv", ".git", "results", ".snakemake", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, project, ignore=skip)
    (project / "mini.yaml").write_text(EVERYTHING, encoding="utf-8")
    study = project / "workflow" / "rules" / "study.smk"
    text = study.read_text(encoding="utf-8")
    shorter = text.replace("configurations=27", "configurations=1").replace("damages=4", "damages=1")
    assert shorter != text
    study.write_text(shorter, encoding="utf-8")
    for table in STUDIES:
        (project / table).unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "venv", host], check=True)
    pip = [host / "bin" / "python", "-m", "pip", "install", "-q", "-c", ROOT / "requirements.txt"]
    subprocess.run([*pip, pinned("snakemake")], check=True)
    python = os.environ.get("STAND_IN_PYTHON")
    run = [*TARGETS, "--configfile", "mini.yaml"]
    atomic = ["results/atomic/template_mask.h5", "--configfile", "config/atomic.yaml"]
    for asked in (run, atomic):
        code, output = snakemake(project, *asked, host=host / "bin" / "python", python=python)
        assert code == 0, output[-5000:]
    sidecars = [json.loads(p.read_text()) for place in PLACES for p in project.glob(f"{place}/**/provenance/*.json")]
    sidecars.append(json.loads((project / "training" / "provenance.json").read_text()))
    left_out = {"provenance", "study_kills", "study_nmf", "study_nmf_mixtures", "evaluate_preprocess", *APART}
    assert {record["stage"] for record in sidecars} == set(RULES) - left_out
    for record in sidecars:
        assert record["leaked_modules"] == [], record["stage"]
        found = {k: v.removesuffix("+cpu") for k, v in record["versions"].items() if k != "python"}
        assert found or not TABLE["environments"][record["stage"]]
        assert found.items() <= pins().items(), record["stage"]
    shutil.rmtree(project / "results" / "atomic")  # of another configuration than what is audited
    code, output = snakemake(project, *run, host=host / "bin" / "python", python=python)
    assert "Nothing to be done" in output
    audit = [host / "bin" / "python", "-m", "fourdstem", "audit", "results"]
    subprocess.run(audit, cwd=project, env={**os.environ, "PYTHONPATH": "scripts"}, check=True)
