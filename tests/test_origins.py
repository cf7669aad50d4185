"""Where loaded modules came from: this environment, Snakemake's, the user's own, or elsewhere."""

import importlib
import json
import os
import site
import sys
from types import ModuleType

import numpy as np
import pytest
from test_stage import snakemake  # noqa: F401  (a fixture)

from fourdstem import origins
from fourdstem.stage import stage


def names(origin):
    return {entry["name"] for entry in origins.leaked_modules() if entry["origin"] == origin}


@pytest.fixture
def other(tmp_path, monkeypatch):
    """Another environment, whose package `stray` has been imported from the end of the search path."""
    folder = tmp_path / "other" / "site-packages"
    (folder / "stray").mkdir(parents=True)
    (folder / "stray" / "__init__.py").write_text("")
    (folder / "stray" / "part.py").write_text("")
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    importlib.import_module("stray.part")
    yield folder
    for name in ("stray", "stray.part"):
        del sys.modules[name]


@pytest.fixture
def snakemake_of_the_other(other, monkeypatch):
    """A job whose Snakemake runs in the other environment, as with `--sdm conda`."""
    for name in ("snakemake", "snakemake_interface_common"):
        module = ModuleType(name)
        module.__file__ = str(other / name / "__init__.py")
        monkeypatch.setitem(sys.modules, name, module)
    return other


def test_what_lies_in_this_environment_is_no_leak(other):
    assert np.__name__ in sys.modules
    found = names("elsewhere") | names("user") | names("snakemake")
    assert "stray" in found
    assert not found & {"numpy", "pytest", "fourdstem", "site", "os"}


def test_a_package_of_the_environment_of_snakemake_is_a_leak_and_snakemake_itself_is_none(snakemake_of_the_other):
    assert names("snakemake") == {"stray"}
    assert origins.snakemake_folder() == str(snakemake_of_the_other)


def test_where_snakemake_runs_the_job_itself_nothing_comes_from_another_environment(other):
    assert importlib.import_module("snakemake").__file__
    assert origins.snakemake_folder() is None
    assert "stray" in names("elsewhere")


def test_snakemake_from_a_folder_that_the_user_put_on_the_path_is_no_other_environment(
    snakemake_of_the_other, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["somewhere", str(snakemake_of_the_other)]))
    assert origins.snakemake_folder() is None
    assert "stray" in names("elsewhere")


def test_packages_of_the_users_own_are_a_leak_under_conda_only(other, monkeypatch):
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(site, "getusersitepackages", lambda: str(other))
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    assert "stray" not in names("user") | names("elsewhere")
    monkeypatch.setenv("CONDA_PREFIX", sys.prefix)
    assert "stray" in names("user")


def test_an_environment_is_found_through_a_link(other, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(other)
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path / "link")])
    assert "stray" not in names("elsewhere")


def test_a_job_with_a_leak_from_the_environment_of_snakemake_fails_and_names_it(
    snakemake,  # noqa: F811
    snakemake_of_the_other,
    tmp_path,
):
    with pytest.raises(SystemExit), stage(snakemake):
        (tmp_path / "result.bin").write_bytes(b"result")
    last = (tmp_path / "logs/job.log").read_text().splitlines()[-1]
    assert "packages that are not in the environment of the rule, taken from Snakemake's: stray" in last
    assert not (tmp_path / "provenance/job.json").exists()


def test_a_job_cannot_import_from_the_environment_of_snakemake(snakemake, snakemake_of_the_other, tmp_path):  # noqa: F811
    (snakemake_of_the_other / "late.py").write_text("")
    before = sys.path[: sys.path.index(str(snakemake_of_the_other))]
    sys.path += ["appended too", os.path.dirname(origins.OWN)]
    with pytest.raises(SystemExit), stage(snakemake):
        importlib.import_module("late")
    assert sys.path == [*before, os.path.dirname(origins.OWN)]
    assert "No module named 'late'" in (tmp_path / "logs/job.log").read_text().splitlines()[-1]


def test_a_job_with_a_package_from_elsewhere_says_so_in_log_and_sidecar(snakemake, other, tmp_path):  # noqa: F811
    with stage(snakemake):
        (tmp_path / "result.bin").write_bytes(b"result")
    record = json.loads((tmp_path / "provenance/job.json").read_text())
    assert {"name": "stray", "origin": "elsewhere"} in record["leaked_modules"]
    assert "stray (elsewhere)" in (tmp_path / "logs/job.log").read_text()
    assert str(tmp_path) not in json.dumps(record["leaked_modules"])
