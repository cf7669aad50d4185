"""Columns and lattices in a picture of a crystal: peaks, lattice vectors from its spectrum, sublattices."""

import numpy as np
from scipy import ndimage

from fourdstem.errors import InputError

SMOOTH_ANGSTROM = 0.25
APART_ANGSTROM = 0.8  # of two peaks
SHORTEST_ANGSTROM = 0.9  # of a resolved spacing
SIGNIFICANT = 25.0  # power of a reflection by that of its surroundings; noise has 1, its largest some 12
SAME_ANGSTROM = 0.5  # peaks of one sublattice lie this near in the cell


def spectrum(image: np.ndarray, step) -> tuple[np.ndarray, np.ndarray]:
    """Return power over local background and frequencies (y, x; 1/Å) of an image, the zero frequency in the middle."""
    window = np.hanning(image.shape[0] + 2)[1:-1, None] * np.hanning(image.shape[1] + 2)[None, 1:-1]
    smooth = ndimage.gaussian_filter(image, 3.0 / np.asarray(step), mode="reflect")
    shape = [2 * n for n in image.shape]
    power = np.abs(np.fft.fftshift(np.fft.fft2((image - smooth) * window, shape))) ** 2
    ky, kx = (np.fft.fftshift(np.fft.fftfreq(n, s)) for n, s in zip(shape, step, strict=True))
    radius = np.hypot(ky[:, None], kx[None, :])
    ring = np.round(radius * max(image.shape) * max(step) / 2).astype(int)
    level = ndimage.median(power, ring, np.arange(ring.max() + 1)) / np.log(2)
    level = np.maximum(level, 1e-6 * power.max() + 1e-300)
    return power / level[ring], np.stack(np.meshgrid(ky, kx, indexing="ij"), axis=-1)


def reflections(image: np.ndarray, step, most: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return significant reflections of an image: (n, 2) in 1/Å, one of each ±g, strongest first; and their power.

    Raises
    ------
    InputError
        If there are fewer than two that do not lie on one line: the lattice is not resolved.
    """
    power, frequency = spectrum(image, step)
    length = np.linalg.norm(frequency, axis=-1)
    half = (frequency[..., 0] > 0) | ((frequency[..., 0] == 0) & (frequency[..., 1] > 0))
    top = power == ndimage.maximum_filter(power, 5)
    lowest = 2.5 / min(n * s for n, s in zip(image.shape, step, strict=True))
    found = top & half & (length > lowest) & (length < 1 / SHORTEST_ANGSTROM) & (power > SIGNIFICANT)
    order = np.argsort(-power[found], kind="stable")[:most]
    g, strength = frequency[found][order], power[found][order]
    seen = windowed(image)
    g = np.array([top_near(seen, step, one) for one in g]).reshape(-1, 2)
    if len(g) < 2 or not (np.abs(_sine(g, g[0])) > 0.2).any():
        largest = float(power[half & (length > lowest) & (length < 1 / SHORTEST_ANGSTROM)].max(initial=0.0))
        raise InputError(
            f"no lattice in the image: the strongest periods stand {largest:.0f} times above their surroundings",
            where="template_mask: image",
            expected=f"periods along two directions {SIGNIFICANT:.0f} times above, in a scan of atomic resolution",
            do="Check scan_step_angstrom and the image in the report; a scan that does not resolve columns has none.",
        )
    return g, strength


def _sine(g, other):
    return (g[:, 0] * other[1] - g[:, 1] * other[0]) / (np.linalg.norm(g, axis=1) * np.linalg.norm(other) + 1e-300)


def windowed(image: np.ndarray) -> np.ndarray:
    """Return an image without its mean under a window that sums to 1, ready for `amplitude`."""
    window = np.hanning(image.shape[0] + 2)[1:-1, None] * np.hanning(image.shape[1] + 2)[None, 1:-1]
    window = window / window.sum()
    return (image - (image * window).sum()) * window


def amplitude(seen: np.ndarray, step, g: np.ndarray) -> np.ndarray:
    """Return Fourier amplitudes of a windowed image at frequencies ``g`` (n, 2), 1/Å; origin at position (0, 0)."""
    along_y, along_x = _waves(seen, step, g[:, 0], g[:, 1])
    return ((along_y @ seen) * along_x).sum(axis=1)


def _waves(seen, step, gy, gx):
    y, x = (np.arange(n) * s for n, s in zip(seen.shape, step, strict=True))
    return np.exp(-2j * np.pi * np.outer(gy, y)), np.exp(-2j * np.pi * np.outer(gx, x))


def top_near(seen: np.ndarray, step, g: np.ndarray) -> np.ndarray:
    """Return the strongest frequency (2,) of a windowed image within less than a resolution of ``g``."""
    size = 0.6 / max(n * s for n, s in zip(seen.shape, step, strict=True))
    offset = np.linspace(-1, 1, 5)
    for _ in range(3):
        gy, gx = g[0] + offset * size, g[1] + offset * size
        along_y, along_x = _waves(seen, step, gy, gx)
        top = np.unravel_index(np.abs(along_y @ seen @ along_x.T).argmax(), (5, 5))
        g = np.array([gy[top[0]], gx[top[1]]])
        size *= 0.4
    return g


def find_lattice(image: np.ndarray, step) -> np.ndarray:
    """Return lattice vectors (2, 2), rows, (y, x) in Å, from the spectrum of an image; the shortest first.

    Raises
    ------
    InputError
        If the lattice is not resolved.
    """
    g, strength = reflections(image, step)
    width = 0.7 / min(n * s for n, s in zip(image.shape, step, strict=True))
    candidates = np.concatenate([g, *(np.stack([a + b, a - b]) for i, a in enumerate(g[:12]) for b in g[:i])])
    candidates = candidates[np.linalg.norm(candidates, axis=1) > 2 * width]
    best, best_cost = None, np.inf
    order = np.argsort(np.linalg.norm(candidates, axis=1), kind="stable")[:40]
    for i in order:
        for j in order:
            pair = np.stack([candidates[i], candidates[j]])
            area = abs(np.linalg.det(pair))
            if area < 0.25 * np.linalg.norm(pair[0]) * np.linalg.norm(pair[1]):
                continue
            index = g @ np.linalg.inv(pair)
            off = np.linalg.norm((index - np.round(index)) @ pair, axis=1) > width
            cost = float((strength * off).sum() / strength.sum()) - 0.02 * np.log(
                area
            )  # the coarsest that explains all
            if cost < best_cost - 1e-12:
                best, best_cost = pair, cost
    for _ in range(3):
        index = np.round(g @ np.linalg.inv(best))
        near = np.linalg.norm(index @ best - g, axis=1) < width
        weight = np.sqrt(strength[near])[:, None]
        best = np.linalg.lstsq(index[near] * weight, g[near] * weight, rcond=None)[0]
    return reduced(np.linalg.inv(best).T)


def reduced(basis: np.ndarray) -> np.ndarray:
    """Return the two shortest vectors of a plane lattice, rows."""
    a, b = basis
    while True:
        if a @ a > b @ b:
            a, b = b, a
        turns = np.round(a @ b / (a @ a))
        if turns == 0:
            return np.stack([a, b])
        b = b - turns * a


def peaks(image: np.ndarray, step) -> tuple[np.ndarray, np.ndarray]:
    """Return bright columns of an image: (n, 2) in px, brightest first, and their height above the median.

    Raises
    ------
    InputError
        If none stands above the scatter.
    """
    step = np.asarray(step)
    smooth = ndimage.gaussian_filter(image, SMOOTH_ANGSTROM / step)
    size = np.maximum(2 * np.round(APART_ANGSTROM / 2 / step).astype(int) + 1, 3)
    top = smooth == ndimage.maximum_filter(smooth, tuple(size))
    local = smooth - ndimage.gaussian_filter(image, 4 * APART_ANGSTROM / step)
    scatter = 1.4826 * np.median(np.abs(local - np.median(local)))
    top &= local > np.median(local) + scatter
    top[[0, -1]], top[:, [0, -1]] = False, False
    places = np.argwhere(top)
    if len(places) < 4:
        raise InputError(
            f"{len(places)} peaks in the image",
            where="template_mask: image",
            expected="columns that stand above the scatter of a scan of atomic resolution",
            do="Choose another `image`, or give templates by element or file.",
        )
    height = smooth[top] - np.median(smooth)
    fitted = np.array([_parabola(smooth, *p) for p in places])
    order = np.argsort(-height, kind="stable")
    return fitted[order], height[order]


def _parabola(image, y, x):
    """Return the vertex of parabolas through three positions along each axis."""
    out = []
    for low, mid, high, at in (
        (image[y - 1, x], image[y, x], image[y + 1, x], y),
        (image[y, x - 1], image[y, x], image[y, x + 1], x),
    ):
        bend = low - 2 * mid + high
        out.append(at + (np.clip(0.5 * (low - high) / bend, -0.5, 0.5) if bend < 0 else 0.0))
    return out


def sublattices(places_px: np.ndarray, height: np.ndarray, basis: np.ndarray, step) -> list[np.ndarray]:
    """Group peaks by their place in the cell; the brightest sublattice first.

    Parameters
    ----------
    places_px : ndarray of shape (n, 2)
    height : ndarray of shape (n,)
    basis : ndarray of shape (2, 2)
        Lattice vectors in Å.

    Returns
    -------
    list of ndarray of shape (m, 2)
        Peaks in px; sublattices with less than half of the peaks of the fullest are left out.
    """
    part = (places_px * step) @ np.linalg.inv(basis)
    label, means = np.full(len(part), -1), []
    for i, here in enumerate(part):
        away = [np.linalg.norm(((here - m + 0.5) % 1 - 0.5) @ basis) for m in means]
        if away and min(away) < SAME_ANGSTROM:
            k = int(np.argmin(away))
        else:
            means.append(here % 1)
            k = len(means) - 1
        label[i] = k
        own = part[label == k]
        means[k] = means[k] + ((own - means[k] + 0.5) % 1 - 0.5).mean(axis=0)
    groups = [label == k for k in range(len(means))]
    fullest = max(g.sum() for g in groups)
    groups = [g for g in groups if g.sum() >= 0.5 * fullest]
    return [places_px[g] for g in sorted(groups, key=lambda g: -np.mean(height[g]))]
