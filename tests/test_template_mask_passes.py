import numpy as np
import pytest
from template_scans import RADIUS, STEP, compute, cube_of, picture, settings, specimen

from fourdstem.methods.template_mask import classical, kernels, masks, stream

SHAPE, DETECTOR = (20, 40), (15, 14)  # three stretches of strips


@pytest.fixture(scope="module")
def scan():
    return specimen(SHAPE, DETECTOR, np.random.default_rng(107), strength=0.3)


def asked(shape, templates=3):
    """Templates of both parities, learned in two regions."""
    rng, region = np.random.default_rng(108), np.ones((2, *shape), bool)
    region[1, :, shape[1] // 2 :] = False
    of = np.arange(templates) % 2
    made = [masks.standardised(rng.normal(size=shape), region[k]) for k in of]
    return masks.Question(np.stack(made), region, of, np.where(np.arange(templates) < 2, 1, -1), np.ones(templates))


def applied(source, shape):
    question, fold = asked(shape), np.zeros(shape, int)
    form = masks.form(settings(), source, RADIUS, question.parity)
    learned = masks.learn(masks.gather(source, question, fold), question, fold)
    return masks.leave_one_out(source, question, learned, form, 2)


@pytest.mark.parametrize("bin_px", [1, 2])
def test_pairs_of_opposite_pixels_give_the_images_that_single_pixels_give(scan, bin_px, monkeypatch):
    surface, bad = np.broadcast_to([7.0, 5.5], (*SHAPE, 2)), np.zeros(DETECTOR, bool)
    bad[4, 6] = True
    source = stream.open_source(cube_of(scan, surface=surface, bad=bad, offset=0.25), bin_px)
    pairs = stream.pair(source, masks.form(settings(), source, RADIUS).partner)
    assert len(pairs.lone) > 0
    assert (bin_px == 2) or not pairs.kept.all()
    folded = applied(source, SHAPE)
    monkeypatch.setattr(stream, "pair", lambda source, partner: None)
    single = applied(source, SHAPE)
    for name in ("fair", "in_sample", "variance"):
        one, other = getattr(folded, name), getattr(single, name)
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6 * np.abs(other).max())
        assert np.ptp(one) > 0


def test_pixels_that_lie_opposite_each_other_about_several_points_are_refused(scan):
    partner = np.arange(scan[0, 0].size)
    partner[[0, 5, 20, 21]] = [5, 0, 21, 20]
    with pytest.raises(ValueError, match="more than one point"):
        stream.pair(stream.open_source(cube_of(scan)), partner)


def test_jobs_that_share_a_pass_find_to_the_bit_what_they_find_alone(scan):
    plain = stream.open_source(cube_of(scan))
    for source in (plain, stream.open_source(cube_of(scan), 2)):
        fold = masks.tiles(SHAPE, 5)
        together = classical.summing(plain, RADIUS), masks.gathering(source, asked(SHAPE), fold)
        alone = classical.summing(plain, RADIUS), masks.gathering(source, asked(SHAPE), fold)
        stream.run(*together)
        for job in alone:
            stream.run(job)
        assert together[0].made.tobytes() == alone[0].made.tobytes()
        assert together[1].sums.tobytes() == alone[1].sums.tobytes()
        assert together[1].squares.tobytes() == alone[1].squares.tobytes()


def test_no_bit_of_a_scan_of_several_stretches_hangs_on_threads_memory_or_where_it_lies(scan, tmp_path):
    path = tmp_path / "scan.raw"
    scan.tofile(path)
    mapped = np.memmap(path, scan.dtype, "r", shape=scan.shape)
    first = compute(cube_of(scan, memory_mb=2000, threads=1))
    for counts, memory, threads in ((scan, 0.01, 1), (scan, 2000, 3), (mapped, 2000, 2), (scan.astype(">u2"), 2000, 2)):
        again = compute(cube_of(counts, memory_mb=memory, threads=threads))
        for name in ("mask", "image", "image_in_sample", "image_sigma", "joined_image", "classical_image"):
            assert getattr(first, name).tobytes() == getattr(again, name).tobytes(), (name, memory, threads)


def test_strips_are_shorter_where_detectors_are_large():
    assert [len(stream._strips((2, 500), n)) for n in (32, 256)] == [32, 4]
    counts = np.zeros((1, 70, 400, 400), np.uint8)
    counts[0, :, 200, 200] = np.arange(70)
    job = stream.Images(stream.open_source(cube_of(counts, step=STEP)), [(0, np.ones((1, 160000)))])
    units = []
    job.near, near = lambda state, rows, unit: (units.append(unit), near(state, rows, unit)), job.near
    stream.run(job)
    assert max(u.x1 for u in units) == 70
    np.testing.assert_array_equal(job.made[0, 0], np.arange(70))


def test_templates_that_are_pictures_take_one_pass_less(scan, monkeypatch):
    passes, run = [], stream.run
    monkeypatch.setattr(stream, "run", lambda *jobs: (passes.append(len(jobs)), run(*jobs)))
    compute(cube_of(scan), pictures={"A": picture(SHAPE)})
    assert passes == [2, 1]


def test_compiled_sums_are_those_of_their_python():
    rng, few = np.random.default_rng(109), 7  # rows: not a multiple of four
    stored, usable = rng.poisson(3.0, (few, 30)).astype(np.uint16), rng.random(30) < 0.8
    kept, lone = np.array([True, False, True, True]), np.array([0, 6, 21, 29])
    rows = rng.normal(size=(few, 12)).astype(np.float32)
    mean, own = (rng.normal(size=(2, n)).astype(np.float32) for n in (12, 8))
    weights = np.zeros((3, 1100), np.float32)
    weights[0, :400], weights[1, 520:], weights[2] = rng.normal(size=400), rng.normal(size=580), rng.normal(size=1100)
    wide, half = rng.normal(size=(few, 1110)).astype(np.float32), np.float32(0.5)
    used = kernels.spans(weights)
    assert used.tolist() == [[True, False, False], [False, True, True], [True] * 3]
    calls = (
        (kernels.plain, (stored, usable, half, np.empty((few, 30), np.float32))),
        (kernels.paired, (stored, usable, half, 5, 27, kept, lone, np.empty((few, 12), np.float32))),
        (kernels.spread, (rows, mean, own, own[:, :4].copy(), 4, np.empty((few, 4)))),
        (kernels.narrow, (wide, 10, weights, used, np.zeros((few, 3)))),
        (kernels.add, (np.ones((2, 30)), 9, rows[:2])),
    )
    for kernel, arguments in calls:
        copies = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
        np.testing.assert_allclose(kernel(*arguments), kernel.py_func(*copies), rtol=1e-5, atol=1e-5)
    made = kernels.narrow(wide, 10, weights, used, np.zeros((few, 3)))
    np.testing.assert_allclose(made, wide[:, 10:] @ weights.T, atol=1e-4)
