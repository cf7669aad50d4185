"""What all tests share: one thread per numerical library, set before any of them is loaded; one run of the workflow."""

import os

import pytest

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")


@pytest.fixture(scope="session")
def mini(tmp_path_factory):
    """A copy of the project in a folder with a space and an umlaut, run once; who changes it puts it right again."""
    from mini_workflow import run_once

    return run_once(tmp_path_factory.mktemp("wörk flow") / "project")
