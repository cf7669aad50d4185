"""Find grains, boundaries, local misorientation and texture of an orientation map."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import crystal, io
    from fourdstem.methods import grains as method

    crystals = crystal.read_all(job.input.cif, job.params.phases)
    acquisition = io.read_acquisition(job.input.scan)
    made_of = None
    if job.wildcards.source == "averaged":
        made_of = tuple(io.read(job.input.nonlocal_average, name) for name in ("member", "weight"))
    result = method.compute(
        io.read_result(job.input.orientation, method.Indexed),
        crystals,
        job.settings(method.Params),
        source=job.wildcards.source,
        scan_step=acquisition.scan_step_angstrom,
        made_of=made_of,
    )
    with io.create(job.output.result, job.process, acquisition) as file:
        file.write(result)
    io.write_table(job.output.table, method.GRAIN_COLUMNS, method.grain_rows(result))
    io.write_table(job.output.boundaries, method.BOUNDARY_COLUMNS, method.boundary_rows(result))
