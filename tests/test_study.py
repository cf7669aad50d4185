"""Tables over several samples."""

import csv

import numpy as np
import pytest

from fourdstem import study
from fourdstem.figures import study_averaging as figures
from fourdstem.figures import style

HEAD = "source,region,metric,value,unit\n"


def _write(folder, tables):
    paths = [folder / f"{k}.csv" for k in range(len(tables))]
    for path, rows in zip(paths, tables, strict=True):
        path.write_text(HEAD + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return paths


def test_a_study_of_doses_has_mean_lowest_and_highest_of_the_films(tmp_path):
    tables = [
        ["corrected,all,within_5_deg,0.5,share", "corrected,twin,psnr,20,dB"],
        ["corrected,all,within_5_deg,0.7,share", "corrected,twin,psnr,nan,dB"],
        ["corrected,all,within_5_deg,0.9,share", "corrected,all,unknown_metric,1,"],
    ]
    rows = study.gather_doses(_write(tmp_path, tables), [1000, 1000, 100])
    assert rows == [
        ("dose", "region", "source", "metric", "unit", "films", "mean", "lowest", "highest"),
        ("100", "all", "corrected", "within_5_deg", "share", 1, "0.9", "0.9", "0.9"),
        ("1000", "all", "corrected", "within_5_deg", "share", 2, "0.6", "0.5", "0.7"),
        ("1000", "twin", "corrected", "psnr", "dB", 1, "20", "20", "20"),
    ]


def test_as_many_doses_as_tables_are_needed(tmp_path):
    with pytest.raises(ValueError, match="zip"):
        study.gather_doses(_write(tmp_path, [[], []]), [100])


def test_a_study_of_seeds_has_a_column_per_sample(tmp_path):
    paths = _write(tmp_path, [["corrected,all,indexed,0.25,share"], ["corrected,all,indexed,0.75,share"]])
    rows = study.gather(paths, ["a", "b"])
    assert rows[0] == ("metric", "region", "source", "mean", "lowest", "highest", "a", "b")
    assert rows[1:] == [("indexed", "all", "corrected", "0.500", "0.250", "0.750", "0.250", "0.750")]


def test_a_table_reads_back_as_it_was_written(tmp_path):
    rows = [("dose", "region"), ("100", "a, b")]
    study.write_table(tmp_path / "new" / "table.csv", rows)
    with (tmp_path / "new" / "table.csv").open(newline="", encoding="utf-8") as file:
        assert [tuple(row) for row in csv.reader(file)] == rows


def _rows(doses):
    rows = [study.DOSE_COLUMNS]
    for k, dose in enumerate(doses):
        for source in (*figures.RIVALS, *figures.NONLOCAL, "window_sqrt", "noise_free"):
            for region in ("all", "interior", "boundary", "twin", "bent_interior", "reference_interior"):
                for metric in ("within_2_deg", "within_5_deg", "median_misorientation", "psnr", "own_weight"):
                    rows.append((f"{dose}", region, source, metric, "", 3, 0.5 + 0.1 * k, 0.4, 0.9))
    return rows


@pytest.fixture
def coarse(monkeypatch):
    monkeypatch.setattr(style, "DPI", 30)
    monkeypatch.setitem(style.LOOK, "pdf.fonttype", 3)


def test_every_figure_of_the_study_can_be_drawn(tmp_path, coarse):
    drawn = figures.draw(_rows((100, 1000, 10000)), tmp_path)
    assert [figure.name for figure in drawn] == [
        f"averaging_{name}" for name in ("success", "bending", "root", "quality", "weight")
    ]
    assert all(figure.png.stat().st_size > 1000 for figure in drawn)


def test_a_figure_of_the_study_is_the_same_to_the_byte_when_made_twice(tmp_path, coarse):
    table = figures.table_of(_rows((100,)))
    one, other = (figures.weight(table, tmp_path / k).png for k in "ab")
    assert one.read_bytes() == other.read_bytes()
    assert one.with_suffix(".pdf").read_bytes() == other.with_suffix(".pdf").read_bytes()


def test_figures_show_the_values_of_the_table():
    table = figures.table_of(_rows((100, 1000)))
    np.testing.assert_array_equal(table["twin", "box_3x3", "psnr"], [[100, 1000], [0.5, 0.6], [0.4, 0.4], [0.9, 0.9]])
