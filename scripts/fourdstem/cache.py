"""Arrays that are the same whenever their content is asked for, kept on disk between jobs, samples and sources.

The name of an entry is a sha256 over everything that its arrays follow from: the values that they are made of, the
modules that make them, the versions of the libraries below. So an entry is never out of date, only unused. It stands
under its name when complete, and begins with a digest of name and content, which is compared on reading: a damaged or
foreign file is made anew. The folder is that of the variable FOURDSTEM_CACHE_DIR, which jobs set; without it, and where
it cannot be written to, nothing is kept. The entries that were used least recently go when all together pass a limit.
"""

import dataclasses
import hashlib
import io
import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import numpy as np

from fourdstem.jit import PACKAGE, digest

log = logging.getLogger("fourdstem")

FOLDER = "FOURDSTEM_CACHE_DIR"
LIMIT_BYTES = 1 << 30
_ENTRIES = "[0-9a-f]" * 64 + ".arrays*"  # and what jobs that were killed left half written
_LIBRARIES = ("numpy", "scipy", "numba", "torch", "diffsims")


def kept(values, module: str, make: Callable[[], tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Return what ``make`` gives, from the disk where it was kept.

    Parameters
    ----------
    values : object
        All that ``make`` depends on beside the code: numbers, texts, arrays, tuples and dataclasses of these.
    module : str
        ``__file__`` of the caller: its folder's and the package's own modules are the code.
    make : callable
        Returns a tuple of arrays.
    """
    folder = os.environ.get(FOLDER)
    if not folder:
        return make()
    path = Path(folder) / f"{name_of(values, module)}.arrays"
    found = _read(path)
    if found is not None:
        log.info("taken from %s", path)
        return found
    arrays = make()
    _keep(path, arrays)
    return arrays


def name_of(values, module: str) -> str:
    """Return the sha256 that is the name of an entry (see `kept`)."""
    found = hashlib.sha256()
    for text in (digest(Path(module).resolve().parent), digest(PACKAGE), *map(metadata.version, _LIBRARIES)):
        found.update(text.encode() + b"\0")
    _add(found, values)
    return found.hexdigest()


def _add(found, value) -> None:
    """Add a value so that no two different ones look alike; TypeError for what may print alike and differ."""
    if dataclasses.is_dataclass(value):
        value = tuple((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, tuple | list):
        found.update(f"{len(value)} of\0".encode())
        for part in value:
            _add(found, part)
    elif isinstance(value, np.ndarray):
        found.update(f"{value.dtype.str} {value.shape}\0".encode() + np.ascontiguousarray(value).tobytes())
    elif value is None or isinstance(value, str | bytes | int | float | complex | np.generic):
        found.update(f"{type(value).__name__} {value!r}\0".encode())
    else:
        raise TypeError(f"arrays that follow from a {type(value).__name__} cannot be kept")


def _signed(path: Path, content: memoryview) -> bytes:
    found = hashlib.sha256(path.name.encode())
    found.update(content)
    return found.digest()


def _read(path: Path) -> tuple[np.ndarray, ...] | None:
    """Arrays of an entry; None where there is none, or its digest is another."""
    try:
        stored = path.read_bytes()
    except OSError:
        return None
    if stored[:32] != _signed(path, memoryview(stored)[32:]):
        log.warning("%s is damaged and is made anew", path)
        return None
    with suppress(OSError):
        os.utime(path)  # used now
    stream, arrays = io.BytesIO(stored), []
    stream.seek(32)
    while stream.tell() < len(stored):
        arrays.append(np.lib.format.read_array(stream, allow_pickle=False))
    return tuple(arrays)


def _keep(path: Path, arrays: tuple[np.ndarray, ...]) -> None:
    """Write an entry under a name of its own, then give it the right one; what cannot be kept is told, not an error.

    Of its own, unlike in `files`: two jobs may make one entry at a time.
    """
    if (size := sum(array.nbytes for array in arrays)) > LIMIT_BYTES // 2:
        log.info("not kept for other jobs: %.0f MB are too much", size / 2**20)
        return
    stream = io.BytesIO()
    for array in arrays:
        np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
    content = stream.getbuffer()
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
            temporary = file.name
            file.write(_signed(path, content))
            file.write(content)
        os.replace(temporary, path)
        _thin_out(path.parent)
    except OSError as error:
        log.info("not kept for other jobs: %s (%s)", error.strerror or error, path.parent)
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def _thin_out(folder: Path) -> None:
    """Remove the entries used least recently until the rest is within the limit; what is not an entry stays."""
    entries, total = [], 0
    for path in folder.glob(_ENTRIES):
        with suppress(FileNotFoundError):  # another job was quicker
            status = path.stat()
            entries.append((status.st_mtime, status.st_size, path))
    for _, size, path in sorted(entries, reverse=True):
        total += size
        if total > LIMIT_BYTES:
            path.unlink(missing_ok=True)
