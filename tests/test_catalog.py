"""What the Snakemake workflow catalog reads and shows of this repository is there, and true."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
USAGE = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))["usage"]
RULES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
MODULE = """\
configfile: "config/config.yaml"

module fourdstem:
    snakefile:
        "{snakefile}"
    config:
        config

use rule * from fourdstem
"""


def run(folder, *command):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    full = [sys.executable, "-m", *map(str, command)]
    done = subprocess.run(full, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_entry_has_the_keys_that_the_catalog_knows():
    assert set(USAGE) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(USAGE["mandatory-flags"]) == {"desc", "flags"}
    assert isinstance(USAGE["mandatory-flags"]["desc"], str)
    assert set(USAGE["software-stack-deployment"]) == {"conda", "apptainer", "apptainer+conda"}
    assert all(type(value) is bool for value in [USAGE["report"], *USAGE["software-stack-deployment"].values()])


def test_the_way_to_deploy_is_the_one_that_the_rules_have():
    text = "\n".join(path.read_text(encoding="utf-8") for path in [ROOT / "workflow" / "Snakefile", *RULES])
    scripts, environments = (len(re.findall(rf"^    {word}:$", text, re.M)) for word in ("script", "conda"))
    assert USAGE["software-stack-deployment"]["conda"] is (scripts == environments > 0)
    contained = bool(re.search(r"^\s*(container|containerized):", text, re.M))
    assert USAGE["software-stack-deployment"]["apptainer"] is contained
    assert USAGE["report"] is bool(re.search(r"\breport\($", text, re.M))
    assert USAGE["mandatory-flags"]["flags"] is None


def test_what_standardized_usage_asks_for_is_where_it_is_looked_for():
    assert RULES
    assert (ROOT / "workflow" / "Snakefile").is_file()
    readme = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    assert "config/config.yaml" in readme
    assert (ROOT / "config" / "config.yaml").is_file()
    words = (ROOT / "README.md").read_text(encoding="utf-8").lower()
    assert "snakemake" in words
    assert "workflow" in words


def test_the_checks_that_the_catalog_runs_pass():
    """With --snakefile, as the root file is only a second entry point."""
    code, output = run(ROOT, "snakemake", "--lint", "--snakefile", "workflow/Snakefile")
    assert code == 0, output
    code, output = run(ROOT, "snakefmt", "--check", "Snakefile", "workflow")
    assert code == 0, output


@pytest.fixture
def project(tmp_path):
    """A folder as snakedeploy leaves it: a module statement and a configuration, the workflow elsewhere."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "workflow").mkdir()
    return tmp_path


def test_a_clone_can_be_used_as_a_module(project):
    (project / "workflow" / "Snakefile").write_text(MODULE.format(snakefile=ROOT / "workflow" / "Snakefile"))
    code, output = run(project, "snakemake", "--dry-run", "--cores", "1")
    assert code == 0, output[-3000:]
    jobs = output.split("Job stats:")[1]
    assert all(re.search(rf"^{rule} +\d+$", jobs, re.M) for rule in ("simulate", "orientation", "report", "provenance"))


def test_rules_that_are_fetched_without_their_library_are_refused(project):
    source = project / "source"
    shutil.copytree(ROOT / "workflow", source / "workflow")
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "rules"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *who, *command], cwd=source, check=True)
    uri = f"git+file://{source}/workflow/Snakefile@main"
    (project / "workflow" / "Snakefile").write_text(MODULE.format(snakefile=uri))
    code, output = run(project, "snakemake", "--dry-run", "--cores", "1")
    assert code != 0
    assert "Expected a clone of the repository on this machine" in output
    assert "Traceback" not in output
