"""Configurations without a mistake, and the small files that they name."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from hypothesis import strategies as st

from fourdstem import config as configuration
from fourdstem.faults.writers import COUNTS, write_merlin

SCAN, FRAMES = COUNTS.shape[:2], COUNTS.shape[0] * COUNTS.shape[1]
GOLD = """\
data_gold
_cell_length_a 4.078
_cell_length_b 4.078
_cell_length_c 4.078
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_symmetry_equiv_pos_as_xyz
'x, y, z'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Au1 Au 0 0 0
Au2 Au 0.5 0.5 0
Au3 Au 0.5 0 0.5
Au4 Au 0 0.5 0.5
"""
FILES = ("scan.npy", "stack.npy", "stack.mib", "scan ä.h5")
STAGE_BLOCKS = tuple(key for key in configuration.read_schema()["properties"] if key not in ("phases", "samples"))
# Settings of which a second one can contradict the first.
TWINS = (
    "bright_field_outer_px", "bright_field_outer_mrad", "dark_field_inner_px", "dark_field_inner_mrad",
    "dark_field_outer_px", "dark_field_outer_mrad",
)  # fmt: skip
# Physically sound values of the acquisition for files of 8 by 6 px.
SOUND = {
    "beam_energy_kev": st.sampled_from([60, 80.0, 200, 300]),
    "convergence_mrad": st.sampled_from([0, 0.5, 1]),
    "scan_step_angstrom": st.sampled_from([[20, 20], [1.5, 3.0]]),
    "detector_pixel_inv_angstrom": st.sampled_from([0.02, 0.05]),
    "scan_rotation_deg": st.sampled_from([0, -90.0, 33]),
    "detector_flip_y": st.booleans(),
    "precession_mrad": st.sampled_from([0, 17.0]),
    "counts_per_electron": st.sampled_from([None, 1, 0.8]),
    "offset_counts": st.sampled_from([None, 0, -3.5]),
    "mask": st.sampled_from([None, "mask.npy"]),
}


def prepare(folder: Path) -> None:
    """Put the files that the configurations name into a folder, sound ones and such as cannot be used."""
    frames = COUNTS.reshape(FRAMES, *COUNTS.shape[2:])
    np.save(folder / "scan.npy", COUNTS)
    np.save(folder / "stack.npy", frames)
    write_merlin(folder / "stack.mib", frames[:, ::-1])
    with h5py.File(folder / "scan ä.h5", "w") as file:
        file["counts"] = COUNTS
        file["acquisition/beam_energy_kev"] = 120.0
    np.save(folder / "mask.npy", np.ones(COUNTS.shape[2:], np.uint8))
    for phase in ("gold", "Silber ß"):
        (folder / f"{phase}.cif").write_text(GOLD, encoding="utf-8")
    (folder / "empty.npy").touch()
    (folder / "folder").mkdir()
    (folder / "nowhere.npy").symlink_to("gone.npy")
    (folder / "circle.npy").symlink_to("circle.npy")
    (folder / "curly {sample}.npy").write_bytes((folder / "scan.npy").read_bytes())
    os.mkfifo(folder / "pipe.npy")


def resolved(entry: dict, schema: dict) -> dict:
    """Return a part of the schema with its reference followed."""
    return schema["$defs"][entry["$ref"].rpartition("/")[2]] if "$ref" in entry else entry


@dataclass(frozen=True)
class Place:
    """Where a value can stand: keys from the top, and its part of the schema."""

    path: tuple
    entry: dict

    @property
    def key(self) -> str:
        """The last key that is a name."""
        return next(k for k in reversed(self.path) if isinstance(k, str))


def places(config: dict) -> list[Place]:
    """Return every place of a configuration where a setting may stand, whether it does or not."""
    schema, out = configuration.read_schema(), []

    def add(path, entry):
        entry = resolved(entry, schema)
        if entry["type"] == "object":
            for key, inner in entry["properties"].items():
                add((*path, key), inner)
        else:
            out.append(Place(path, entry))

    for stage in STAGE_BLOCKS:
        add((stage,), schema["properties"][stage])
    sample = schema["properties"]["samples"]["items"]["properties"]
    for i, block in enumerate(config["samples"]):
        for key, entry in sample.items():
            if key in ("file", "simulate") and key not in block:
                continue
            add(("samples", i, key), entry)
    for i, _ in enumerate(config.get("phases", ())):
        for key, entry in schema["properties"]["phases"]["items"]["properties"].items():
            add(("phases", i, key), entry)
    return out


def put(config: dict, path: tuple, value) -> None:
    """Set one value, making the blocks on the way."""
    node = config
    for key in path[:-1]:
        node = node[key] if isinstance(key, int) else node.setdefault(key, {})
    node[path[-1]] = value


def limits(entry: dict) -> tuple[float, float]:
    """Return lowest and highest of the numbers that a part of the schema allows, exclusive limits moved inwards."""
    entry = entry.get("items", entry)
    whole = "integer" in entry["type"]
    step = 1 if whole else 1e-3
    low = entry.get("minimum", entry["exclusiveMinimum"] + step if "exclusiveMinimum" in entry else -1000)
    high = entry.get("maximum", entry["exclusiveMaximum"] - step if "exclusiveMaximum" in entry else 1000)
    return low, max(low, high)


def value_of(entry: dict):
    """Strategy: a value that a part of the schema allows."""
    kind = entry["type"]
    if isinstance(kind, list):
        return st.one_of(st.none(), value_of({**entry, "type": kind[0]}))
    if kind == "array" and entry["items"]["type"] == "object":  # blocks that depend on each other; tested by hand
        return st.just([])
    if kind == "array":
        most = entry.get("maxItems", 3)
        return st.lists(
            value_of(entry["items"]), min_size=entry["minItems"], max_size=most, unique="maxItems" not in entry
        )
    if "enum" in entry:
        return st.sampled_from([v for v in entry["enum"] if v is not None])
    low, high = limits(entry) if kind in ("integer", "number") else (0, 0)
    return {
        "integer": st.integers(int(low), int(high)),
        "number": st.floats(low, high, allow_nan=False, allow_infinity=False, allow_subnormal=False),
        "boolean": st.booleans(),
        "string": st.just("/counts"),
    }[kind]


@st.composite
def configurations(draw) -> dict:
    """Strategy: a configuration that every gate accepts."""
    phases = draw(st.sampled_from([["gold"], ["gold", "Silver-2"], ["gold", "x" * 100]]))
    config = {"phases": [{"name": n, "cif": "Silber ß.cif" if i else "gold.cif"} for i, n in enumerate(phases)]}
    names = draw(
        st.lists(st.sampled_from(["film", "Probe_2", "a-b", "7", "n" * 100]), min_size=1, max_size=3, unique=True)
    )
    config["samples"] = [{"name": name, **draw(_samples(phases))} for name in names]
    schema = configuration.read_schema()
    for stage in draw(st.lists(st.sampled_from(STAGE_BLOCKS), max_size=2, unique=True)):
        config[stage] = draw(_some_of(schema["$defs"][stage]["properties"]))
    return config


@st.composite
def _samples(draw, phases: list) -> dict:
    schema = configuration.read_schema()
    # template_mask needs templates, whose mistakes are tested by hand.
    drawn = [stage for stage in configuration.STAGES if stage != "template_mask"]
    stages = draw(st.lists(st.sampled_from(drawn), min_size=1, unique=True))
    sample = {"phases": phases[: draw(st.integers(1, len(phases)))], "stages": stages}
    if draw(st.booleans()):
        return sample | {"simulate": draw(_some_of(schema["$defs"]["simulate"]["properties"]))}
    sample["file"] = draw(st.sampled_from(FILES))
    acquisition = {k: draw(SOUND[k]) for k in draw(st.lists(st.sampled_from(sorted(SOUND)), unique=True))}
    if {"orientation", "grains", "clusters"} & set(stages):
        acquisition |= {"beam_energy_kev": 200, "detector_pixel_inv_angstrom": 0.02}
    if sample["file"].startswith("stack") or draw(st.booleans()):
        stack = [list(SCAN), [5, 3], [FRAMES, 1]]
        acquisition["scan_shape"] = draw(st.sampled_from(stack if sample["file"].startswith("stack") else stack[:1]))
    sample["acquisition"] = acquisition
    ny, nx = acquisition.get("scan_shape", SCAN)
    if draw(st.booleans()):
        sample |= {"stride": draw(st.integers(1, 3)), "bin": draw(st.integers(1, 4))}
        sample["roi"] = draw(st.sampled_from([None, [0, ny, 0, nx], [1, 2, 0, 1]]))
    if draw(st.booleans()):
        stage = draw(st.sampled_from(STAGE_BLOCKS))
        sample["settings"] = {stage: draw(_some_of(schema["$defs"][stage]["properties"]))}
    return sample


@st.composite
def _some_of(draw, properties: dict) -> dict:
    """Strategy: valid values of a few settings, none of which another one can contradict."""
    alone = [
        k for k in properties if not k.endswith("_mrad") and not k.startswith(("dark_field", "bright_field", "loss"))
    ]
    if not alone:
        return {"bright_field_outer": draw(st.sampled_from([0.5, 1, 2.5]))}
    return {
        key: draw(value_of(properties[key])) for key in draw(st.lists(st.sampled_from(alone), max_size=3, unique=True))
    }


def plain(config) -> str:
    """Return a configuration as text that tells 1, 1.0 and true from each other."""
    return json.dumps(config, sort_keys=True, default=repr)
