"""Image simulated specimens of one thickness by masks and by classical images, beside the truth, as a table."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from fourdstem import crystal, specimens, study
    from fourdstem.methods.template_mask import examine, wall

    olivine = crystal.read_cif(job.input.cif, "LiFePO4")
    optics, doses, seed = dict(job.params.optics), list(job.params.doses), job.params.seed
    files, angstrom = dict(zip(job.params.specimens, job.input.patterns, strict=True)), float(job.wildcards.angstrom)
    radius = examine.radius_px(optics)

    def scan(name, electrons, more=0):
        """Return the scan of a specimen, each with noise of its own."""
        cell = specimens.at_thickness(files[name], name, angstrom)
        counts = specimens.recorded(cell, specimens.tiles(name), electrons, seed + more)
        step, one = specimens.steps(name, optics["step_angstrom"]), specimens.specimen(name)
        size = float(one.cell[1]), float(one.cell[0])
        return examine.Scan(counts, step, radius, specimens.truth(name)[1:], size)

    rows, columns, threads = [], [], job.threads
    if job.wildcards.part == "wall":
        ideal = [specimens.without_wall(polarisation) for polarisation in (0.0, 1.0)]
        rows, columns = wall.wall(("wall", angstrom, doses[0]), scan("wall", doses[0], 400), *ideal, threads)
    else:
        for electrons in doses:
            whole = scan("lifepo4", electrons)
            rows += examine.series(("lifepo4", angstrom, electrons), whole, olivine, threads)
            job.say(f"{electrons:g} electrons: done")
        whole = scan("lifepo4", doses[0])
        half, beside, other = (scan(n, doses[0], k) for n, k in (("half", 100), ("displaced", 200), ("fepo4", 300)))
        rows += examine.vacancies(("half", angstrom, doses[0]), whole, half, olivine, threads)
        rows += examine.displaced(("displaced", angstrom, doses[0]), beside, olivine, threads)
        rows += examine.elsewhere(("fepo4", angstrom, doses[0]), whole, other, olivine, threads)
    study.write_table(job.output.table, [examine.COLUMNS, *examine.rounded(rows)])
    study.write_table(job.output.columns, [wall.COLUMNS, *examine.rounded(columns)])
