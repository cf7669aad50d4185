"""Settings of the training, and what it tells."""

from dataclasses import dataclass

import numpy as np

from fourdstem.schema import quantity, setting


@dataclass(frozen=True)
class Params:
    """How the networks of the preprocessing are trained."""

    seed: int = setting(0, "Seed of the patterns, of their noise and of the first weights.", minimum=0, maximum=2**31)
    seconds: float = setting(
        14400.0, "Time for everything: the first patterns, all networks, the tables.", above=0, maximum=1e7
    )
    steps: int = setting(
        0, "Steps of each network instead of a time; makes a training repeatable; 0 = by time.", minimum=0
    )
    shares: tuple[float, float, float] = setting(
        (0.55, 0.3, 0.15), "Shares of the time for denoise, centre and ellipse.", minimum=0, maximum=1
    )
    batch: int = setting(32, "Patterns per step.", minimum=1, maximum=4096)
    rate: float = setting(1e-3, "Highest learning rate.", above=0, maximum=1)
    precision: str = setting(
        "bf16", "Numbers that the networks compute in while they learn.", choices=["bf16", "float32"]
    )
    pool: int = setting(4096, "Expected patterns kept at hand, on the device.", minimum=16, maximum=10**6)
    held_back: int = setting(512, "Patterns of the validation and of the test.", minimum=8, maximum=10**5)
    patience: int = setting(0, "Validations without improvement that end a network's training; 0 = none.", minimum=0)


@dataclass(frozen=True)
class Result:
    """Curves and tables of a training; the weights are files of their own."""

    curves: list = quantity("", "", "network, step, seconds, loss in training, loss on held-back structures")
    table: list = quantity("", "", "network, method, dose, radius class, measure, value, number of patterns")
    card: dict = quantity("", "", "model card")
    failures: dict = quantity("", "", "networks that could not be trained, and why")
    weights: dict = quantity("", "", "network and its weights", default_factory=dict)
    examples: dict[str, np.ndarray] = quantity(
        "", "", "some test patterns, as recorded, denoised and expected", default_factory=dict
    )
