"""Ellipse of the camera and length of the camera, both from rings of the centred pattern."""

from dataclasses import dataclass, replace

import numba
import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates
from scipy.optimize import minimize
from scipy.signal import find_peaks
from scipy.signal.windows import tukey

from fourdstem.crystal import reflections, structure_factors

AZIMUTHS = 180
FAR = 0.6  # correlation that a scale far from the one in force must have to be proposed
GROUPS = 12  # jackknife: sectors of 15°, opposite ones together
LARGEST = 0.075  # of ½ ln(a/b): a/b up to 1.16
RING_POWER = 7.0  # backgrounds without rings reach 5, spotty rings of 16 grains 20
HIGH_PASS = 0.12  # width in ln r of the background that is taken off


@dataclass(frozen=True)
class Polar:
    """Background-free intensity (azimuth, ln r), zero-padded spectra along ln r, and the axes."""

    rows: np.ndarray
    spectra: np.ndarray
    log_r: np.ndarray
    azimuth: np.ndarray
    waves: np.ndarray


@dataclass(frozen=True)
class Ellipse:
    """a/b, angle of the long axis and their standard deviations; ratio 1 and NaN where declined."""

    ratio: float = 1.0
    ratio_sigma: float = np.nan
    angle_deg: float = 0.0
    angle_sigma_deg: float = np.nan
    passed: bool = False
    reason: str = ""


def unroll(image, valid, beam) -> Polar | None:
    """Sample a centred pattern on ln r and azimuth, outside the beam and inside the detector.

    In ln r an ellipse shifts all rings of one azimuth by the same amount. The isotropic background is divided
    out as a smooth power law, the rest taken off row by row: taking off the mean over azimuth would pull the fit
    towards a circle.

    Returns
    -------
    Polar or None
        None where less than a third of an octave or less than 8 px lie between beam and edge.
    """
    ny, nx = image.shape
    half = np.array([(ny - 1) / 2, (nx - 1) / 2])
    inner = 1.5 * beam.radius_px + 3 * min(beam.edge_px, 2.0) + 3
    outer = half.min() - 2
    if outer < 1.26 * inner or outer - inner < 8:
        return None
    count = int(np.clip(2 * (outer - inner) * 1.5, 64, 400))
    log_r = np.linspace(np.log(inner), np.log(outer), count)
    azimuth = np.arange(AZIMUTHS) * 2 * np.pi / AZIMUTHS
    r = np.exp(log_r)
    places = half[:, None, None] + np.stack([np.sin(azimuth)[:, None] * r, np.cos(azimuth)[:, None] * r])
    values = map_coordinates(np.where(valid, image, 0).astype(float), places, order=1)
    share = map_coordinates(valid.astype(float), places, order=1)
    values = np.where(share > 0.5, values / np.maximum(share, 0.5), np.nan)
    some = np.isfinite(values).any(axis=0)
    typical = np.full(count, np.nan)
    typical[some] = np.nanmedian(values[:, some], axis=0)
    if some.sum() < count / 2:
        return None
    typical = np.interp(log_r, log_r[np.isfinite(typical)], typical[np.isfinite(typical)])
    trend = np.exp(np.polyval(np.polyfit(log_r, np.log(np.maximum(typical, 1e-3 * typical.max() + 1e-12)), 2), log_r))
    # The logarithm lets many weak spots say as much as a few strong ones, whose shape inside the disk misleads.
    rows = np.log(0.3 + np.maximum(np.where(np.isnan(values), typical, values) / trend, 0))
    rows -= gaussian_filter1d(rows, HIGH_PASS / (log_r[1] - log_r[0]), axis=1, mode="nearest")
    rows *= tukey(count, 0.2)
    padded = 2 * count
    waves = 2 * np.pi * np.fft.rfftfreq(padded, log_r[1] - log_r[0])
    keep = waves * np.log(outer / inner) / count < 1.8
    return Polar(rows, np.fft.rfft(rows, padded, axis=1)[:, keep], log_r, azimuth, waves[keep])


def log_stretch(azimuth, e) -> np.ndarray:
    """ln of the radius of the area-preserving ellipse e = ε (cos 2θ, sin 2θ), ε = ½ ln(a/b), at an azimuth."""
    epsilon = np.hypot(*e)
    angle = 0.5 * np.arctan2(e[1], e[0])
    return -0.5 * np.log(
        np.cos(azimuth - angle) ** 2 * np.exp(-2 * epsilon) + np.sin(azimuth - angle) ** 2 * np.exp(2 * epsilon)
    )


def _sharpness(e, polar: Polar, rows: np.ndarray) -> float:
    """Power of the profile of the rows, aligned as if the ellipse were e; rings add up where they are circles."""
    return aligned_power(polar.spectra, rows, np.exp(1j * polar.waves[1] * log_stretch(polar.azimuth[rows], e)))


@numba.njit(nogil=True, cache=True)
def aligned_power(spectra, rows, turn):
    """Power of the sum of rows, each shifted along ln r.

    Parameters
    ----------
    spectra : ndarray of complex128, shape (azimuth, waves)
        Waves are multiples 0, 1, 2, … of the first.
    rows : ndarray of int64, shape (n,)
    turn : ndarray of complex128, shape (n,)
        By how much the shift of each row turns the first wave; wave k turns by its power k.
    """
    profile = np.zeros(spectra.shape[1], np.complex128)
    for i in range(rows.size):
        phase = 1.0 + 0.0j
        for k in range(profile.size):
            profile[k] += spectra[rows[i], k] * phase
            phase *= turn[i]
    return (profile.real**2 + profile.imag**2).sum()


def _sharpest(polar: Polar, rows, start=None) -> np.ndarray:
    if start is None:
        grid = np.linspace(-LARGEST, LARGEST, 11)
        trials = [(a, b) for a in grid for b in grid if np.hypot(a, b) <= LARGEST]
        start = max(trials, key=lambda e: _sharpness(e, polar, rows))
    scale = _sharpness(start, polar, rows)
    if scale == 0:  # not a single count beyond the direct disk
        return np.zeros(2)
    simplex = np.array(start) + 0.006 * np.array([[0, 0], [1, 0], [0, 1]])
    options = {"initial_simplex": simplex, "xatol": 5e-5, "fatol": 1e-8}
    return minimize(lambda e: -_sharpness(e, polar, rows) / scale, start, method="Nelder-Mead", options=options).x


def fit_ellipse(images, valid, beam, params) -> tuple[Ellipse, tuple[Polar, np.ndarray] | None]:
    """Ellipse that makes the rings of a centred pattern sharpest.

    A single crystal is declined, as is a scan with few orientations: its lattice strain looks the same. The
    number of independent azimuths on the best ring decides, for a ring of one crystal holds at most six
    Friedel pairs.

    Parameters
    ----------
    images : list of ndarray, shape (detector_y, detector_x)
        Centred mean and maximum; the one that knows better is used.
    valid : ndarray of bool, shape (detector_y, detector_x)
    beam : Beam
    params : Params
        ``minimum_azimuths``, ``ellipse_sigma_limit``.

    Returns
    -------
    tuple of (Ellipse, tuple or None)
        The second holds the polar pattern and e = ε (cos 2θ, sin 2θ) with which rings were found, for `camera`.
    """
    polars = [p for p in (unroll(image, valid, beam) for image in images) if p is not None]
    if not polars:
        room = f"beam radius {beam.radius_px:.1f} px, detector {valid.shape[0]} x {valid.shape[1]} px"
        return Ellipse(reason=f"declined: no room for rings between the direct disk and the edge ({room})"), None
    fits = [_with_sigma(p) for p in polars]
    best = min(range(len(fits)), key=lambda k: fits[k][1])
    polar, (e, sigma) = polars[best], fits[best]
    azimuths, radius = _independent_azimuths(polar, e, beam)
    power = _ring_power(polar, e)
    if azimuths == 0 or power < RING_POWER:
        why = f"ring power {power:.1f} times that of chance (limit {RING_POWER:g})"
        return Ellipse(reason=f"declined: no ring stands out beyond the direct disk: {why}"), None
    what = f"{azimuths:.1f} independent azimuths on the ring at {radius:.1f} px (limit {params.minimum_azimuths:g})"
    if azimuths < params.minimum_azimuths:
        why = f"declined: {what}: a single crystal or too few orientations, whose strain would look the same"
        return Ellipse(reason=why), (polar, np.zeros(2))
    epsilon = np.hypot(*e)
    ratio_sigma = 2 * np.exp(2 * epsilon) * sigma
    if ratio_sigma > params.ellipse_sigma_limit or epsilon > 0.98 * LARGEST:
        why = f"declined: a/b = {np.exp(2 * epsilon):.4f} ± {ratio_sigma:.4f} (limit ± {params.ellipse_sigma_limit:g})"
        return Ellipse(reason=f"{why}, {what}"), (polar, np.zeros(2))
    angle = np.rad2deg(0.5 * np.arctan2(e[1], e[0]))
    angle_sigma = float(min(np.rad2deg(0.5 * sigma / max(epsilon, 1e-9)), 52.0))  # 52° = not known at all
    why = f"a/b = {np.exp(2 * epsilon):.4f} ± {ratio_sigma:.4f} (limit ± {params.ellipse_sigma_limit:g}), {what}"
    angle = angle + 180 if angle <= -90 else angle
    return Ellipse(float(np.exp(2 * epsilon)), float(ratio_sigma), float(angle), angle_sigma, True, why), (polar, e)


def _with_sigma(polar: Polar) -> tuple[np.ndarray, float]:
    """Best e and its standard deviation per component, by the jackknife over pairs of opposite sectors."""
    everything = np.arange(AZIMUTHS)
    e = _sharpest(polar, everything)
    group = (everything % (AZIMUTHS // 2)) * GROUPS // (AZIMUTHS // 2)
    left_out = np.array([_sharpest(polar, everything[group != g], e) for g in range(GROUPS)])
    variance = ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0) * (GROUPS - 1) / GROUPS
    return e, float(np.sqrt(variance.mean()))


def _ring_power(polar: Polar, e) -> float:
    """Sharpness in units of what it is when each azimuth is moved along ln r by its own arbitrary amount."""
    moves = np.outer(np.arange(1, 17), np.arange(AZIMUTHS)) * 0.6180339887498949 * np.arange(1, 17)[:, None] % 1
    extent = 2 * np.pi / polar.waves[1]
    chance = []
    for move in moves:
        phase = np.exp(1j * np.outer(move * extent, polar.waves))
        chance.append(_sharpness(e, replace(polar, spectra=polar.spectra * phase), np.arange(AZIMUTHS)))
    return _sharpness(e, polar, np.arange(AZIMUTHS)) / max(float(np.mean(chance)), 1e-300)


def _aligned(polar: Polar, e) -> np.ndarray:
    shift = log_stretch(polar.azimuth, e)
    spectra = np.zeros((AZIMUTHS, len(polar.log_r) + 1), complex)
    spectra[:, : len(polar.waves)] = polar.spectra * np.exp(1j * shift[:, None] * polar.waves[None, :])
    return np.fft.irfft(spectra, 2 * len(polar.log_r), axis=1)[:, : len(polar.log_r)]


def _rings(rows: np.ndarray) -> np.ndarray:
    profile = rows.mean(axis=0)
    folded = 0.5 * (rows[: AZIMUTHS // 2] + rows[AZIMUTHS // 2 :])
    error = np.median(folded.std(axis=0)) / np.sqrt(AZIMUTHS / 8)
    return find_peaks(profile, prominence=3 * error, height=error)[0]


def _independent_azimuths(polar: Polar, e, beam) -> tuple[float, float]:
    """Most spots' worth of azimuth that one ring covers (over half a turn), and that ring's radius in px."""
    rows = _aligned(polar, e)
    noise = 1.4826 * np.median(np.abs(rows))
    step = polar.log_r[1] - polar.log_r[0]
    best = (0.0, 0.0)
    for k in _rings(rows):
        r = np.exp(polar.log_r[k])
        reach = max(int(0.7 * beam.radius_px / r / step), 1)
        ring = rows[:, max(k - reach, 0) : k + reach + 1].mean(axis=1)
        folded = 0.5 * (ring[: AZIMUTHS // 2] + ring[AZIMUTHS // 2 :])
        height = np.maximum(folded - noise, 0)
        if not height.any():
            continue
        share = height.sum() ** 2 / (len(height) * (height**2).sum())
        width = max(1.6 * beam.radius_px / r, 2 * np.pi / AZIMUTHS)
        best = max(best, (float(share * np.pi / width), float(r)))
    return best


def disk_ratio(image, beam) -> tuple[float, float] | None:
    """a/b and angle (°) of the direct disk itself, from its half-height radius by azimuth; None below 4 px.

    The disk's shape is probe astigmatism, aperture and camera together, so it is told but never used.
    """
    if beam.radius_px < 4:
        return None
    half = (np.array(image.shape) - 1) / 2
    azimuth = np.arange(72) * np.pi / 36
    r = np.arange(0.6 * beam.radius_px, min(1.4 * beam.radius_px + 2, half.min()), 0.1)
    places = half[:, None, None] + np.stack([np.sin(azimuth)[:, None] * r, np.cos(azimuth)[:, None] * r])
    rows = map_coordinates(image.astype(float), places, order=1)
    y, x = np.indices(image.shape)
    level = 0.5 * np.median(image[np.hypot(y - half[0], x - half[1]) < 0.8 * beam.radius_px])
    radius = r[len(r) - 1 - np.argmax(rows[:, ::-1] > level, axis=1)]
    design = np.stack([np.ones(72), np.cos(azimuth), np.sin(azimuth), np.cos(2 * azimuth), np.sin(2 * azimuth)], axis=1)
    c = np.linalg.lstsq(design, np.log(radius), rcond=None)[0]
    return float(np.exp(2 * np.hypot(c[3], c[4]))), float(np.rad2deg(0.5 * np.arctan2(c[4], c[3])))


def camera(found, crystals, pixel: float | None, tolerance: float) -> tuple[float, bool, str]:
    """Propose 1/Å per pixel by sliding the powder pattern of the phases along the ring profile.

    Parameters
    ----------
    found : tuple of (Polar, ndarray) or None
        From `fit_ellipse`.
    crystals : sequence of Crystal
    pixel : float or None
        Value in force, 1/Å per px; searched within 30 % of it.
    tolerance : float
        Relative deviation beyond which the verdict warns.

    Returns
    -------
    tuple of (float, bool, str)
        Proposal (NaN where none can be made), whether the value in force passes, and why.
    """
    if not crystals or found is None:
        why = "no phases given" if not crystals else "no rings"
        return np.nan, pixel is not None, f"no proposal: {why}"
    polar, e = found
    rows = _aligned(polar, e)
    rings = _rings(rows)
    if len(rings) < 2:
        return np.nan, pixel is not None, f"no proposal: {len(rings)} ring found, 2 needed"
    trials = np.arange(np.log(0.7 * pixel), np.log(1.3 * pixel), 1e-3) if pixel else np.arange(-6.5, -1.5, 1e-3)
    score = _scores(rows.mean(axis=0), polar.log_r, crystals, trials)
    peaks = find_peaks(score)[0]
    if not peaks.size or score[peaks].max() < 0.5:
        far = _far(rows.mean(axis=0), polar.log_r, crystals) if pixel else []
        if far:
            fits = " or ".join(f"{fit:.5f} ({fit / pixel:.2f} times as much)" for fit in far)
            text = f"rings of the phases fit neither {pixel:.5f} 1/Å per px, which is in force, nor 30 % around it "
            return far[0] if len(far) == 1 else np.nan, False, f"{text}(correlation {score.max():.2f}); they fit {fits}"
        return (
            np.nan,
            pixel is not None,
            f"no proposal: rings fit the phases badly (correlation {score.max():.2f} < 0.5)",
        )
    k = peaks[np.argmax(score[peaks])]
    rivals = peaks[np.abs(trials[peaks] - trials[k]) > 0.02]
    if rivals.size and score[rivals].max() > 0.9 * score[k]:
        other = np.exp(trials[rivals[np.argmax(score[rivals])]])
        text = f"no proposal: {np.exp(trials[k]):.5f} and {other:.5f} 1/Å per px fit alike"
        near = score[np.abs(trials - np.log(pixel)) <= max(tolerance, 1e-3)].max() if pixel else 0.0
        fits = near > 0.5 * score[k]
        badly = f", {pixel:.5f}, which is in force, does not (correlation {near:.2f} against {score[k]:.2f})"
        return np.nan, bool(pixel is not None and fits), text if fits or pixel is None else text + badly
    left, mid, right = score[k - 1 : k + 2]
    proposal = float(np.exp(trials[k] + 1e-3 * 0.5 * (left - right) / (left - 2 * mid + right)))
    text = f"rings of the phases fit {proposal:.5f} 1/Å per px (correlation {mid:.2f}, {len(rings)} rings)"
    if pixel is None:
        return proposal, False, f"{text}; no value in force"
    off = proposal / pixel - 1
    return proposal, abs(off) <= tolerance, f"{text}; in force {pixel:.5f}, {off:+.1%} (limit {tolerance:.0%})"


def _far(profile, log_r, crystals) -> list[float]:
    """1/Å per px, best first, that fit over the whole range within 10 % of the best; at most three, none if badly."""
    trials = np.arange(-6.5, -1.5, 1e-3)
    score = _scores(profile, log_r, crystals, trials)
    peaks = find_peaks(score, distance=50)[0]
    peaks = peaks[np.argsort(-score[peaks], kind="stable")]
    if not peaks.size or score[peaks[0]] < FAR:
        return []
    return [float(np.exp(trials[k])) for k in peaks[:3] if score[k] > 0.9 * score[peaks[0]]]


def _scores(profile, log_r, crystals, trials) -> np.ndarray:
    """Correlation of the ring profile with the phases' powder pattern for every ln(1/Å per px) of ``trials``."""
    step = log_r[1] - log_r[0]
    axis = np.arange(log_r[0] + trials[0] - step, min(log_r[-1] + trials[-1], np.log(2.5)) + step, step)
    width = 0.03
    powder = np.zeros(len(axis))
    for crystal in crystals:
        hkl, g = reflections(crystal, float(np.exp(axis[-1]) * (1 + 3 * width)))
        length = np.linalg.norm(g, axis=1)
        strength = np.abs(structure_factors(crystal, hkl)) ** 2 / length**2
        index = np.rint((np.log(length) - axis[0]) / step).astype(int)
        inside = (index >= 0) & (index < len(axis))
        powder += np.bincount(index[inside], strength[inside], len(axis)) / strength.sum()
    powder = np.sqrt(gaussian_filter1d(powder, width / step, mode="constant"))
    powder -= gaussian_filter1d(powder, HIGH_PASS / step, mode="constant")
    window = tukey(len(log_r), 0.2)
    scores = np.zeros(len(trials))
    for i, shift in enumerate(trials):
        part = np.interp(log_r + shift, axis, powder, right=0.0) * window
        norm = np.linalg.norm(part) * np.linalg.norm(profile)
        scores[i] = part @ profile / norm if norm > 0 else 0.0
    return scores
