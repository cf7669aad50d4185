"""Map crystal orientation and phase by template matching."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from dataclasses import replace

    from fourdstem import crystal, io
    from fourdstem.methods import orientation as method

    params = job.settings(method.Params)
    crystals = crystal.read_all(job.input.cif, job.params.phases)
    method.tell_camera(io.read(job.input.preprocess, "verdict"))
    options = {"memory_mb": job.memory_mb, "threads": job.threads}
    with (
        io.open_patterns(job.wildcards.source, job.input, **options) as cube,
        io.create(job.output.result, job.process, cube.acquisition) as file,
    ):
        result = method.compute(cube, crystals, params, device=job.device)
        if job.wildcards.source == "averaged":
            made_of = (io.read(job.input.nonlocal_average, name) for name in ("member", "weight"))
            result = replace(result, foreign_weight=method.foreign_weight(result, *made_of, crystals))
        file.write(result)
        known = cube.acquisition
    io.write_text(job.output.ang, method.ang_text(result, crystals, known.scan_step_angstrom))
    io.write_text(job.output.ctf, method.ctf_text(result, crystals, known))
    io.write_tree(job.output.orix, method.orix_tree(result, crystals, known), job.process)
