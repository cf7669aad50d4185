"""Learn masks from templates and image the scan with them."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import crystal, formats, io
    from fourdstem.methods import template_mask as method

    params = job.settings(method.Params)
    crystals = crystal.read_all(job.input.cif, job.params.phases)
    blocks = [dict(block) for block in params.templates]
    pictures = {b["species"]: formats.read_picture(b["file"], b.get("dataset")) for b in blocks if b.get("file")}
    learned = {}
    for one in (b for b in blocks if b.get("learned")):
        names, masks = (io.read(one["learned"], key) for key in ("species", "mask"))
        learned[one["species"]] = method.mask_of(one["species"], one["learned"], names, masks)
    options = {"memory_mb": job.memory_mb, "threads": job.threads}
    with io.open_recorded(job.input.scan, job.input.preprocess, **options) as cube:
        found = method.compute(
            cube,
            params,
            io.read(job.input.preprocess, "beam_radius_px"),
            {one.name: one for one in crystals},
            pictures,
            learned,
        )
        for line in method.summary(found):
            job.say(line)
        with io.create(job.output.result, job.process, cube.acquisition) as file:
            file.write(found)
        rows = method.column_rows(found, cube.acquisition.scan_step_angstrom)
        io.write_table(job.output.table, method.COLUMN_NAMES, rows)
        io.write_table(job.output.vectors, method.TABLE_NAMES, method.table_rows(found))
