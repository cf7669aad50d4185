"""What `check` finds by opening headers and CIFs, without running anything."""

from pathlib import Path

import numpy as np
import pytest

from fourdstem import config, headers
from fourdstem.__main__ import main

GOLD = Path(__file__).resolve().parents[1] / "config/cif/gold.cif"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("stack.npy", np.ones((12, 16, 16), np.uint16))
    np.save("scan.npy", np.ones((3, 4, 16, 16), np.uint16))
    Path("bad.cif").write_text("no CIF")
    return tmp_path


def write(samples, phases=""):
    Path("my.yaml").write_text(f"{phases}\nsamples:\n{samples}", encoding="utf-8")
    return config.load("my.yaml")


def test_every_wrong_header_and_cif_is_listed_at_once(folder):
    loaded = write(
        "  - {name: a, file: stack.npy, phases: [bad]}\n"
        "  - {name: b, file: scan.npy, roi: [0, 64, 0, 64]}\n"
        "  - {name: c, file: scan.npy, phases: [gold], stages: [orientation]}\n"
        "  - {name: d, file: scan.npy, acquisition: {scan_shape: [5, 5]}}\n",
        f"phases: [{{name: bad, cif: bad.cif}}, {{name: gold, cif: {GOLD}}}]",
    )
    config.check(loaded)
    found = headers.check(loaded)
    for words in ("sample a: ", "bad.cif", "without a scan shape", "roi [0, 64, 0, 64]", "beam_energy_kev", "[5, 5]"):
        assert any(words in line for line in found), words
    assert len(found) == 5


def test_a_sound_file_passes(folder):
    assert headers.check(write("  - {name: a, file: scan.npy}\n")) == []


def test_the_command_lists_them_and_fails(folder, capsys):
    write("  - {name: a, file: stack.npy}\n")
    assert main(["check", "my.yaml"]) == 1
    assert "1 mistake in my.yaml" in capsys.readouterr().err
