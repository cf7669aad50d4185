"""Compare orientation maps with the known truth, beside box averages and noise-free patterns indexed alike."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import crystal, io
    from fourdstem.methods import evaluation as method
    from fourdstem.methods import orientation, simulate
    from fourdstem.schema import build

    params = job.settings(method.Params)
    matcher = build(orientation.Params, dict(job.params.orientation))
    crystals = crystal.read_all(job.input.cif, job.params.phases)
    truth = io.read_truth(job.input.truth, simulate.Result)
    results = [io.read_result(path, orientation.Result) for path in job.input.orientation]
    indexed = dict(zip(matcher.sources, results, strict=True))
    options = {"memory_mb": job.memory_mb, "threads": job.threads}
    with io.open_corrected(job.input.scan, job.input.preprocess, **options) as cube:
        rivals = {method.box_name(n): method.box_average(cube, n) for n in params.box_half_widths_px}
        if job.params.simulate is not None:
            expected = simulate.expected(build(simulate.Params, dict(job.params.simulate)), crystals, job.threads)
            rivals[method.NOISE_FREE] = method.noise_free(cube, expected)
        for name, patterns in rivals.items():
            job.say(f"index {name}")
            indexed[name] = orientation.compute(patterns, crystals, matcher, device=job.device)
        result = method.compute(truth, indexed, crystals, params, io.read(job.input.preprocess, "centre_px"))
        with io.create(job.output.result, job.process, cube.acquisition) as file:
            file.write(result)
    io.write_table(job.output.table, ("source", "region", "metric", "value", "unit"), method.rows(result))
