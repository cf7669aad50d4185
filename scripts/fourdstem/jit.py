"""numba's cache on disk, made safe for jobs that run side by side.

Two jobs that start with an empty cache crash, for two reasons. numba writes the index of a function before the
machine code that it points to, so that a reader in between loads the code of another signature. And the wrapper
of a gufunc, which orix has, calls its function by a name that differs between the processes that compile it, so
that the wrapper of one process does not fit the function of another. Whoever compiles, or imports orix (which
compiles when it is imported), imports this module first and does so inside `alone`.

numba compiles a function anew where its own file changed. A constant or a function from another module is compiled in
too, and an edit there would go unnoticed: results, or crashes, of the old code. So the modules beside a function's
file, and those of the package itself, count as well.

For the first reason machine code is written before the index here: a process killed in between would otherwise leave a
new index that points to the code of an older version of the function.
"""

import fcntl
import functools
import hashlib
import os
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

from numba.core import caching
from numba.np.ufunc import gufunc

PACKAGE = Path(__file__).resolve().parent
_mutex = threading.RLock()
_held = []


@contextmanager
def alone():
    """Let no other process that shares the cache compile or load meanwhile; may be nested."""
    with _mutex:
        if not _held:
            folder = os.environ.get("NUMBA_CACHE_DIR") or tempfile.gettempdir()
            os.makedirs(folder, exist_ok=True)
            file = open(os.path.join(folder, f"fourdstem-{os.getuid()}.lock"), "a")  # noqa: SIM115  closed below
            fcntl.flock(file, fcntl.LOCK_EX)
            _held.append(file)
        else:
            _held.append(None)
        try:
            yield
        finally:
            file = _held.pop()
            if file is not None:
                file.close()


def _guard(owner, name: str) -> None:
    method = getattr(owner, name)

    @functools.wraps(method)
    def guarded(*arguments, **options):
        with alone():
            return method(*arguments, **options)

    setattr(owner, name, guarded)


def _save(self, key, data) -> None:
    """Stand in for numba's own: code first, then the index that names it."""
    named = self._load_index()
    if key not in named:
        taken, number = set(named.values()), 1
        while (name := self._data_name(number)) in taken:
            number += 1
        named[key] = name
    self._save_data(named[key], data)
    self._save_index(named)


@functools.cache
def digest(folder: Path) -> str:
    """Return a digest of the modules of a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        found.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def _stamped(method):
    """Let what a function of this package can have from other modules count in the stamp of its file."""

    @functools.wraps(method)
    def stamp(self):
        own, file = method(self), Path(self._py_file).resolve()
        return (own, digest(file.parent), digest(PACKAGE)) if file.is_relative_to(PACKAGE) else own

    return stamp


caching.IndexDataCacheFile.save = _save
for locator in (caching.InTreeCacheLocator, caching.UserProvidedCacheLocator, caching.UserWideCacheLocator):
    locator.get_source_stamp = _stamped(locator.get_source_stamp)
_guard(caching.IndexDataCacheFile, "save")
_guard(caching.IndexDataCacheFile, "load")
_guard(gufunc.GUFunc, "__call__")
