"""Arrays kept on disk: the same bits as fresh ones, never damaged, half written or made of something else."""

import dataclasses
import logging
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_crystal import build
from test_matching import LENS, RINGS

from fourdstem import cache
from fourdstem.methods.orientation import matching, polar


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture(autouse=True)
def heard(caplog):
    caplog.set_level(logging.INFO, "fourdstem")
    logging.getLogger("fourdstem").addHandler(caplog.handler)
    yield caplog
    logging.getLogger("fourdstem").removeHandler(caplog.handler)


def made(calls, value=1.0):
    calls.append(value)
    return np.full((3, 2), value, np.float32), np.arange(4)


def ask(calls, values=("a", 1.0)):
    return cache.kept(values, __file__, lambda: made(calls))


def bank(valid=None):
    weights_valid = polar.polar_map(RINGS, (2 * 63, 2 * 63))[1] if valid is None else valid
    return matching.build_bank([build("m-3m")], LENS, RINGS, weights_valid, 8.0, 0.25, 5.0, "cpu")


def test_what_was_made_once_is_not_made_again_and_has_the_same_bits(folder):
    calls = []
    fresh, again = ask(calls), ask(calls)
    assert len(calls) == 1
    for one, other in zip(fresh, again, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


def test_templates_from_the_disk_are_those_that_were_simulated(folder, heard):
    fresh, kept = bank(), bank()
    assert "taken from" in heard.text
    for name in ("spectra", "inverse_norm"):
        assert getattr(fresh, name).numpy().tobytes() == getattr(kept, name).numpy().tobytes()


def test_templates_are_those_of_their_own_settings(monkeypatch):
    names, empty = [], np.zeros((RINGS.azimuths, 1, len(RINGS.radius)), np.float32)

    def kept(values, module, make):
        names.append(cache.name_of(values, module))
        return empty, empty[:2]

    monkeypatch.setattr(matching, "kept", kept)
    valid = polar.polar_map(RINGS, (2 * 63, 2 * 63))[1]
    hidden = valid.copy()
    hidden[:, :20] = False
    crystal = build("m-3m")
    for changed in (
        {},
        {"valid": hidden},
        {"optics": dataclasses.replace(LENS, phi=0.01)},
        {"optics": dataclasses.replace(LENS, rod="gaussian")},
        {"rings": RINGS._replace(radius=RINGS.radius + 0.5)},
        {"sampling_deg": 9.0},
        {"power": 0.5},
        {"crystals": [dataclasses.replace(crystal, u_iso=2 * crystal.u_iso)]},
        {"crystals": [build("m-3")]},
        {"crystals": [dataclasses.replace(crystal, name="as the first")], "distinct_deg": 4.0},
    ):
        usual = {"crystals": [crystal], "optics": LENS, "rings": RINGS, "valid": valid, "sampling_deg": 8.0}
        matching.build_bank(**{**usual, "power": 0.25, "distinct_deg": 5.0, "device": "cpu", **changed})
    assert len(set(names)) == len(names) - 1
    assert names[-1] == names[0]


def test_values_that_look_alike_in_print_are_told_apart():
    pairs = [(1, 1.0), ("1", 1), (("a", "b"), ("ab",)), (np.float32([1]), np.float64([1])), (((1,), 2), (1, (2,)))]
    for one, other in pairs:
        assert cache.name_of(one, __file__) != cache.name_of(other, __file__)
    tiny = np.nextafter(1.0, 2)
    assert cache.name_of(1.0, __file__) != cache.name_of(tiny, __file__)


def test_other_code_has_other_entries(monkeypatch):
    before = cache.name_of(1, __file__)
    monkeypatch.setattr(cache, "digest", lambda folder: f"digest of an edited {folder}")
    assert cache.name_of(1, __file__) != before


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_flipped_byte_is_found_and_the_entry_made_anew(folder, place, heard):
    calls = []
    fresh = ask(calls)
    path = next(folder.glob("*.arrays"))
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    for found in (ask(calls), ask(calls)):
        assert all(np.array_equal(*pair) for pair in zip(fresh, found, strict=True))
    assert len(calls) == 2
    assert "damaged" in heard.text


def test_half_an_entry_and_that_of_another_name_are_not_used(folder):
    calls = []
    ask(calls)
    path = next(folder.glob("*.arrays"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    ask(calls)
    assert len(calls) == 2
    (folder / f"{cache.name_of('another', __file__)}.arrays").write_bytes(path.read_bytes())
    cache.kept("another", __file__, lambda: made(calls, 2.0))
    assert calls[-1] == 2.0


def test_a_folder_that_cannot_be_written_to_keeps_nothing_and_says_so(tmp_path, monkeypatch, heard):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "file" / "kept"))
    calls = []
    assert np.array_equal(ask(calls)[1], ask(calls)[1])
    assert len(calls) == 2
    assert "not kept for other jobs" in heard.text


def test_a_full_disk_leaves_no_half_entry(folder, monkeypatch):
    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_room)
    ask([])
    assert list(folder.iterdir()) == []


def test_jobs_that_make_one_entry_at_a_time_keep_it_whole_and_once(folder):
    calls = []
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: ask(calls), range(32)))
    assert all(np.array_equal(arrays[0], found[0][0]) for arrays in found)
    assert [path.name for path in folder.iterdir()] == [f"{cache.name_of(('a', 1.0), __file__)}.arrays"]


def test_what_is_too_large_is_not_kept_and_said(folder, monkeypatch, heard):
    monkeypatch.setattr(cache, "LIMIT_BYTES", 100)  # the arrays have 56
    ask([])
    assert not folder.exists()
    assert "too much" in heard.text


def test_values_that_may_print_alike_and_differ_are_refused(folder):
    with pytest.raises(TypeError, match="object"):
        cache.kept(object(), __file__, lambda: made([]))


def test_without_a_folder_nothing_is_kept(monkeypatch):
    monkeypatch.delenv(cache.FOLDER, raising=False)
    calls = []
    ask(calls)
    ask(calls)
    assert len(calls) == 2


def test_the_entries_used_least_recently_go_first(folder, monkeypatch):
    calls = []
    for n in range(3):
        ask(calls, n)
        os.utime(folder / f"{cache.name_of(n, __file__)}.arrays", (n + 1, n + 1))
    ask(calls, 0)  # used again, so it is the newest now
    size = max(p.stat().st_size for p in folder.iterdir())
    (folder / "of_somebody_else.h5").write_bytes(bytes(4 * size))
    monkeypatch.setattr(cache, "LIMIT_BYTES", 3 * size)
    ask(calls, 3)
    names = {cache.name_of(n, __file__) for n in (0, 2, 3)}
    assert {p.stem for p in folder.iterdir()} == names | {"of_somebody_else"}
