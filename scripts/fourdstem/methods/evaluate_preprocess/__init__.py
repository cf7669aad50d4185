"""What the preprocessing is worth, by simulated patterns of structures that nothing was trained or tuned on.

Denoising by the network and by classical ways, each tuned by dose on the training's structures; the classical centres
beside the Cramér-Rao bound; the ellipse by the fit; and patterns by many-beam theory of other code.
"""

from fourdstem.device import describe
from fourdstem.methods.evaluate_preprocess import centring, denoising, known, measured, straightening, ways
from fourdstem.methods.evaluate_preprocess.settings import COLUMNS, Params, Result
from fourdstem.networks.weights import load

__all__ = ["COLUMNS", "Params", "Result", "compute", "formatted"]


def compute(params: Params, weights, many_beam, device: str, say, pictures: dict | None = None) -> Result:
    """Evaluate every way.

    Parameters
    ----------
    params : Params
    weights, many_beam : path-like
        Of the network that denoises; many-beam intensities, see `known.many_beam`.
    device : {"cpu", "cuda"}
    say : callable
        Takes a line for the log.
    pictures : dict of str to ndarray, optional
        Measured patterns (n, y, x) to be denoised.

    Returns
    -------
    Result
    """
    network = ways.network(load(weights, "denoise")[0], device)
    seed, count = params.seed, params.patterns
    test, tuning = known.of_share(seed, "test", count), known.of_share(seed, "train", params.tuning)
    rows = centring.ingredients(seed, params.ingredients, say)
    rows += centring.table(test, tuning, seed + 1, say)
    rows += straightening.table(seed, params.means, say)
    rows += denoising.table(
        {
            "patterns": test,
            "many-beam patterns": known.many_beam(many_beam, seed, flat=False),
            "many-beam patterns, disks made flat": known.many_beam(many_beam, seed, flat=True),
        },
        known.without_spots(seed + 1, "test", count),
        tuning,
        known.small_scans(seed, "test", params.scans, params.positions),
        known.small_scans(seed, "train", params.scans, params.positions),
        network,
        seed + 2,
        describe(device),
        say,
    )
    examples = {}
    for name, patterns in (pictures or {}).items():
        examples[f"{name}, as recorded"] = patterns
        examples[f"{name}, denoised"] = measured.denoised(patterns, network)
    return Result(rows, examples)


def formatted(table) -> list[tuple]:
    """Return the rows of a table with numbers of four digits, as they are written."""
    return [tuple(f"{v:.4g}" if isinstance(v, float) else v for v in _plain(row)) for row in table]


def _plain(row):
    return (v.item() if hasattr(v, "item") else v for v in row)
