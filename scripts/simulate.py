"""Simulate a scan whose truth is known."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import crystal, io
    from fourdstem.methods import simulate as method

    params = job.settings(method.Params)
    crystals = crystal.read_all(job.input.cif, job.params.phases)
    with io.create_raw(job.output.result, job.process, method.acquisition(params)) as raw:
        out = raw.counts((*params.scan_shape, *params.detector_shape), "uint16")
        raw.write_truth(method.compute(params, crystals, out, threads=job.threads))
