"""What is generated from the declarations: the JSON schema, ``config/README.md`` and ``results/README.md``."""

import dataclasses
import importlib
import json
from pathlib import Path

from fourdstem import config
from fourdstem.calibration import Acquisition
from fourdstem.schema import json_schema, unit_of

SETTINGS = (
    "preprocess",
    "virtual_image",
    "denoise",
    "nonlocal_average",
    "nmf",
    "clusters",
    "template_mask",
    "orientation",
    "grains",
    "evaluation",
)  # top-level keys
GENERAL = ("training", "evaluate_preprocess")  # likewise, but no sample can have its own
RESULTS = {  # file under results/{sample}/ -> method that makes it
    "simulated.h5": "simulate",
    "scan.h5": "scan",
    "preprocess.h5": "preprocess",
    "virtual_image.h5": "virtual_image",
    "denoised.h5": "denoise",
    "nonlocal_average.h5": "nonlocal_average",
    "nmf.h5": "nmf",
    "clusters.h5": "clusters",
    "template_mask.h5": "template_mask",
    "orientation/{source}.h5": "orientation",
    "grains/{source}.h5": "grains",
    "evaluation.h5": "evaluation",
}
# `$` would also match before a line end; a longer name would not fit into the name of a file.
NAME = {"type": "string", "pattern": r"^[A-Za-z0-9_-]+(?![\s\S])", "maxLength": 100}


def _method(stage: str):
    return importlib.import_module(f"fourdstem.methods.{stage}")


def build_schema() -> dict:
    """Return the JSON schema of the whole configuration."""
    params = {stage: json_schema(_method(stage).Params) for stage in (*SETTINGS, *GENERAL, "simulate", "scan")}
    scan = params["scan"]["properties"]
    _add_blocks(params["template_mask"]["properties"])
    sample = {
        "name": {**NAME, "description": "Folder of its results; letters, digits, - and _."},
        "file": {"type": "string", "description": "The raw file."},
        "simulate": {"$ref": "#/$defs/simulate", "description": "Simulated instead of read; settings of the specimen."},
        "dataset": {"type": "string", "description": "Only for HDF5 with several candidates."},
        "truth": {"type": "string", "description": "Known truth, read by `evaluation` alone."},
        "acquisition": {"$ref": "#/$defs/acquisition"},
        "phases": _names({"type": "string"}, description="Names from `phases:`."),
        **scan,
        "stages": _names(
            {"type": "string", "enum": list(config.STAGES)},
            minItems=1,
            default=["virtual_image"],
            description="What to run beside scan, preprocess and report; what these need runs too.",
        ),
        "settings": {
            "type": "object",
            "additionalProperties": False,
            "properties": {stage: {"$ref": f"#/$defs/{stage}"} for stage in SETTINGS},
            "description": "This sample's own settings of stages.",
        },
    }
    phase = {"name": NAME, "cif": {"type": "string", "description": "Crystal structure; any setting, P1 too."}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "fourdstem configuration",
        "type": "object",
        "additionalProperties": False,
        "required": ["samples"],
        "properties": {
            "phases": {"type": "array", "items": _object(phase, ["name", "cif"])},
            "samples": {"type": "array", "minItems": 1, "items": _object(sample, ["name"])},
            **{stage: {"$ref": f"#/$defs/{stage}"} for stage in (*SETTINGS, *GENERAL)},
        },
        "$defs": {**params, "acquisition": json_schema(Acquisition)},
    }


def _add_blocks(properties: dict) -> None:
    """Add what the blocks of template_mask hold; species have names as samples have."""
    for key, kind, named in (
        ("templates", "Template", ("species",)),
        ("polarisation", "Polarisation", ("species", "against")),
    ):
        block = {**json_schema(getattr(_method("template_mask"), kind)), "required": list(named)}
        for one in named:
            block["properties"][one] = {**NAME, "description": block["properties"][one]["description"]}
        properties[key]["items"] = block


def _names(item: dict, **more) -> dict:
    return {"type": "array", "items": item, "uniqueItems": True, **more}


def _object(properties: dict, required: list[str]) -> dict:
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def files() -> dict[Path, str]:
    """Return ``{path: content}`` of every generated file; in a checkout the READMEs are among them."""
    root = Path(__file__).resolve().parents[2]
    schema = build_schema()
    made = {config.SCHEMA: json.dumps(schema, indent=1, ensure_ascii=False) + "\n"}
    if (root / "Snakefile").exists():
        made[root / "config" / "README.md"] = config_readme(schema)
        made[root / "results" / "README.md"] = results_readme()
    return made


def stale() -> list[Path]:
    """Return the generated files that differ from what would be generated now."""
    return [p for p, text in files().items() if not p.exists() or p.read_text(encoding="utf-8") != text]


def write() -> list[Path]:
    """Write the generated files that are stale and return them."""
    changed = stale()
    texts = files()
    for path in changed:
        path.write_text(texts[path], encoding="utf-8")
    return changed


# ---- documentation ----------------------------------------------------------------------------------------

CONFIG_HEAD = """\
# Configuration

<!-- generated by `python -m fourdstem schema` from the declarations in scripts/fourdstem; do not edit -->

`config/config.yaml` says *what to compute*: samples, phases, settings. *How to run it* (cores, memory, device, conda,
cluster) is Snakemake's business (profiles, `--cores`, `--set-resources`) and never reruns anything.

`python -m fourdstem check my.yaml` lists every mistake of a configuration; `python -m fourdstem inspect FILE` prints
the sample block for a raw file. `snakemake --configfile my.yaml` replaces the demo configuration altogether.
Paths are relative to the folder in which Snakemake runs: a clone of this repository, or the folder of a workflow that
has `workflow/Snakefile` of a clone as a module.

"""


def config_readme(schema: dict) -> str:
    """Return ``config/README.md``."""
    parts = [CONFIG_HEAD]
    phases, samples = schema["properties"]["phases"], schema["properties"]["samples"]
    parts.append(_table("phases (a list)", phases["items"]["properties"]))
    parts.append(_table("samples (a list)", samples["items"]["properties"]))
    for name in ("acquisition", *SETTINGS, *GENERAL, "simulate"):
        definition = schema["$defs"][name]
        title = {"acquisition": "samples[].acquisition", "simulate": "samples[].simulate"}.get(name, name)
        parts.append(_table(title, definition["properties"], definition["description"]))
        if name == "template_mask":
            for key in ("templates", "polarisation"):
                block = definition["properties"][key]["items"]
                parts.append(_table(f"template_mask.{key}[]", block["properties"], block["description"]))
    return "\n".join(parts)


def _table(title: str, properties: dict, intro: str = "") -> str:
    lines = [f"## {title}", "", *([intro, ""] if intro else [])]
    lines += ["| key | default | unit | allowed | meaning |", "|---|---|---|---|---|"]
    for key, entry in properties.items():
        default = json.dumps(entry["default"]) if "default" in entry else ""
        meaning = entry.get("description", "")
        lines.append(f"| `{key}` | {default} | {unit_of(key)} | {_allowed(entry)} | {meaning} |")
    return "\n".join([*lines, ""])


def _allowed(entry: dict) -> str:
    if "enum" in entry:
        return ", ".join("null" if v is None else str(v) for v in entry["enum"])
    items = entry.get("items", {})
    if "enum" in items:
        return "list of " + _allowed(items)
    source = {**items, **entry} if items else entry
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {source[key]}" for key, sign in words.items() if key in source]
    return ", ".join(limits)


RESULTS_HEAD = """\
# Results

<!-- generated by `python -m fourdstem schema` from the declarations in scripts/fourdstem; do not edit -->

One folder per sample, made by `snakemake`. Open `{sample}/report.html` first. `python -m fourdstem audit results`
checks every file here against its recorded hash, back to the raw data.

Dataset `name` of a table below is `/entry/<name>/data`, with `units`, `long_name` and axes as attributes (NeXus).
Data are compressed by a filter that h5py alone does not have; import hdf5plugin first:

```python
import h5py, hdf5plugin

with h5py.File("results/demo/virtual_image.h5") as file:
    image = file["entry/bright_field/data"][()]
```

NaN means "not measured", -1 "no label". Counts are as recorded; positions are (y, x) in px, pixel centres on integers.

| file | what |
|---|---|
| `{sample}/report.html`, `report.ipynb` | the report and the notebook that made it |
| `{sample}/figures/` | every figure as PNG and PDF |
| `{sample}/orientation/{source}.ang`, `.ctf`, `_orix.h5` | orientation map for other programs: docs/frames.md |
| `{sample}/grains/{source}.csv`, `{source}_boundaries.csv` | grains; classes of boundaries, with lengths |
| `{sample}/template_mask.csv` | atom columns: sites, positions where they may be believed, displacements |
| `{sample}/template_mask_polarisation.csv` | displacements of columns from the middle of their neighbours, with \
uncertainties (pm), and µC/cm² where a charge was given |
| `{sample}/evaluation.csv` | success against known truth, where it is known |
| `{sample}/provenance/*.json` | one sidecar per job: inputs, outputs, settings, versions, leaked modules, time |
| `{sample}/logs/` | what each job said |
| `summary.html`, `summary.csv` | all samples side by side |
| `provenance.json` | every file with its sha256; the end of the chain |

"""


def results_readme() -> str:
    """Return ``results/README.md``."""
    parts = [RESULTS_HEAD]
    for file, stage in RESULTS.items():
        result = _method(stage).Result
        lines = [f"## {{sample}}/{file}", "", *STREAMED.get(file, [])]
        lines += ["| dataset | axes | unit | what |", "|---|---|---|---|"]
        for field in dataclasses.fields(result):
            meta = field.metadata
            axes = ", ".join(meta["axes"]) or "scalar"
            lines.append(f"| `{field.name.rstrip('_')}` | {axes} | {meta['unit']} | {meta['long_name']} |")
        parts.append("\n".join([*lines, ""]))
    return "\n".join(parts)


PATTERNS = "of shape (scan_y, scan_x, detector_y, detector_x), counts."
STREAMED = {
    "simulated.h5": [
        f"`/counts` {PATTERNS}",
        "`/acquisition/<key>`: what a vendor file would say. `/truth/<name>`:",
        "",
    ],
    "scan.h5": [
        f"`/entry/counts/data` {PATTERNS} As recorded.",
        "`/entry/acquisition/<key>`: values in force, attribute `origin`.",
        "",
    ],
    "denoised.h5": [
        f"`/entry/patterns/data` {PATTERNS} Denoised, as recorded (attribute `frame`), without the detector's offset.",
        "For finding reflections; what is quantitative stays on recorded counts.",
        "",
    ],
    "nonlocal_average.h5": [
        f"`/entry/patterns/data` {PATTERNS} Averaged, corrected (attribute `frame`).",
        "`/entry/member/data`, `/entry/weight/data` (scan_y, scan_x, member): which patterns each was made of, as",
        "`y * scan_x + x` (-1: none), and by what weight.",
        "",
    ],
}
