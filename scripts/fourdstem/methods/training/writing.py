"""Writes a training: weights, model card, curves, table, examples."""

import csv
import json
import os
from pathlib import Path

import numpy as np

from fourdstem.methods.training.settings import Result
from fourdstem.networks import weights


def write(result: Result, folder, code: str = "") -> None:
    """Write what there is; each file appears under its name only when it is whole.

    Parameters
    ----------
    result : Result
    folder : path-like
    code : str
        Fingerprint of the code, for card and weights.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for kind, state in result.weights.items():
        told = {"code": code, "seed": str(result.card["settings"]["seed"])}
        _whole(folder / f"{kind}.safetensors", lambda p, k=kind, s=state, t=told: weights.save(p, k, s, t))
    _whole(folder / "curves.csv", lambda p: _csv(p, "network step seconds training held_back", result.curves))
    _whole(folder / "table.csv", lambda p: _csv(p, "network method dose class measure value patterns", result.table))
    card = json.dumps(result.card | {"code": code}, indent=1, ensure_ascii=False)
    _whole(folder / "model_card.json", lambda p: Path(p).write_text(card + "\n", encoding="utf-8"))
    if result.examples:
        _whole(folder / "examples.npz", lambda p: _npz(p, result.examples))


def _whole(path: Path, make) -> None:
    part = str(path) + ".part"
    make(part)
    os.replace(part, path)


def _csv(path, header: str, rows) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split())
        for row in rows:
            writer.writerow([f"{v:.6g}" if isinstance(v, float | np.floating) else v for v in row])


def _npz(path, arrays) -> None:
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)
