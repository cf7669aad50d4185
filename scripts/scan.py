"""Read a raw file: counts as recorded, acquisition values, mask; every wrong file is found here, first of all jobs."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import crystal, formats, io
    from fourdstem.estimate import estimate_text, values_in_force
    from fourdstem.methods import scan as method

    params = job.settings(method.Params)
    crystal.read_all(job.input.cif, job.params.phases)  # only to fail early: a wrong CIF is found before long jobs
    with formats.open_raw(job.input.raw, job.params.dataset) as raw:
        acquisition, origins = method.resolve_acquisition(
            raw.metadata, job.params.acquisition, job.needed, raw.shape[-2:]
        )
        scan_shape = method.resolve_scan_shape(raw.shape, acquisition.scan_shape, params.roi)
        counts = method.select(raw.data, scan_shape, params)
        acquisition = method.selected_acquisition(acquisition, params, counts.shape[:2])
        mask = formats.read_mask(acquisition.mask, raw.shape[-2:]) if acquisition.mask else None
        for note in raw.notes:
            job.say(f"{job.input.raw}: {note}")
        job.say(values_in_force(acquisition, origins))
        job.say(estimate_text(counts.shape, counts.dtype.itemsize))
        names = {"unit": "counts", "long_name": "counts as recorded", "frame": "recorded"}
        with io.create(job.output.result, job.process, acquisition) as file:
            if method.linkable(raw, params, scan_shape):
                file.link("counts", *raw.hdf5_location, **names)
            else:
                io.copy_units(counts, file.stream("counts", counts.shape, counts.dtype, **names))
            file.write(method.compute(raw.shape[-2:], params, mask))
            file.write_acquisition(origins)
