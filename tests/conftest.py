"""What all tests share: one thread per numerical library, set before any of them is loaded; one run of the workflow.

`./test.sh` runs them in two processes side by side. A file stays in one of them, since its tests share what they
simulate; the files that share the run of the workflow stay together, and come first, since they take longest.
"""

import os

import pytest

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

if "PYTEST_XDIST_WORKER" in os.environ:  # test files import orix at their top, in both processes at once
    from fourdstem.jit import alone

    with alone():
        import orix.io  # noqa: F401


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks
def pytest_collection_modifyitems(config, items):
    """Tell pytest-xdist which tests belong together, and what to begin with."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: "mini" not in item.fixturenames)
        for item in items:
            group = "mini" if "mini" in item.fixturenames else item.path.stem
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def mini(tmp_path_factory):
    """A copy of the project in a folder with a space and an umlaut, run once; who changes it puts it right again."""
    from mini_workflow import run_once

    return run_once(tmp_path_factory.mktemp("wörk flow") / "project")
