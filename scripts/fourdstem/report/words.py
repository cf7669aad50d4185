"""The words of a report: what the sample is, what to worry about, and how it was done."""

from html import escape

import numpy as np

from fourdstem.calibration import wavelength_angstrom
from fourdstem.figures.maps import thousands
from fourdstem.methods.clusters import names as cluster_names
from fourdstem.methods.nmf import doubts as doubts_of_components
from fourdstem.methods.nonlocal_average import doubts
from fourdstem.methods.orientation import ALIKE_SHARE, alike_patterns, intensity_model, matters, sentence
from fourdstem.report.sample import Sample
from fourdstem.report.text import Text, number, percent

UNINDEXED_LIMIT = 0.10
RELIABILITY_LIMIT = 10.0
VALID_LIMIT = 0.75
LOSS_LIMIT = 0.02
WITHOUT = {
    "scan_step_angstrom": "maps are in scan pixels, and exports in steps of 1",
    "detector_pixel_inv_angstrom": "patterns are in detector pixels and cannot be indexed",
    "beam_energy_kev": "patterns cannot be indexed",
    "convergence_mrad": "the size of a disk is taken from the patterns alone",
}


def title(sample: Sample) -> Text:
    """Return the report's first heading."""
    return Text(f"<h1>{escape(sample.name)}</h1>")


def headline(sample: Sample) -> Text:
    """Return one paragraph: what the sample is, the key numbers, the verdict."""
    sentences = [_what(sample), _beam(sample)]
    if sample.nonlocal_average is not None:
        median = _median(sample.nonlocal_average.effective_number)
        sentences.append(f"Averaging puts a median of <b>{median:.1f}</b> patterns behind each one.")
    if sample.nmf is not None:
        rank, clusters = int(sample.nmf.chosen_rank), len(sample.nmf.cluster_size_px)
        sentences.append(
            f"Its patterns are mixtures of <b>{rank}</b> components, in {clusters} clusters{_named(sample)}."
        )
    if sample.orientation:
        sentences.append(_indexed(sample))
    count = len(complaints(sample))
    if count:
        sentences.append(f'<b class="declined">{count} warning{"s" if count > 1 else ""}</b>, below.')
    else:
        sentences.append('<b class="pass">No warnings.</b>')
    return Text(f'<p class="headline">{" ".join(sentences)}</p>')


def _named(sample: Sample) -> str:
    """Return ", of which 2 are gold and 1 is iron" where clusters were indexed."""
    found = sample.clusters
    if found is None:
        return ""
    phases = [name for name in cluster_names(found) if name]
    counts = [(phases.count(name), escape(name)) for name in dict.fromkeys(phases)]
    return ", of which " + (
        " and ".join(f"{n} {'is' if n == 1 else 'are'} {name}" for n, name in counts) or "none is indexed"
    )


def _what(sample: Sample) -> str:
    ny, nx = sample.scan_shape
    dy, dx = sample.detector_shape
    kind = "a simulated scan" if "simulate" in sample.records else "a scan"
    text = f"<b>{escape(sample.name)}</b> is {kind} of {ny} × {nx} positions"
    if sample.step:
        text += f" ({number(ny * sample.step[0] / 10, 3)} × {number(nx * sample.step[1] / 10, 3)} nm)"
    text += f" with patterns of {dy} × {dx} px"
    energy, angle = sample.acquisition.beam_energy_kev, sample.acquisition.convergence_mrad
    text += f", {number(energy)} kV" if energy else ""
    text += f", convergence {number(angle)} mrad" if angle is not None else ""
    phases = " and ".join(escape(c.name) for c in sample.crystals)
    text += f"; phases: {phases}" if phases else ""
    return f"{text}. A pattern holds {thousands(sample.counts_per_pattern)} counts on average."


def _beam(sample: Sample) -> str:
    found, verdict = sample.preprocess, sample.verdict
    sigma = _median(found.centre_sigma_px)
    text = f"One pattern gives the beam's centre to <b>{sigma:.3f} px</b> (median per axis)"
    if (found.centre_origin == 1).mean() > 0.5:
        text += ", the descan surface through all of them is used"
    if verdict.get("ellipse", {}).get("pass"):
        ratio, error = float(found.ellipse_ratio), float(found.ellipse_ratio_sigma)
        return f"{text}, the ellipse to a/b = <b>{ratio:.4f}</b> ± {error:.4f}."
    return f"{text}; the ellipse could not be measured."


def _indexed(sample: Sample) -> str:
    parts = []
    for source, result in sample.orientation.items():
        good = result.phase >= 0
        median = f", median reliability {_median(result.reliability[good]):.0f}" if good.any() else ""
        parts.append(f"{source} patterns: <b>{percent(float(good.mean()))}</b> indexed{median}")
    text = "; ".join(parts)
    truth = {s: v for s, region, metric, v in sample.scores if region == "all" and metric == "within_5_deg"}
    said = [f"{s} {percent(truth[s])}" for s in sample.orientation if s in truth]
    if said:
        text += f". The truth is known: within 5° of it lie <b>{' → '.join(said)}</b>"
        text += f" (noise-free: {percent(truth['noise_free'])})" if "noise_free" in truth else ""
    return f"{text[0].upper()}{text[1:]}."


def warnings(sample: Sample) -> Text:
    """Return everything that a reader should know before believing a map."""
    found = complaints(sample)
    if not found:
        return Text('<p class="fine">Nothing to warn of: every verdict passed and every check below holds.</p>')
    return Text('<ul class="warnings">' + "".join(f"<li>{line}</li>" for line in found) + "</ul>")


def complaints(sample: Sample) -> list[str]:
    """Return the warnings, one sentence (HTML) each, with number and threshold."""
    lines = [
        f"<b>{escape(name)} declined.</b> {escape(v['reason'].removeprefix('declined: '))}."
        for name, v in sample.verdict.items()
        if not v["pass"]
    ]
    clipped = int((sample.preprocess.bad_pixel == 3).sum())
    if clipped:
        lines.append(
            f"<b>Saturated.</b> {clipped} px reach the detector's ceiling; they are used, and counts and "
            "virtual images that hold them are lower bounds."
        )
    lines += _missing_values(sample) + _averaging(sample)
    found = [] if sample.nmf is None else doubts_of_components(sample.nmf)
    lines += [f"<b>Components.</b> {doubt[0].upper()}{doubt[1:]}." for doubt in found]
    lost = 0 if sample.clusters is None else cluster_names(sample.clusters).count("")
    if lost:
        text = f"{lost} of {len(sample.clusters.phase)} clusters fit no crystal structure of the sample"
        lines.append(
            f"<b>Clusters without a phase.</b> {text}: amorphous, mixed, too small, or a phase that is missing."
        )
    for source, result in sample.orientation.items():
        lines += _orientation(source, result) + _polish(sample, source, result)
    lines += _lost_by_averaging(sample)
    trial = {k: v for k, v in sample.changed.get("scan", {}).items() if k in ("roi", "stride", "bin")}
    if trial:
        said = ", ".join(f"{key} {number(value)}" for key, (value, _) in trial.items())
        lines.append(f"<b>Trial run.</b> Only part of the data was read: {said}.")
    if any(r.get("dirty") for r in sample.records.values()):
        lines.append("<b>Edited code.</b> It differs from the commit that is named below; commit it before publishing.")
    return lines


def _missing_values(sample: Sample) -> list[str]:
    lines = []
    for key, effect in WITHOUT.items():
        known = getattr(sample.acquisition, key) is not None
        if key == "detector_pixel_inv_angstrom":
            known = sample.acquisition.pixel_inv_angstrom is not None
        if not known:
            lines.append(f"<b>No <code>{key}</code>.</b> Neither file nor configuration gives it: {effect}.")
    valid = float((sample.preprocess.valid > 0).mean())
    if valid < VALID_LIMIT:
        text = f"Only {percent(valid)} of the corrected detector is filled everywhere (limit {percent(VALID_LIMIT)})"
        lines.append(f"<b>Much of the detector is lost.</b> {text}: masks, or a beam that wanders far.")
    return lines


def _averaging(sample: Sample) -> list[str]:
    if sample.nonlocal_average is None:
        return []
    return [f"<b>Averaging.</b> {doubt[0].upper()}{doubt[1:]}." for doubt in doubts(sample.nonlocal_average)]


def _orientation(source: str, result) -> list[str]:
    good = result.phase >= 0
    if not good.any():
        return [f"<b>Nothing was indexed</b> of the {source} patterns: check phases, camera length and rotation."]
    lines, lost = [], 1 - float(good.mean())
    if lost > UNINDEXED_LIMIT:
        text = f"{percent(lost)} of {source} patterns (limit {percent(UNINDEXED_LIMIT)})"
        lines.append(f"<b>Much is not indexed.</b> {text}: vacuum, amorphous, too noisy, or a phase that is missing.")
    median = _median(result.reliability[good])
    if median < RELIABILITY_LIMIT:
        text = f"The median reliability of {source} patterns is {median:.1f} (limit {RELIABILITY_LIMIT:g})"
        lines.append(f"<b>Weak index.</b> {text}: other orientations fit nearly as well. Do not read single pixels.")
    for one, other, share, what in alike_patterns(result):
        if share > ALIKE_SHARE:
            text = f"{escape(one)} and {escape(other)} on {source} patterns: {escape(sentence(share, what))}"
            lines.append(f"<b>Phases too alike.</b> {text} (limit {percent(ALIKE_SHARE)}). Read them as one phase.")
    return lines


def _polish(sample: Sample, source: str, result) -> list[str]:
    """Say where indexed patterns ask for another scale or centre, which was not applied."""
    applied = sample.settings(f"orientation_{source}").get("polish", False)
    found = result.scale_factor, result.scale_factor_sigma, result.centre_offset_px, result.centre_offset_sigma_px
    if applied or found[0] is None or not np.isfinite(found[0]) or not matters(*found):
        return []
    (dy, dx), pixel = found[2], float(result.pixel_refined_inv_angstrom)
    text = f"Disks of indexed {source} patterns fit {pixel:.5f} 1/Å per px, {1 / float(found[0]) - 1:+.1%} from the "
    text += f"value in force, and a beam ({dy:+.2f}, {dx:+.2f}) px off the middle (y, x)"
    return [f"<b>Scale or centre is off.</b> {text}: correct it, or set <code>orientation: polish</code>."]


def _lost_by_averaging(sample: Sample) -> list[str]:
    """Say where the truth shows that averaging did harm."""
    share = {(s, region): v for s, region, metric, v in sample.scores if metric == "within_5_deg"}
    lines = []
    for (source, region), after in share.items():
        before = share.get(("corrected", region))
        if source == "averaged" and before is not None and after < before - LOSS_LIMIT:
            text = (
                f"Within 5° of the truth lie {percent(before)} of corrected and {percent(after)} of averaged patterns"
            )
            lines.append(f"<b>Averaging did harm in the region {escape(region)}.</b> {text}: lower λ.")
    return lines


def _median(values) -> float:
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")


def methods(sample: Sample) -> Text:
    """Return a paragraph for a paper's methods section, about what ran and nothing else, and its references."""
    cited: list[str] = []
    parts = [_said_preprocess(sample, cited)]
    if sample.nonlocal_average is not None:
        parts.append(_said_average(sample, cited))
    if sample.nmf is not None:
        parts.append(_said_components(sample, cited))
    if sample.template_mask is not None:
        parts.append(_said_masks(sample, cited))
    if sample.orientation:
        parts.append(_said_orientation(sample, cited))
    if sample.grains:
        parts.append(_said_grains(sample, cited))
    parts.append(
        f"The workflow ran under Snakemake{_cite(cited, 'snakemake')}; each result carries the hash of its inputs."
    )
    references = "".join(f"<li>{REFERENCES[key]}</li>" for key in cited)
    return Text(f'<p class="methods">{" ".join(p for p in parts if p)}</p><ol class="references">{references}</ol>')


REFERENCES = {
    "masks": "Xie et al., Commun. Mater. 7, 124 (2026), doi:10.1038/s43246-026-01134-9.",
    "jia": "Jia et al., Nat. Mater. 7, 57 (2008), doi:10.1038/nmat2080.",
    "nelson": "Nelson et al., Nano Lett. 11, 828 (2011), doi:10.1021/nl1041808.",
    "nlstem": "Yang, Pierron, Kacher, Rowenhorst, arXiv:2603.30018 (2026).",
    "nlpar": "Brewick, Wright, Rowenhorst, Ultramicroscopy 200, 50 (2019), doi:10.1016/j.ultramic.2019.02.013.",
    "keenan": "Keenan, Kotula, Surf. Interface Anal. 36, 203 (2004), doi:10.1002/sia.1657.",
    "cao": "Cao et al., Digital Discovery (2025), doi:10.1039/D5DD00071H.",
    "hals": "Cichocki, Phan, IEICE Trans. E92-A, 708 (2009), doi:10.1587/transfun.E92.A.708.",
    "landa": "Landa, Zhang, Kluger, SIAM J. Math. Data Sci. 4, 1420 (2022), doi:10.1137/21M1456807.",
    "faiss": "Douze et al., arXiv:2401.08281 (2024).",
    "saerens": "Saerens, Latinne, Decaestecker, Neural Comput. 14, 21 (2002), doi:10.1162/089976602753284446.",
    "lobato": "Lobato, Van Dyck, Acta Cryst. A 70, 636 (2014), doi:10.1107/S205327331401643X.",
    "orix": "Johnstone et al., J. Appl. Cryst. 53 (2020), doi:10.1107/S1600576720011103.",
    "brandon": "Brandon, Acta Metall. 14, 1479 (1966), doi:10.1016/0001-6160(66)90168-4.",
    "markley": "Markley et al., J. Guid. Control Dyn. 30, 1193 (2007), doi:10.2514/1.28949.",
    "schaeben": "Schaeben, Phys. Status Solidi B 200, 367 (1997), "
    "doi:10.1002/1521-3951(199704)200:2&lt;367::AID-PSSB367&gt;3.0.CO;2-I.",
    "snakemake": "Mölder et al., F1000Research 10, 33 (2021), doi:10.12688/f1000research.29032.2.",
}


def _cite(cited: list[str], *keys: str) -> str:
    """Return reference marks; a work is numbered when it is first cited."""
    cited += [key for key in keys if key not in cited]
    return f" [{', '.join(str(cited.index(key) + 1) for key in keys)}]"


def _said_preprocess(sample: Sample, cited: list[str]) -> str:
    found, settings = sample.preprocess, sample.settings("preprocess")
    method = str(settings.get("centre_method", "")).replace("_", " ").replace("friedel", "Friedel correlation")
    bad = int((found.bad_pixel > 0).sum())
    text = f"Dead, hot and saturated pixels were found from the statistics of all patterns ({bad} px). "
    text += f"The centre of the direct beam was measured in each pattern{f' by {method}' if method else ''}, and "
    text += "a smooth descan surface was fitted robustly. "
    if sample.verdict.get("ellipse", {}).get("pass") and float(found.ellipse_ratio) > 1:
        text += f"An elliptical distortion of a/b = {found.ellipse_ratio:.4f} at {found.ellipse_angle_deg:.1f}° was "
        text += "removed together with the shift in one bilinear, area-preserving interpolation."
    else:
        text += "No elliptical distortion was corrected; patterns were shifted in one bilinear interpolation."
    return text


def _said_average(sample: Sample, cited: list[str]) -> str:
    settings, found = sample.settings("nonlocal_average"), sample.nonlocal_average
    marks, mode = _cite(cited, "nlstem", "nlpar"), "square roots of counts"
    if settings.get("average_in", "counts") == "counts":
        mode = "counts"
    where = "of a window around it"
    if settings.get("search") == "global":
        where = f"of the whole scan{_cite(cited, 'faiss')}"
    how = "as compared pixel by pixel"
    if settings.get("distance", "projection") == "projection":
        how = f"as compared in the {int(found.rank)} directions in which patterns of the scan differ by more than noise"
        how += f", counts being scaled by the root of their mean{_cite(cited, 'keenan')}"
    text = (
        f"Each pattern was replaced by a weighted average{marks} of {mode} over the at most {int(found.members)} most "
    )
    text += f"similar patterns {where}, {how}, with λ = {number(float(found.lambda_))} "
    return text + f"(median effective number {_median(found.effective_number):.1f})."


def _said_components(sample: Sample, cited: list[str]) -> str:
    settings, found = sample.settings("nmf"), sample.nmf
    text = f"The {settings.get('source', 'averaged')} patterns were factorised into non-negative components and weights"
    text += _cite(cited, "cao")
    text += (
        f" by hierarchical alternating least squares{_cite(cited, 'hals')}" if settings.get("method") == "hals" else ""
    )
    text += f"; the number of components, {found.chosen_rank}"
    if len(found.rank) > 1:
        text += f" of {found.rank[0]} to {found.rank[-1]}, was chosen from how many patterns stand above counting noise"
        text += f"{_cite(cited, 'landa')} and how many clusters are distinct"
    else:
        text += ", was given"
    scaling = settings.get("scaling", "sum")
    text = f"{text}. A position has the label of its largest weight, components having unit {scaling}."
    if sample.clusters is not None:
        text += " The mean recorded pattern of each cluster was indexed by template matching."
    return text


def _said_masks(sample: Sample, cited: list[str]) -> str:
    found, settings = sample.template_mask, sample.settings("template_mask")
    ways = {"leave_one_out": "leaving each position out of the mask that it is imaged by, in closed form"}
    ways |= {"split": "splitting counts binomially into halves", "folds": "leaving out tiles of the scan in turn"}
    names, way = ", ".join(map(escape, found.species)), ways[settings.get("cross_fit", "leave_one_out")]
    text = f"Images of {names} were made by template-derived masks{_cite(cited, 'masks')}"
    text += " (signed correlation of each detector pixel with the template"
    text += ", equal at opposite pixels" if settings.get("symmetrise", True) else ""
    text += ", partial to the other species" if settings.get("partial") else ""
    text += f"), cross-fitted by {way}; the same templates at empty and at wrong sites, and templates shifted by "
    text += f"{number(settings.get('shift_angstrom', 0.2))} Å, served as controls. "
    if found.joined_image is not None:
        text += (
            "Masks odd at opposite pixels, learned from the slopes of the templates, were integrated and joined with "
        )
        text += "the images by least variance at every spatial frequency. "
    if found.polarisation_name is not None:
        pairs = " and ".join(map(escape, found.polarisation_name))
        text += (
            f"Polarisation was measured as the displacement of columns from the middle of their neighbours ({pairs})"
        )
        text += f"{_cite(cited, 'jia')}{_cite(cited, 'nelson')}. "
    return text


def _said_orientation(sample: Sample, cited: list[str]) -> str:
    settings = sample.settings(f"orientation_{next(iter(sample.orientation))}")
    phases = " and ".join(f"{escape(c.name)} (Laue class {c.laue_class})" for c in sample.crystals)
    text = f"Orientations of {phases} were mapped on {' and '.join(sample.orientation)} patterns by matching with "
    if "sampling_deg" in settings:
        model = intensity_model(settings["intensity"], sample.acquisition.precession_mrad).replace("_", "-")
        text += f"{model} templates every {number(settings['sampling_deg'])}°, for a thickness of "
        text += f"{number(settings['thickness_angstrom'])} Å"
    energy = sample.acquisition.beam_energy_kev
    text += f" at λ = {wavelength_angstrom(energy):.5f} Å" if energy else ""
    text += f", with the scattering factors of Lobato and Van Dyck{_cite(cited, 'lobato')}. "
    if settings.get("overlap"):
        text += (
            "Where crystals overlap, the disks of the first orientation were subtracted and the remainder was indexed "
        )
        text += "again, its significance taken from simulated single crystals. "
    if any(result.calibration_right is not None for result in sample.orientation.values()):
        text += "The probability of being right (phase, and orientation within 5°) was calibrated by indexing "
        text += f"{settings.get('calibration_patterns', '')} simulated patterns with many-beam intensities under the "
        text += "conditions of the scan. "
        if any(result.calibration_shift for result in sample.orientation.values()):
            text += "The scan's own positions called for another share of right ones than the simulation had, and the "
            text += f"probabilities were shifted accordingly{_cite(cited, 'saerens')}. "
    text += "Orientations are passive (lab to crystal); the colours of inverse pole figures are those of orix"
    return f"{text}{_cite(cited, 'orix')}."


def _said_grains(sample: Sample, cited: list[str]) -> str:
    settings = sample.settings(f"grains_{next(iter(sample.grains))}")
    cubic = any(c.laue_class == "m-3m" for c in sample.crystals)
    text = "Grains are connected positions of one phase"
    if "threshold_deg" in settings:
        text += f" whose neighbours differ by at most {number(settings['threshold_deg'])}°, of at least "
        text += f"{settings['minimum_px']} positions"
    text += f"; their mean orientations are eigenvectors{_cite(cited, 'markley')}. "
    text += f"Boundaries were classed by Brandon's criterion{_cite(cited, 'brandon')}. " if cubic else ""
    text += "Local misorientation was kept where it exceeds what simulated noise, of the covariance measured by second "
    text += (
        "differences of orientation within grains, gives at 95 % of the positions. Pole densities and texture index "
    )
    return text + f"use the kernel of de la Vallée Poussin{_cite(cited, 'schaeben')}."
