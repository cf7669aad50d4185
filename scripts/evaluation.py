"""Compare orientation maps with the known truth, beside rival averages and noise-free patterns indexed alike."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from fourdstem import crystal, io
    from fourdstem.methods import evaluation as method
    from fourdstem.methods import nonlocal_average, orientation, simulate
    from fourdstem.schema import build

    params = job.settings(method.Params)
    matcher = replace(build(orientation.Params, dict(job.params.orientation)), overlap=False)  # first orientations
    crystals = crystal.read_all(job.input.cif, job.params.phases)
    truth = io.read_truth(job.input.truth, simulate.Result)
    results = [io.read_result(path, orientation.Result) for path in job.input.orientation]
    indexed = dict(zip(matcher.sources, results, strict=True))
    radius = float(io.read(job.input.preprocess, "beam_radius_px"))
    made_of, quality = {}, {}
    if "averaged" in indexed:
        made_of["averaged"] = tuple(io.read(job.input.nonlocal_average, name) for name in ("member", "weight"))
    options = {"memory_mb": job.memory_mb, "threads": job.threads}
    with TemporaryDirectory() as folder, io.open_corrected(job.input.scan, job.input.preprocess, **options) as cube:
        expected = None
        if job.params.simulate is not None:
            patterns = simulate.expected(build(simulate.Params, dict(job.params.simulate)), crystals, job.threads)
            expected = method.noise_free(cube, patterns, folder)
            indexed[method.NOISE_FREE] = orientation.compute(expected, crystals, matcher, device=job.device)
            for name in matcher.sources:
                with io.open_patterns(name, job.input, **options) as patterns:
                    quality[name] = method.psnr(patterns, expected, radius)
        for name in params.compared:
            job.say(f"average and index {name}")
            if name in method.NONLOCAL:
                settings = build(nonlocal_average.Params, method.NONLOCAL[name])
                most = nonlocal_average.members(settings, cube.scan_shape)
                out = nonlocal_average.Output(**method.room_for_average(folder, cube.shape, most))
                nonlocal_average.compute(cube, settings, out, radius, folder)
                made_of[name], patterns = (out.member, out.weight), method.stored(cube, out.patterns)
            else:
                patterns = method.average_over_positions(cube, name)
            indexed[name] = orientation.compute(patterns, crystals, matcher, device=job.device)
            if expected is not None:
                quality[name] = method.psnr(patterns, expected, radius)
        centre = io.read(job.input.preprocess, "centre_px")
        result = method.compute(truth, indexed, crystals, params, centre, quality, made_of)
        with io.create(job.output.result, job.process, cube.acquisition) as file:
            file.write(result)
    io.write_table(job.output.table, ("source", "region", "metric", "value", "unit"), method.rows(result))
