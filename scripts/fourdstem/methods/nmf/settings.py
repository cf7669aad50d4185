"""Settings and result of the stage."""

from dataclasses import dataclass

import numpy as np

from fourdstem.schema import quantity, setting


@dataclass(frozen=True)
class Params:
    """Which patterns are factorised, how, into how many components, and when these are phases of their own."""

    source: str = setting("averaged", "Patterns to use.", choices=("corrected", "denoised", "averaged"))
    rank: int | None = setting(None, "Number of components; null: chosen among rank_range.", minimum=1, maximum=100)
    rank_range: tuple[int, int] = setting(
        (2, 16), "Fewest and most components among which the rank is chosen.", minimum=1, maximum=100
    )
    starts: int = setting(3, "Starts at each rank, the first from singular vectors.", minimum=1, maximum=20)
    seed: int = setting(0, "Of the random starts and of the compression.", minimum=0)
    representation: str = setting(
        "pattern",
        "What is factorised: the pattern, its rings about the beam (radial), or rings cut into sectors (polar).",
        choices=("pattern", "radial", "polar"),
    )
    bin: int = setting(1, "Pixels (rings, for radial and polar) summed along each axis.", minimum=1, maximum=64)
    sectors: int = setting(36, "Sectors of a ring (polar).", minimum=2, maximum=360)
    inner: float = setting(
        1.5, "Nothing is used within this many beam radii and a pixel of the beam; 0: the beam counts.", minimum=0
    )
    outer_px: float | None = setting(None, "Radius beyond which nothing is used; null: the whole detector.", above=0)
    weighting: str = setting(
        "counts",
        "counts: as they are; poisson: over the root of what is expected of the pixel and the position, so that "
        "counting noise is the same everywhere; sqrt: the root of counts, in which patterns do not add up.",
        choices=("counts", "poisson", "sqrt"),
    )
    method: str = setting(
        "hals",
        "Solver: hierarchical or plain alternating least squares, or multiplicative.",
        choices=("hals", "als", "mu"),
    )
    loss: str = setting("frobenius", "What is made small; kl goes with mu.", choices=("frobenius", "kl"))
    start: str = setting("nndsvda", "First start.", choices=("nndsvda", "nndsvd", "random"))
    tolerance: float = setting(1e-6, "Iterations end where one lowers the loss by less than this share.", above=0)
    max_iterations: int = setting(1000, "Iterations at most; a fit that needs more is reported.", minimum=1)
    l1_weight: float = setting(
        0.001,
        "Penalty on the weights' sum in the final fit, for components of norm 1, in units of the patterns' root mean "
        "square norm. Of fits that are about as good it takes the one of few components per position; mu and a sparse "
        "part have none.",
        minimum=0,
        maximum=1,
    )
    sparse_residual: float | None = setting(
        None,
        "What a pixel exceeds its model by beyond this, in units of the weighted data, is taken for a sparse part of "
        "its own (a low-rank and a sparse matrix; ours, not of the published code); null: none.",
        above=0,
    )
    scaling: str = setting(
        "sum",
        "Component's size set to 1 before weights are compared: its sum, its norm, its maximum.",
        choices=("sum", "norm", "max"),
    )
    background: str = setting(
        "auto", "Look for a component that lies under all others?", choices=("auto", "none", "given")
    )
    background_component: int = setting(0, "Its number, from 0 on, where background is given.", minimum=0)
    background_evenness: float = setting(
        0.3,
        "A background's weight at its 5th percentile is at least this share of that at its 95th.",
        above=0,
        maximum=1,
    )
    background_ratio: float = setting(
        0.65,
        "Where the second weight is this share of the background's, the label is the second's.",
        above=0,
        maximum=1,
    )
    overlap_ratios: tuple[float, ...] = setting(
        (0.75, 0.8, 0.85, 0.9, 0.95),
        "Second weight by first, from which a position overlaps.",
        above=0,
        maximum=1,
        fewest=1,
    )
    unexplained: float = setting(
        8.0, "Robust standard deviations by which a misfit exceeds the median and has no label; 0: none.", minimum=0
    )
    merge_correlation: float = setting(
        0.99, "Components whose raw mean patterns correlate better are one cluster; 1: none.", above=0, maximum=1
    )


@dataclass(frozen=True)
class Result:
    """Components, where they are, and why there are so many; ``label`` -1: no phase, or a position without counts."""

    rank: np.ndarray = quantity("candidate", "", "Numbers of components that were tried")
    loss: np.ndarray = quantity("candidate", "", "Mean of |data - model|, weighted data (K-component loss)")
    unexplained_share: np.ndarray = quantity("candidate", "", "Sum of squares not explained, over all; NaN: kl")
    fidelity: np.ndarray = quantity("candidate", "", "Likeness of patterns and model, SSIM")
    redundancy: np.ndarray = quantity("candidate", "", "Likeness of components to each other, SSIM")
    raw_match: np.ndarray = quantity("candidate", "", "Likeness of components and recorded mean patterns, SSIM")
    stability: np.ndarray = quantity(
        "candidate", "", "Cosine of the least like component with its partner of other starts"
    )
    distinct: np.ndarray = quantity("candidate", "", "Clusters that are neither empty nor alike")
    fit_converged: np.ndarray = quantity("candidate", "", "1: every start converged")
    metric: tuple[str, ...] = quantity("metric", "", "Measures of likeness of the next three")
    fidelity_by_metric: np.ndarray = quantity("candidate metric", "", "Patterns and model")
    redundancy_by_metric: np.ndarray = quantity("candidate metric", "", "Components and each other")
    raw_match_by_metric: np.ndarray = quantity("candidate metric", "", "Components and recorded mean patterns")
    visible_patterns: int = quantity("", "", "Patterns that stand above counting noise; -1: not known")
    knee: int = quantity("", "", "Knee of the K-component loss")
    chosen_rank: int = quantity("", "", "Number of components")
    reason: str = quantity("", "", "Why so many")
    captured: float = quantity("", "", "Share of all squares in the directions in which ranks were compared")
    compression_error: float = quantity(
        "", "", "Largest relative difference of the loss in these directions from the true one"
    )
    iterations: int = quantity("", "", "Iterations of the final fit, on whole patterns")
    converged: int = quantity("", "", "1: the final fit converged")
    clipped: float = quantity("", "", "Share of counts that were negative and taken as 0")
    component: np.ndarray = quantity(
        "component detector_y detector_x",
        "",
        "Pattern of each component, at weight 1; every pixel, whatever was masked",
    )
    used: np.ndarray = quantity("detector_y detector_x", "", "1: pixels that were factorised")
    feature: np.ndarray = quantity("component feature_y feature_x", "", "Components as fitted, their size taken out")
    weight: np.ndarray = quantity("scan_y scan_x component", "", "Weights by the size of components; sum: counts")
    background: int = quantity("", "", "Component that lies under all others; -1: none")
    label: np.ndarray = quantity("scan_y scan_x", "", "Component; -1: none")
    residual: np.ndarray = quantity(
        "scan_y scan_x", "", "Norm of what is not explained, over that of the pattern, as fitted"
    )
    unexplained: np.ndarray = quantity("scan_y scan_x", "", "1: the residual stands out of the others', no label")
    ratio: np.ndarray = quantity("ratio", "", "Ratios of second weight to first")
    overlap: np.ndarray = quantity(
        "ratio scan_y scan_x", "", "1: the second weight is at least this share of the first"
    )
    component_mean: np.ndarray = quantity(
        "component detector_y detector_x", "counts", "Mean recorded pattern of the positions of a label"
    )
    component_size_px: np.ndarray = quantity("component", "px", "Positions of a label")
    component_match: np.ndarray = quantity("component", "", "Cosine of component and mean recorded pattern")
    component_residual: np.ndarray = quantity("component", "", "Median residual of the positions of a label")
    component_cluster: np.ndarray = quantity("component", "", "Cluster of a component; -1: it labels nothing")
    cluster: np.ndarray = quantity("scan_y scan_x", "", "Cluster, redundant components merged; -1: none")
    cluster_mean: np.ndarray = quantity("cluster detector_y detector_x", "counts", "Mean recorded pattern of a cluster")
    cluster_size_px: np.ndarray = quantity("cluster", "px", "Positions of a cluster")
    cluster_counts: np.ndarray = quantity("cluster", "counts", "Mean counts per pattern")
    cluster_residual: np.ndarray = quantity("cluster", "", "Median residual")
    cluster_overlap_share: np.ndarray = quantity("cluster", "", "Share of positions that overlap at the least ratio")
    merge_first: np.ndarray = quantity("merge", "", "Components 0 to k - 1, or k + m for what merge m made")
    merge_second: np.ndarray = quantity("merge", "", "Likewise")
    merge_correlation: np.ndarray = quantity("merge", "", "Correlation of what is merged")
    merge_made: np.ndarray = quantity("merge", "", "1: made; 0: not alike enough")
    sparse_share: np.ndarray | None = quantity(
        "scan_y scan_x", "", "Share of the pattern in its sparse part", default=None
    )
