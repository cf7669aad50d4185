"""numba's cache on disk, made safe for jobs that run side by side.

Two jobs that start with an empty cache crash, for two reasons. numba writes the index of a function before the
machine code that it points to, so that a reader in between loads the code of another signature. And the wrapper
of a gufunc, which orix has, calls its function by a name that differs between the processes that compile it, so
that the wrapper of one process does not fit the function of another. Whoever compiles, or imports orix (which
compiles when it is imported), imports this module first and does so inside `alone`.

For the same reason machine code is written before the index here: a process killed in between would otherwise leave a
new index that points to the code of an older version of the function.
"""

import fcntl
import functools
import os
import tempfile
import threading
from contextlib import contextmanager

from numba.core import caching
from numba.np.ufunc import gufunc

_mutex = threading.RLock()
_held = []


@contextmanager
def alone():
    """Let no other process that shares the cache compile or load meanwhile; may be nested."""
    with _mutex:
        if not _held:
            folder = os.environ.get("NUMBA_CACHE_DIR", tempfile.gettempdir())
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


caching.IndexDataCacheFile.save = _save
_guard(caching.IndexDataCacheFile, "save")
_guard(caching.IndexDataCacheFile, "load")
_guard(gufunc.GUFunc, "__call__")
