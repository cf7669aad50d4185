"""What all tests share: one thread per numerical library, set before any of them is loaded; one run of the workflow.

`./test.sh` runs them in two processes side by side. A file stays in one of them, since its tests share what they
simulate; the files that share the run of the workflow stay together, and come first, since they take longest.
"""

import os

import pytest

OF_ONE_RUN = ("test_workflow.py", "test_interruptions.py")  # whose tests share the fixture `mini`

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

if "PYTEST_XDIST_WORKER" in os.environ:  # test files import orix at their top, in both processes at once
    from fourdstem.jit import alone

    with alone():
        import orix.io  # noqa: F401


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep what belongs together in one process. (xdist_group does it by names of tests that pytest 9.2 takes back.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0].rsplit("/")[-1]
            return "mini" if file in OF_ONE_RUN else file

    return Together(config, log)


def pytest_collection_modifyitems(config, items):
    """Begin with what takes longest."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.name not in OF_ONE_RUN)


@pytest.fixture(scope="session")
def mini(tmp_path_factory):
    """A copy of the project in a folder with a space and an umlaut, run once; who changes it puts it right again."""
    from mini_workflow import run_once

    return run_once(tmp_path_factory.mktemp("wörk flow") / "project")
