"""Everything that was found about one sample, read from its results folder."""

import json
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from fourdstem import crystal, io
from fourdstem.calibration import Acquisition

SOURCES = ("corrected", "denoised", "averaged")


@dataclass(frozen=True)
class Sample:
    """One sample's results; what did not run is None or empty.

    Attributes
    ----------
    name, results, figures : str
        Name, folder of the results, folder that receives the figures.
    acquisition : Acquisition
    origins : dict
        ``{key: (value, origin)}`` of the acquisition values in force.
    mask : ndarray of uint8, shape (detector_y, detector_x), or None
        The user's mask: 0 = never use.
    preprocess, virtual_image, nonlocal_average, nmf, clusters, template_mask, evaluation
        The stages' ``Result``.
    orientation : dict
        ``{source: orientation.Result}``, "corrected" before "averaged".
    grains : dict
        ``{source: grains.Result}``, likewise.
    crystals : list of Crystal
        In the order of the phase index.
    changed : dict
        ``{stage: {key: [value, default]}}``.
    records : dict
        ``{job: sidecar}``.
    """

    name: str
    results: str
    figures: str
    acquisition: Acquisition
    origins: dict
    mask: np.ndarray | None
    preprocess: Any
    virtual_image: Any = None
    nonlocal_average: Any = None
    nmf: Any = None
    clusters: Any = None
    template_mask: Any = None
    orientation: dict = field(default_factory=dict)
    grains: dict = field(default_factory=dict)
    evaluation: Any = None
    crystals: list = field(default_factory=list)
    changed: dict = field(default_factory=dict)
    records: dict = field(default_factory=dict)

    @property
    def step(self) -> tuple[float, float] | None:
        """Scan step (y, x) in Å; None where unknown."""
        return self.acquisition.scan_step_angstrom

    @property
    def scan_shape(self) -> tuple[int, int]:
        """(scan_y, scan_x)."""
        return self.preprocess.centre_px.shape[:2]

    @property
    def detector_shape(self) -> tuple[int, int]:
        """(detector_y, detector_x)."""
        return self.preprocess.mean_pattern.shape

    @cached_property
    def verdict(self) -> dict:
        """Preprocessing's verdicts, ``{what: {pass, reason}}``."""
        return json.loads(self.preprocess.verdict)

    @property
    def counts_per_pattern(self) -> float:
        """Mean number of counts that good pixels recorded in one pattern."""
        good = ~np.isin(self.preprocess.bad_pixel, (1, 2))
        if self.mask is not None:
            good = good & (self.mask > 0)
        return float(np.nansum(np.asarray(self.preprocess.mean_pattern, float)[good]))

    @property
    def scores(self) -> list[tuple]:
        """Rows (source, region, metric, value) of the evaluation; empty where truth is not known."""
        found = self.evaluation
        if found is None:
            return []
        values = np.asarray(found.row_value).tolist()
        return list(zip(found.row_source, found.row_region, found.row_metric, values, strict=True))

    def settings(self, job: str) -> dict:
        """Settings that a job says it ran with."""
        return self.records.get(job, {}).get("settings", {})


def read(results, figures, phases: dict[str, str], changed: dict) -> Sample:
    """Read a sample's results; only the files that are there.

    Parameters
    ----------
    results, figures : path-like
    phases : dict
        ``{name: CIF file}`` in the order of the phase index.
    changed : dict
        ``{stage: {key: [value, default]}}`` of the settings that differ from their defaults.
    """
    from fourdstem.methods import (
        clusters,
        evaluation,
        grains,
        nmf,
        nonlocal_average,
        orientation,
        preprocess,
        template_mask,
        virtual_image,
    )

    folder = Path(results)
    result = partial(_result, folder)

    indexed = {source: result(f"orientation/{source}", orientation.Result) for source in SOURCES}
    found = {source: result(f"grains/{source}", grains.Result) for source in SOURCES}
    return Sample(
        name=folder.name,
        results=str(folder),
        figures=str(figures),
        acquisition=io.read_acquisition(folder / "scan.h5"),
        origins=io.read_acquisition_origins(folder / "scan.h5"),
        mask=io.read(folder / "scan.h5", "mask"),
        preprocess=result("preprocess", preprocess.Result),
        virtual_image=result("virtual_image", virtual_image.Result),
        nonlocal_average=result("nonlocal_average", nonlocal_average.Result),
        nmf=result("nmf", nmf.Result),
        clusters=result("clusters", clusters.Result),
        template_mask=result("template_mask", template_mask.Result),
        orientation={source: one for source, one in indexed.items() if one is not None},
        grains={source: one for source, one in found.items() if one is not None},
        evaluation=result("evaluation", evaluation.Result),
        crystals=[crystal.read_cif(path, name) for name, path in phases.items()],
        changed=changed,
        records=_records(folder / "provenance"),
    )


def _result(folder: Path, name: str, kind):
    path = folder / f"{name}.h5"
    return io.read_result(path, kind) if path.is_file() else None


def sections(sample: Sample) -> set[str]:
    """Return what a report of this sample can show: the names behind ``needs-`` in the notebook's tags."""
    names = ("virtual_image", "nonlocal_average", "nmf", "clusters", "template_mask", "orientation", "grains")
    names += ("evaluation",)
    found = {name for name in names if getattr(sample, name)}
    if any(result.overlap_phase is not None for result in sample.orientation.values()):
        found.add("overlap")
    if any(result.calibration_right is not None for result in sample.orientation.values()):
        found.add("probability")
    if sample.template_mask and sample.template_mask.polarisation_name is not None:
        found.add("polarisation")
    return found | ({"phases"} if sample.orientation and len(sample.crystals) > 1 else set())


def _records(folder: Path) -> dict:
    order = ("simulate", "scan", "preprocess", "virtual_image", "denoise", "nonlocal_average", "nmf", "clusters")
    order += ("template_mask",)
    order += tuple(f"{stage}_{source}" for stage in ("orientation", "grains") for source in SOURCES) + ("evaluation",)
    files = {name: folder / f"{name}.json" for name in order}
    return {name: json.loads(p.read_text(encoding="utf-8")) for name, p in files.items() if p.is_file()}


def patterns(sample: Sample, positions) -> dict[str, np.ndarray]:
    """Return patterns at positions (y, x), ``{source: (n, detector_y, detector_x)}``, of the sources that are there."""
    folder = Path(sample.results)
    found = {}
    with io.open_corrected(folder / "scan.h5", folder / "preprocess.h5") as cube:
        found["corrected"] = np.stack([cube.pattern(y, x) for y, x, *_ in positions])
    averaged = folder / "nonlocal_average.h5"
    if averaged.is_file():
        with io.open_averaged(averaged, sample.acquisition) as cube:
            found["averaged"] = np.stack([cube.pattern(y, x) for y, x, *_ in positions])
    return found
