"""Settings and results declared once."""

import dataclasses

import jsonschema
import pytest

from fourdstem.schema import as_settings, build, json_schema, setting, unit_of


@dataclasses.dataclass(frozen=True)
class Params:
    """Settings of a stage."""

    width_px: int = setting(4, "Width.", minimum=1, maximum=9)
    pixel_inv_angstrom: float | None = setting(None, "Pixel.", above=0)
    roi: tuple[int, int] | None = setting(None, "Part.", minimum=0)
    sources: tuple[str, ...] = setting(("a",), "Sources.", choices=("a", "b"))
    mode: str = setting("fast", "Mode.", choices=("fast", "slow"))


def accepts(value):
    return jsonschema.Draft202012Validator(json_schema(Params)).is_valid(value)


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ({}, True),
        ({"width_px": 9}, True),
        ({"width_px": 10}, False),
        ({"width_px": 2.5}, False),
        ({"pixel_inv_angstrom": None}, True),
        ({"pixel_inv_angstrom": 0}, False),
        ({"roi": [0, 3]}, True),
        ({"roi": [0, -3]}, False),
        ({"roi": [0]}, False),
        ({"sources": ["a", "b"]}, True),
        ({"sources": ["c"]}, False),
        ({"mode": "quick"}, False),
        ({"other": 1}, False),
    ],
)
def test_the_schema_holds_types_limits_and_choices(value, good):
    assert accepts(value) is good


def test_settings_survive_the_way_through_json():
    params = Params(roi=(1, 2), sources=("a", "b"))
    assert build(Params, as_settings(params)) == params
    assert as_settings(params)["roi"] == [1, 2]


def test_every_default_is_allowed_by_its_own_schema():
    assert accepts(as_settings(Params()))


def test_the_unit_is_read_from_the_name():
    assert unit_of("pixel_inv_angstrom") == "1/Å"
    assert unit_of("step_angstrom") == "Å"
    assert unit_of("roi") == ""
