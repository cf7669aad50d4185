"""Name the clusters of a factorisation: index their mean recorded patterns."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import crystal, io
    from fourdstem.methods import clusters as method
    from fourdstem.methods import orientation
    from fourdstem.schema import build

    acquisition = io.read_acquisition(job.input.scan)
    result = method.compute(
        *(io.read(job.input.nmf, name) for name in ("cluster_mean", "cluster")),
        io.read(job.input.preprocess, "valid"),
        acquisition,
        crystal.read_all(job.input.cif, job.params.phases),
        job.settings(method.Params),
        build(orientation.Params, dict(job.params.orientation)),
        job.device,
    )
    with io.create(job.output.result, job.process, acquisition) as file:
        file.write(result)
    io.write_table(job.output.table, method.COLUMNS, method.rows(result))
