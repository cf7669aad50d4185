"""Processes that share numba's cache take turns."""

import fcntl
import os

import pytest
from numba.core.caching import IndexDataCacheFile
from numba.np.ufunc.gufunc import GUFunc

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
    assert IndexDataCacheFile.save.__wrapped__ is jit._save
    for method in (IndexDataCacheFile.load, GUFunc.__call__):
        assert method.__module__.startswith("numba")
        assert method.__wrapped__


def test_a_process_killed_while_it_saves_leaves_no_index_to_the_code_of_an_older_version(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    old, new = (IndexDataCacheFile(str(tmp_path), "f", stamp) for stamp in ("old", "new"))
    old.save("float64", "code of the old version")
    for step in ("_save_data", "_save_index"):  # killed in the first write, then in the second
        with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
            killed.setattr(IndexDataCacheFile, step, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            new.save("float64", "code of the new version")
        assert new.load("float64") is None
    new.save("float64", "code of the new version")
    new.save("int64", "code for integers")
    assert [new.load(key) for key in ("float64", "int64")] == ["code of the new version", "code for integers"]
