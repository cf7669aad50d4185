"""Processes that share numba's cache take turns."""

import ast
import fcntl
import os
import subprocess
import sys

import pytest
from numba.core.caching import IndexDataCacheFile, UserProvidedCacheLocator
from numba.np.ufunc.gufunc import GUFunc

from fourdstem import jit, provenance


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


@pytest.mark.parametrize("edited", ["methods/own/constants.py", "errors.py"])
def test_a_function_is_compiled_anew_when_a_module_that_it_may_use_changes(tmp_path, monkeypatch, edited):
    file = tmp_path / "methods" / "own" / "kernels.py"
    file.parent.mkdir(parents=True)
    for path in (file, tmp_path / "errors.py", file.with_name("constants.py")):
        path.write_text("SIZE = 1\n", encoding="utf-8")
    monkeypatch.setattr(jit, "PACKAGE", tmp_path)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))

    def stamp():
        jit.digest.cache_clear()
        locator = object.__new__(UserProvidedCacheLocator)
        locator._py_file = str(file)
        return locator.get_source_stamp()

    before = stamp()
    assert stamp() == before
    (tmp_path / edited).write_text("SIZE = 2\n", encoding="utf-8")
    assert stamp() != before


def test_every_module_that_keeps_machine_code_knows_how_it_is_kept():
    """Imports stand before decorators, so one of them must lead to `jit`."""
    root = jit.PACKAGE.parent
    kept = [p for p in sorted(jit.PACKAGE.rglob("*.py")) if "cache=True" in p.read_text(encoding="utf-8")]
    assert len(kept) > 10
    for module in kept:
        todo, seen = [module], set()
        while todo:
            path = todo.pop()
            seen.add(path)
            found = provenance.imported_files(ast.parse(path.read_text(encoding="utf-8")), path, root)
            todo += [p for p in found if p not in seen]
        assert jit.PACKAGE / "jit.py" in seen, module


def test_functions_whose_sums_may_be_reordered_become_part_of_their_callers():
    """Else a caller runs the copy of whoever was compiled before: other bits at the first run than from the cache."""
    found = 0
    for module in jit.PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            options = {option.arg: option.value for option in getattr(node, "keywords", ())}
            if "fastmath" in options:
                found += 1
                assert "forceinline" in options and options["forceinline"].value is True, f"{module}:{node.lineno}"
    assert found >= 5


def test_code_from_the_cache_gives_the_bits_of_code_just_compiled(tmp_path):
    code = (
        "import numpy as np\n"
        "from fourdstem.methods.nonlocal_average import kernels, sparse\n"
        "from fourdstem.methods.nonlocal_average.arrays import BLOCK\n"
        "rng, near = np.random.default_rng(0), np.empty((6, 4), np.float32)\n"
        "rows = rng.random((2, 6, 1, BLOCK)).astype(np.float32)\n"
        "kernels.near_differences(rows, 1, 0, 6, near)\n"
        "place, at, sums = np.array([[1, 2, 4, 5]], np.int32), np.array([[0, 4]]), np.zeros((1, 4))\n"
        "sparse.compare(rows[0, :1], rows[1], place, at, 0, np.array([0]), 0, 1, sums)\n"
        "print(near.tobytes().hex(), sums.tobytes().hex())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(jit.PACKAGE.parent), "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True) for _ in range(2)]
    assert runs[0].stdout and runs[0].stdout == runs[1].stdout, runs[0].stderr
