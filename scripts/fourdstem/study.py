"""Tables over several samples."""

import csv
import math
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from fourdstem.files import complete_or_absent

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


DOSE_METRICS = (
    "positions",
    "indexed",
    "within_2_deg",
    "within_5_deg",
    "median_misorientation",
    "identifiable",
    "identifiable_within_2_deg",
    "identifiable_within_5_deg",
    "identifiable_within_5_deg_of_noise_free",
    "psnr",
    "own_weight",
    "effective_number",
    "recorded_electrons",
    "scattered_electrons",
)
DOSE_COLUMNS = ("dose", "region", "source", "metric", "unit", "films", "mean", "lowest", "highest")


def gather_doses(tables, doses) -> list[tuple]:
    """Return rows (dose, region, source, metric, unit, films, mean, lowest, highest) of ``evaluation.csv`` files.

    Parameters
    ----------
    tables : sequence of path-like
    doses : sequence of float
        Electrons per pattern, in the same order.

    Returns
    -------
    list of tuple
        The first names the columns; doses ascend, the rest stands as it does in the tables. A film without such a
        region, or where the metric is not finite, is not among ``films``.
    """
    values, order = defaultdict(list), {}
    for dose, path in zip(doses, tables, strict=True):
        with Path(path).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                value, key = float(row["value"]), (row["region"], row["source"], row["metric"])
                if row["metric"] in DOSE_METRICS and math.isfinite(value):
                    order.setdefault(key, len(order))
                    values[float(dose), *key, row["unit"]].append(value)
    rows = [DOSE_COLUMNS]
    for key, found in sorted(values.items(), key=lambda item: (item[0][0], order[item[0][1:4]])):
        summary = (fmean(found), min(found), max(found))
        rows.append((f"{key[0]:g}", *key[1:], len(found), *(f"{v:.4g}" for v in summary)))
    return rows


COMPONENT_COLUMNS = ("kind", "way", "metric", "scans", "mean", "lowest", "highest")


def gather_components(tables) -> tuple[list[tuple], dict]:
    """Return rows (kind, way, metric, scans, mean, lowest, highest) and errors of ranks.

    Parameters
    ----------
    tables : sequence of path-like
        One per seed; a row per scan, way and metric.

    Returns
    -------
    rows : list of tuple
        The first names the columns; of every kind and of "all". ``rank_right`` and ``rank_within_1`` are shares.
    errors : dict
        ``{(kind, way): [rank - true rank, ...]}``.
    """
    values, errors = defaultdict(list), defaultdict(list)
    for path in tables:
        with Path(path).open(newline="", encoding="utf-8") as file:
            for kind, way, metric, value in csv.reader(file):
                told = {metric: float(value)}
                if metric == "rank_error":
                    errors[kind, way].append(int(value))
                    told |= {"rank_right": float(int(value) == 0), "rank_within_1": float(abs(int(value)) <= 1)}
                for name, number in told.items():
                    values[kind, way, name].append(number)
                    values["all", way, name].append(number)
    rows = [COMPONENT_COLUMNS]
    for key, found in values.items():
        summary = (fmean(found), min(found), max(found))
        rows.append((*key, len(found), *(f"{v:.3f}" for v in summary)))
    return rows, dict(errors)


def joined(tables) -> list[tuple]:
    """Return the rows of tables of the same columns, numbers as such; the first row names the columns."""
    rows = []
    for path in tables:
        with Path(path).open(newline="", encoding="utf-8") as file:
            head, *found = csv.reader(file)
        rows += [] if rows else [tuple(head)]
        rows += [tuple(map(_number, row)) for row in found]
    return rows


def _number(text: str):
    try:
        return float(text) if "." in text or "e" in text or "n" in text else int(text)
    except ValueError:
        return text


def write_table(path, rows) -> None:
    """Write rows as CSV."""
    with complete_or_absent(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
