"""Files that stand under their names only when complete: full disks, missing rights, and what is said of them."""

import os
import resource
import shutil
from contextlib import contextmanager

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from fourdstem import files, io, notebook, provenance, study
from fourdstem.calibration import Acquisition
from fourdstem.cube import Cube
from fourdstem.errors import InputError
from fourdstem.figures import style
from fourdstem.methods.evaluation import rivals
from fourdstem.methods.nonlocal_average import everywhere

PROCESS = {"stage": "job", "settings": {}, "seed": None, "code": "abc", "inputs": [], "versions": {}}
NOISE = np.random.default_rng(0).integers(0, 60000, (4, 8, 64, 64), np.uint16)  # does not compress


@contextmanager
def room_for(size):
    """Let no file of this process grow beyond a size: the system refuses as it does where a disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def in_child(function, *, nobody=False):
    """Run a function in a process of its own; return its status and what it raised.

    HDF5 crashes later in a process in which it could not close a file. As nobody: root may write anywhere.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if nobody and os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            function()
            status = 0
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def write_result(path):
    with io.create(path, PROCESS, Acquisition()) as file:
        out = file.stream("patterns", NOISE.shape, NOISE.dtype, unit="counts", long_name="patterns")
        io.copy_units(NOISE, out)


def write_small_result(path):
    """Fits into the buffers of HDF5, so that nothing is written before the file is closed."""
    with io.create(path, PROCESS, Acquisition()) as file:
        file.write_one("map", NOISE[0, 0], long_name="map")


def write_raw(path):
    with io.create_raw(path, PROCESS, {}) as raw:
        raw.counts(NOISE.shape, NOISE.dtype)[:] = NOISE


def write_figure(path):
    matplotlib.use("Agg")
    figure = Figure()
    figure.subplots().imshow(NOISE[0, 0])
    style.save(figure, path.parent, path.stem, "noise")


def write_notebook(path):
    import nbformat

    source = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("long " * 4000, id="text")])
    executed = path.parent.parent / "executed.ipynb"
    with room_for(resource.RLIM_INFINITY):
        nbformat.write(source, executed)
    notebook.store(executed, path)


WRITERS = {
    "result.h5": write_result,
    "small.h5": write_small_result,
    "simulated.h5": write_raw,
    "figure.png": write_figure,
    "figure.pdf": write_figure,
    "report.ipynb": write_notebook,
    "table.csv": lambda path: study.write_table(path, [("long",) * 4000]),
    "result.ang": lambda path: io.write_text(path, "long " * 4000),
    "sidecar.json": lambda path: provenance.write_record(path, {"text": "long " * 4000}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_ends_in_one_sentence_and_leaves_what_was_there(tmp_path, name):
    path = tmp_path / "results" / name
    WRITERS[name](path)
    complete = path.read_bytes()
    path.write_bytes(b"earlier")

    def write():
        with room_for(4096):
            WRITERS[name](path)

    status, text = in_child(write)
    assert status == 1
    assert text.startswith(f"InputError: no room left to write to (File too large) (in {path.with_suffix('')}."), text
    assert path.read_bytes() == b"earlier" or name == "figure.pdf"  # the PNG, written first, found no room
    assert [p.name for p in path.parent.iterdir() if p.name.endswith(".part")] == []
    WRITERS[name](path)
    assert path.read_bytes() == complete


@pytest.mark.parametrize("name", ["patterns of a rival", "copy for the global search"])
def test_scratch_files_tell_that_there_is_no_room_instead_of_being_killed(tmp_path, name):
    h5 = tmp_path / "scan.h5"
    write_raw(h5)
    import h5py

    with h5py.File(h5) as file, room_for(4096), pytest.raises(InputError, match="no room left") as said:
        if name == "patterns of a rival":
            rivals.room_for_average(tmp_path, NOISE.shape, 3)
        else:
            with everywhere._stored(Cube(file["counts"]), tmp_path):
                pass
    assert str(tmp_path) in said.value.where


def test_what_failed_again_when_the_file_was_closed_is_told_once():
    told = InputError("no room", where="scratch", expected="room", do="Make room.")
    with pytest.raises(OSError, match="No space") as again:
        try:
            raise told
        finally:
            raise OSError(28, "No space left on device")
    assert files.disk_full(again.value, "elsewhere") is told


@pytest.mark.parametrize("error", [ValueError("errno = 2"), OSError(5, "Input/output error"), KeyError("28")])
def test_other_errors_are_not_taken_for_a_full_disk(tmp_path, error):
    with pytest.raises(type(error)) as raised, files.complete_or_absent(tmp_path / "file"):
        raise error
    assert raised.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def readable(tmp_path_factory):
    """A folder that everybody can enter and nobody but its owner can write to."""
    folder = tmp_path_factory.mktemp("results")
    modes = {p: p.stat().st_mode for p in (folder, *list(folder.parents)[:2]) if p.stat().st_uid == os.getuid()}
    for path in modes:
        path.chmod(0o755)
    folder.chmod(0o555)
    yield folder
    for path, mode in modes.items():
        path.chmod(mode)
    shutil.rmtree(folder)


def test_a_folder_without_rights_is_named(readable):
    status, text = in_child(lambda: files.write_text(readable / "new" / "summary.csv", "text"), nobody=True)
    assert status == 1
    assert text.startswith(f"InputError: a folder that may not be written to (Permission denied) (in {readable}/new).")
    _, text = in_child(lambda: files.write_text(readable / "summary.csv", "text"), nobody=True)
    assert f"may not be written to (Permission denied) (in {readable})" in text
    assert list(readable.iterdir()) == []
