"""What the gates make of a configuration: a refusal that says what to do, or exactly what was written."""

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import yaml

from fourdstem import config as configuration
from fourdstem import formats, headers
from fourdstem.errors import ConfigError
from fourdstem.faults.mistakes import Case
from fourdstem.faults.valid import STAGE_BLOCKS, plain
from fourdstem.faults.writers import COUNTS
from fourdstem.methods import scan
from fourdstem.schema import build

REFUSED, ACCEPTED = "refused", "accepted"


class Unexplained(Exception):
    """What may never happen: no refusal although there should be one, or one that says nothing."""


def judge(case: Case, folder: Path) -> str:
    """Return "refused" or "accepted".

    Parameters
    ----------
    case : Case
    folder : path
        From `valid.prepare`, the current folder.

    Raises
    ------
    Unexplained
        If the gates differ, let a mistake pass, refuse what is sound, do not name what is wrong, or take something
        else than what is written.
    Exception
        Whatever else a gate raises, which none may.
    """
    path = folder / "fuzzed.yaml"
    path.write_bytes(case.text)
    loaded, refusal = _checked(path)
    _compare_snakefile(path, loaded, refusal)
    if refusal is None and (found := headers.check(loaded)):
        refusal = "\n".join(found)
    if refusal is not None:
        _judge_refusal(case, refusal)
        return REFUSED
    if case.fate == "refuse":
        raise Unexplained("no gate saw the mistake")
    if case.intended is not None and plain(case.intended) != plain(loaded):
        raise Unexplained(f"read as {plain(loaded)}")
    for sample in loaded["samples"]:
        _judge_settings(loaded, sample)
        if "file" in sample:
            _judge_counts(loaded, sample)
    return ACCEPTED


def _checked(path: Path) -> tuple[dict | None, str | None]:
    loaded = None
    try:
        loaded = configuration.load(path)
        configuration.check(loaded, path)
    except ConfigError as error:
        if not error.mistakes or not all(": " in m or m.startswith("expected") for m in error.mistakes):
            raise Unexplained(f"a refusal that names no place: {error}") from None
        return loaded, str(error)
    return loaded, None


def _compare_snakefile(path: Path, loaded: dict | None, refusal: str | None) -> None:
    """Do what Snakemake does: read JSON or else YAML, then check. What it cannot read it refuses itself."""
    try:
        text = path.read_bytes().decode("utf-8")
        try:
            other = json.loads(text)
        except ValueError:
            other = yaml.safe_load(text)
    except Exception:
        if refusal is None:
            raise Unexplained("Snakemake cannot read it") from None
        return
    if not isinstance(other, dict):
        return
    try:
        configuration.check(other, path)
    except ConfigError as error:
        if refusal is None:
            raise Unexplained(f"only the Snakefile refuses it: {error}") from None
        return
    if refusal is not None and loaded is not None:
        raise Unexplained(f"the Snakefile takes what `check` refuses: {refusal}")
    if loaded is not None and plain(other) != plain(loaded):
        raise Unexplained("the Snakefile reads something else")


def _judge_refusal(case: Case, refusal: str) -> None:
    if case.fate == "accept":
        raise Unexplained(f"refused although it is sound: {refusal}")
    if case.names and not any(name in refusal for name in case.names):
        raise Unexplained(f"none of {case.names} is named: {refusal}")
    if len(refusal) > 5000:
        raise Unexplained(f"a refusal of {len(refusal)} letters")


def _method(stage: str):
    return importlib.import_module(f"fourdstem.methods.{stage}")


def _judge_settings(loaded: dict, sample: dict) -> None:
    """Every setting in force is the sample's, or else that of all samples, or else the default."""
    stages = [*STAGE_BLOCKS, "scan", *(["simulate"] if "simulate" in sample else [])]
    for stage in stages:
        params = _method(stage).Params
        force = build(params, configuration.settings(loaded, sample["name"], stage))
        for field in dataclasses.fields(params):
            layers = [(sample.get("settings") or {}).get(stage) or {}, loaded.get(stage) or {}]
            layers = {"scan": [sample], "simulate": [sample.get("simulate")]}.get(stage, layers)
            wanted = next((layer[field.name] for layer in layers if field.name in layer), field.default)
            wanted = tuple(wanted) if isinstance(wanted, list) else wanted
            found = getattr(force, field.name)
            if found != wanted or isinstance(found, bool) != isinstance(wanted, bool):
                raise Unexplained(f"{stage}.{field.name} is {found}, written was {wanted}")
    if set(sample.get("stages", ["virtual_image"])) - set(configuration.stages(loaded, sample["name"])):
        raise Unexplained("a stage that was listed does not run")
    if list(configuration.cif_files(loaded, sample["name"])) != sample.get("phases", []):
        raise Unexplained("a phase that was listed is lost")


def _judge_counts(loaded: dict, sample: dict) -> None:
    """Do what the job `scan` does: counts and acquisition are those of the part that was asked for."""
    params = build(scan.Params, configuration.settings(loaded, sample["name"], "scan"))
    given = configuration.acquisition(loaded, sample["name"])
    with formats.open_raw(sample["file"], sample.get("dataset")) as raw:
        acquisition, _ = scan.resolve_acquisition(
            raw.metadata, given, configuration.needed_acquisition(loaded, sample["name"]), raw.shape[-2:]
        )
        shape = scan.resolve_scan_shape(raw.shape, acquisition.scan_shape, params.roi)
        chosen = scan.select(raw.data, shape, params)
        counts = np.stack([chosen[y, 0 : chosen.shape[1]] for y in range(chosen.shape[0])])
        acquisition = scan.selected_acquisition(acquisition, params, counts.shape[:2])
    expected = _expected(shape, params)
    if not np.array_equal(counts, expected):
        raise Unexplained(f"counts of shape {counts.shape}, expected {expected.shape}, or other values")
    factors = {"scan_step_angstrom": params.stride, "offset_counts": params.bin**2, "readout_noise_counts": params.bin}
    factors |= dict.fromkeys(("detector_pixel_inv_angstrom", "detector_pixel_mrad"), params.bin)
    for key, value in given.items():
        found = getattr(acquisition, key)
        if key == "scan_shape":
            value = counts.shape[:2]
        elif key in factors:
            value = np.multiply(value, factors[key])
        if not np.array_equal(found, value):
            raise Unexplained(f"{key} is {found}, written was {given[key]}")


def _expected(shape: tuple[int, int], params) -> np.ndarray:
    """Return what numpy makes of the known counts: part of the scan, every n-th position, sums of pixels."""
    frames = COUNTS.reshape(-1, *COUNTS.shape[2:])
    missing = shape[0] * shape[1] - len(frames)
    padded = np.concatenate([frames, np.zeros((max(missing, 0), *frames.shape[1:]), frames.dtype)])
    y0, y1, x0, x1 = params.roi or (0, shape[0], 0, shape[1])
    part = padded.reshape(*shape, *frames.shape[1:])[y0 : y1 : params.stride, x0 : x1 : params.stride]
    n = params.bin
    ny, nx = (side // n for side in part.shape[2:])
    return sum(part[..., i : ny * n : n, j : nx * n : n].astype(np.int64) for i in range(n) for j in range(n))
