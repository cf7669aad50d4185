"""Fingerprints, sidecars and the audit."""

import json

import pytest

from fourdstem import provenance

MODULE = 'HALF = 0.5\n\n\ndef f(x):\n    """Double it."""\n    return x / HALF  # quick\n'


@pytest.fixture
def package(tmp_path):
    """A script that imports a module inside a block, and a package that imports relatively."""
    library = tmp_path / "fourdstem"
    (library / "methods" / "deep").mkdir(parents=True)
    (library / "methods" / "__init__.py").write_text("")
    (library / "__init__.py").write_text('__version__ = "1"\n')
    (library / "a.py").write_text(MODULE)
    (library / "unused.py").write_text("x = 1\n")
    (library / "methods" / "deep" / "__init__.py").write_text("from .kernel import g\n")
    (library / "methods" / "deep" / "kernel.py").write_text("def g():\n    return 1\n")
    script = tmp_path / "job.py"
    script.write_text("with open('x') as f:\n    from fourdstem import a\n    from fourdstem.methods import deep\n")
    return script


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("fourdstem/a.py", "0.5", "0.25"),
        ("fourdstem/methods/deep/kernel.py", "return 1", "return 2"),
        ("job.py", "'x'", "'y'"),
    ],
)
def test_an_edit_that_can_change_a_result_changes_the_fingerprint(package, file, old, new):
    before = provenance.code_fingerprint(package)
    path = package.parent / file
    path.write_text(path.read_text().replace(old, new))
    assert provenance.code_fingerprint(package) != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("fourdstem/a.py", "quick", "slow"),
        ("fourdstem/a.py", "Double it", "Double the number"),
        ("fourdstem/a.py", "\n\n\ndef", "\n\n\n\n\ndef"),
        ("fourdstem/unused.py", "1", "2"),
        ("fourdstem/__init__.py", "1", "2"),
    ],
)
def test_comments_docstrings_layout_and_unused_modules_do_not(package, file, old, new):
    before = provenance.code_fingerprint(package)
    path = package.parent / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert provenance.code_fingerprint(package) == before


def test_only_the_code_cells_of_a_notebook_count(package, tmp_path):
    notebook = tmp_path / "n.ipynb"

    def fingerprint(text, code):
        cells = [{"cell_type": "markdown", "source": [text]}, {"cell_type": "code", "source": [code]}]
        notebook.write_text(json.dumps({"cells": cells}))
        return provenance.code_fingerprint(package, [notebook])

    assert fingerprint("words", "x = 1") == fingerprint("other words", "x = 1")
    assert fingerprint("words", "x = 1") != fingerprint("words", "x = 2")


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A raw file, two stages and the record at the end."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw.bin").write_bytes(b"raw counts")
    folder = tmp_path / "results" / "s"
    (folder / "provenance").mkdir(parents=True)
    (folder / "logs").mkdir()
    (folder / "logs" / "a.log").write_text("free to change")
    (folder / "a.h5").write_bytes(b"first")
    (folder / "figures").mkdir()
    (folder / "figures" / "f.png").write_bytes(b"picture")

    def sidecar(stage, inputs, outputs):
        content = {"stage": stage, "settings": {"seed": 1}, "inputs": provenance.describe(inputs)}
        provenance.write_record(
            f"results/s/provenance/{stage}.json", content | {"outputs": provenance.describe(outputs)}
        )

    sidecar("a", ["raw.bin"], ["results/s/a.h5"])
    sidecar("b", ["results/s/a.h5", "results/s/provenance/a.json"], ["results/s/figures"])
    sidecars = ["results/s/provenance/a.json", "results/s/provenance/b.json"]
    provenance.write_record("results/provenance.json", provenance.collect("results", sidecars))
    (tmp_path / "results" / "README.md").write_text("tracked")
    return tmp_path


def test_untouched_results_are_sound(results):
    assert provenance.audit("results") == []


@pytest.mark.parametrize(
    "file",
    [
        "raw.bin",
        "results/s/a.h5",
        "results/s/figures/f.png",
        "results/s/provenance/a.json",
        "results/s/provenance/b.json",
        "results/provenance.json",
    ],
)
def test_a_flipped_byte_anywhere_is_found(results, file):
    path = results / file
    for position in range(0, path.stat().st_size, 7):
        original = path.read_bytes()
        flipped = bytearray(original)
        flipped[position] ^= 1
        path.write_bytes(bytes(flipped))
        provenance._sha256.cache_clear()
        assert any(str(path) in line for line in provenance.audit("results")), position
        path.write_bytes(original)


def test_an_edited_setting_is_found_even_with_a_valid_digest(results):
    path = results / "results/s/provenance/a.json"
    record = json.loads(path.read_text())
    record["settings"]["seed"] = 2
    provenance.write_record(path, record)
    assert f"changed {path}" in provenance.audit("results")


def test_missing_and_extra_files_are_named(results):
    (results / "results/s/a.h5").unlink()
    (results / "results/s/stray.txt").write_text("?")
    lines = provenance.audit("results")
    assert f"missing {results / 'results/s/a.h5'}" in lines
    assert f"extra {results / 'results/s/stray.txt'}" in lines


def test_logs_and_the_readme_are_not_extra(results):
    (results / "results/s/logs/a.log").write_text("changed")
    (results / "results/README.md").write_text("changed")
    assert provenance.audit("results") == []


def test_a_result_remade_behind_the_chain_is_broken(results):
    """A stage rerun by hand leaves a valid sidecar, but what the next stage read is no longer what stands there."""
    (results / "results/s/a.h5").write_bytes(b"remade")
    content = {"stage": "a", "settings": {}, "inputs": provenance.describe(["raw.bin"])}
    provenance.write_record(
        "results/s/provenance/a.json", content | {"outputs": provenance.describe(["results/s/a.h5"])}
    )
    sidecars = ["results/s/provenance/a.json", "results/s/provenance/b.json"]
    provenance.write_record("results/provenance.json", provenance.collect("results", sidecars))
    assert f"broken {results / 'results/s/provenance/b.json'}" in provenance.audit("results")


def test_the_audit_runs_on_the_standard_library_alone():
    import ast
    import sys
    from pathlib import Path

    root = Path(provenance.__file__).parent
    for name in ("provenance.py", "__main__.py", "errors.py", "__init__.py"):
        tree = ast.parse((root / name).read_text())
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = node.names[0].name if isinstance(node, ast.Import) else node.module
                assert module.split(".")[0] in {*sys.stdlib_module_names, "fourdstem"}, (name, module)
