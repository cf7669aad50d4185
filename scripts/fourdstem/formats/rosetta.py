"""What RosettaSciIO's readers say of a file: headers and calibration. Counts are mapped by readers of our own."""

import importlib
import warnings
from pathlib import Path

from rsciio import IO_PLUGINS

from fourdstem.errors import InputError


def load(plugin: str, path: Path) -> list[dict]:
    """Return the signals of a file as a plugin of RosettaSciIO describes them; their counts are not read."""
    module = importlib.import_module(next(p["api"] for p in IO_PLUGINS if p["name"] == plugin))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return module.file_reader(str(path), lazy=True)
    except Exception as error:  # parsers of foreign formats raise whatever they like on a broken file
        raise InputError(
            f"a file that RosettaSciIO's {plugin} reader cannot read ({type(error).__name__}: {error})",
            where=str(path),
            expected=f"a complete {path.suffix} file",
            do="Copy it again from the microscope; it may be truncated, or lack a file that belongs to it.",
        ) from error


def instrument(signal: dict) -> dict:
    """Read beam energy and convergence; a plugin may leave them to its mapping of the original metadata."""
    names = {
        "Acquisition_instrument.TEM.beam_energy": "beam_energy_kev",
        "Acquisition_instrument.TEM.convergence_angle": "convergence_mrad",
    }
    out = {}
    for place, (target, convert) in signal.get("mapping", {}).items():
        value = walk(signal["original_metadata"], place) if target in names else None
        if value is not None:
            out[names[target]] = convert(value) if convert else value
    for target, key in names.items():
        value = walk(signal["metadata"], target)
        if value is not None:
            out[key] = value
    return {key: float(value) for key, value in out.items() if value}


def walk(tree, place: str):
    """Return what lies at a dotted place of nested dictionaries; None if there is nothing."""
    for key in place.split("."):
        if not isinstance(tree, dict) or key not in tree:
            return None
        tree = tree[key]
    return tree
