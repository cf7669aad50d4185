import dataclasses
import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from fabricated import results

from fourdstem import notebook, report, summary
from fourdstem.figures import style

NOTEBOOK = Path("notebooks/report.ipynb")


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    return results(tmp_path_factory.mktemp("results") / "film")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of a sample that was only centred: notebook in the log, stored notebook, HTML."""
    folder = tmp_path_factory.mktemp("page")
    told = results(folder / "film", stages=(), declined=True)
    notebook.execute(NOTEBOOK, folder / "log.ipynb", told, report.sections(report.read(**told)))
    notebook.store(folder / "log.ipynb", folder / "report.ipynb")
    notebook.to_html(folder / "report.ipynb", folder / "report.html", "film: 4D-STEM report")
    return folder


def test_the_notebook_is_committed_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert all(not c.get("outputs") and c.get("execution_count") is None for c in cells)
    assert [c for c in cells if "parameters" in c.metadata.get("tags", [])]


def test_the_notebook_holds_no_numerics():
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            assert not re.search(r"numpy|scipy|matplotlib|\bnp\.|\*\*|/ ", cell.source), cell.source


def test_the_page_loads_nothing_from_the_network(page):
    html = (page / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", html)
    assert not re.findall(r"<script|@import|url\(", html)
    assert html.count("data:image/png;base64,") == 2


def test_the_page_shows_headings_figures_and_no_code(page):
    html = (page / "report.html").read_text(encoding="utf-8")
    assert html.count("<h2 id=") == html.count('<a href="#') >= 6
    assert "Where the beam was" in html and "report.verdicts(" not in html
    assert "Orientation</h2>" not in html and "Virtual images" not in html


def test_the_stored_notebook_holds_no_times_and_no_folders(page):
    text = (page / "report.ipynb").read_text(encoding="utf-8")
    assert "papermill" not in text.replace("injected-parameters", "") and "start_time" not in text
    assert "iopub" not in text and "sandbox" not in text
    content = nbformat.reads(text, as_version=4)
    nbformat.validate(content)
    assert [c["id"] for c in content.cells].count(notebook.INJECTED) == 1


def test_a_cell_that_fails_leaves_its_traceback_in_the_log(tmp_path):
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("raise ValueError('no such beam')")])
    nbformat.write(broken, tmp_path / "broken.ipynb")
    with pytest.raises(Exception, match="no such beam"):
        notebook.execute(tmp_path / "broken.ipynb", tmp_path / "log.ipynb", {}, ())
    assert "no such beam" in (tmp_path / "log.ipynb").read_text(encoding="utf-8")


def test_a_sound_sample_has_no_warnings(values):
    assert "No warnings" in report.headline(report.read(**values)).html


def test_a_scale_or_centre_off_by_more_than_it_is_known_is_a_warning(values):
    sample = report.read(**values)
    found = {"scale_factor": 1.012, "pixel_refined_inv_angstrom": 0.0203 / 1.012}
    off = dataclasses.replace(sample.orientation["corrected"], **found, centre_offset_px=np.array([0.1, -0.5]))
    sample = dataclasses.replace(sample, orientation={**sample.orientation, "corrected": off})
    text = report.warnings(sample).html
    assert text.count("Scale or centre is off") == 1
    assert "0.02006" in text and "-1.2%" in text and "polish" in text


def test_a_declined_verdict_is_a_warning_with_its_reason(tmp_path):
    sample = report.read(**results(tmp_path / "film", stages=(), declined=True))
    assert "ellipse declined" in report.warnings(sample).html and "limit 20" in report.warnings(sample).html
    assert "2 warnings" in report.headline(sample).html and "could not be measured" in report.headline(sample).html
    assert "1 px reach the detector's ceiling" in report.warnings(sample).html


def test_nothing_indexed_is_a_warning_for_each_source(tmp_path):
    sample = report.read(**results(tmp_path / "film", indexed=False))
    assert report.warnings(sample).html.count("Nothing was indexed") == 2


def test_a_missing_calibration_is_a_warning_that_names_the_key(tmp_path):
    sample = report.read(**results(tmp_path / "film", calibrated=False, stages=()))
    for key in ("scan_step_angstrom", "detector_pixel_inv_angstrom", "beam_energy_kev", "convergence_mrad"):
        assert key in report.warnings(sample).html


def test_harm_done_by_averaging_is_a_warning_where_the_truth_is_known(values):
    sample = report.read(**values)
    found = sample.evaluation
    worse = [0.1 if s == "averaged" and r == "boundary" else v for s, r, _, v in sample.scores]
    harmed = dataclasses.replace(sample, evaluation=dataclasses.replace(found, row_value=np.array(worse)))
    assert "harm in the region boundary" in report.warnings(harmed).html
    assert "harm" not in report.warnings(sample).html


def test_methods_cite_only_what_ran(values, tmp_path):
    everything = report.methods(report.read(**values)).html
    assert "10.1038/s43246-026-01134-9" in everything
    assert "arXiv:2603.30018" in everything and "10.1107/S205327331401643X" in everything
    little = report.methods(report.read(**results(tmp_path / "film", stages=()))).html
    assert "2603.30018" not in little and "Laue" not in little and "Snakemake" in little
    assert "Brandon" in everything and "Brandon" not in little


def test_every_reference_mark_has_its_reference(values):
    html = report.methods(report.read(**values)).html
    marks = {int(m) for group in re.findall(r"\[([\d, ]+)\]", html) for m in group.split(",")}
    assert marks == set(range(1, html.count("<li>") + 1))


def test_changed_settings_stand_beside_their_defaults(values):
    html = report.settings(report.read(**values)).html
    assert re.search(r"window_half_width_px</td><td>3</td><td>4</td><td>px", html)


def test_text_of_a_result_cannot_become_markup(values):
    html = report.text.table(("a",), [("<script>",)]).html
    assert "&lt;script&gt;" in html and "<script>" not in html


def test_metrics_are_json_without_nan_and_the_same_twice(values):
    first, second = (report.metrics(report.read(**values)) for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    assert first["values"]["averaged_indexed_share"] > 0.8 and first["verdicts"]["centre"]


def test_the_summary_shows_samples_of_different_stages_side_by_side(values, tmp_path):
    full = report.metrics(report.read(**values))
    bare = report.metrics(report.read(**results(tmp_path / "bare", stages=())))
    lines = summary.csv_text([full, bare]).splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    assert rows[1]["effective_number"] == "NaN" and float(rows[0]["effective_number"]) > 1
    html = summary.html([full, bare])
    assert 'href="film/report.html"' in html and html.count("data:image/png") == 1
    assert not re.findall(r"src=[\"']?http|<script", html)


def test_a_figure_shows_itself_with_its_caption(tmp_path):
    (tmp_path / "a_b.png").write_bytes(b"png")
    html = style.Figure("a_b", str(tmp_path), "what to look for")._repr_html_()
    assert "data:image/png;base64,cG5n" in html and "what to look for" in html


def test_the_table_of_grains_states_twins_beside_chance_and_texture_beside_few_grains(values):
    sample = report.read(**values)
    found = sample.grains["averaged"]
    html = report.grains(sample).html
    rows = [re.findall(r"<td.*?>(.*?)</td>", line) for line in html.splitlines() if "<td" in line]
    assert [row[:2] for row in rows] == [["corrected", "gold"], ["averaged", "gold"]]
    assert rows[1][2] == str(len(found.grain_size_px))
    assert rows[1][7].endswith("(1.8 %)") and "±" in rows[1][9]


def test_the_table_of_species_says_what_is_claimed_and_against_which_null(values):
    sample = report.read(**values)
    said = report.species(sample).html
    found = sample.template_mask
    for word in ("Fe", "Li", "detected", "not seen", f"{found.pull[0]:.2f}", f"{found.correlation[1]:.2f}"):
        assert word in said
    assert {"template_mask", "polarisation"} <= report.sections(sample)
    unasked = dataclasses.replace(found, polarisation_name=None)
    assert "polarisation" not in report.sections(dataclasses.replace(sample, template_mask=unasked))
    assert "template_mask" not in report.sections(dataclasses.replace(sample, template_mask=None))
