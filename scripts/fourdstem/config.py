"""The configuration: what may stand in it, what is wrong with it, and what each stage gets of it.

Standard library and jsonschema only, because every start of Snakemake imports it. Defaults, limits and
descriptions come from ``config.schema.json``, which is generated from the stages' ``Params``.
"""

import copy
import datetime
import difflib
import json
import math
import re
from pathlib import Path

import jsonschema

from fourdstem import config_text
from fourdstem.config_text import shown
from fourdstem.errors import ConfigError

load = config_text.load
SCHEMA = Path(__file__).with_name("config.schema.json")
# Those that a sample may list.
STAGES = ("virtual_image", "denoise", "nonlocal_average", "nmf", "clusters", "template_mask", "orientation", "grains")
RESERVED = ("provenance", "summary", "logs")  # names of folders and files beside the samples
SCAN_SETTINGS = ("roi", "stride", "bin")
MADE_BY = {"denoised": "denoise", "averaged": "nonlocal_average"}  # pattern source -> the stage that makes it
NEEDED_BY = {  # acquisition keys without which a stage means nothing
    "orientation": ("beam_energy_kev", "detector_pixel_inv_angstrom"),
    "clusters": ("beam_energy_kev", "detector_pixel_inv_angstrom"),
    "template_mask": ("scan_step_angstrom",),
}


def read_schema() -> dict:
    """Return the JSON schema of the configuration."""
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


# ---- what is wrong ----------------------------------------------------------------------------------------


def check(config: dict, *files) -> None:
    """Raise `ConfigError` listing every mistake: repeated keys, schema, names, paths, cross-references.

    Parameters
    ----------
    config : dict
        The configuration as it was loaded.
    *files : path
        The files that it was loaded from. A key given twice shows only there: loading keeps its last value.
    """
    name = ", ".join(map(str, files)) or "config"
    mistakes = [line for file in files for line in config_text.check_text(Path(file))]
    if endless := config_text.check_structure(config):
        raise ConfigError(mistakes + endless, name)
    for error in _Validator(read_schema()).iter_errors(config):
        mistakes += _explain(error, config)
    mistakes += config_text.check_values(config)
    samples = [s for s in _list(config, "samples") if isinstance(s, dict)]
    phases = [p for p in _list(config, "phases") if isinstance(p, dict)]
    mistakes += _repeated("sample", samples) + _repeated("phase", phases)
    for phase in phases:
        mistakes += _missing_file(f"phase {_short(phase.get('name'))}", "cif", phase.get("cif"))
    defined = [p.get("name") for p in phases]
    for sample in samples:
        mistakes += _check_sample(sample, defined)
    if not mistakes:  # only then is it known what is in force
        mistakes = [line for sample in samples for line in _check_settings(config, sample["name"])]
    if mistakes:
        raise ConfigError(mistakes, name)


# Of JSON's standard 4.0 is an integer; of Python's slices it is not.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


def _list(config: dict, key: str) -> list:
    value = config.get(key)
    return value if isinstance(value, list) else []


def _repeated(kind: str, entries: list[dict]) -> list[str]:
    names = [str(e.get("name")).lower() for e in entries]
    twice = sorted({n for n in names if names.count(n) > 1})
    return [
        f"{kind} {_short(n)}: the name is used {names.count(n)} times; give each {kind} a name of its own"
        for n in twice
    ]


def _missing_file(where: str, key: str, path) -> list[str]:
    if not isinstance(path, str):
        return []
    file, said = Path(path), f"{where}: {key} {shown(path) if len(path) > 200 else path}"
    if set(path) & set("{}*\n"):
        return [f"{said} holds one of {{ }} *, which Snakemake takes for a pattern; rename the file"]
    try:
        if not file.exists():
            near = difflib.get_close_matches(file.name, _names_beside(file), 1)
            hint = f"; did you mean {file.with_name(near[0])}?" if near else ""
            base = "" if file.is_absolute() else f" (looked in {Path.cwd()})"
            return [f"{said} does not exist{base}{hint}"]
        if file.is_dir() and file.suffix == ".zspy":  # HyperSpy's, a zarr store
            return []
        if not file.is_file():
            return [f"{said} is {'a folder' if file.is_dir() else 'no regular file'}; give a file"]
        if file.stat().st_size == 0:
            return [f"{said} is empty (0 bytes)"]
        with file.open("rb"):
            return []
    except OSError as error:  # a name too long, no permission, a disk that is gone
        return [f"{said} cannot be read ({error.strerror}); check its name and your right to read it"]


def _names_beside(file: Path) -> list[str]:
    return [p.name for p in file.parent.iterdir()] if file.name and file.parent.is_dir() else []


def _check_sample(sample: dict, phases: list) -> list[str]:
    where = f"sample {_short(sample.get('name', '?'))}"
    mistakes, stages = [], sample.get("stages")
    if str(sample.get("name")).lower() in RESERVED:
        mistakes.append(f"{where}: this name is used by the results folder itself; choose another")
    if ("file" in sample) == ("simulate" in sample):
        mistakes.append(f"{where}: give exactly one of `file:` (raw data) and `simulate:`")
    for key in ("file", "truth"):
        mistakes += _missing_file(where, key, sample.get(key))
    acquisition = sample.get("acquisition")
    if isinstance(acquisition, dict):
        mistakes += _missing_file(where, "acquisition.mask", acquisition.get("mask"))
        given = [k for k in ("detector_pixel_inv_angstrom", "detector_pixel_mrad") if acquisition.get(k) is not None]
        if len(given) == 2:
            mistakes.append(f"{where}: acquisition gives both {given[0]} and {given[1]}; give one")
    used = sample.get("phases") if isinstance(sample.get("phases"), list) else []
    for name in used:
        if name not in phases:
            mistakes.append(f"{where}: phase {shown(name)} is not defined under `phases:`{_did_you_mean(name, phases)}")
    listed = set(map(str, stages)) if isinstance(stages, list) else set()
    needs_phase = "simulate" in sample or {"orientation", "grains", "clusters"} & listed
    if needs_phase and not used:
        asking = "orientation, clusters and simulate need"
        mistakes.append(f"{where}: `phases:` is empty, but {asking} at least one phase with a CIF")
    return mistakes + _check_roi(where, sample.get("roi"))


def _check_settings(config: dict, name: str) -> list[str]:
    """Say which settings in force contradict each other; a stage would find it after hours."""
    where, mistakes = f"sample {name}", []
    limits = settings(config, name, "virtual_image")
    for key in ("bright_field_outer", "dark_field_inner", "dark_field_outer"):
        given = [f"virtual_image.{key}_{unit}" for unit in ("px", "mrad") if limits[f"{key}_{unit}"] is not None]
        if len(given) == 2:
            mistakes.append(f"{where}: {given[0]} and {given[1]} are both in force; give one")
    for unit in ("px", "mrad"):
        inner, outer = limits[f"dark_field_inner_{unit}"], limits[f"dark_field_outer_{unit}"]
        if inner is not None and outer is not None and inner >= outer:
            mistakes.append(
                f"{where}: virtual_image.dark_field_inner_{unit} {inner:g} is not below {outer:g}, the outer one"
            )
    if "template_mask" in stages(config, name):
        mistakes += _check_templates(config, name)
    factorised = settings(config, name, "nmf") if "nmf" in stages(config, name) else {}
    if factorised.get("loss") == "kl" and factorised["method"] != "mu":
        mistakes.append(f"{where}: nmf.loss kl goes with nmf.method mu, not {factorised['method']}; change either")
    own = Path("results", name).resolve()
    for key in ("file", "truth"):
        path = sample_named(config, name).get(key)
        if path is not None and own in Path(path).resolve().parents:
            mistakes.append(f"{where}: {key} {path} lies among the results of this sample; move it elsewhere")
    return mistakes


def _check_templates(config: dict, name: str) -> list[str]:
    """Say which templates name no source, a file that is missing, or a phase that the sample does not have."""
    where, mistakes = f"sample {name}", []
    found = settings(config, name, "template_mask")["templates"]
    if not found:
        mistakes.append(f"{where}: stage template_mask needs at least one block under `template_mask: templates:`")
    phases = list(cif_files(config, name))
    for entry in found:
        place = f"{where}: template {_short(entry.get('species'))}"
        given = [key for key in ("element", "sublattice", "file") if entry.get(key) is not None]
        if len(given) != 1:
            said = " and ".join(given) or "none of them"
            mistakes.append(f"{place} gives {said}; give one of element, sublattice, file")
        if entry.get("phase") is not None and entry["phase"] not in phases:
            mistakes.append(f"{place}: phase {shown(entry['phase'])}{_did_you_mean(entry['phase'], phases)}")
        if entry.get("element") is not None and not phases:
            mistakes.append(f"{place} is projected from a CIF, but the sample has no `phases:`")
        for path in template_files(config, name, entry):
            mistakes += _missing_file(place, "file", path)
    names = [str(entry.get("species")) for entry in found]
    twice = sorted({n for n in names if names.count(n) > 1})
    mistakes += [f"{where}: two templates are named {_short(n)}; give each its own species" for n in twice]
    return mistakes + _check_polarisation(settings(config, name, "template_mask")["polarisation"], names, where)


def _check_polarisation(pairs: list, names: list[str], where: str) -> list[str]:
    """Say which pairs name a species without a template, the same one twice, or a charge without its volume."""
    mistakes = []
    for pair in pairs:
        place = f"{where}: polarisation of {_short(pair.get('species'))} against {_short(pair.get('against'))}"
        for key in ("species", "against"):
            if pair.get(key) is not None and pair[key] not in names:
                mistakes.append(f"{place}: {key} {shown(pair[key])} has no template{_did_you_mean(pair[key], names)}")
        if pair.get("species") == pair.get("against"):
            mistakes.append(f"{place}: name another species to measure against")
        if (pair.get("born_charge") is None) != (pair.get("volume_cubic_angstrom") is None):
            mistakes.append(f"{place}: give born_charge and volume_cubic_angstrom together, or neither")
    return mistakes


def _check_roi(where: str, roi) -> list[str]:
    if isinstance(roi, list) and len(roi) == 4 and all(isinstance(v, int) for v in roi):
        y0, y1, x0, x1 = roi
        if y1 <= y0 or x1 <= x0:
            return [f"{where}: roi {roi} is empty; it means [y0, y1, x0, x1] with y1 > y0 and x1 > x0"]
    return []


def _did_you_mean(name, allowed) -> str:
    near = difflib.get_close_matches(_short(name), [_short(a) for a in allowed], 1)
    return f"; did you mean {near[0]}?" if near else f"; known are: {', '.join(map(_short, allowed)) or 'none'}"


def _short(name) -> str:
    text = str(name)
    return text if len(text) <= 100 else f"{text[:70]}..."


def _explain(error, config: dict) -> list[str]:
    place, found = _place(error.absolute_path, config), shown(error.instance)
    if error.validator == "additionalProperties":
        allowed = list(error.schema.get("properties", {}))
        unknown = [k for k in error.instance if k not in allowed]
        return [f"{place}: unknown key `{_short(k)}`{_did_you_mean(k, allowed)}" for k in unknown]
    if error.validator == "enum":
        return [f"{place}: {found} is not allowed{_did_you_mean(error.instance, error.validator_value)}"]
    if error.validator == "type":
        wanted = error.validator_value if isinstance(error.validator_value, str) else " or ".join(error.validator_value)
        return [f"{place}: {found} is {_yaml_type(error.instance)}, expected {wanted}{_hint(error.instance, wanted)}"]
    if error.validator == "required":
        missing = re.findall(r"'(.*?)'", error.message)[:1]
        return [f"{place}: `{missing[0]}` is missing"]
    if error.validator == "pattern":
        return [f"{place}: {found} may hold only letters, digits, - and _ (no spaces, no /)"]
    if error.validator == "uniqueItems":
        twice = [v for i, v in enumerate(error.instance) if v in error.instance[:i]]
        return [f"{place}: {found} names {shown(twice[0])} more than once; keep one"]
    limits = {
        "minimum": "is below the minimum",
        "maximum": "is above the maximum",
        "exclusiveMinimum": "must be greater than",
        "exclusiveMaximum": "must be less than",
        "minItems": "has too few entries; at least",
        "maxItems": "has too many entries; at most",
        "maxLength": "is too long; letters at most:",
    }
    if error.validator in limits:
        return [f"{place}: {found} {limits[error.validator]} {error.validator_value}"]
    return [f"{place}: {error.message}"]


def _yaml_type(value) -> str:
    names = {
        bool: "a boolean", str: "text", dict: "a mapping", list: "a list", type(None): "null", int: "a number",
        float: "a number with a point", datetime.date: "a date", datetime.datetime: "a date",
    }  # fmt: skip
    return names.get(type(value), f"of type {type(value).__name__}")


def _hint(value, wanted: str) -> str:
    """Say how to write what was probably meant: YAML reads 1e5 as text, and yes, no, on, off as booleans."""
    if wanted.startswith("string"):
        return "" if isinstance(value, dict | list | type(None)) else "; put it in quotes"
    if isinstance(value, float) and value.is_integer() and "integer" in wanted:
        return f"; write {int(value)}"
    if isinstance(value, str) and wanted.split()[0] in ("number", "integer"):
        try:
            number = float(value.replace(",", "."))
        except ValueError:
            return ""
        return f"; write {int(number) if number.is_integer() else number}" if math.isfinite(number) else ""
    return ""


def _place(path, config: dict) -> str:
    words, node = [], config
    for key in path:
        node = node[key]
        if isinstance(key, int):
            name = node.get("name") if isinstance(node, dict) else None
            words[-1] = f"{words[-1].rstrip('s')} {_short(name)}" if name else f"{words[-1]}[{key}]"
        else:
            words.append(str(key))
    return ".".join(words) or "config"


# ---- what each stage gets ---------------------------------------------------------------------------------


def sample_named(config: dict, name: str) -> dict:
    """Return one sample's block."""
    return next(s for s in config["samples"] if s["name"] == name)


def settings(config: dict, name: str, stage: str) -> dict:
    """Return every setting of a stage for a sample: defaults, then the configuration's, then the sample's own."""
    schema = read_schema()
    sample = sample_named(config, name)
    if stage == "simulate":
        return _merge(schema["$defs"]["simulate"], sample["simulate"])
    if stage == "scan":
        return _merge(schema["$defs"]["scan"], {k: sample[k] for k in SCAN_SETTINGS if k in sample})
    own = (sample.get("settings") or {}).get(stage) or {}
    return _merge(schema["$defs"][stage], config.get(stage) or {}, own)


def general(config: dict, stage: str) -> dict:
    """Return every setting of a stage that belongs to no sample: defaults, then the configuration's."""
    return _merge(read_schema()["$defs"][stage], config.get(stage) or {})


def _merge(schema: dict, *layers: dict) -> dict:
    values = {k: copy.copy(p["default"]) for k, p in schema["properties"].items()}
    for layer in layers:
        values.update(layer)
    return values


def changed_settings(config: dict, name: str, stage: str) -> dict:
    """Return ``{key: (value, default)}`` of the settings that differ from their defaults."""
    defaults = _merge(read_schema()["$defs"][stage])
    return {k: (v, defaults[k]) for k, v in settings(config, name, stage).items() if v != defaults[k]}


def acquisition(config: dict, name: str) -> dict:
    """Return the acquisition values that the configuration gives for a sample (nulls left out)."""
    given = sample_named(config, name).get("acquisition") or {}
    return {k: v for k, v in given.items() if v is not None}


def stages(config: dict, name: str) -> list[str]:
    """Return the stages that run for a sample, those that others depend on included."""
    sample = sample_named(config, name)
    wanted = set(sample.get("stages") or ["virtual_image"])
    if "grains" in wanted:
        wanted.add("orientation")
    if "clusters" in wanted:
        wanted.add("nmf")
    sources = list(settings(config, name, "orientation")["sources"]) if "orientation" in wanted else []
    sources += [settings(config, name, "nmf")["source"]] if "nmf" in wanted else []
    wanted |= {maker for source, maker in MADE_BY.items() if source in sources}
    if "orientation" in wanted and ("simulate" in sample or "truth" in sample):
        wanted |= {"evaluation"}
    return [s for s in (*STAGES, "evaluation") if s in wanted]


def needed_acquisition(config: dict, name: str) -> list[str]:
    """Return the acquisition keys that some stage of the sample cannot do without."""
    return sorted({key for stage in stages(config, name) for key in NEEDED_BY.get(stage, ())})


def template_files(config: dict, name: str, entry: dict | None = None) -> list[str]:
    """Return the pictures and masks that templates of a sample are read from; those that a run makes only if all."""
    entries = settings(config, name, "template_mask")["templates"] if entry is None else [entry]
    paths = [e[key] for e in entries for key in ("file", "learned") if e.get(key) is not None]
    return [p for p in dict.fromkeys(paths) if entry is None or Path(p).parts[:1] != ("results",)]


def cif_files(config: dict, name: str) -> dict[str, str]:
    """Return ``{phase: CIF path}`` of a sample, in the order of its ``phases``."""
    paths = {p["name"]: p["cif"] for p in config.get("phases") or []}
    return {phase: paths[phase] for phase in sample_named(config, name).get("phases") or []}
