"""The table and the figures of the study of factorisation."""

import pytest

from fourdstem import study
from fourdstem.figures import study_nmf as figures
from fourdstem.methods.evaluation import scan_rows
from fourdstem.methods.evaluation.components import Agreement

WAYS = ("stage", "published measures", "silhouette")


@pytest.fixture
def tables(tmp_path):
    """Two seeds of two kinds."""
    names = [f"{s}, counts, {scaling}" for s in ("corrected", "averaged") for scaling in figures.SCALINGS]
    told = {name: Agreement(0.9 - 0.05 * i, 0.8, 0.7, 0.99, 0.995) for i, name in enumerate(names)}
    paths = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for off, path in enumerate(paths):
        rows = []
        for kind in ("few", "overlap"):
            rows += scan_rows(kind, 3, {way: 3 + off * i for i, way in enumerate(WAYS)}, told)
        study.write_table(path, rows)
    return paths


def test_the_table_has_shares_of_scans_by_kind_and_of_all(tables):
    rows, errors = study.gather_components(tables)
    table = {row[:3]: row[3:] for row in rows[1:]}
    assert rows[0] == study.COMPONENT_COLUMNS
    assert errors["few", "silhouette"] == [0, 2]
    assert table["few", "silhouette", "rank_right"] == (2, "0.500", "0.000", "1.000")
    assert table["all", "published measures", "rank_within_1"] == (4, "1.000", "1.000", "1.000")
    assert table["all", "silhouette", "rank_error"] == (4, "1.000", "0.000", "2.000")
    assert table["overlap", "averaged, counts, sum", "ari"] == (2, "0.700", "0.700", "0.700")


def test_the_figures_are_drawn_and_the_same_to_the_byte_when_made_twice(tables, tmp_path):
    made = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        figures.draw(*study.gather_components(tables), folder)
        made.append({p.name: p.read_bytes() for p in sorted(folder.iterdir())})
    assert made[0] == made[1]
    assert {f"nmf_{n}.{k}" for n in ("rank", "labels") for k in ("png", "pdf")} <= set(made[0])


def test_the_figure_of_the_cost_tells_the_exponents_of_power_laws(tmp_path):
    rows = [("against", "positions", "pixels", "rank", "processor_s")]
    rows += [("positions", n, 4096, 10, f"{1e-4 * n:.6f}") for n in (1000, 4000, 9000)]
    rows += [("pixels", 8192, k, 10, f"{1e-3 * k**0.5:.6f}") for k in (256, 1024, 4096)]
    rows += [("rank", 8192, 4096, r, f"{0.01 * r**2:.6f}") for r in (3, 10, 20)]
    caption = figures.cost(rows, tmp_path).caption
    assert "positions to the power 1.00; pixels to the power 0.50; rank to the power 2.00" in caption
    assert "8,192 positions, 4,096 pixels, rank 10" in caption
    assert {p.name for p in tmp_path.iterdir()} >= {"nmf_cost.png", "nmf_cost.pdf"}
