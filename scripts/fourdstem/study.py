"""Tables over several samples."""

import csv
from collections import defaultdict
from pathlib import Path
from statistics import fmean

METRICS = (
    "indexed",
    "within_2_deg",
    "within_5_deg",
    "identifiable_within_5_deg",
    "identifiable_within_5_deg_of_noise_free",
)
COLUMNS = ("metric", "region", "source", "mean", "lowest", "highest")


def gather(tables, samples) -> list[tuple]:
    """Return rows (metric, region, source, mean, lowest, highest, one value per sample) of ``evaluation.csv`` files.

    Parameters
    ----------
    tables : sequence of path-like
    samples : sequence of str
        Their names, in the same order; the first row names the columns.
    """
    values = defaultdict(dict)
    for sample, path in zip(samples, tables, strict=True):
        with Path(path).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["metric"] in METRICS:
                    values[row["metric"], row["region"], row["source"]][sample] = float(row["value"])
    rows = [(*COLUMNS, *samples)]
    for key, found in sorted(values.items()):
        numbers = list(found.values())
        summary = (fmean(numbers), min(numbers), max(numbers))
        own = (found.get(sample, float("nan")) for sample in samples)
        rows.append((*key, *(f"{v:.3f}" for v in (*summary, *own))))
    return rows


def write_table(path, rows) -> None:
    """Write rows as CSV."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
