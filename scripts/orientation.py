"""Map crystal orientation and phase by template matching, and say how probably each is right."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from dataclasses import replace

    from fourdstem import crystal, io
    from fourdstem.methods import orientation as method
    from fourdstem.methods import simulate

    params = job.settings(method.Params)
    crystals = crystal.read_all(job.input.cif, job.params.phases)
    method.tell_camera(io.read(job.input.preprocess, "verdict"))
    options = {"memory_mb": job.memory_mb, "threads": job.threads}
    made_of, averages, about = (), None, {}
    with (
        io.open_patterns(job.wildcards.source, job.input, **options) as cube,
        io.create(job.output.result, job.process, cube.acquisition) as file,
    ):
        result = method.compute(cube, crystals, params, device=job.device)
        if job.wildcards.source == "averaged":
            made_of = tuple(io.read(job.input.nonlocal_average, name) for name in ("member", "weight"))
            result = replace(result, foreign_weight=method.foreign_weight(result, *made_of, crystals))
            averages = method.averages(*made_of)
            about = {"others": averages.picked, "foreign": result.foreign_weight}
        if params.calibration_patterns > 0:
            job.say("index simulated patterns whose truth is known")
            size = params.calibration_patterns, params.thickness_angstrom, params.beam_radius_px, params.seed
            with io.open_corrected(job.input.scan, job.input.preprocess, **options) as corrected:
                places = simulate.conditions(corrected, params.seed, *made_of, **about)
                truth = simulate.rehearse(crystals, places, *size, job.threads)
                rehearsed = method.indexed(truth.cube, crystals, params, device=job.device)
            of_rehearsal = rehearsed, truth, simulate.PATCH
            result = method.with_probability(result, *of_rehearsal, crystals, params, averages)
        file.write(result)
        known = cube.acquisition
    io.write_text(job.output.ang, method.ang_text(result, crystals, known.scan_step_angstrom))
    io.write_text(job.output.ctf, method.ctf_text(result, crystals, known))
    io.write_tree(job.output.orix, method.orix_tree(result, crystals, known), job.process)
