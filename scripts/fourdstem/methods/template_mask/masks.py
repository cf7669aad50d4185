"""Masks from templates, and images in which no position speaks for itself.

``M_k = ⟨(X_k - ⟨X_k⟩) t⟩ / std X_k`` with t the standardised template; ``S(r) = Σ_k M_k X_k(r)``
(Xie et al., doi:10.1038/s43246-026-01134-9). On pure noise, mask and image of the same data correlate with the
template by √(g/(1+g)), g = pixels / positions: the part of M that r itself put there meets its own noise again.
Leaving r out takes from S(r) the term ``t(r)/(n-1) Σ_k (X_k(r) - ⟨X_k⟩)² / std X_k``, exactly.
"""

from dataclasses import dataclass, replace

import numpy as np

from fourdstem.methods.template_mask import kernels, stream
from fourdstem.methods.template_mask.settings import Params

FOLDS = 4


@dataclass(frozen=True)
class Question:
    """Templates, and the part of the scan from which each one's mask is learned.

    Attributes
    ----------
    template : ndarray of shape (template, scan_y, scan_x)
        Mean 0 and standard deviation 1 within the template's region, 0 outside.
    region : ndarray of bool, shape (region, scan_y, scan_x)
    of : ndarray of int, shape (template,)
        Region of each template.
    parity : ndarray of int, shape (template,), optional
        1: opposite pixels weigh alike, -1: with opposite signs, where masks are made symmetric.
    scale : ndarray of shape (template,), optional
        By what each template was divided.
    """

    template: np.ndarray
    region: np.ndarray
    of: np.ndarray
    parity: np.ndarray | None = None
    scale: np.ndarray | None = None

    @property
    def count(self) -> np.ndarray:
        """Positions from which each template's mask is learned, (template,)."""
        return self.region.sum(axis=(1, 2))[self.of]


def standardised(template: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Return a template (scan_y, scan_x) with mean 0 and standard deviation 1 in its region, 0 outside."""
    inside = np.asarray(template, float)[region]
    spread = inside.std()
    return np.where(region, (template - inside.mean()) / (spread if spread > 0 else 1.0), 0.0)


def residual(template: np.ndarray, others: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Return what ``others`` (m, scan_y, scan_x) do not explain of a template within a region, 0 outside."""
    design = np.stack([np.ones(region.sum()), *(o[region] for o in others)], axis=1)
    fitted = design @ np.linalg.lstsq(design, template[region], rcond=None)[0]
    rest = np.zeros(region.shape)
    rest[region] = template[region] - fitted
    return rest


@dataclass(frozen=True)
class Learned:
    """Correlations and what they were made of, per template.

    Attributes
    ----------
    mask : ndarray of shape (template, pixel)
        Pearson correlation of pixel and template; 0 where the pixel never changes.
    mean, std : ndarray of shape (template, pixel)
        Of the pixel within the template's region.
    """

    mask: np.ndarray
    mean: np.ndarray
    std: np.ndarray


@dataclass(frozen=True)
class Form:
    """What becomes of a correlation before it is applied.

    Attributes
    ----------
    params : Params
    allowed : ndarray of bool, shape (pixel,)
        Within the annulus.
    partner : ndarray of int, shape (pixel,)
        The pixel opposite, itself where masks are not made symmetric or there is none.
    parity : ndarray of int, shape (template,), or int
        Of each template (see `Question`).
    """

    params: Params
    allowed: np.ndarray
    partner: np.ndarray
    parity: np.ndarray | int = 1

    @property
    def linear(self) -> bool:
        """Whether leaving a position out is a subtraction."""
        return self.params.mask == "signed" and not self.params.significance

    @property
    def sign(self) -> int:
        """-1, 0 (both) or 1."""
        return {"signed": 0, "positive": 1, "negative": -1}[self.params.mask]

    def threshold(self, count) -> np.ndarray:
        """Return, per pixel, the smallest correlation that is kept."""
        alone = self.partner == np.arange(len(self.partner))
        return self.params.significance / np.sqrt(count) * np.where(alone, 1.0, np.sqrt(0.5))

    def gain(self, std: np.ndarray) -> np.ndarray:
        """Return what a pixel's correlation is multiplied by."""
        if self.params.weighting == "correlation":
            return self.allowed.astype(float) * np.ones_like(std)
        return np.where(self.allowed & (std > 0), 1 / np.where(std > 0, std, 1.0), 0.0)

    def weights(self, learned: Learned, count: np.ndarray) -> np.ndarray:
        """Return the masks as they are applied, (template, pixel)."""
        parity = np.reshape(self.parity, (-1, 1))
        mask = np.where(self.allowed, 0.5 * (learned.mask + parity * learned.mask[:, self.partner]), 0.0)
        mask[np.abs(mask) < np.stack([self.threshold(n) for n in count])] = 0.0
        if self.sign:
            mask = np.where(mask * self.sign > 0, mask, 0.0)
        return mask * self.gain(learned.std)


def form(params: Params, source: stream.Source, beam_radius_px: float, parity=None) -> Form:
    """Return the form of masks for a detector; ``parity`` (template,) as in `Question`."""
    y, x = (np.arange(n) * source.bin_px + (source.bin_px - 1) / 2 for n in source.shape)
    r = np.hypot(y[:, None] - source.centre_px[0], x[None, :] - source.centre_px[1]) / beam_radius_px
    allowed = (r >= params.inner) & (r <= (np.inf if params.outer is None else params.outer))
    partner = np.arange(source.pixels)
    if params.symmetrise:
        twice = np.round(2 * (source.centre_px - (source.bin_px - 1) / 2) / source.bin_px).astype(int)
        places = np.indices(source.shape).reshape(2, -1)
        other = twice[:, None] - places
        inside = ((other >= 0) & (other < np.array(source.shape)[:, None])).all(axis=0)
        partner[inside] = other[0, inside] * source.shape[1] + other[1, inside]
        whole = np.stack(
            [source.usable[i :: source.bin_px, j :: source.bin_px][: source.shape[0], : source.shape[1]].reshape(-1)
             for i in range(source.bin_px) for j in range(source.bin_px)]
        ).any(axis=0)  # fmt: skip
        alone = ~(whole & whole[partner])
        partner[alone] = np.flatnonzero(alone)
    return Form(params, allowed.reshape(-1), partner, 1 if parity is None else parity)


# ---- learning ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sums:
    """Sums over parts of the scan (fold): of patterns times template, of patterns, of their squares."""

    cross: np.ndarray  # (fold, template, pixel)
    first: np.ndarray  # (fold, region, pixel)
    square: np.ndarray  # (fold, region, pixel)


def gathering(source: stream.Source, question: Question, fold: np.ndarray) -> stream.Moments:
    """Return what reads the scan for the masks; ``fold`` int (scan_y, scan_x)."""
    parts = [fold == f for f in range(fold.max() + 1)]
    groups = np.stack([r & part for part in parts for r in question.region])
    many = len(question.template)
    design = np.empty((many * len(parts) + len(groups), *fold.shape), np.float32)
    for f, part in enumerate(parts):
        np.multiply(question.template, part, out=design[f * many : (f + 1) * many], casting="same_kind")
    design[many * len(parts) :] = groups
    return stream.Moments(source, design, groups)


def gathered(job: stream.Moments, question: Question) -> Sums:
    """Return what was read."""
    folds = len(job.squares) // len(question.region)
    cross, first = np.split(job.sums, [folds * len(question.template)])
    return Sums(*(a.reshape(folds, -1, a.shape[1]) for a in (cross, first, job.squares)))


def gather(source: stream.Source, question: Question, fold: np.ndarray) -> Sums:
    """Read the scan once for the masks; ``fold`` int (scan_y, scan_x)."""
    job = gathering(source, question, fold)
    stream.run(job)
    return gathered(job, question)


def learn(sums: Sums, question: Question, fold: np.ndarray, without: int | None = None) -> Learned:
    """Return the correlations of all folds but one."""
    keep = [f for f in range(len(sums.cross)) if f != without]
    part = np.isin(fold, keep)
    count = (question.region & part).sum(axis=(1, 2))[question.of][:, None]
    mean = sums.first[keep].sum(axis=0)[question.of] / count
    variance = sums.square[keep].sum(axis=0)[question.of] / count - mean**2
    variance[variance < 1e-9 * mean**2 + 1e-12] = 0.0
    template = question.template * part
    t_mean = template.sum(axis=(1, 2))[:, None] / count
    t_std = np.sqrt((template**2).sum(axis=(1, 2))[:, None] / count - t_mean**2)
    covariance = sums.cross[keep].sum(axis=0) / count - t_mean * mean
    std = np.sqrt(variance)
    return Learned(np.where(std > 0, covariance / (np.where(std > 0, std, 1.0) * t_std), 0.0), mean, std)


# ---- images -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Images:
    """What masks make of the scan, (template, scan_y, scan_x)."""

    fair: np.ndarray  # cross-fitted
    in_sample: np.ndarray
    variance: np.ndarray  # Σ_k W_k² X_k: counting noise, in counts of one electron each


def leave_one_out(source, question: Question, learned: Learned, shape: Form, variance_of: int, fixed=None) -> Images:
    """Return images without each position's own share of the mask, in one pass.

    Parameters
    ----------
    variance_of : int
        For this many templates, the first, the variance is computed.
    fixed : ndarray of bool, shape (template,), optional
        Templates whose mask comes from elsewhere: nothing is left out.
    """
    own = question.template / (question.count - 1)[:, None, None]
    if fixed is not None:
        own[fixed] = 0.0
    weights = shape.weights(learned, question.count)
    if not shape.linear:
        return _thresholded(source, question, learned, shape, weights, own, variance_of)
    first = [int(np.flatnonzero(question.of == r)[0]) for r in range(len(question.region))]
    std, mean = learned.std[first], np.ascontiguousarray(learned.mean[first])
    gain, inverse = np.stack([shape.gain(s) for s in std]), _inverse(std)
    columns = np.concatenate([weights, weights[:variance_of] ** 2])
    parity = np.ones(len(weights), int) if question.parity is None else question.parity
    pairs = _pairs(source, shape, weights, parity, gain)
    if pairs is None:
        more = lambda rows, _: kernels.scatter(rows, mean, gain, inverse, shape.partner)  # noqa: E731
        made, spread = _applied(source, [(0, columns)], more, 2 * len(mean))
    else:
        even = np.concatenate([parity > 0, np.ones(variance_of, bool)])
        once = pairs.once(columns)
        parts = [(0, once[even]), (pairs.evens, once[~even, : len(pairs.kept)])]
        made, spread = _applied(pairs, parts, _own_share(pairs, mean, gain, inverse), 2 * len(mean))
        made = made[np.argsort(np.argsort(~even, kind="stable"), kind="stable")]
    many = len(weights)
    fair = made[:many] - own * spread[2 * question.of + (parity < 0)]
    return Images(fair, made[:many], made[many:])


def _applied(source, parts, more, many: int) -> tuple[np.ndarray, np.ndarray]:
    job = stream.Images(source, parts, more, many)
    stream.run(job)
    return job.made, job.others


def _inverse(std: np.ndarray) -> np.ndarray:
    return np.where(std > 0, 1 / np.where(std > 0, std, 1.0), 0.0)


def _pairs(source, shape: Form, weights, parity, gain) -> stream.Paired | None:
    """Return the source with opposite pixels added and subtracted where that says the same; None elsewhere."""
    alike = (gain == gain[:, shape.partner]).all()
    mirrored = (weights[:, shape.partner] == parity[:, None] * weights).all()
    return stream.pair(source, shape.partner) if alike and mirrored else None


def _own_share(pairs: stream.Paired, mean, gain, inverse):
    """Return what tells what rows of pairs put into their own images, as `kernels.scatter` does of rows.

    With d = X - mean and p opposite k, ``Σ_k gain_k d_k (d_k/std_k ± d_p/std_p) / 2`` is ``Σ own e² + other e o`` over
    pairs for even masks, with o² for odd ones: e and o are sum and difference of the d of a pair, own and other
    ``gain/4`` times sum and difference of 1/std.
    """
    folded, many = pairs.folded(inverse), len(pairs.kept)
    own, other = pairs.once(gain) * folded[:, : pairs.evens], pairs.once(gain)[:, :many] * folded[:, pairs.evens :]
    own[:, :many] /= 4
    fixed = [a.astype(np.float32) for a in (pairs.folded(mean), own, other / 4)]

    def share(rows, _):
        return kernels.spread(rows, *fixed, len(pairs.lone), np.empty((len(rows), 2 * len(mean))))

    return share


def _thresholded(source, question: Question, learned: Learned, shape: Form, weights, own, variance_of: int) -> Images:
    """Return images of masks that are no linear function of correlations: each position's mask is made anew."""
    gain = np.stack([shape.gain(s) for s in learned.std])
    limit = np.stack([shape.threshold(n) for n in question.count])
    inverse = _inverse(learned.std)
    options = (learned.mask, learned.mean, inverse, gain, limit, shape.allowed, shape.partner, shape.sign)

    def kept(rows, unit):
        return kernels.without_own(rows, own[(slice(None), *unit.where)].T.copy(), *options)

    many = len(weights)
    columns = np.concatenate([weights, weights[:variance_of] ** 2])
    made, kept_of = _applied(source, [(0, columns)], kept, many)
    constant = (weights * learned.mean).sum(axis=1)
    return Images(kept_of + constant[:, None, None], made[:many], made[many:])


def folded(source, question: Question, sums: Sums, shape: Form, fold, variance_of: int) -> Images:
    """Return images by masks learned without the fold that a position lies in."""
    whole = shape.weights(learn(sums, question, fold), question.count)
    parts = []
    for f in range(len(sums.cross)):
        count = (question.region & (fold != f)).sum(axis=(1, 2))[question.of]
        parts.append(shape.weights(learn(sums, question, fold, f), count))
    many = len(whole)
    made = stream.images(source, np.concatenate([whole, whole[:variance_of] ** 2, *parts]))
    fair = np.empty((many, *fold.shape))
    for f in range(len(parts)):
        start = many + variance_of + f * many
        fair[:, fold == f] = made[start : start + many][:, fold == f]
    return Images(fair, made[:many], made[many : many + variance_of])


def halved(source, question: Question, learned: Learned, shape: Form, variance_of: int) -> Images:
    """Return images by masks learned from the other half of each count; both halves are added: two passes."""
    fold = np.zeros(question.region.shape[1:], int)
    halves = [replace(source, half=h) for h in (1, 2)]
    jobs = [gathering(h, question, fold) for h in halves]
    stream.run(*jobs)
    weights = [shape.weights(learn(gathered(j, question), question, fold), question.count) for j in jobs]
    whole = shape.weights(learned, question.count)
    both = np.concatenate([whole, whole[:variance_of] ** 2])
    pairs = zip([*halves, source], [*weights[::-1], both], strict=True)
    jobs = [stream.Images(of, [(0, w)]) for of, w in pairs]
    stream.run(*jobs)
    one, other, both = (job.made for job in jobs)
    return Images(one + other, both[: len(whole)], both[len(whole) :])


def tiles(shape, edge: int) -> np.ndarray:
    """Return the fold of each position: tiles of the scan, four kinds, no two alike side by side."""
    y, x = np.indices(shape) // edge
    fold = (y % 2) * 2 + x % 2
    return np.unique(fold, return_inverse=True)[1].reshape(shape)
