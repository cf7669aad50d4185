"""What the configuration check says, and what each stage gets."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fourdstem import config, generated
from fourdstem.errors import ConfigError

SNAKEFILE = Path(__file__).resolve().parents[1] / "workflow" / "Snakefile"


@pytest.fixture
def valid(tmp_path, monkeypatch):
    """A sound configuration of two samples whose files exist."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "film.mib").write_bytes(b"x" * 10)
    (tmp_path / "gold.cif").write_text("data_gold")
    return {
        "phases": [{"name": "gold", "cif": "gold.cif"}],
        "samples": [
            {
                "name": "film",
                "file": "film.mib",
                "phases": ["gold"],
                "acquisition": {"beam_energy_kev": 200, "scan_shape": [4, 5]},
                "stages": ["virtual_image", "orientation"],
                "settings": {"orientation": {"sampling_deg": 2}},
            },
            {"name": "model", "simulate": {"specimen": "film", "seed": 2}, "phases": ["gold"]},
        ],
        "orientation": {"sources": ["corrected"]},
    }


def mistakes(settings):
    with pytest.raises(ConfigError) as caught:
        config.check(settings)
    return caught.value.mistakes


def test_a_sound_configuration_passes(valid):
    config.check(valid)


CASES = {
    "unknown setting": (lambda c: c["orientation"].update(sampling_deg_=1), ["`sampling_deg_`", "sampling_deg?"]),
    "unknown stage block": (lambda c: c.update(orientaton={}), ["`orientaton`", "did you mean orientation?"]),
    "unknown stage": (lambda c: c["samples"][0].update(stages=["orientatoin"]), ["'orientatoin'", "orientation?"]),
    "unknown acquisition key": (
        lambda c: c["samples"][0]["acquisition"].update(beam_energy=200),
        ["sample film.acquisition", "beam_energy_kev?"],
    ),
    "energy in eV": (
        lambda c: c["samples"][0]["acquisition"].update(beam_energy_kev=200000),
        ["sample film.acquisition.beam_energy_kev", "200000", "3000"],
    ),
    "text for a number": (
        lambda c: c["samples"][0]["acquisition"].update(beam_energy_kev="200 kV"),
        ["'200 kV' is text", "number"],
    ),
    "scan shape of one": (lambda c: c["samples"][0]["acquisition"].update(scan_shape=[20]), ["scan_shape", "2"]),
    "both pixel keys": (
        lambda c: c["samples"][0]["acquisition"].update(detector_pixel_mrad=1, detector_pixel_inv_angstrom=0.02),
        ["detector_pixel_mrad", "give one"],
    ),
    "missing raw file": (lambda c: c["samples"][0].update(file="flim.mib"), ["flim.mib does not exist", "film.mib?"]),
    "missing CIF": (lambda c: c["phases"][0].update(cif="glod.cif"), ["glod.cif does not exist", "gold.cif?"]),
    "a folder for a file": (lambda c: c["samples"][0].update(file="."), ["is a folder"]),
    "undefined phase": (lambda c: c["samples"][0].update(phases=["glod"]), ["'glod' is not defined", "gold?"]),
    "no phase for orientation": (lambda c: c["samples"][0].update(phases=[]), ["`phases:` is empty"]),
    "name with a slash": (lambda c: c["samples"][0].update(name="a/b"), ["'a/b'", "no /"]),
    "name with a space": (lambda c: c["samples"][0].update(name="a b"), ["'a b'", "no spaces"]),
    "reserved name": (lambda c: c["samples"][0].update(name="provenance"), ["provenance", "choose another"]),
    "two of one name": (lambda c: c["samples"][1].update(name="film"), ["sample film", "2 times"]),
    "two names alike but for case": (lambda c: c["samples"][1].update(name="FILM"), ["sample film", "2 times"]),
    "no samples": (lambda c: c.update(samples=[]), ["samples", "too few"]),
    "samples as a mapping": (lambda c: c.update(samples={"film": {}}), ["samples", "a mapping", "array"]),
    "samples missing": (lambda c: c.pop("samples"), ["`samples` is missing"]),
    "sample without a name": (lambda c: c["samples"][0].pop("name"), ["samples[0]", "`name` is missing"]),
    "file and simulate": (lambda c: c["samples"][1].update(file="film.mib"), ["exactly one"]),
    "neither": (lambda c: c["samples"][0].pop("file"), ["exactly one"]),
    "an empty roi": (lambda c: c["samples"][0].update(roi=[4, 2, 0, 3]), ["roi", "is empty"]),
    "missing truth": (lambda c: c["samples"][0].update(truth="t.h5"), ["truth t.h5 does not exist"]),
    "missing mask": (
        lambda c: c["samples"][0]["acquisition"].update(mask="m.png"),
        ["acquisition.mask m.png does not exist"],
    ),
    "a sample's own setting": (
        lambda c: c["samples"][0]["settings"]["orientation"].update(sampling_deg=-1),
        ["sample film.settings.orientation.sampling_deg", "-1"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_gets_one_clear_line(valid, name):
    change, words = CASES[name]
    change(valid)
    found = mistakes(valid)
    assert len(found) == 1, found
    for word in words:
        assert word in found[0], found[0]


def test_an_empty_raw_file_is_a_mistake(valid, tmp_path):
    (tmp_path / "film.mib").write_bytes(b"")
    assert "is empty (0 bytes)" in mistakes(valid)[0]


def test_all_mistakes_are_listed_at_once(valid):
    valid["samples"][0]["file"] = "missing.mib"
    valid["samples"][1]["phases"] = ["iron"]
    valid["orientation"]["speed"] = 1
    assert len(mistakes(valid)) == 3


def test_a_sample_overrides_a_setting_and_defaults_fill_the_rest(valid):
    film = config.settings(valid, "film", "orientation")
    model = config.settings(valid, "model", "orientation")
    assert film["sampling_deg"] == 2
    assert (
        model["sampling_deg"]
        == generated.build_schema()["$defs"]["orientation"]["properties"]["sampling_deg"]["default"]
    )
    assert film["sources"] == model["sources"] == ["corrected"]
    assert config.settings(valid, "model", "simulate")["seed"] == 2


def test_only_settings_that_differ_from_default_are_reported_as_changed(valid):
    changed = config.changed_settings(valid, "film", "orientation")
    assert changed["sampling_deg"][0] == 2
    assert set(changed) == {"sampling_deg", "sources"}


def test_averaging_runs_when_orientation_reads_it(valid):
    assert "nonlocal_average" not in config.stages(valid, "film")
    averaged = copy.deepcopy(valid)
    averaged["orientation"]["sources"] = ["averaged"]
    assert "nonlocal_average" in config.stages(averaged, "film")


def test_a_divergence_without_the_solver_that_has_it_is_refused_where_nmf_runs(valid):
    valid["nmf"] = {"loss": "kl"}
    config.check(valid)
    valid["samples"][0]["stages"] = ["nmf"]
    assert "nmf.loss kl goes with nmf.method mu, not hals" in mistakes(valid)[0]
    valid["nmf"]["method"] = "mu"
    config.check(valid)


def test_evaluation_runs_only_where_truth_is_known(valid):
    assert "evaluation" not in config.stages(valid, "film")
    valid["samples"][1]["stages"] = ["orientation"]
    assert "evaluation" in config.stages(valid, "model")


def test_orientation_needs_energy_and_pixel(valid):
    assert config.needed_acquisition(valid, "film") == ["beam_energy_kev", "detector_pixel_inv_angstrom"]
    valid["samples"][0]["stages"] = ["virtual_image"]
    assert config.needed_acquisition(valid, "film") == []


def test_a_folder_is_a_raw_file_only_where_hyperspy_writes_one(valid, tmp_path):
    (tmp_path / "film.zspy").mkdir()
    valid["samples"][0]["file"] = "film.zspy"
    config.check(valid)
    (tmp_path / "film.hspy").mkdir()
    valid["samples"][0]["file"] = "film.hspy"
    assert "is a folder" in mistakes(valid)[0]


def test_a_file_that_is_not_yaml_is_named_with_its_line(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("samples:\n  - name: [a\n")
    with pytest.raises(ConfigError, match="line 3"):
        config.load(path)
    with pytest.raises(ConfigError, match="no such file"):
        config.load(tmp_path / "other.yaml")


REPEATED = """\
samples: []
phases:
  - &gold {name: gold, cif: gold.cif, name: silver}
samples:
  - name: film
    file: film.mib
    acquisition:
      beam_energy_kev: 200
      scan_shape: [4, 5]
      "beam_energy_kev": 300
    phases: [iron]
"""


def test_keys_given_twice_are_named_with_their_lines_among_the_other_mistakes(valid):
    Path("my.yaml").write_text(REPEATED, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        config.check(config.load("my.yaml"), "my.yaml")
    assert caught.value.mistakes[:3] == [
        "my.yaml, line 3: key `name` was given before, in line 3; keep one",
        "my.yaml, line 4: key `samples` was given before, in line 1; keep one",
        "my.yaml, line 10: key `beam_energy_kev` was given before, in line 8; keep one",
    ]
    assert "'iron' is not defined" in caught.value.mistakes[3]
    assert len(caught.value.mistakes) == 4
    assert "4 mistakes in my.yaml" in str(caught.value)


def test_keys_that_only_look_repeated_pass(valid):
    Path("my.yaml").write_text(
        "phases: [{name: gold, cif: gold.cif}]\n"
        "samples:\n"
        "  - {name: a, file: film.mib, acquisition: &one {beam_energy_kev: 200, scan_shape: [4, 5]}}\n"
        "  - {name: b, file: film.mib, acquisition: &two {convergence_mrad: 1}}\n"
        "  - {name: c, file: film.mib, acquisition: {<<: *one, <<: *two, beam_energy_kev: 300}}\n",
        encoding="utf-8",
    )
    loaded = config.load("my.yaml")
    config.check(loaded, "my.yaml")
    assert loaded["samples"][2]["acquisition"] == {"beam_energy_kev": 300, "scan_shape": [4, 5], "convergence_mrad": 1}


@pytest.mark.parametrize(
    "command", [["fourdstem", "check"], ["snakemake", "-n", "--snakefile", SNAKEFILE, "--configfile"]]
)
def test_both_gates_refuse_a_key_given_twice(valid, command):
    Path("my.yaml").write_text("samples:\n  - {name: a, file: film.mib}\nsamples:\n  - {name: b, file: film.mib}\n")
    environment = os.environ | {"PYTHONPATH": str(SNAKEFILE.parents[1] / "scripts")}
    done = subprocess.run(
        [sys.executable, "-m", *command, "my.yaml"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode != 0
    assert "my.yaml, line 3: key `samples` was given before, in line 1" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_generated_files_are_in_step_with_the_declarations():
    assert generated.stale() == [], "run `python -m fourdstem schema`"


def test_the_demo_configuration_passes(monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parents[1])
    config.check(config.load("config/config.yaml"))
