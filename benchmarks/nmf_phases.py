"""Phases of a real scan by factorisation, against a map that others labelled: a table of neighbouring settings.

The scan: precession diffraction of an Al-Cu-Li alloy (Thronsen et al., Ultramicroscopy 255, 113861 (2024), raw data
doi:10.5281/zenodo.6645396), of which others kept a factorisation of rank 20 (CC-BY-4.0, msa-em/pattern-matching-paper).
``python benchmarks/nmf_phases.py FOLDER TABLE``, FOLDER holds ``sped_alculi.npz``. Needs 2 GB of memory.

Patterns have disks of the matrix and the beam masked; 2 × 2 pixels are summed. Components are named by five recorded
patterns of precipitates, from which a pattern of the matrix is taken off; where less than half of a phase's typical
intensity is left, or nothing, lies the matrix. Which precipitate each of the five patterns shows was read once from the
labelled map; nothing else was. Rows 0 to 255 were looked at while this was made, rows 256 to 511 were not.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from fourdstem.methods.nmf import curves, noise, rank
from fourdstem.methods.nmf.sweep import sweep

RANKS = range(2, 21)
SHOWN = (4, 6, 8, 10, 12, 14, 16, 18, 20)  # beside the one that is chosen
TYPICAL = 0.5  # of the typical intensity of a phase: where the probe leaves a precipitate half of it is left
LEAST = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
REFERENCES = {1: 2, 2: 3, 3: 3, 4: 1, 5: 1}  # recorded pattern: phase; pattern 0 is of the matrix
PHASES = ("Al", "theta'<100>", "theta'<001>", "T1")


def nearest(component: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the reference pattern that each component is most like.

    Parameters
    ----------
    component : ndarray of shape (k, columns)
    reference : ndarray of shape (reference, columns)
        Not negative; what all of them share (diffuse background, matrix) is better taken off beforehand.

    Returns
    -------
    index : ndarray of int, shape (k,)
    cosine : ndarray of shape (k,)
    """
    unit = [p / np.linalg.norm(p, axis=1, keepdims=True).clip(1e-30) for p in (component, reference)]
    cosine = unit[0] @ unit[1].T
    return cosine.argmax(axis=1), cosine.max(axis=1)


def phase_map(weight: np.ndarray, component: np.ndarray, phase, least: float = TYPICAL) -> np.ndarray:
    """Return the phase that holds most of the intensity of each row.

    The components of a phase are added up. A row is of no phase where that sum is less than ``least`` times its median
    over the rows of that phase: beside a precipitate, where its disks fade, or where there is nothing.

    Parameters
    ----------
    weight : ndarray of shape (n, k)
    component : ndarray of shape (k, columns)
    phase : sequence of int, length k
        Phase of each component.
    least : float

    Returns
    -------
    ndarray of int, shape (n,)
        -1 for no phase.
    """
    names = np.unique(phase)
    shares = np.asarray(weight, float) * curves.electrons(component)
    held = np.stack([shares[:, np.asarray(phase) == name].sum(axis=1) for name in names], axis=1)
    first, most = held.argmax(axis=1), held.max(axis=1)
    label = np.full(len(held), -1)
    for i, name in enumerate(names):
        own = (first == i) & (most > 0)
        if own.any():
            label[own & (most >= least * np.median(most[own]))] = name
    return label


def summed(patterns: np.ndarray) -> np.ndarray:
    """Sum blocks of 2 × 2 pixels of patterns (n, 82, 41); the last column stands alone."""
    padded = np.pad(patterns, ((0, 0), (0, 0), (0, 1)))
    return padded.reshape(len(padded), 41, 2, 21, 2).sum(axis=(2, 4))


def load(folder, rows: slice, step: int = 1):
    """Return patterns (n, pixel), mask, references (5, pixel), labels (n,) of every ``step``-th place of some rows."""
    with np.load(Path(folder) / "sped_alculi.npz") as file:
        loadings = file["loadings"][:, rows][:, ::step, ::step].reshape(20, -1)
        valid = file["pattern_valid"]
        factors = summed(file["factors"] * valid)
        shown = summed(file["selected_patterns_raw"][:, 3:85, 3:44].astype(float) * valid)
        truth = file["ground_truth"][rows][::step, ::step].ravel().astype(int)
    mask = summed(valid[None].astype(float))[0] >= 3
    patterns = (loadings.T @ factors[:, mask]).astype(np.float32)
    reference = (shown[list(REFERENCES)] - shown[0])[:, mask].clip(0)
    return patterns, mask, reference, truth


def named(fit, reference) -> np.ndarray:
    """Return the phase of each component."""
    return np.array(list(REFERENCES.values()))[nearest(fit.component, reference)[0]]


def scores(label: np.ndarray, truth: np.ndarray) -> list[float]:
    """Return accuracy, macro recall and the recall of every phase, where the truth has a label."""
    known = truth < len(PHASES)
    recall = [float((label[truth == p] == p).mean()) for p in range(len(PHASES))]
    return [float((label[known] == truth[known]).mean()), float(np.mean(recall)), *recall]


def study(folder, rows: slice, starts: int = 2):
    """Yield rows (rank, least share, accuracy, macro recall, recalls) and at last the rank that is chosen, and why.

    As in the stage, where the gain of a detector is not known: by the singular values of the patterns themselves.
    """
    patterns, mask, reference, truth = load(folder, rows)
    fits = sweep(patterns, RANKS, starts, tol=1e-5).fits
    found = curves.measure(patterns, fits, mask=mask)
    choice = rank.choose(found, noise.visible(patterns, None))
    for k in sorted({*SHOWN, choice.rank}):
        best = min(fits[k], key=lambda fit: fit.loss)
        for least in LEAST:
            label = phase_map(best.weight, best.component, named(best, reference), least)
            yield (k, least, *scores(np.where(label < 0, 0, label), truth))
    yield choice


def main() -> None:
    """Write the table."""
    folder, table = sys.argv[1:]
    with Path(table).open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        names = ("accuracy", "macro recall", *(f"recall {p}" for p in PHASES))
        out.writerow(("scan rows", "rank", "least share", *names, "chosen"))
        for first in (0, 256):
            *lines, choice = study(folder, slice(first, first + 256))
            for k, least, *values in lines:
                chosen = "x" if k == choice.rank and least == TYPICAL else ""
                out.writerow((f"{first}-{first + 255}", k, least, *(f"{v:.4f}" for v in values), chosen))
            sys.stdout.write(f"rows {first}: {choice.reason}\n")


if __name__ == "__main__":
    main()
