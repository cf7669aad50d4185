"""From images to what may be said: contrasts, decoys, pull, cross-talk, classical rivals, the table of columns."""

from dataclasses import dataclass

import numpy as np

from fourdstem.errors import InputError
from fourdstem.methods.template_mask import claims, classical, columns, joined, masks, overlaps, sites, stream
from fourdstem.methods.template_mask.scene import Scene, area_of
from fourdstem.methods.template_mask.settings import Result, Template

COLUMN_NAMES = (
    "species", "site_y_px", "site_x_px", "y_px", "x_px", "sigma_y_px", "sigma_x_px", "dy_angstrom", "dx_angstrom",
)  # fmt: skip


@dataclass(frozen=True)
class Fitted:
    """Masks and images of all templates."""

    images: masks.Images
    weights: np.ndarray  # (template, pixel), as applied
    learned: masks.Learned


@dataclass(frozen=True)
class Places:
    """Positions by column of each species, and of its empty and wrong sites; lists of `sites.Cores`."""

    own: list
    empty: list
    wrong: list


def cores_of(scene: Scene, shape) -> Places:
    """Return which positions of the scan belong to what, once for all images."""
    own = _own_cores(scene, shape)
    return Places(own, *(_decoy_cores(scene, decoys, own, shape) for decoys in (scene.empty, scene.wrong)))


def _own_cores(scene: Scene, shape) -> list[sites.Cores]:
    """Return positions by column of each species; the background is far from the columns of all."""
    params = scene.params
    known = [s.columns(shape) for s in scene.prepared.species if s.picture is None]
    everything = np.concatenate(known) if known else np.zeros((0, 2))
    found = []
    for one in scene.prepared.species:
        if one.picture is not None:
            found.append(sites.picture_cores(one.picture))
            continue
        core = sites.cores(
            one.columns(shape), everything, shape, scene.step, params.core_angstrom, params.background_angstrom
        )
        if not core.background.any():
            raise InputError(
                f"no position farther than {params.background_angstrom:g} Å from all columns",
                where="template_mask: background_angstrom",
                expected="some background to compare with",
                do="Lower background_angstrom.",
            )
        found.append(core)
    return found


def _decoy_cores(scene: Scene, species, own: list[sites.Cores], shape) -> list[sites.Cores]:
    """Likewise for decoys, whose sites may lie in what is background for all others: they are taken out of it."""
    made = []
    for one, real in zip(species, own, strict=True):
        if one.picture is not None:
            made.append(sites.picture_cores(one.picture))
            continue
        none = np.zeros((0, 2))
        core = sites.cores(one.columns(shape), none, shape, scene.step, scene.params.core_angstrom, np.inf)
        for clear in (scene.params.background_angstrom, scene.params.core_angstrom):
            far = sites.cores(one.columns(shape), none, shape, scene.step, 0.0, clear).background
            if (real.background & far).sum() >= 10:
                break
        made.append(sites.Cores(core.label, real.background & far))
    return made


@dataclass(frozen=True)
class Found:
    """Contrasts of one species and its decoys, and what may be said."""

    seen: claims.Contrast
    empty: claims.Contrast
    wrong: claims.Contrast
    control: claims.Contrast
    statement: str
    reason: str


def judged(scene: Scene, images, variance, places: Places) -> list[Found]:
    """Return what may be said of each species.

    Parameters
    ----------
    images : ndarray of shape (template, scan_y, scan_x)
        Cross-fitted.
    variance : ndarray of shape (species, scan_y, scan_x)
    places : Places

    Raises
    ------
    InputError
        If no column is left to test a mask on that was learned elsewhere.
    """
    found, shape, many = [], images.shape[1:], len(scene.prepared.species)
    for k in range(many):
        template = scene.prepared.template[k]
        control = area_of(template.control, shape) if template.control else None
        area = np.ones(shape, bool) if scene.elsewhere[k] is None else scene.elsewhere[k].copy()
        if control is not None:
            area &= ~control
        doubled = scene.elsewhere[k] is None and scene.params.cross_fit == "leave_one_out"
        seen = claims.contrast(images[k], variance[k], places.own[k], area, doubled)
        if not seen.columns:
            _nowhere(template)
        lone = claims.contrast(images[many + k], variance[k], places.empty[k], area, doubled)
        off = claims.contrast(images[2 * many + k], variance[k], places.wrong[k], area, doubled)
        held = claims.NOTHING
        if control is not None:
            held = claims.contrast(images[k], variance[k], places.own[k], control, False)
        said = claims.judge(
            seen, lone, None if control is None else held, scene.elsewhere[k] is not None, scene.params.alpha
        )
        found.append(Found(seen, lone, off, held, *said))
    return found


def _nowhere(template: Template) -> None:
    raise InputError(
        f"no column of {template.species} beside its background outside of region and control",
        where="template_mask",
        expected="a part of the scan that holds the species, and from which its mask is not learned",
        do="Make region or control smaller.",
    )


def variance_of(source: stream.Source, fitted: Fitted) -> np.ndarray:
    """Return the counting noise of the images of the species, (species, scan_y, scan_x)."""
    gain, noise = _noise(source)
    own = fitted.weights[: len(fitted.images.variance)]
    return np.maximum(gain * fitted.images.variance + noise * (own**2).sum(axis=1)[:, None, None], 0)


def _noise(source: stream.Source) -> tuple[float, float]:
    """Return counts per electron, and the variance of the readout of a pixel as summed."""
    known = source.cube.correction
    gain = known.counts_per_electron if np.isfinite(known.counts_per_electron) else 1.0
    return gain, np.nan_to_num(known.readout_noise_counts) ** 2 * source.bin_px**2


def _pulls(scene: Scene, images, ahead, behind) -> np.ndarray:
    """Return how far peaks follow templates shifted ahead and behind; images (species, scan_y, scan_x)."""
    given = (scene.step, scene.params.shift_angstrom, scene.params.core_angstrom)
    found = []
    for k, (one, a, b) in enumerate(zip(images, ahead, behind, strict=True)):
        start = _start(scene, k, one)
        place = scene.prepared.species[k].columns(one.shape) if start is None else start
        found.append(columns.pull(a, b, place, *given))
    return np.array(found)


def _start(scene: Scene, k: int, image) -> np.ndarray | None:
    """Return where columns are looked for, (column, 2) in px, where that is not at their sites."""
    reach = scene.prepared.template[k].search_angstrom
    return columns.tops(image, scene.prepared.species[k].columns(image.shape), scene.step, reach) if reach else None


def _joined(scene: Scene, source: stream.Source, fitted: Fitted, places: Places) -> dict:
    """Return what is said of images joined with those of the slopes; nothing where there are none."""
    if not scene.triples:
        return {}
    many, fair = len(scene.prepared.species), fitted.images.fair
    gain, readout = _noise(source)

    def noise(weights, mean):
        return np.maximum(gain * (weights**2 * mean).sum(axis=1) + readout * (weights**2).sum(axis=1), 0)

    known = (fitted.weights, fitted.learned, noise, scene.triples, scene.step)
    made = joined.join(scene.question, fair, *known, source.cube.threads)
    image, empty, ahead, behind = made.image.reshape(4, many, *fair.shape[1:])
    variance = np.broadcast_to(made.variance[:many, None, None], image.shape)
    found = judged(scene, np.concatenate([image, empty, fair[2 * many : 3 * many]]), variance, places)
    pull = _pulls(scene, image, ahead, behind)
    talk = np.array([[claims.correlation(a, t) for t in scene.raw[:many]] for a in image])
    return {
        "joined_image": image.astype(np.float32),
        "joined_decoy_image": empty.astype(np.float32),
        "joined_sigma": np.sqrt(made.variance[:many]),
        "joined_contrast": np.array([f.seen.value for f in found]),
        "joined_contrast_to_noise": np.array([f.seen.to_noise for f in found]),
        "joined_decoy_contrast_to_noise": np.array([f.empty.to_noise for f in found]),
        "joined_control_contrast": np.array([f.control.value for f in found]),
        "joined_correlation": np.diag(talk).copy(),
        "joined_cross_talk": talk,
        "joined_pull": pull,
    }


def gather(scene: Scene, source: stream.Source, shown, fitted: Fitted, notes: list[str]) -> Result:
    """Return everything that is said of the species."""
    many, shape = len(scene.prepared.species), source.cube.scan_shape
    raw, places = scene.raw[: 3 * many], cores_of(scene, shape)
    variance = variance_of(source, fitted)
    fair = fitted.images.fair
    pull = _pulls(scene, fair[:many], fair[3 * many : 4 * many], fair[4 * many : 5 * many])
    against = _against_classical(shown, raw[:many], places.own)
    free = source.pixels / (2 if scene.params.symmetrise else 1)  # opposite pixels count as one
    return Result(
        species=tuple(s.name for s in scene.prepared.species),
        mask=_unbinned(fitted.weights[:many], source).astype(np.float32),
        image_sigma=np.sqrt(variance).astype(np.float32),
        correlation_by_noise=np.array([claims.expected_bias(free, n) for n in scene.question.count[:many]]),
        pull=pull,
        cross_talk_partial=_partial_talk(scene, fitted, raw[:many]),
        centre_px=source.centre_px,
        detector_bin=source.bin_px,
        lattice_angstrom=scene.prepared.basis,
        registration=scene.prepared.registration,
        note="; ".join(notes),
        **_pictures(fitted, raw, many),
        **_said(judged(scene, fair, variance, places)),
        **_joined(scene, source, fitted, places),
        **against,
        **_columns(scene, shown, fair, variance, pull, against["classical_best"], shape),
    )


def _pictures(fitted: Fitted, raw: np.ndarray, many: int) -> dict:
    fair, inside = fitted.images.fair, fitted.images.in_sample
    talk = np.array([[claims.correlation(a, t) for t in raw[:many]] for a in fair[:many]])
    with_own = [claims.correlation(fair[k], raw[k]) for k in range(3 * many)]
    return {
        "template": raw[:many].astype(np.float32),
        "image": fair[:many].astype(np.float32),
        "image_in_sample": inside[:many].astype(np.float32),
        "decoy_template": raw[many : 2 * many].astype(np.float32),
        "decoy_image": fair[many : 2 * many].astype(np.float32),
        "correlation": np.array(with_own[:many]),
        "correlation_in_sample": np.array([claims.correlation(inside[k], raw[k]) for k in range(many)]),
        "decoy_correlation": np.array(with_own[many : 2 * many]),
        "wrong_correlation": np.array(with_own[2 * many :]),
        "cross_talk": talk,
    }


def _said(found: list[Found]) -> dict:
    numbers = {
        "contrast": [f.seen.value for f in found],
        "contrast_sigma": [f.seen.sigma for f in found],
        "contrast_to_noise": [f.seen.to_noise for f in found],
        "background_scatter": [f.seen.scatter for f in found],
        "decoy_contrast_to_noise": [f.empty.to_noise for f in found],
        "wrong_contrast_to_noise": [f.wrong.to_noise for f in found],
        "control_contrast": [f.control.value for f in found],
        "control_contrast_sigma": [f.control.sigma for f in found],
    }
    words = {"statement": tuple(f.statement for f in found), "reason": tuple(f.reason for f in found)}
    return {**{key: np.array(value) for key, value in numbers.items()}, **words}


def _unbinned(weights: np.ndarray, source: stream.Source) -> np.ndarray:
    """Return masks on the detector as recorded: every pixel of a square has the weight of the square."""
    out = np.zeros((len(weights), *source.cube.detector_shape))
    ny, nx = source.shape
    large = weights.reshape(-1, ny, nx).repeat(source.bin_px, axis=1).repeat(source.bin_px, axis=2)
    out[:, : large.shape[1], : large.shape[2]] = large
    return out * source.usable


def _partial_talk(scene: Scene, fitted: Fitted, raw: np.ndarray) -> np.ndarray:
    """Return the cross-talk of partial masks: these are sums of the masks in force, and so are their images.

    Exact for signed masks without significance; of others it is that of the same sums.
    """
    many = len(raw)
    whole = np.ones(raw.shape[1:], bool)
    talk = np.empty((many, many))
    base = np.stack([t.reshape(-1) for t in scene.question.template[:many]], axis=1)
    for k in range(many):
        rest = masks.residual(raw[k], np.delete(raw, k, axis=0), whole).reshape(-1)
        factor = np.linalg.lstsq(base, rest, rcond=None)[0]
        image = np.tensordot(factor, fitted.images.fair[:many], 1)
        talk[k] = [claims.correlation(image, t) for t in raw]
    return talk


def _against_classical(shown, raw, own: list[sites.Cores]) -> dict:
    """Return the classical images, what they show of each species, and the best one of each."""
    whole = np.ones(raw.shape[1:], bool)
    ratio = np.full((len(classical.NAMES), len(raw)), np.nan)
    for i, (image, variance) in enumerate(zip(shown.image, shown.variance, strict=True)):
        for k, core in enumerate(own):
            ratio[i, k] = claims.contrast(image, variance, core, whole, False).to_noise
    best = [classical.NAMES[int(np.nanargmax(np.abs(r)))] if np.isfinite(r).any() else "" for r in ratio.T]
    return {
        "classical_name": classical.NAMES,
        "classical_image": shown.image.astype(np.float32),
        "classical_contrast_to_noise": ratio,
        "classical_cross_talk": np.array([[claims.correlation(i, t) for t in raw] for i in shown.image]),
        "classical_best": tuple(best),
    }


def _columns(scene: Scene, shown, fair, variance, pull, best, shape) -> dict:
    """Return the table of columns; positions only where peaks do not follow the template."""
    params, many = scene.params, len(scene.prepared.species)
    rows = {key: [] for key in ("species", "site", "position", "sigma", "classical")}
    known = [s.columns(shape) if s.site_px is None else s.site_px for s in scene.prepared.species]
    everything, shared = np.concatenate(known), np.full(many, np.nan)
    for k, one in enumerate(scene.prepared.species):
        place = one.columns(shape)
        found = sigma = np.full((len(place), 2), np.nan)
        given = (place, everything, scene.step, params.core_angstrom, one.width_angstrom)
        if np.abs(pull[k]) <= params.largest_pull:
            found, sigma = overlaps.positions(fair[k], variance[k], *given, _start(scene, k, fair[k]))
            found[_in_control(scene, k, place)] = np.nan
            ahead, behind = fair[3 * many + k], fair[4 * many + k]
            shared[k] = overlaps.pull(ahead, behind, *given[:3], one.width_angstrom, params.shift_angstrom)
            if np.abs(shared[k]) > params.largest_pull:
                for group in overlaps.groups(place, scene.step, overlaps.MERGED * one.width_angstrom):
                    found[group] = sigma[group] = np.nan
        other = shown[best[k]] if best[k] else np.zeros(shape)
        other = (1.0 if claims.correlation(other, scene.question.template[k]) > 0 else -1.0) * other
        rival, _ = overlaps.positions(other, 1.0, *given, _start(scene, k, other))
        for key, value in zip(rows, (np.full(len(place), k), place, found, sigma, rival), strict=True):
            rows[key].append(value)
    joined = {key: np.concatenate(value) for key, value in rows.items()}
    return {
        "column_species": joined["species"].astype(np.int32),
        "column_site_px": joined["site"].astype(np.float32),
        "column_position_px": joined["position"].astype(np.float32),
        "column_sigma_px": joined["sigma"].astype(np.float32),
        "classical_position_px": joined["classical"].astype(np.float32),
        "shared_pull": shared,
    }


def _in_control(scene: Scene, k: int, place: np.ndarray) -> np.ndarray:
    """Tell which columns lie where the species is known to be missing: what peaks there is something else."""
    limits = scene.prepared.template[k].control
    if limits is None:
        return np.zeros(len(place), bool)
    y0, y1, x0, x1 = limits
    return (place[:, 0] >= y0) & (place[:, 0] < y1) & (place[:, 1] >= x0) & (place[:, 1] < x1)


def column_rows(result: Result, step) -> list[tuple]:
    """Return the rows of the table of columns, by `COLUMN_NAMES`."""
    rows = []
    for k, site, place, sigma in zip(
        result.column_species, result.column_site_px, result.column_position_px, result.column_sigma_px, strict=True
    ):
        move = (place - site) * np.asarray(step)
        rows.append((result.species[k], *map(float, (*site, *place, *sigma, *move))))
    return rows
