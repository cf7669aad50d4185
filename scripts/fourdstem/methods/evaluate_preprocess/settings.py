"""Settings and results of the evaluation of the preprocessing."""

from dataclasses import dataclass

import numpy as np

from fourdstem.schema import quantity, setting

COLUMNS = ("part", "data", "way", "dose", "class", "measure", "value", "number")


@dataclass(frozen=True)
class Params:
    """Comparison of the preprocessing's methods on simulated patterns of crystal structures kept apart."""

    patterns: int = setting(128, "Patterns that are tested, at every dose.", minimum=8, maximum=10**5)
    tuning: int = setting(24, "Patterns of the training's structures that classical ways are tuned on.", minimum=4)
    scans: int = setting(2, "Small scans of four grains, for ways that need a stack.", minimum=1, maximum=1000)
    positions: int = setting(12, "Positions in each grain of these.", minimum=2, maximum=1000)
    means: int = setting(40, "Scan means for the ellipse.", minimum=4, maximum=10**5)
    ingredients: int = setting(200, "Patterns that parts are taken out of, for the error of the centre.", minimum=4)
    seed: int = setting(1001, "Seed of patterns and noise.", minimum=0, maximum=2**31)


@dataclass(frozen=True)
class Result:
    """The table, and patterns to be shown."""

    table: list = quantity("", "", "Rows: part, data, way, dose, class, measure, value, number")
    examples: dict[str, np.ndarray] = quantity("", "", "Measured patterns, recorded and denoised, if at hand")
