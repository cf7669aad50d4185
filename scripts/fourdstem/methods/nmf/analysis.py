"""The stage: ranks compared, one chosen, its factorisation finished on whole patterns, maps made of it."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fourdstem.cube import Cube
from fourdstem.errors import InputError
from fourdstem.methods.nmf import maps, whole
from fourdstem.methods.nmf.compressed import captured, compress
from fourdstem.methods.nmf.curves import Curves, measure
from fourdstem.methods.nmf.matrix import Matrix
from fourdstem.methods.nmf.noise import Visible, visible
from fourdstem.methods.nmf.prepare import Data, Features, features_of, prepare
from fourdstem.methods.nmf.quality import METRICS
from fourdstem.methods.nmf.rank import Choice, choose
from fourdstem.methods.nmf.settings import Params, Result
from fourdstem.methods.nmf.solvers import Factors, solve
from fourdstem.methods.nmf.sparse import solve_sparse
from fourdstem.methods.nmf.sweep import BEYOND, Sweep, sweep

SSIM = METRICS.index("ssim")
FINER = 0.1  # tolerance of the final fit, by that of the comparison of ranks


@dataclass(frozen=True)
class _Search:
    """What was found out about ranks."""

    curves: Curves
    choice: Choice
    seen: Visible | None
    swept: Sweep
    low: Matrix
    captured: float


def compute(
    cube: Cube,
    recorded: Cube,
    params: Params,
    beam_radius_px: float,
    folder: Path,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
    effective_number: np.ndarray | None = None,
) -> Result:
    """Factorise the patterns of a scan.

    Parameters
    ----------
    cube : Cube
        The pattern source, corrected.
    recorded : Cube
        Corrected counts, whose noise is known; the same object where they are the source.
    params : Params
    beam_radius_px : float
    folder : Path
        Receives what does not fit into memory, and is left as it was.
    device : {"cpu", "cuda"}
    say : callable
        Takes a line of the log.
    effective_number : ndarray of shape (scan_y, scan_x), optional
        Patterns behind each averaged one, by which it has less noise; without it, the same everywhere.

    Raises
    ------
    InputError
        If patterns cannot be used, or do not allow the rank.
    """
    features = features_of(cube, params, beam_radius_px)
    with ExitStack() as stack:
        seen, electrons = _electrons(stack, recorded, params, features, folder)
        data = stack.enter_context(prepare(cube, params, features, folder))
        search = _search(data, electrons, seen, params, device, say)
        fit = _finish(data.matrix, search, params, device)
        off = whole.misfits(data.matrix, fit.weight, fit.component, params.sparse_residual)
    return _result(cube, recorded, data, search, fit, off, params, effective_number)


def _electrons(stack: ExitStack, recorded: Cube, params: Params, features: Features, folder: Path):
    """Return how many patterns stand above the noise, and recorded electrons as a matrix on disk."""
    fit = recorded.correction
    gain = np.nan if fit is None else fit.counts_per_electron
    raw = replace(params, weighting="counts")
    own = prepare(recorded, raw, features, folder, keep=False, gain=gain if np.isfinite(gain) else 1.0)
    matrix = stack.enter_context(own).matrix
    if params.rank is not None:
        return None, matrix
    # Where the gain is not known, the level of the noise is taken from its own singular values.
    known = np.isfinite(gain) and fit.readout_noise_counts == 0
    return visible(matrix, 1.0 if known else None), matrix


def _search(data: Data, electrons: Matrix, seen, params: Params, device: str, say) -> _Search:
    most = params.rank or max(params.rank_range)
    low = compress(data.matrix, most + BEYOND, params.seed)
    ranks = _ranks(params, int(data.lit.sum()), data.features.count, low.shape[1])
    options = {"method": params.method, "loss": params.loss, "start": params.start, "seed": params.seed}
    options |= {"tol": params.tolerance, "max_iter": params.max_iterations}
    threads = data.matrix.threads
    swept = sweep(data.matrix, ranks, params.starts, low=low, threads=threads, device=device, **options)
    share = 1.0 if params.method == "mu" else captured(low)  # mu works on whole patterns
    say(f"{len(ranks)} ranks, {params.starts} starts each, compared on {100 * share:.3g} % of all squares")
    dispersion = 1.0 if seen is None else seen.dispersion
    curves = measure(data.matrix, swept.fits, electrons, data.features.mask, dispersion)
    choice = choose(curves, seen, params.rank)
    say(f"rank {choice.rank}: {choice.reason}")
    return _Search(curves, choice, seen, swept, low, share)


def _ranks(params: Params, lit: int, columns: int, directions: int) -> list[int]:
    """Return the candidates that the data allow.

    Raises
    ------
    InputError
        If they do not allow the rank that is set, or any of the range.
    """
    most = min(lit, columns, directions)
    least, largest = (params.rank, params.rank) if params.rank else sorted(params.rank_range)
    if least > most:
        alike = "all patterns are alike but for a factor" if directions == 1 else f"the data allow at most {most}"
        raise InputError(
            f"rank {least}, but {alike} ({lit} patterns with counts, {columns} numbers each, {directions} directions)",
            where="nmf: rank" if params.rank else "nmf: rank_range",
            expected=f"at most {most} components",
            do="Ask for fewer, take more positions (roi), or sum fewer pixels (bin, representation).",
        )
    return list(range(least, min(largest, most) + 1))


def _finish(matrix: Matrix, search: _Search, params: Params, device: str) -> Factors:
    """Return the best fit at the chosen rank, carried on with whole patterns."""
    best = min(search.swept.fits[search.choice.rank], key=lambda one: one.loss)
    first = best.weight, best.component
    limits = {"tol": FINER * params.tolerance, "max_iter": params.max_iterations, "threads": matrix.threads}
    if params.sparse_residual is not None:
        return solve_sparse(matrix, *first, params.sparse_residual, **limits)
    if params.method == "mu":  # was not compressed
        return best
    # Patterns that are nowhere alone are not fixed by the loss: any cone around them fits, and the narrowest is wanted.
    penalty = params.l1_weight * np.sqrt(matrix.squared / matrix.shape[0])
    more = {"method": params.method, "l1_weight": penalty, "device": device}
    if penalty > 0:  # it takes many steps, which cost little in few directions
        fit = solve(search.low, search.choice.rank, first=first, **more, **limits)
        first = fit.weight, fit.component
    return whole.unbiased(matrix, solve(matrix, search.choice.rank, first=first, **more, **limits))


def _result(cube: Cube, recorded: Cube, data: Data, search, fit: Factors, off, params: Params, behind) -> Result:
    unweighted = fit.component * data.column
    size = maps.sizes(unweighted, params.scaling)
    weight = (fit.weight * data.row[:, None] * size).astype(np.float32)
    feature = unweighted / np.where(size > 0, size, 1)[:, None]
    background = _background(weight[data.lit], params)
    found = maps.labels(weight, data.lit, background, params.background_ratio, params.overlap_ratios)
    # Counting noise: its squares sum to the counts of the model, or, once weighted or rooted, to the same everywhere.
    level = (fit.weight @ fit.component.sum(axis=1)) if params.weighting == "counts" else np.ones(len(weight))
    # Averages of few patterns, as at boundaries, have more of it.
    level = level if behind is None else level / np.maximum(behind.ravel(), 1)
    flagged = maps.unexplained(off[0], level, off[1], data.lit, params.unexplained)
    label = np.where(flagged > 0, -1, found.label)
    with np.errstate(invalid="ignore"):
        residual = np.where(data.lit, np.sqrt(off[0] / np.maximum(off[1], 1e-30)), np.nan)
    scan = cube.scan_shape
    shown = whole.components(cube, weight)
    shares = off[2] / np.maximum(weight.sum(axis=1), 1e-30)
    return Result(
        **_of_ranks(search, data, fit, params),
        component=shown,
        used=(data.features.index >= 0).astype(np.uint8),
        feature=data.features.image(feature.astype(np.float32)),
        weight=weight.reshape(*scan, -1),
        background=background,
        label=label.astype(np.int32).reshape(scan),
        residual=residual.astype(np.float32).reshape(scan),
        unexplained=flagged.reshape(scan),
        sparse_share=None if params.sparse_residual is None else shares.astype(np.float32).reshape(scan),
        ratio=np.array(params.overlap_ratios, np.float32),
        overlap=found.overlap.reshape(-1, *scan),
        **_clusters(recorded, label, residual, found.overlap, shown, data.features, params),
    )


def _background(weight: np.ndarray, params: Params) -> int:
    if params.background == "none":
        return -1
    if params.background == "auto":
        return maps.find_background(weight, params.background_evenness)
    if params.background_component >= weight.shape[1]:
        raise InputError(
            f"background_component {params.background_component}, but there are {weight.shape[1]} components",
            where="nmf: background_component",
            expected=f"0 to {weight.shape[1] - 1}",
            do="Take its number from the report of a run with this rank, and set rank too.",
        )
    return params.background_component


def _of_ranks(search: _Search, data: Data, fit: Factors, params: Params) -> dict:
    curves, fits = search.curves, search.swept.fits
    best = np.array([min(one.loss for one in fits[k]) for k in curves.rank])
    best = np.full(len(best), np.nan) if params.loss == "kl" else best  # a divergence is not a sum of squares
    return {
        "rank": curves.rank.astype(np.int32),
        "loss": curves.loss.astype(np.float32),
        "unexplained_share": (best / max(data.matrix.squared, 1e-30)).astype(np.float32),
        **{name: getattr(curves, name)[:, SSIM].astype(np.float32) for name in ("fidelity", "redundancy", "raw_match")},
        "stability": curves.stability.astype(np.float32),
        "distinct": curves.distinct.astype(np.int32),
        "fit_converged": np.array([all(one.converged for one in fits[k]) for k in curves.rank], np.uint8),
        "metric": METRICS,
        "fidelity_by_metric": curves.fidelity.astype(np.float32),
        "redundancy_by_metric": curves.redundancy.astype(np.float32),
        "raw_match_by_metric": curves.raw_match.astype(np.float32),
        "visible_patterns": -1 if search.seen is None else search.seen.patterns,
        "knee": search.choice.knee,
        "chosen_rank": search.choice.rank,
        "reason": search.choice.reason,
        "captured": search.captured,
        "compression_error": search.swept.error,
        "iterations": fit.iterations,
        "converged": int(fit.converged),
        "clipped": data.clipped,
    }


def _clusters(recorded: Cube, label, residual, overlap, component, features: Features, params: Params) -> dict:
    k, used = len(component), features.index >= 0
    mean, size = whole.mean_patterns(recorded, label, k)
    tree = maps.merge(mean[:, used], size, params.merge_correlation)
    number = int(tree.of_component.max(initial=-1)) + 1
    cluster = np.where(label >= 0, tree.of_component[label], -1)
    sizes = np.bincount(cluster[cluster >= 0], minlength=number)
    total = np.zeros((number, *mean.shape[1:]))
    for j in np.flatnonzero(tree.of_component >= 0):
        total[tree.of_component[j]] += mean[j] * float(size[j])
    means = (total / np.maximum(sizes, 1)[:, None, None]).astype(np.float32)
    either = overlap[np.argmin(params.overlap_ratios)]
    return {
        "component_mean": mean,
        "component_size_px": size.astype(np.int32),
        "component_match": maps.cosines(component[:, used], mean[:, used]),
        "component_residual": maps.medians(residual, label, k),
        "component_cluster": tree.of_component,
        "cluster": cluster.astype(np.int32).reshape(recorded.scan_shape),
        "cluster_mean": means,
        "cluster_size_px": sizes.astype(np.int32),
        "cluster_counts": means.sum(axis=(1, 2), dtype=np.float64).astype(np.float32),
        "cluster_residual": maps.medians(residual, cluster, number),
        "cluster_overlap_share": np.array([either[cluster == c].mean() for c in range(number)], np.float32),
        "merge_first": tree.first,
        "merge_second": tree.second,
        "merge_correlation": tree.correlation,
        "merge_made": tree.made,
    }


def doubts(result: Result) -> list[str]:
    """Return sentences about what is to be doubted."""
    found = []
    if not result.converged:
        found.append(f"the final fit did not converge within {result.iterations} iterations: raise nmf.max_iterations")
    late = np.asarray(result.rank)[np.asarray(result.fit_converged) == 0]
    if len(late):
        found.append(f"some starts did not converge at rank {', '.join(map(str, late))}")
    if result.chosen_rank == result.rank[-1] and len(result.rank) > 1:
        found.append(f"rank {result.chosen_rank} is the largest that was tried: widen nmf.rank_range")
    if result.clipped > 0.001:
        found.append(f"{100 * result.clipped:.1f} % of the counts were negative and taken as 0")
    share = float(np.mean(result.unexplained))
    if share > 0.01:
        found.append(f"{100 * share:.1f} % of the positions are explained by no mixture of components")
    steady = np.asarray(result.stability)[np.asarray(result.rank) == result.chosen_rank]
    if len(steady) and steady[0] < 0.9:
        found.append(
            f"another start finds other components (least cosine {steady[0]:.2f}): not all of them can be trusted"
        )
    return found
