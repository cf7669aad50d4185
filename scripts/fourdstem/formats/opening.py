"""Which reader a file gets, and what every reader must deliver."""

from dataclasses import replace
from pathlib import Path

from fourdstem.errors import InputError
from fourdstem.formats.consistency import check_frame, told_of_counts
from fourdstem.formats.gatan import open_dm
from fourdstem.formats.hdf5 import is_hdf5, open_hdf5
from fourdstem.formats.merlin import open_mib
from fourdstem.formats.raw import GuardedFrames, RawScan
from fourdstem.formats.stacks import open_seq, open_tif
from fourdstem.formats.vendor import open_blo, open_empad, open_mrc, open_npy, open_tvips
from fourdstem.formats.zspy import open_zspy
from fourdstem.watch import crashes

_OWN = {
    ".npy": open_npy, ".blo": open_blo, ".mib": open_mib, ".tif": open_tif, ".tiff": open_tif, ".seq": open_seq,
    ".dm3": open_dm, ".dm4": open_dm, ".tvips": open_tvips, ".mrc": open_mrc, ".xml": open_empad,
}  # fmt: skip
_HDF5 = (".h5", ".hdf5", ".hspy", ".nxs", ".emd", ".app5")
_FOLDER = ".zspy"  # the only format that may be a folder
SUFFIXES = (*_HDF5, _FOLDER, *_OWN)


def open_raw(path, dataset: str | None = None) -> RawScan:
    """Open a raw scan without reading it.

    HDF5 is recognised by its content, other formats by suffix: ``.npy``, ``.blo``, ``.mib`` (with ``.hdr``),
    ``.tif``, ``.seq``, ``.zspy``, and by RosettaSciIO ``.dm3``, ``.dm4``, ``.tvips``, ``.mrc``, ``.xml`` (EMPAD).
    docs/formats.md says how each was tested. The scan shape is never guessed: a stack of frames stays a stack,
    with ``scan_shape`` in its metadata where the file states it.

    Parameters
    ----------
    path : path
    dataset : str, optional
        Dataset of an HDF5 file or ``.zspy`` with several candidates.

    Raises
    ------
    InputError
        If the file is missing, empty, truncated, of an unknown format, or holds no or several scans.
    """
    path = Path(path)
    _check_file(path, dataset)
    raw = _opened(path, dataset)
    try:
        told = _check_content(raw, path)
    except InputError:
        raw.close()
        raise
    shape = {"scan_shape": raw.shape[:2]} if len(raw.shape) == 4 else {}
    data = GuardedFrames(raw.data, str(path))
    return replace(raw, data=data, metadata=raw.metadata | shape, notes=(*raw.notes, *told))


def _opened(path: Path, dataset: str | None) -> RawScan:
    suffix = path.suffix.lower()
    try:
        if suffix == _FOLDER:
            return open_zspy(path, dataset)
        if is_hdf5(path):
            _survives(path, dataset)
            return open_hdf5(path, dataset)
        return _OWN[suffix](path)
    except InputError:
        raise
    except Exception as error:  # a damaged header shows in whatever stumbles over it: a number, a tree of HDF5
        raise InputError(
            f"a file that cannot be read ({type(error).__name__}: {error})",
            where=str(path),
            expected=f"a complete {suffix or 'HDF5'} file",
            do="Copy it again from the microscope; it may be damaged.",
        ) from error


def _survives(path: Path, dataset: str | None) -> None:
    """Open a file in a copy of this process first: where headers are damaged HDF5's library can crash, or hang."""
    if died := crashes(lambda: _check_content(open_hdf5(path, dataset), path)):
        raise InputError(
            f"a file that the HDF5 library dies of ({died})",
            where=str(path),
            expected="a sound HDF5 file",
            do="Copy it again from the microscope; it is damaged.",
        )


def _check_file(path: Path, dataset: str | None) -> None:
    suffix, do = path.suffix.lower(), "Correct `file:` of the sample."
    if not path.exists():
        found = "no such file"
    elif suffix == _FOLDER and (path.is_dir() or path.stat().st_size > 0):
        return
    elif not path.is_file():
        found = "a folder, not a file"
    elif path.stat().st_size == 0:
        found, do = "an empty file", "Copy it again from the microscope."
    elif is_hdf5(path):
        return
    elif suffix in _HDF5:
        found = f"a {suffix} file that does not begin as HDF5 does"
        do = "Copy it again from the microscope; it may be damaged."
    elif suffix == ".npz":
        found, do = "a .npz archive, which cannot be read piece by piece", "Save the array by numpy.save as .npy."
    elif suffix == ".raw":
        found, do = "raw numbers without a header", "Name the .xml that EMPAD writes beside it, or save it as .npy."
    elif suffix == ".hdr":
        found, do = "the header of a Merlin scan, not its frames", "Name the .mib file; the .hdr beside it is found."
    elif suffix not in SUFFIXES:
        found = f"a file of unknown format ({suffix or 'no suffix'})"
        do = "Convert it, for example with RosettaSciIO to .hspy."
    elif dataset is not None:
        found, do = f"`dataset: {dataset}` for a file that is not HDF5", "Remove `dataset:` of the sample."
    else:
        return
    raise InputError(found, where=str(path), expected=f"a raw scan: {', '.join(SUFFIXES)}", do=do)


def _check_content(raw: RawScan, path: Path) -> list[str]:
    """Axes and type must fit, and the last frame must be there: formats notice truncation only on reading."""
    thin = len(raw.shape) in (3, 4) and min(raw.shape[-2:]) < 2
    if len(raw.shape) not in (3, 4) or min(raw.shape) < 1 or thin or raw.dtype.kind not in "uif":
        size = ", whose detector is 1 px wide" if thin and min(raw.shape) == 1 else ""
        raise InputError(
            f"an array of shape {raw.shape} and type {raw.dtype}{size}",
            where=str(path),
            expected="real numbers of 4 axes (scan_y, scan_x, detector_y, detector_x) or 3 (frames, y, x)",
            do="Save the scan with these axes, in this order.",
        )
    check_frame(raw.shape, raw.dtype, path)
    try:
        last = slice(raw.shape[-3] - 1, None)
        return told_of_counts(raw.data[last] if len(raw.shape) == 3 else raw.data[raw.shape[0] - 1, last])
    except Exception as error:  # h5py, dask and NumPy each raise their own kinds
        raise InputError(
            f"a {raw.format} file whose last frame cannot be read ({error})",
            where=str(path),
            expected=f"{raw.shape} counts of type {raw.dtype}",
            do="Copy it again from the microscope; it is truncated, or compressed by a filter unknown here.",
        ) from error
