"""Comparison with known truth: `compare` says how far results are from it, `rivals` what they are compared with."""

from fourdstem.methods.evaluation.compare import Params, Result, compute, regions, rows
from fourdstem.methods.evaluation.components import agreement, scan_rows, usual_ranks, weights_of
from fourdstem.methods.evaluation.probabilities import Judged, judged, outcomes, pooled, study_rows
from fourdstem.methods.evaluation.quality import effective_number, foreign_weight, psnr
from fourdstem.methods.evaluation.rivals import (
    NOISE_FREE,
    NONLOCAL,
    OVER_POSITIONS,
    average_over_positions,
    noise_free,
    room_for_average,
    stored,
)

__all__ = [
    "NOISE_FREE",
    "NONLOCAL",
    "OVER_POSITIONS",
    "Judged",
    "Params",
    "Result",
    "agreement",
    "average_over_positions",
    "compute",
    "effective_number",
    "foreign_weight",
    "judged",
    "noise_free",
    "outcomes",
    "pooled",
    "psnr",
    "regions",
    "room_for_average",
    "rows",
    "scan_rows",
    "stored",
    "study_rows",
    "usual_ranks",
    "weights_of",
]
