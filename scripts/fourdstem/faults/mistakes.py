"""Mistakes that users make in configurations, each with what must become of it."""

import copy
import datetime
from dataclasses import dataclass

import yaml
from hypothesis import assume
from hypothesis import strategies as st

from fourdstem.faults import texts, valid
from fourdstem.faults.valid import Place, limits, places, put, value_of


@dataclass(frozen=True)
class Case:
    """A configuration as it stands in a file.

    Attributes
    ----------
    kind : str
        What was done to it.
    text : bytes
    fate : str
        "refuse": no gate may let it pass; "accept": every gate must; "either", where only the meaning is checked.
    names : tuple of str
        Words of which a refusal must hold at least one: the offending key or value.
    intended : dict or None
        What the text is meant to say, where that is known.
    """

    kind: str
    text: bytes
    fate: str
    names: tuple[str, ...] = ()
    intended: dict | None = None


@st.composite
def cases(draw, kind: str) -> Case:
    """Strategy: configurations with one mistake of a kind out of `KINDS`."""
    config = draw(valid.configurations())
    if kind in texts.TEXTS:
        text = dumped(draw, config)
        content, fate, names = texts.TEXTS[kind](draw, text)
        return Case(kind, content, fate, names, config if fate == "accept" else None)
    changed = copy.deepcopy(config)
    fate, names = VALUES[kind](draw, changed) if kind in VALUES else ("accept", ())
    return Case(kind, dumped(draw, changed).encode(), fate, tuple(map(str, names)), changed)


def dumped(draw, config: dict) -> str:
    """Write a configuration in one of the ways of YAML."""
    flow, unicode = draw(st.sampled_from([None, False])), draw(st.booleans())
    return yaml.safe_dump(config, sort_keys=False, default_flow_style=flow, allow_unicode=unicode, width=10_000)


# ---- mistakes in values: each changes the configuration and returns its fate and the words of a refusal -----


def _somewhere(draw, config: dict, wanted=lambda place: True) -> Place:
    return draw(st.sampled_from([p for p in places(config) if wanted(p)]))


def _kinds(entry: dict) -> tuple:
    return tuple(entry["type"]) if isinstance(entry["type"], list) else (entry["type"],)


WRONG = {
    "object": [3, "Li", [1]],
    "integer": ["four", 2.5, 4.0, True, [1], {"a": 1}, "3", datetime.date(2024, 5, 1)],
    "number": ["200 kV", "1e5", "0,5", True, [1.0], {}, datetime.date(2024, 5, 1)],
    "boolean": [1, 0, "true", "ja", 0.5, []],
    "string": [5, 1.5, True, ["gold"], {}, datetime.date(2024, 5, 1), b"\x00\xff"],
    "array": [3, "4, 4", {"y": 4}, True],
}


def _wrong_type(draw, config):
    place = _somewhere(draw, config)
    kinds = _kinds(place.entry)
    put(config, place.path, draw(st.sampled_from([*WRONG[kinds[0]], *([] if "null" in kinds else [None])])))
    return "refuse", (place.key,)


def _wrong_element(draw, config):
    place = _somewhere(draw, config, lambda p: "array" in _kinds(p.entry))
    kinds = _kinds(place.entry["items"])
    put(config, place.path, [draw(st.sampled_from([*WRONG[kinds[0]], None]))] * place.entry.get("maxItems", 1))
    return "refuse", (place.key,)


def _wrong_length(draw, config):
    place = _somewhere(draw, config, lambda p: "maxItems" in p.entry)
    value = draw(value_of({**place.entry, "type": "array"}))
    value = draw(st.sampled_from([[], value[:-1], [*value, value[-1]], [value]]))
    put(config, place.path, value)
    return "refuse", (place.key,)


def _out_of_range(draw, config):
    def bounded(place):
        inner = place.entry.get("items", place.entry)
        return any("inimum" in key or "aximum" in key for key in inner)

    place = _somewhere(draw, config, bounded)
    inner = place.entry.get("items", place.entry)
    outside = [inner["minimum"] - d for d in (1, 1e-9, 1000) if "minimum" in inner]
    outside += [inner["maximum"] + d for d in (1, 1e-3, 1e6) if "maximum" in inner]
    outside += [inner[key] for key in ("exclusiveMinimum", "exclusiveMaximum") if key in inner]
    value = draw(st.sampled_from(outside))
    if "integer" in _kinds(inner):
        value = int(value) if int(value) != inner.get("minimum") else int(value) - 1
        value += value == inner.get("maximum")
    put(config, place.path, [value] * place.entry.get("maxItems", 1) if "items" in place.entry else value)
    return "refuse", (place.key,)


def _no_number(draw, config):
    place = _somewhere(draw, config, lambda p: {"integer", "number"} & set(_kinds(p.entry.get("items", p.entry))))
    value = draw(st.sampled_from([float("nan"), float("inf"), -float("inf"), 10**30, 10**400, -(10**20)]))
    put(config, place.path, [value] * place.entry.get("maxItems", 1) if "items" in place.entry else value)
    return "refuse", (place.key,)


def _at_the_limit(draw, config):
    """A value exactly at an inclusive limit, or anything between: must pass, and mean itself."""
    place = _somewhere(
        draw, config, lambda p: p.path[0] in valid.STAGE_BLOCKS or "settings" in p.path or "simulate" in p.path
    )
    assume(place.path[-1] not in valid.TWINS)
    low, high = limits(place.entry) if {"integer", "number"} & set(_kinds(place.entry)) else (None, None)
    value = draw(value_of(place.entry) if low is None else st.sampled_from([low, high]))
    put(config, place.path, value)
    return "accept", ()


def _misspelt_key(draw, config):
    block, key = draw(st.sampled_from(_keys(config)))
    at = draw(st.integers(0, len(key) - 1))
    wrong = draw(
        st.sampled_from([
            key[:at] + key[at + 1 :], key[: at + 1] + key[at:], key.replace("_", "-"), key.replace("_", " "),
            key.upper(),
            key + "s", key + " ", key.split("_")[0], f"{key}_ev", f" {key}", key.replace("e", "é"), f"#{key}",
        ])
    )  # fmt: skip
    assume(wrong not in block)
    allowed = {p.key for p in places(config)} | {"samples", "phases", "settings", "acquisition", *valid.STAGE_BLOCKS}
    assume(wrong not in allowed)
    block[wrong] = block.pop(key)
    return "refuse", (f"`{wrong}`", f"`{key}`")


def _odd_key(draw, config):
    block, _ = draw(st.sampled_from(_keys(config)))
    key = draw(st.sampled_from([1, None, True, 2.5, datetime.date(2024, 5, 1), "", "\n", "ключ", "<<<", "k" * 5000]))
    block[key] = draw(st.sampled_from([1, None, [], {}, "x"]))
    return "refuse", (f"`{key}"[:50],)


def _keys(node) -> list[tuple[dict, str]]:
    if isinstance(node, dict):
        return [*((node, k) for k in node), *(pair for v in node.values() for pair in _keys(v))]
    return [pair for v in node for pair in _keys(v)] if isinstance(node, list) else []


def _repeated_name(draw, config):
    entries = config[draw(st.sampled_from(["samples", "phases"]))]
    twin = copy.deepcopy(entries[0])
    twin["name"] = draw(st.sampled_from([twin["name"], twin["name"].swapcase()]))
    entries.append(twin)
    return "refuse", (twin["name"].lower(),)


def _missing(draw, config):
    key = draw(st.sampled_from(["samples", "name", "cif", "source", "phases"]))
    sample = config["samples"][0]
    if key == "samples":
        config.pop(key)
    elif key == "cif":
        config["phases"][0].pop(key)
    elif key == "name":
        draw(st.sampled_from([sample, config["phases"][0]])).pop(key)
    elif key == "source":
        sample.pop("file", None), sample.pop("simulate", None)
        return "refuse", ("`file:`",)
    else:
        config.pop(draw(st.sampled_from(["phases"])))
        return "refuse", ("phase",)
    return "refuse", (f"`{key}`",)


def _both_of_two(draw, config):
    kind = draw(st.sampled_from(["pixel", "limit", "source"]))
    sample = config["samples"][0]
    if kind == "source":
        sample |= {"file": "scan.npy", "simulate": {}}
        return "refuse", ("exactly one",)
    if kind == "pixel":
        sample.setdefault("acquisition", {}).update(detector_pixel_mrad=0.5, detector_pixel_inv_angstrom=0.02)
        return "refuse", ("detector_pixel_mrad",)
    key = draw(st.sampled_from(["bright_field_outer", "dark_field_inner", "dark_field_outer"]))
    first, second = draw(st.permutations(["px", "mrad"]))
    config.setdefault("virtual_image", {})[f"{key}_{first}"] = 3
    sample.setdefault("settings", {}).setdefault("virtual_image", {})[f"{key}_{second}"] = 4
    return "refuse", (key,)


def _wrong_unit(draw, config):
    """A value in a neighbouring unit: a factor of 10 or 1000 that physics can tell."""
    sample = config["samples"][0]
    sample.pop("simulate", None)
    sample |= {"file": "scan.npy", "stages": ["orientation"]}
    key, value = draw(
        st.sampled_from([
            ("beam_energy_kev", 200_000), ("beam_energy_kev", 0.2), ("detector_pixel_inv_angstrom", 10.5),
            ("detector_pixel_inv_angstrom", 3.0), ("convergence_mrad", 201), ("scan_step_angstrom", [2e7, 2e7]),
            ("detector_pixel_mrad", 150.0), ("convergence_mrad", 60),
        ])
    )  # fmt: skip
    values = {"beam_energy_kev": 200, "detector_pixel_inv_angstrom": 0.02, "scan_shape": list(valid.SCAN)}
    if key == "detector_pixel_mrad":
        values.pop("detector_pixel_inv_angstrom")
    sample["acquisition"] = values | {key: value}
    return "refuse", (key,)


def _unknown_choice(draw, config):
    place = _somewhere(draw, config, lambda p: "enum" in p.entry or "enum" in p.entry.get("items", {}))
    choices = [c for c in place.entry.get("items", place.entry)["enum"] if c is not None]
    word = draw(st.sampled_from(choices))
    word = draw(st.sampled_from([word[:-1], word.upper(), word + " ", word.replace("_", "-") + "-", "all", "ß", "*"]))
    assume(word not in choices)
    put(config, place.path, word if "enum" in place.entry else [word])
    return "refuse", (place.key, word)


def _unknown_phase(draw, config):
    word = draw(st.sampled_from(["glod", "Gold", "gold ", "gold.cif", "*", "ü"]))
    config["samples"][0]["phases"] = [word]
    return "refuse", (word,)


BAD_PATHS = [
    "gone.npy", "Scan.npy", "folder", "folder/", "empty.npy", "nowhere.npy", "circle.npy", "pipe.npy", "/dev/null",
    "scan.npy/x", "x" * 300 + ".npy", "a/" * 3000, "scan.npy\0", "scan.npy\n", "~/scan.npy", "*.npy",
    "curly {sample}.npy", "", " ", ".", "..", "/", "results/film", "scan.npy ",
    "http://x.org/scan.npy", "\ud800.npy", "scan.npy,stack.npy",
    "scan\\.npy", "\uff33can.npy", "/proc/self/mem",
]  # fmt: skip


def _bad_path(draw, config):
    path = draw(st.sampled_from(BAD_PATHS))
    sample, which = config["samples"][0], draw(st.sampled_from(["file", "truth", "mask", "cif"]))
    if which == "cif":
        config["phases"][0]["cif"] = path
    elif which == "mask":
        sample.setdefault("acquisition", {})["mask"] = path
    else:
        sample[which] = path
        sample.pop("simulate", None) if which == "file" else None
    return "refuse", (which,)


def _not_what_it_says(draw, config):
    """Files that exist, but are something else: only opening them tells."""
    sample = config["samples"][0]
    sample.pop("simulate", None)
    sample |= {"file": "scan.npy", "stages": ["virtual_image"], "acquisition": {}, "roi": None}
    which = draw(st.sampled_from(["file", "mask", "cif"]))
    path = draw(
        st.sampled_from([f for f in ("gold.cif", "mask.npy", "scan ä.h5") if f != {"cif": "gold.cif"}.get(which)])
    )
    if which == "cif":
        config["phases"][0]["cif"] = path
        sample["phases"] = [config["phases"][0]["name"]]
    elif which == "mask":
        assume(path != "mask.npy")
        sample["acquisition"] = {"mask": path}
    else:
        assume(path != "scan ä.h5")
        sample["file"] = path
    return "refuse", (path,)


def _bad_name(draw, config):
    entries = config[draw(st.sampled_from(["samples", "phases"]))]
    name = draw(
        st.sampled_from([
            "Gold ß", "film\n", "", " ", "a/b", "..", ".", "a.b", "a b", "x" * 101, "x" * 100_000, "film\0", "ﬁlm", "٣",
            7, 1.5, None, True, [], {"a": 1}, datetime.date(2024, 5, 1), "{sample}", "a|b", "a\tb", "\u202efilm",
        ])
    )  # fmt: skip
    entries[0]["name"] = name
    return "refuse", (str(name)[:20] or "name", "name", "sample", "phase")


def _reserved_name(draw, config):
    config["samples"][0]["name"] = name = draw(st.sampled_from(["provenance", "Summary", "LOGS"]))
    return "refuse", (name,)


def _twice_in_a_list(draw, config):
    place = _somewhere(draw, config, lambda p: "array" in _kinds(p.entry) and "maxItems" not in p.entry)
    value = [3.0] if "enum" not in place.entry["items"] else place.entry["items"]["enum"][:1]
    put(config, place.path, ["gold", "gold"] if place.key == "phases" else value * draw(st.integers(2, 3)))
    return "refuse", (place.key,)


def _nothing_in_a_list(draw, config):
    sample = config["samples"][0]
    which = draw(st.sampled_from(["samples", "stages", "sources", "phases", "within_deg"]))
    if which == "samples":
        config["samples"] = []
    elif which in ("sources", "within_deg"):
        config.setdefault("orientation" if which == "sources" else "evaluation", {})[which] = []
    else:
        sample[which] = []
        sample["stages"] = ["orientation"] if which == "phases" else []
    return "refuse", (which,)


def _wrong_block(draw, config):
    """A block that is something else: a list for a mapping, a mapping for a list, null."""
    key = draw(st.sampled_from(["samples", "phases", *valid.STAGE_BLOCKS, "settings", "acquisition"]))
    value = draw(st.sampled_from([None, "x", 3, [None], [[]], ["film"], [3], True, {"film": {"file": "scan.npy"}}]))
    node = config["samples"][0] if key in ("settings", "acquisition") else config
    node[key] = value
    return "refuse", (key, key.rstrip("s"), "film")


def _swapped(draw, config):
    """Ends before beginnings."""
    sample = config["samples"][0]
    if draw(st.booleans()):
        sample["roi"] = draw(st.sampled_from([[2, 1, 0, 1], [0, 2, 1, 1], [0, 1, 0, 10**6]]))
        sample.pop("simulate", None)
        sample["file"] = "scan.npy"
        sample["acquisition"] = {"beam_energy_kev": 200, "detector_pixel_inv_angstrom": 0.02}
        return "refuse", ("roi",)
    unit = draw(st.sampled_from(["px", "mrad"]))
    config["virtual_image"] = {f"dark_field_inner_{unit}": 5, f"dark_field_outer_{unit}": draw(st.sampled_from([3, 5]))}
    sample.get("settings", {}).pop("virtual_image", None)
    return "refuse", ("dark_field_inner",)


def _wrong_shape(draw, config):
    """A scan shape that the file does not have; the message counts the frames."""
    sample = config["samples"][0]
    sample.pop("simulate", None)
    sample |= {"file": draw(st.sampled_from(valid.FILES)), "stages": ["virtual_image"], "roi": None}
    shape = draw(st.sampled_from([[5, 5], [1, 1], [4, 4], [valid.FRAMES + 1, 1], [2**40, 2**12], None]))
    assume(shape is not None or sample["file"].startswith("stack"))
    sample["acquisition"] = {"scan_shape": shape}
    return "refuse", ("scan_shape",)


def _own_results(draw, config):
    config["samples"][0].pop("simulate", None)
    config["samples"][0] |= {"name": "film-0", "file": "results/film-0/scan.npy"}
    return "refuse", ("results/film-0",)


VALUES = {
    "wrong type": _wrong_type,
    "wrong element": _wrong_element,
    "wrong length": _wrong_length,
    "out of range": _out_of_range,
    "no number": _no_number,
    "at the limit": _at_the_limit,
    "misspelt key": _misspelt_key,
    "odd key": _odd_key,
    "repeated name": _repeated_name,
    "missing": _missing,
    "both of two": _both_of_two,
    "wrong unit": _wrong_unit,
    "unknown choice": _unknown_choice,
    "unknown phase": _unknown_phase,
    "bad path": _bad_path,
    "not what it says": _not_what_it_says,
    "bad name": _bad_name,
    "reserved name": _reserved_name,
    "twice in a list": _twice_in_a_list,
    "nothing in a list": _nothing_in_a_list,
    "wrong block": _wrong_block,
    "swapped": _swapped,
    "wrong shape": _wrong_shape,
    "own results": _own_results,
}
KINDS = ("none", *VALUES, *texts.TEXTS)
