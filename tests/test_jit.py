"""Processes that share numba's cache take turns."""

import fcntl
import os

import pytest

from fourdstem import jit


def is_locked(path):
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_the_cache_is_held_until_the_outermost_block_ends(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "cache" / f"fourdstem-{os.getuid()}.lock"
    with jit.alone():
        with jit.alone():
            assert is_locked(path)
        assert is_locked(path)
    assert not is_locked(path)


def test_an_error_lets_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    with pytest.raises(RuntimeError), jit.alone():
        raise RuntimeError
    assert not is_locked(tmp_path / f"fourdstem-{os.getuid()}.lock")


def test_numba_saves_and_loads_only_under_the_lock():
    from numba.core.caching import IndexDataCacheFile
    from numba.np.ufunc.gufunc import GUFunc

    for method in (IndexDataCacheFile.save, IndexDataCacheFile.load, GUFunc.__call__):
        assert method.__module__.startswith("numba")
        assert method.__wrapped__
