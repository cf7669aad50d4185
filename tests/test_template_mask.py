import h5py
import imageio.v3 as imageio
import numpy as np
import pytest
from scipy import stats
from template_scans import RADIUS, STEP, columns, compute, cube_of, noise, picture, settings, specimen

from fourdstem import formats
from fourdstem.calibration import Acquisition
from fourdstem.errors import InputError
from fourdstem.methods import template_mask
from fourdstem.methods.template_mask import claims, classical, kernels, lattice, masks, sites, stream
from fourdstem.methods.template_mask import columns as peaks

SHAPE, DETECTOR = (24, 36), (18, 18)


@pytest.fixture(scope="module")
def scan():
    return specimen(SHAPE, DETECTOR, np.random.default_rng(101))


# ---- equations ---------------------------------------------------------------------------------------------


def test_the_mask_is_the_pearson_correlation_of_each_pixel_with_the_template(scan):
    found = compute(cube_of(scan), settings(symmetrise=False))
    flat, template = scan.reshape(-1, DETECTOR[0] * DETECTOR[1]).astype(float), picture(SHAPE).reshape(-1)
    expected = [np.corrcoef(pixel, template)[0, 1] if pixel.std() > 0 else 0.0 for pixel in flat.T]
    np.testing.assert_allclose(found.mask[0].reshape(-1), expected, atol=2e-6)


def test_the_in_sample_image_is_the_masked_sum(scan):
    found = compute(cube_of(scan))
    expected = (scan * found.mask[0]).sum(axis=(2, 3))
    np.testing.assert_allclose(found.image_in_sample[0], expected, atol=2e-4)


def leave_out(counts, template, form):
    """The image by brute force: a mask for every position, from all the others, standard deviations kept."""
    flat = counts.reshape(len(template), -1).astype(float)
    std, mean, n = flat.std(axis=0), flat.mean(axis=0), len(template)
    safe = np.where(std > 0, std, 1.0)
    t = (template - template.mean()) / template.std()
    whole = masks.Learned(np.where(std > 0, (flat - mean).T @ t / n / safe, 0)[None], mean[None], std[None])
    constant = form.weights(whole, np.array([n]))[0] @ mean
    out = np.empty(n)
    for r in range(n):
        rest = np.delete(np.arange(n), r)
        x, y = flat[rest] - flat[rest].mean(axis=0), t[rest] - t[rest].mean()
        mask = np.where(std > 0, x.T @ y / n / safe, 0)
        learned = masks.Learned(mask[None], mean[None], std[None])
        out[r] = form.weights(learned, np.array([n]))[0] @ (flat[r] - mean) + constant
    return out


@pytest.mark.parametrize(
    "given",
    [
        {"symmetrise": False},
        {"symmetrise": True},
        {"symmetrise": False, "weighting": "standardised"},
        {"symmetrise": False, "mask": "positive"},
        {"symmetrise": True, "mask": "negative", "significance": 1.0},
        {"symmetrise": False, "inner": 0.3, "outer": 1.1},
    ],
)
def test_leaving_one_position_out_in_closed_form_is_what_brute_force_gives(given):
    counts = specimen((9, 8), (6, 7), np.random.default_rng(102), strength=0.5)
    source = stream.open_source(cube_of(counts))
    params = settings(**given)
    form = masks.form(params, source, 3.0)
    template = np.random.default_rng(103).normal(size=(9, 8))
    region = np.ones((1, 9, 8), bool)
    question = masks.Question(masks.standardised(template, region[0])[None], region, np.zeros(1, int))
    fold = np.zeros((9, 8), int)
    learned = masks.learn(masks.gather(source, question, fold), question, fold)
    found = masks.leave_one_out(source, question, learned, form, 1).fair[0]
    np.testing.assert_allclose(found.reshape(-1), leave_out(counts, template.reshape(-1), form), atol=2e-5)


def test_compiled_kernels_give_what_their_python_gives():
    rng = np.random.default_rng(104)
    rows = rng.poisson(2.0, (3, 12)).astype(np.float32)
    mean, std = rng.uniform(1, 3, (2, 12)), rng.uniform(1, 2, (2, 12))
    partner = np.arange(12)[::-1].copy()
    gain, mask, own = np.ones((2, 12)), rng.normal(0, 0.2, (2, 12)), rng.normal(0, 0.1, (3, 2))
    limit, allowed = np.full((2, 12), 0.05), np.arange(12) != 3
    calls = (
        (kernels.scatter, (rows, mean, gain, 1 / std, partner)),
        (kernels.without_own, (rows, own, mask, mean, 1 / std, gain, limit, allowed, partner, 1)),
        (kernels.squares_of, (rows, np.ones((3, 2), np.uint8), np.zeros((2, 12)))),
    )
    for kernel, arguments in calls:
        copies = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
        np.testing.assert_allclose(kernel(*arguments), kernel.py_func(*copies), rtol=1e-6)
    stored = rng.poisson(3.0, (2, 6, 6)).astype(np.uint16)
    shift, usable = np.array([[0.3, -0.6], [0.0, 0.2]]), np.ones((6, 6), bool)
    usable[[0, -1]], usable[:, [0, -1]] = False, False
    for kernel, arguments in (
        (kernels.moved, (stored, shift, usable, np.float32(0.5), 2, (3, 3))),
        (kernels.binned, (stored, usable, np.float32(0.5), 2, (3, 3))),
    ):
        two = (np.empty((2, 9), np.float32), np.empty((2, 9), np.float32))
        np.testing.assert_allclose(kernel(*arguments, two[0]), kernel.py_func(*arguments, two[1]), rtol=1e-5)


def test_halves_of_counts_are_binomial_complementary_and_independent_of_order():
    counts = np.random.default_rng(105).poisson(130.0, (40, 10, 10)).astype(np.uint16)
    one, two = (kernels.split(counts, 3, 0, 7, half) for half in (1, 2))
    np.testing.assert_array_equal(one + two, counts)
    z = (one.astype(float) - counts / 2) / np.sqrt(counts / 4)
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert abs(z.std() - 1) < 4 / np.sqrt(2 * z.size)
    assert stats.kstest(z.reshape(-1) + np.random.default_rng(0).uniform(-0.08, 0.08, z.size), "norm").pvalue > 1e-3
    np.testing.assert_array_equal(kernels.split(counts[5:9], 3, 5, 7, 1), one[5:9])
    assert abs(np.corrcoef(one.reshape(-1), two.reshape(-1))[0, 1]) < 4 / np.sqrt(z.size)
    assert (kernels.split(counts, 3, 0, 8, 1) != one).mean() > 0.5


def test_memory_and_threads_change_no_bit(scan):
    first = compute(cube_of(scan, memory_mb=2000, threads=1))
    for memory, threads in ((0.1, 1), (2000, 3)):
        again = compute(cube_of(scan, memory_mb=memory, threads=threads))
        for name in ("mask", "image", "image_in_sample", "image_sigma", "pull", "classical_image"):
            assert getattr(first, name).tobytes() == getattr(again, name).tobytes(), name


def test_strips_that_end_anywhere_are_padded():
    rng = np.random.default_rng(106)
    counts = rng.poisson(2.0, (3, 2 * stream.STRIP + 7, 4, 5)).astype(np.uint16)
    source = stream.open_source(cube_of(counts))
    design = rng.normal(size=(2, *counts.shape[:2]))
    sums, squares = stream.moments(source, design, np.ones((1, *counts.shape[:2]), bool))
    flat = counts.reshape(-1, 20).astype(float)
    np.testing.assert_allclose(sums, design.reshape(2, -1) @ flat, rtol=1e-4, atol=1e-2)
    np.testing.assert_array_equal(squares[0], (flat**2).sum(axis=0))
    weights = rng.normal(size=(3, 20))
    made = stream.images(source, weights)
    np.testing.assert_allclose(made.reshape(3, -1), weights @ flat.T, rtol=1e-4, atol=1e-4)


def test_the_descan_surface_alone_is_taken_out_and_only_where_it_moves(scan):
    still = np.broadcast_to(np.array([8.5, 8.5]), (*SHAPE, 2)) + 0.05
    assert stream.open_source(cube_of(scan, surface=still)).shift_px is None
    ramp = np.linspace(-1.9, 1.9, SHAPE[1])[None, :, None] * np.array([1.0, 0.5])
    moved = 8.5 + np.broadcast_to(ramp, (*SHAPE, 2))
    y, x = np.indices(DETECTOR)
    counts = 100.0 + 3 * (y - moved[..., 0, None, None]) - 2 * (x - moved[..., 1, None, None])
    source = stream.open_source(cube_of(counts, surface=moved))
    sums = stream.images(source, np.eye(source.pixels)[source.usable.reshape(-1)])
    assert source.usable.sum() == 14 * 14
    np.testing.assert_allclose(sums, np.broadcast_to(sums[:, :1, :1], sums.shape), rtol=1e-5)


def test_dead_pixels_have_no_weight(scan):
    bad = np.zeros(DETECTOR, bool)
    bad[8, 9] = True
    counts = scan.copy()
    counts[:, :, 8, 9] = np.random.default_rng(0).integers(0, 60000, SHAPE)
    found = compute(cube_of(counts, bad=bad), settings(symmetrise=False))
    assert found.mask[0, 8, 9] == 0
    assert np.isfinite(found.image).all()
    assert found.image.max() < 1000


# ---- guard 2: periodicity; guard 3: positions ---------------------------------------------------------------


def test_decoys_have_the_number_and_width_of_the_columns_and_lie_far_from_all():
    shape, step = (64, 64), np.array(STEP)
    one = sites.Species("A", columns((80, 80), 16.0, -8.0), 0.35)
    empty, wrong = sites.decoys([one], np.eye(2) * 4.0, shape, step, 0)[0]
    for decoy in (empty, wrong):
        assert len(decoy.site_px) == len(one.site_px)
        assert decoy.width_angstrom == one.width_angstrom
    apart = np.linalg.norm((empty.site_px[:, None] - one.site_px[None]) * step, axis=-1).min(axis=1)
    assert np.median(apart) == pytest.approx(2 * np.sqrt(2), abs=0.3)
    assert not np.allclose(empty.site_px, wrong.site_px)


def test_partial_templates_are_orthogonal_to_the_other_species():
    region = np.ones((24, 36), bool)
    a, b = picture(SHAPE), picture(SHAPE, start=6.0)
    rest = masks.standardised(masks.residual(a, b[None], region), region)
    assert abs((rest * (b - b.mean())).sum()) < 1e-9
    assert rest.std() == pytest.approx(1.0)


def test_pull_is_one_for_an_image_that_is_its_template_and_zero_for_one_that_is_not():
    places = columns((40, 48), 8.0, 4.0)
    one = sites.Species("A", places, 0.35)
    step = np.array(STEP)
    ahead, behind = (one.template((40, 48), step, np.array([s, s]) * 0.2 / np.sqrt(2)) for s in (1, -1))
    assert peaks.pull(ahead, behind, places, step, 0.2, 0.35) == pytest.approx(1.0, abs=0.03)
    still = one.template((40, 48), step)
    assert peaks.pull(still, still, places, step, 0.2, 0.35) == pytest.approx(0.0, abs=1e-9)


def test_positions_find_displaced_columns_and_their_sigma_is_what_repetition_shows():
    rng = np.random.default_rng(9)
    places = columns((64, 64), 8.0, 8.0)[:36]
    true = places + rng.uniform(-0.6, 0.6, places.shape)
    clean = 100 * sites.gaussians(true, 0.5, (64, 64), np.array(STEP))
    found, sigma = peaks.positions(clean, 4.0, places, STEP, 0.35)
    inside = np.isfinite(found).all(axis=1)
    assert inside.sum() >= 36 - 14
    assert np.sqrt(np.mean((found - true)[inside] ** 2)) * 0.25 < 0.01
    runs = [peaks.positions(clean + rng.normal(0, 2, clean.shape), 4.0, places, STEP, 0.35)[0] for _ in range(20)]
    scatter = np.nanmean(np.nanstd(np.array(runs)[:, inside], axis=0))
    assert np.nanmean(sigma[inside]) == pytest.approx(scatter, rel=0.25)


def test_two_columns_that_share_a_peak_have_no_positions():
    places = np.array([[20.0, 20.0], [20.0, 22.0], [20.0, 40.0]])
    image = 100 * sites.gaussians(places, 0.45, (48, 56), np.array(STEP))
    found, _ = peaks.positions(image, 1.0, places, STEP, 0.35)
    np.testing.assert_array_equal(np.isfinite(found[:, 0]), [False, False, True])


def test_positions_are_not_published_where_peaks_follow_the_template(scan):
    found = compute(cube_of(scan), settings(largest_pull=0.0))
    assert np.isnan(found.column_position_px).all()


# ---- lattices ------------------------------------------------------------------------------------------------


def test_lattice_vectors_and_sublattices_are_found_in_a_picture():
    step, turn = np.array([0.2, 0.25]), np.deg2rad(11)
    basis = np.array([[4.0, 0.0], [0.0, 5.2]]) @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    cells = np.stack(np.meshgrid(np.arange(-12, 12), np.arange(-12, 12), indexing="ij"), -1).reshape(-1, 2) @ basis
    bright, faint = cells / step, (cells + np.array([0.5, 0.45]) @ basis) / step
    image = sites.gaussians(bright, 0.5, (120, 110), step) + 0.5 * sites.gaussians(faint, 0.5, (120, 110), step)
    image += np.random.default_rng(10).normal(0, 0.05, image.shape)
    found = lattice.find_lattice(image, step)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [4.0, 5.2], rtol=0.01)
    groups = lattice.sublattices(*lattice.peaks(image, step), found, step)
    assert len(groups) == 2
    for group, true in zip(groups, (bright, faint), strict=True):
        error = np.linalg.norm((group[:, None] - true[None]) * step, axis=-1).min(axis=1)
        assert np.median(error) < 0.05


def test_fields_are_integrated_back_to_what_they_are_the_gradient_of():
    y, x = np.indices((48, 56)) * 0.25
    truth = np.cos(2 * np.pi * y / 4) * np.cos(2 * np.pi * x / 3.5)
    slope = np.gradient(truth, 0.25, edge_order=2)
    found, _ = classical.integrate(np.stack(slope), np.ones((2, 48, 56)), STEP)
    assert np.corrcoef(found[4:-4, 4:-4].reshape(-1), truth[4:-4, 4:-4].reshape(-1))[0, 1] > 0.98
    assert np.polyfit(truth[4:-4, 4:-4].reshape(-1), found[4:-4, 4:-4].reshape(-1), 1)[0] == pytest.approx(1, abs=0.1)


def test_classical_images_are_the_sums_that_they_are_said_to_be(scan):
    source = stream.open_source(cube_of(scan))
    made = classical.make(source, RADIUS, STEP)
    y, x = (np.arange(n) - (n - 1) / 2 for n in DETECTOR)
    r = np.hypot(y[:, None], x)
    inner, disk = r <= RADIUS / 2, r <= RADIUS
    np.testing.assert_allclose(made["bright_field"], (scan * inner).sum(axis=(2, 3)))
    np.testing.assert_allclose(made["annular_bright_field"], (scan * (disk & ~inner)).sum(axis=(2, 3)))
    centre = (scan * x).sum(axis=(2, 3)) / scan.sum(axis=(2, 3))
    np.testing.assert_allclose(made["centre_of_mass_x"], centre, atol=1e-5)


# ---- bad input -----------------------------------------------------------------------------------------------


def refused(match, counts, params=None, **options):
    options = {"pictures": {"A": picture(counts.shape[:2])}, **options}
    cube = options.pop("cube", None) or cube_of(counts)
    with pytest.raises(InputError, match=match):
        template_mask.compute(cube, params or settings(), RADIUS, **options)


def test_a_template_of_another_shape_or_without_contrast_is_refused(scan):
    refused("a template of 5 x 6", scan, pictures={"A": np.eye(5, 6)})
    refused("a template that is 3 everywhere", scan, pictures={"A": np.full(SHAPE, 3.0)})
    refused("not a number in places", scan, pictures={"A": np.full(SHAPE, np.nan)})
    block = {"species": "A", "file": "a.npy", "region": [0, 4, 0, 4]}
    flat = np.zeros(SHAPE)
    flat[10:, 10:] = picture(SHAPE)[10:, 10:]
    refused("constant within its region", scan, settings(templates=[block]), pictures={"A": flat})


@pytest.mark.parametrize("key", ["region", "control"])
def test_a_region_outside_the_scan_is_refused(scan, key):
    block = {"species": "A", "file": "a.npy", key: [0, 24, 30, 60]}
    refused(rf"{key} \[0, 24, 30, 60\] of template A", scan, settings(templates=[block]))


def test_blocks_that_contradict_themselves_are_refused(scan):
    refused("no templates", scan, settings(templates=[]))
    refused("element and file", scan, settings(templates=[{"species": "A", "file": "a", "element": "O"}]))
    refused("neither element, sublattice nor file", scan, settings(templates=[{"species": "A"}]))
    twice = [{"species": "A", "file": "a"}, {"species": "A", "file": "b"}]
    refused("species names", scan, settings(templates=twice))


def test_a_scan_that_resolves_no_lattice_is_told(scan):
    dull = noise((40, 40), (12, 12), np.random.default_rng(11))
    refused("no lattice in the image", dull, settings(templates=[{"species": "A", "sublattice": 0}]))


def test_a_scan_step_that_is_unknown_or_coarser_than_columns_is_told(scan):
    refused("no scan step", scan, cube=cube_of(scan, step=None))
    block = {"species": "A", "sublattice": 0}
    coarse = specimen((48, 48), (12, 12), np.random.default_rng(12), 0.8)
    refused("a scan of atomic resolution", coarse, settings(templates=[block]), cube=cube_of(coarse, step=(2.0, 2.0)))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"gain": np.nan}, "a gain that is not known"),
        ({"gain": 30.0}, "30 counts per electron"),
        ({"offset": 4.0}, "offset 4"),
    ],
)
def test_counts_that_are_not_electrons_are_not_split(scan, options, why):
    refused(why, scan, settings(cross_fit="split"), cube=cube_of(scan, **options))


def test_counts_with_a_point_are_not_split(scan):
    refused("counts of type float32", scan, settings(cross_fit="split"), cube=cube_of(scan.astype(np.float32)))


def test_more_pixels_than_positions_are_binned_and_told():
    counts = noise((12, 12), (24, 24), np.random.default_rng(13))
    found = compute(cube_of(counts))
    assert found.detector_bin == 2
    assert "576 detector pixels for 144 positions" in found.note
    assert f"{claims.expected_bias(576, 144):.2f}" in found.note


def test_a_mask_of_another_detector_or_of_no_species_is_refused(scan):
    refused("a mask of 4 x 4 px", scan, learned={"A": np.zeros((4, 4))})
    with pytest.raises(InputError, match="no mask of Li, only of O"):
        template_mask.mask_of("Li", "other.h5", ("O",), np.zeros((1, 4, 4)))


def test_pictures_are_read_from_images_and_hdf5_whatever_its_suffix_and_what_is_none_is_told(tmp_path):
    drawn = np.arange(12, dtype=np.uint8).reshape(3, 4)
    colours = np.stack([drawn, drawn, drawn, np.full_like(drawn, 255)], axis=-1)
    imageio.imwrite(tmp_path / "a.png", colours)
    np.testing.assert_array_equal(formats.read_picture(tmp_path / "a.png"), drawn)
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        file["map"], file["cube"] = drawn, np.zeros((2, 2, 2))
    np.testing.assert_array_equal(formats.read_picture(tmp_path / "a.nxs", "map"), drawn)
    for name, dataset, match in (
        ("a.nxs", None, "no picture at dataset None"),
        ("a.nxs", "cube", "no picture at dataset cube"),
        ("a.nxs", "other", "no picture at dataset other"),
        ("a.png", "map", "a.png"),
        ("missing.png", None, "no such file"),
        ("missing.h5", "map", "missing.h5"),
    ):
        with pytest.raises(InputError, match=match):
            formats.read_picture(tmp_path / name, dataset)


def test_a_disk_that_was_measured_too_small_has_the_radius_that_convergence_and_pixel_give():
    known = Acquisition(beam_energy_kev=200, convergence_mrad=22, detector_pixel_inv_angstrom=0.07)
    radius, notes = template_mask._radius(known, 7.2)
    assert radius == pytest.approx(12.53, abs=0.01)
    assert "measured to have a radius of 7.2 px, but convergence and pixel give 12.5 px" in notes[0]
    assert template_mask._radius(known, 12.0) == (12.0, [])
    assert template_mask._radius(Acquisition(convergence_mrad=22), 7.2) == (7.2, [])
