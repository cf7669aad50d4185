"""A sample of mistakes and damages: each is refused with what to do, or harmless; the whole is `study_faults`."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from raw_files import COUNTS, refuses

from fourdstem import config
from fourdstem.errors import ConfigError, InputError
from fourdstem.estimate import values_in_force
from fourdstem.faults import damage, gates, mistakes, survey, valid
from fourdstem.faults.files import KINDS
from fourdstem.formats import consistency, open_raw
from fourdstem.methods import scan
from fourdstem.watch import crashes, watched


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with the files that configurations name."""
    monkeypatch.chdir(tmp_path)
    valid.prepare(tmp_path)
    return tmp_path


# ---- samples of the surveys -------------------------------------------------------------------------------


def test_no_gate_lets_a_mistake_pass_or_takes_something_else_than_is_written(tmp_path):
    found = list(survey.survey_configurations(tmp_path, each=2, seed=0))
    assert [(kind, why, text) for kind, outcome, why, text in found if outcome == "unexplained"] == []
    outcomes = Counter(outcome for _, outcome, _, _ in found)
    assert outcomes["refused"] > 40 and outcomes["unchanged"] > 8
    assert {kind for kind, *_ in found} == set(mistakes.KINDS)


FEW = ("npy", "mib", "tif, zlib", "hdf5, gzip")


def test_no_damaged_file_is_read_without_a_word(tmp_path):
    found = list(survey.survey_files(FEW, tmp_path / "files", each=1, seed=0))
    unexplained = [row[:4] + (row[4].touched,) for row in found if row[2] == "unexplained"]
    assert unexplained == []
    assert len(found) > 40 and sum(row[2] == "refused" for row in found) > 20


def test_the_table_has_a_row_per_kind_and_their_sum():
    rows = survey.table(Counter({("a", "x", "refused"): 2, ("a", "y", "told"): 3, ("b", "x", "unexplained"): 1}))
    assert rows[0][:4] == ("subject", "kind", "cases", "refused")
    assert [row[:4] for row in rows[1:]] == [
        ("a", "x", 2, 2),
        ("a", "y", 3, 0),
        ("a", "all", 5, 2),
        ("b", "x", 1, 0),
        ("b", "all", 1, 0),
    ]
    assert rows[-1][-1] == 1


# ---- the judges can find fault ----------------------------------------------------------------------------


def case_of(text, fate, names=(), intended=None):
    return mistakes.Case("planted", text.encode(), fate, names, intended)


SOUND = "samples: [{name: film, file: scan.npy, stride: 2}]\n"


@pytest.mark.parametrize(
    ("text", "fate", "names", "why"),
    [
        (SOUND, "refuse", (), "no gate saw"),
        (SOUND.replace("2", "0"), "accept", (), "although it is sound"),
        (SOUND.replace("2", "0"), "refuse", ("roi",), "is named"),
    ],
)
def test_the_judge_of_gates_finds_what_may_not_be(folder, text, fate, names, why):
    with pytest.raises(gates.Unexplained, match=why):
        gates.judge(case_of(text, fate, names), folder)
    assert gates.judge(case_of(SOUND, "accept"), folder) == gates.ACCEPTED


def test_the_judge_of_gates_finds_a_value_that_is_not_in_force(folder, monkeypatch):
    monkeypatch.setattr(
        config, "_merge", lambda schema, *layers: {k: p["default"] for k, p in schema["properties"].items()}
    )
    with pytest.raises(gates.Unexplained, match=r"scan\.stride is 1"):
        gates.judge(case_of(SOUND, "accept"), folder)


def test_the_judge_of_gates_finds_other_counts(folder):
    np.save("scan.npy", COUNTS[:, ::-1])
    with pytest.raises(gates.Unexplained, match="counts of shape"):
        gates.judge(case_of(SOUND, "accept"), folder)


def test_the_judge_of_files_finds_silent_changes(tmp_path):
    sound, before = damage.prepared("npy", tmp_path)
    whole = sound.path.read_bytes()
    flip = damage.Damage("flipped bits", whole, ((len(whole) - 2, len(whole) - 1),))
    for change, outcome in ((1, "harmless"), (2, "unexplained")):
        counts = before.counts.copy()
        counts.flat[-change:] += 1
        np.save(sound.path, counts)
        assert damage.judge(sound.path, sound, before, flip)[0] == outcome
    np.save(sound.path, before.counts[:, :4])
    assert "shape" in damage.judge(sound.path, sound, before, flip)[1]


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [(signal.SIGSEGV, "crash told"), (None, "no answer within 0.5 s"), (ValueError, "ValueError")],
)
def test_a_reader_that_crashes_hangs_or_raises_is_found(tmp_path, monkeypatch, ending, outcome):
    def judge(*_):
        if ending is ValueError:
            raise ValueError
        os.kill(os.getpid(), ending) if ending else time.sleep(60)

    monkeypatch.setattr(damage, "judge", judge)
    worker = survey.Worker(0.5 if ending is None else 10.0, tmp_path / "job.log")
    try:
        found = worker.judge(Path("a.h5"), None, None, None)
    finally:
        worker.stop()
    assert outcome in "".join(found)


# ---- what the surveys found in configurations -------------------------------------------------------------


FILM = "samples:\n  - {{name: film, file: scan.npy{}}}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FILM.format(", stride: 2.0"), ["stride", "2.0", "write 2"]),
        (FILM.format(", stride: 010"), ["line 2", "`010`", "as 8"]),
        (FILM.format(", stride: 1:30"), ["`1:30`", "base 60"]),
        (FILM.format(f", stride: {10**20}"), ["stride", "too large"]),
        (FILM.format(", acquisition: {offset_counts: .nan}"), ["acquisition.offset_counts", "nan"]),
        (FILM.format(", acquisition: {offset_counts: 1e3}"), ["'1e3' is text", "write 1000"]),
        (FILM.format(", stages: []"), ["stages", "too few"]),
        (FILM.format(", stages: [virtual_image, virtual_image]"), ["stages", "more than once"]),
        (FILM.format(", dataset: ''"), ["dataset", "empty"]),
        (FILM.format(", truth: 2024-13-45"), ["line 2", "2024-13-45", "month"]),
        (FILM.format(", truth: 2024-05-01"), ["a date", "in quotes"]),
        (FILM.format("") + "orientation: {sources: []}", ["sources", "too few"]),
        (FILM.format("") + "orientation: &a {sources: *a}", ["without end"]),
        (FILM.format("") + "orientation: " + "[" * 400, ["YAML"]),
        (FILM.format("").replace("film,", '"film\\n",'), ["letters, digits"]),
        (FILM.format("").replace("film,", f"{'x' * 101},"), ["too long"]),
        (FILM.format(", phases: [silver]").replace("film,", f"{'x' * 5000},"), ["... (5002 characters)"]),
        (FILM.format("").replace("scan.npy", "x" * 300), ["file", "cannot be read"]),
        (FILM.format("").replace("scan.npy", '"curly {sample}.npy"'), ["takes for a pattern"]),
        (FILM.format("").replace("scan.npy", "pipe.npy"), ["no regular file"]),
        (
            FILM.format(", settings: {virtual_image: {dark_field_inner_px: 3}}")
            + "virtual_image: {dark_field_inner_mrad: 2}",
            ["sample film", "dark_field_inner_px", "dark_field_inner_mrad", "give one"],
        ),
    ],
)
def test_what_was_once_taken_or_ended_in_a_traceback_is_refused_by_name(folder, text, words):
    Path("my.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        config.check(config.load("my.yaml"), "my.yaml")
    assert len(caught.value.mistakes) <= 2, caught.value
    for word in words:
        assert word in str(caught.value), caught.value


def test_a_raw_file_among_the_results_of_its_own_sample_is_refused(folder):
    Path("results/film").mkdir(parents=True)
    np.save("results/film/scan.npy", COUNTS)
    with pytest.raises(ConfigError, match="among the results of this sample"):
        config.check({"samples": [{"name": "film", "file": "results/film/scan.npy"}]})


def test_a_file_that_is_no_utf8_is_named_with_its_line(folder):
    Path("my.yaml").write_bytes(b"samples:\n  - {name: film, file: scan.npy} # \xe4\n")
    with pytest.raises(ConfigError, match="line 2: byte 0xe4 is no UTF-8"):
        config.load("my.yaml")
    with pytest.raises(ConfigError, match="save it as UTF-8"):
        config.check({"samples": [{"name": "film", "file": "scan.npy"}]}, "my.yaml")


def test_a_key_given_twice_in_json_with_tabs_is_a_mistake(folder):
    Path("my.json").write_text('{\t"samples": [], "samples": [{"name": "film", "file": "scan.npy"}]}')
    with pytest.raises(ConfigError, match="key `samples` is given 2 times"):
        config.check({"samples": [{"name": "film", "file": "scan.npy"}]}, "my.json")


# ---- what the surveys found in files ----------------------------------------------------------------------


def flipped(path, at, bit):
    content = bytearray(path.read_bytes())
    content[at] ^= bit
    path.write_bytes(content)


def test_a_chunk_that_the_index_of_hdf5_no_longer_finds_is_not_read_as_zeros(tmp_path):
    sound, before = damage.prepared("hdf5, gzip", tmp_path)
    whole, refused = sound.path.read_bytes(), 0
    first = whole.index(b"TREE", 1000)
    for at in range(first, first + 400, 11):
        flipped(sound.path, at, 4)
        outcome, why = damage.judge(sound.path, sound, before, damage.Damage("flipped bits", b"", ((at, at + 1),)))
        assert outcome != "unexplained", why
        refused += outcome == "refused"
        sound.path.write_bytes(whole)
    assert refused > 3


def test_counts_of_hdf5_that_lie_elsewhere_than_written_are_refused(tmp_path):
    sound, _ = damage.prepared("hdf5", tmp_path)
    start = sound.payload[0][0]
    at = sound.path.read_bytes().index(b"\x03\x01" + start.to_bytes(8, "little")) + 2  # of the layout message
    flipped(sound.path, at + 1, 2)
    refuses(sound.path, "overlap")


def test_chunks_that_were_never_written_are_told(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("counts", COUNTS.shape, "u2", chunks=(1, 5, 8, 6))[1:] = COUNTS[1:]
    with open_raw(tmp_path / "a.h5") as raw:
        assert raw.notes == ("1 of 3 chunks were never written: their counts read as 0",)


def test_a_page_of_a_tiff_without_a_place_is_not_read_as_zeros(tmp_path):
    frames = COUNTS.reshape(15, 8, 6)
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tag = file.pages[7].aspage().tags["StripOffsets"]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[tag.valueoffset : tag.valueoffset + 4] = bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    with open_raw(tmp_path / "a.tif") as raw, pytest.raises(InputError, match="page 7 without all of its counts"):
        raw.data[0:15]


def test_frames_too_large_for_any_detector_are_refused_before_memory_is_asked_for(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("counts", (2, 2**20, 2**20), "u2", chunks=(1, 8, 8))
        data[0, 0, 0] = 1
    refuses(tmp_path / "a.h5", "1048576 by 1048576 px")


@pytest.mark.parametrize("kind", ["u2", "u4", "i4"])
def test_counts_whose_bytes_look_swapped_are_told(kind):
    counts = COUNTS[0] % 200
    assert consistency.told_of_counts(counts.astype(kind)) == []
    assert "other order" in consistency.told_of_counts(counts.astype(kind).byteswap())[0]


def test_values_in_force_say_where_they_come_from():
    acquisition, origins = scan.resolve_acquisition({"beam_energy_kev": 200.0}, {"scan_shape": [3, 5]})
    said = values_in_force(acquisition, origins)
    for words in ("beam_energy_kev 200.0 (file)", "scan_shape [3, 5] (config)", "scan_rotation_deg 0.0 (default)"):
        assert words in said


# ---- what is left to say when a library crashes -----------------------------------------------------------


def test_a_crash_is_told_by_another_process(tmp_path):
    text = (
        "import os, signal, sys\nfrom fourdstem.watch import watched\n"
        "with watched(sys.argv[1], ['a.h5']):\n    os.kill(os.getpid(), int(sys.argv[2]))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(survey.__file__).parents[2])}
    for number in (signal.SIGSEGV, signal.SIGKILL):
        log = tmp_path / f"{number}.log"
        done = subprocess.run([sys.executable, "-c", text, str(log), str(int(number))], env=environment, check=False)
        assert done.returncode == -number
        for _ in range(200):
            if log.exists() and log.stat().st_size:
                break
            time.sleep(0.05)
        assert "while it read a.h5" in log.read_text() and f"[log: {log}]" in log.read_text()


def test_nothing_is_told_where_a_block_ends_or_raises(tmp_path):
    with watched(tmp_path / "log", ["a"]):
        pass
    with pytest.raises(KeyError), watched(tmp_path / "log", ["a"]):
        raise KeyError
    assert not (tmp_path / "log").exists()


def test_what_crashes_in_a_copy_of_the_process_is_known_here():
    assert crashes(lambda: None) == ""
    assert crashes(lambda: 1 / 0) == ""
    assert crashes(lambda: os.kill(os.getpid(), signal.SIGSEGV)) == "Segmentation fault"


def test_an_hdf5_file_that_its_library_dies_of_is_refused(tmp_path, monkeypatch):
    sound, _ = damage.prepared("hdf5", tmp_path)
    monkeypatch.setattr("fourdstem.formats.opening.open_hdf5", lambda *_: os.kill(os.getpid(), signal.SIGSEGV))
    refuses(sound.path, "dies of (Segmentation fault)", "damaged")


def test_every_kind_of_file_is_sound_before_it_is_damaged(tmp_path):
    for number, kind in enumerate(KINDS):
        place = tmp_path / str(number)
        place.mkdir()
        sound, before = damage.prepared(kind, place)
        assert before.counts.shape[0] > 1 and before.counts.any(), kind
        assert sound.payload or sound.damaged != sound.path or kind in ("empad", "arina"), kind
