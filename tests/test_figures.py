import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest
from fabricated import results

from fourdstem import figures, report
from fourdstem.figures import ipf, maps, style


def example_patterns(sample):
    chosen = figures.nonlocal_average.examples(sample)
    return figures.nonlocal_average.patterns(sample, chosen, report.patterns(sample, chosen))


DRAW = {
    "preprocess_mean_pattern": figures.preprocess.mean_pattern,
    "preprocess_centre": figures.preprocess.centre,
    "virtual_image_images": figures.virtual_image.images,
    "nonlocal_average_trust": figures.nonlocal_average.trust,
    "nonlocal_average_patterns": example_patterns,
    "nmf_ranks": figures.nmf.ranks,
    "nmf_components": figures.nmf.components,
    "nmf_where": figures.nmf.where,
    "template_mask_images": figures.template_mask.images,
    "template_mask_masks": figures.template_mask.masks,
    "template_mask_numbers": figures.template_mask.numbers,
    "template_mask_columns": figures.template_mask.columns,
    "template_mask_polarisation": figures.template_mask.polarisation,
    "orientation_ipf": figures.orientation.ipf_maps,
    "orientation_trust": figures.orientation.trust,
    "orientation_phase": figures.orientation.phases,
    "orientation_overlap": figures.overlap.second,
    "grains_overview": figures.grains.overview,
    "grains_statistics": figures.grains.statistics,
    "grains_poles": figures.poles.pole_figures,
    "grains_clean": figures.grains.clean,
    "evaluation_misorientation": figures.evaluation.misorientation,
    "evaluation_success": figures.evaluation.success,
}
CASES = {
    "without calibration": {"calibrated": False, "stages": ("virtual_image", "nonlocal_average")},
    "nothing indexed": {"indexed": False, "stages": ("nonlocal_average", "orientation", "grains")},
    "two phases": {"phases": 2, "stages": ("nonlocal_average", "orientation", "grains")},
    "one scan row": {"scan_shape": (1, 20)},
    "a declined ellipse": {"declined": True, "stages": ()},
}


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Few dots and, but for one test, fonts that are quick to embed: what is tested does not depend on them."""
    monkeypatch.setattr(style, "DPI", 30)
    monkeypatch.setitem(style.LOOK, "pdf.fonttype", 3)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return report.read(**results(tmp_path_factory.mktemp("results") / "film"))


def moved(sample, folder):
    return type(sample)(**{**{f: getattr(sample, f) for f in sample.__dataclass_fields__}, "figures": str(folder)})


@pytest.mark.parametrize("name", DRAW)
def test_a_figure_is_the_same_to_the_byte_when_made_twice(name, sample, tmp_path):
    for k in "ab":
        assert DRAW[name](moved(sample, tmp_path / k)).name == name
    for kind in ("png", "pdf"):
        one, two = ((tmp_path / k / f"{name}.{kind}").read_bytes() for k in "ab")
        assert one == two and len(one) > 2000


def test_embedded_fonts_carry_no_date(sample, tmp_path, monkeypatch):
    monkeypatch.setitem(style.LOOK, "pdf.fonttype", 42)
    files = []
    for k in "ab":
        figures.evaluation.success(moved(sample, tmp_path / k))
        files.append((tmp_path / k / "evaluation_success.pdf").read_bytes())
    assert files[0] == files[1] and b"CreationDate" not in files[0]


@pytest.mark.parametrize("case", CASES)
def test_every_figure_can_be_drawn(case, tmp_path, monkeypatch):
    draw_png_only(monkeypatch)
    sample = report.read(**results(tmp_path / "film", **CASES[case]))
    there = report.sections(sample) | {"preprocess"} | ({"phase"} if len(sample.crystals) > 1 else set())
    drawn = 0
    for name, draw in DRAW.items():
        if name == "orientation_phase" and "phase" not in there:
            continue
        if any(name.startswith(stage) for stage in there):
            figure = draw(sample)
            assert figure.png.stat().st_size > 1000
            assert "nan" not in re.sub(r"[A-Za-z]nan|nan[A-Za-z]", "", figure.caption)
            drawn += 1
    assert drawn >= 2


def draw_png_only(monkeypatch):
    from matplotlib.figure import Figure

    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, path, **options: None if path.suffix == ".pdf" else save(self, path, **options)
    )


def test_the_caption_quotes_the_numbers_of_the_result(sample, tmp_path):
    caption = figures.preprocess.mean_pattern(moved(sample, tmp_path)).caption
    assert "1.0300 ± 0.0020" in caption and "1 dead, 2 hot, 0 saturated" in caption


@pytest.mark.parametrize(
    ("target", "length"), [(0.0312, 0.02), (1.0, 1.0), (49.9, 20.0), (50.0, 50.0), (999.0, 500.0), (1e4, 1e4)]
)
def test_a_scale_bar_is_one_two_or_five(target, length):
    assert maps.round_length(target) == pytest.approx(length)


@pytest.mark.parametrize(("length", "text"), [(5.0, "5 Å"), (20.0, "2 nm"), (5000.0, "500 nm"), (2e4, "2 µm")])
def test_a_length_is_told_in_a_readable_unit(length, text):
    assert maps.length_text(length) == text


def oriented(quaternions, phase):
    return SimpleNamespace(orientation=np.array(quaternions, np.float32), phase=np.array(phase))


def test_cubic_axes_along_the_beam_have_the_colours_of_the_key(sample):
    to_111 = np.arccos(1 / np.sqrt(3)) / 2  # a turn of 54.7° about [1, -1, 0] takes z to [111]
    axis = np.sin(to_111) * np.array([-1, 1, 0]) / np.sqrt(2)
    turns = [[[1, 0, 0, 0], [np.cos(np.pi / 8), np.sin(np.pi / 8), 0, 0], [np.cos(to_111), *axis]]]
    rgb = ipf.colours(oriented(turns, [[0, 0, 0]]), sample.crystals, "z")[0]
    np.testing.assert_allclose(rgb, [[1, 0, 0], [0, 1, 0], [0, 0, 1]], atol=0.02)


def test_a_turn_about_the_beam_changes_the_colours_of_x_only(sample):
    turns = [[[1, 0, 0, 0], [np.cos(np.pi / 8), 0, 0, np.sin(np.pi / 8)]]]
    result = oriented(turns, [[0, 0]])
    along_z, along_x = (ipf.colours(result, sample.crystals, axis)[0] for axis in "zx")
    np.testing.assert_allclose(along_z[0], along_z[1], atol=1e-6)
    np.testing.assert_allclose(along_x, [[1, 0, 0], [0, 1, 0]], atol=0.02)


def test_what_is_not_indexed_is_grey(sample):
    rgb = ipf.colours(oriented([[[np.nan] * 4]], [[-1]]), sample.crystals, "z")
    assert len(set(np.round(rgb[0, 0], 6))) == 1


def test_a_cluster_has_the_colour_of_its_largest_component():
    found = SimpleNamespace(
        component_cluster=[1, 0, 1, 0, -1], component_size_px=[3, 5, 9, 5, 0], cluster_size_px=[10, 12]
    )
    assert figures.nmf.largest(found).tolist() == [1, 2]


def test_example_patterns_are_the_extremes_and_distinct(sample):
    chosen = figures.nonlocal_average.examples(sample)
    number = sample.nonlocal_average.effective_number
    assert number[chosen[0].y, chosen[0].x] == number.max()
    assert number[chosen[1].y, chosen[1].x] == number.min()
    assert len({(e.y, e.x) for e in chosen}) == len(chosen) == 4


def test_a_map_without_values_has_a_colour_scale():
    assert maps.span(np.full((3, 3), np.nan)) == (0.0, 1.0)
    low, high = maps.span(np.full((3, 3), 7.0))
    assert low < 7 < high


def test_a_boundary_is_drawn_between_its_positions_and_named_by_its_class(sample, tmp_path):
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    ax = Figure().add_axes([0, 0, 1, 1])
    found = next(iter(sample.grains.values()))
    named = dataclasses.replace(
        found,
        boundary_position_px=np.array([[3.0, 4.5], [6.5, 2.0]], np.float32),
        boundary_class=np.array([found.class_name.index("Σ3"), found.class_name.index("Σ9")]),
    )
    figures.grains._boundaries(ax, named, (20.0, 10.0))
    lines = {c.get_segments()[0].tolist()[0][0]: c for c in ax.collections if isinstance(c, LineCollection)}
    assert sorted(map(tuple, lines[45.0].get_segments()[0].tolist())) == [(45.0, 50.0), (45.0, 70.0)]
    assert sorted(map(tuple, lines[15.0].get_segments()[0].tolist())) == [(15.0, 130.0), (25.0, 130.0)]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["Σ3 67 %", "other Σ 33 %"]  # 20 Å upright, 10 Å level


def test_corners_of_an_inverse_pole_figure_are_named_by_indices(sample):
    gold = sample.crystals[0]
    assert figures.poles.direction_name(np.array([1.0, 1, 1]), gold) == "[111]"
    assert figures.poles.direction_name(np.array([2.0, 0, 4]), gold) == "[102]"
    assert figures.poles.direction_name(np.array([1.0, np.pi / 10, 0.123]), gold) == ""


def test_the_projection_keeps_areas():
    # A cap of polar angle t has the area 2 pi (1 - cos t); on the figure pi r², in units where the equator is r = 1.
    for t in (0.3, 0.9, np.pi / 2):
        assert figures.poles.flat([[np.sin(t), 0, np.cos(t)]])[0, 0] ** 2 == pytest.approx(1 - np.cos(t))
