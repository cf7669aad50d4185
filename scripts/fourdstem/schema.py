"""Declares settings and results once: defaults, limits, units and sentences come from here.

A stage's settings are a frozen dataclass whose fields are made by `setting`; its results are a frozen
dataclass whose fields are made by `quantity`. The JSON schema and the tables of the documentation are
generated from them.
"""

import dataclasses
import types
import typing

UNIT_OF_SUFFIX = {
    "_inv_angstrom": "1/Å",
    "_angstrom": "Å",
    "_mrad": "mrad",
    "_kev": "keV",
    "_deg": "°",
    "_px": "px",
    "_counts": "counts",
}


def setting(default, doc: str, *, minimum=None, maximum=None, above=None, below=None, choices=None, fewest=0):
    """Declare one setting of a stage.

    Parameters
    ----------
    default
        Value used where the configuration is silent.
    doc : str
        One sentence for the user.
    minimum, maximum : float, optional
        Inclusive limits; for a tuple they hold for every element.
    above, below : float, optional
        Exclusive limits, likewise.
    choices : sequence, optional
        The only values allowed; for a tuple, the only elements.
    fewest : int
        Fewest elements of a tuple of any length.
    """
    limits = {"minimum": minimum, "maximum": maximum, "exclusiveMinimum": above, "exclusiveMaximum": below}
    limits = {k: v for k, v in limits.items() if v is not None}
    metadata = {"doc": doc, "limits": limits, "choices": choices, "fewest": fewest}
    return dataclasses.field(default=default, metadata=metadata)


def quantity(axes: str, unit: str, long_name: str, **options):
    """Declare one dataset of a result.

    Parameters
    ----------
    axes : str
        Names of the axes, slow first, separated by spaces ("" for a scalar): ``"scan_y scan_x"``.
    unit : str
        "px", "°", "counts", "1/Å" or "" where there is none.
    long_name : str
        What a plot of it is titled.
    options
        Given to `dataclasses.field`, for example ``default=None`` for a dataset that may be absent.
    """
    metadata = {"axes": tuple(axes.split()), "unit": unit, "long_name": long_name}
    return dataclasses.field(metadata=metadata, **options)


def unit_of(name: str) -> str:
    """Return the unit that the suffix of a setting's name states ("" where it has none)."""
    return next((unit for suffix, unit in UNIT_OF_SUFFIX.items() if name.endswith(suffix)), "")


_JSON_TYPES = {int: "integer", float: "number", bool: "boolean", str: "string", dict: "object"}


def _json_type(annotation, limits: dict, choices, fewest: int = 0) -> dict:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        schema = _json_type(inner[0], limits, choices)
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
        return schema
    if origin is tuple:
        args = typing.get_args(annotation)
        schema = {"type": "array", "items": _json_type(args[0], limits, choices)}
        if args[-1] is Ellipsis:
            return schema | {"minItems": fewest, "uniqueItems": True}
        return schema | {"minItems": len(args), "maxItems": len(args)}
    schema = {"type": _JSON_TYPES[annotation], **limits}
    if choices is not None:
        schema["enum"] = list(choices)
    return schema


def json_schema(params: type) -> dict:
    """Return the JSON schema of a settings dataclass, with defaults and descriptions."""
    hints = typing.get_type_hints(params)
    properties = {}
    for field in dataclasses.fields(params):
        meta = field.metadata
        entry = _json_type(hints[field.name], meta["limits"], meta["choices"], meta["fewest"])
        default = field.default
        entry["default"] = list(default) if isinstance(default, tuple) else default
        entry["description"] = meta["doc"]
        properties[field.name] = entry
    return {
        "type": "object",
        "description": (params.__doc__ or "").strip().splitlines()[0],
        "additionalProperties": False,
        "properties": properties,
    }


def build(params: type, values: dict):
    """Make a settings object from JSON values (lists become tuples); unknown keys are an error."""
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return params(**tuples)


def as_settings(params) -> dict:
    """Return a settings object as JSON values."""
    values = dataclasses.asdict(params)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
