"""Image simulated specimens of known truth by masks and by classical images, over thickness and dose."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from pathlib import Path

    from fourdstem import crystal, specimens, study
    from fourdstem.figures import study_atomic as figures
    from fourdstem.methods.template_mask import examine

    olivine = crystal.read_cif(job.input.cif, "LiFePO4")
    optics, doses, seed = dict(job.params.optics), list(job.params.doses), job.params.seed
    files = dict(zip(job.params.specimens, job.input.patterns, strict=True))
    radius = examine.radius_px(optics)

    def scan(name, angstrom, electrons, more=0):
        """Return the scan of a specimen, each with noise of its own."""
        tiles = (5, 1) if name == "wall" else (5, 2)
        cell = specimens.at_thickness(files[name], name, angstrom)
        counts = specimens.recorded(cell, tiles, electrons, seed + more)
        step = specimens.steps(name, optics["step_angstrom"])
        one = specimens.specimen(name)
        size = float(one.cell[1]), float(one.cell[0])
        return examine.Scan(counts, step, radius, specimens.truth(name)[1:], size)

    rows, wall_rows = [], []
    for angstrom in specimens.thicknesses("lifepo4"):
        for electrons in doses:
            whole = scan("lifepo4", angstrom, electrons)
            rows += examine.series(("lifepo4", angstrom, electrons), whole, olivine, job.threads)
            if electrons in job.params.closer:
                half, beside = scan("half", angstrom, electrons, 100), scan("displaced", angstrom, electrons, 200)
                rows += examine.vacancies(("half", angstrom, electrons), whole, half, olivine, job.threads)
                rows += examine.displaced(("displaced", angstrom, electrons), beside, olivine, job.threads)
        whole, other = scan("lifepo4", angstrom, doses[0]), scan("fepo4", angstrom, doses[0], 300)
        rows += examine.elsewhere(("fepo4", angstrom, doses[0]), whole, other, olivine, job.threads)
        job.say(f"LiFePO4, {angstrom / 10:g} nm: done")
    for angstrom in specimens.thicknesses("wall"):
        for electrons in job.params.closer:
            key = "wall", angstrom, electrons
            ideal = [specimens.without_wall(polarisation) for polarisation in (0.0, 1.0)]
            found, columns = examine.wall(key, scan(*key, 400), *ideal, job.threads)
            rows += found
            wall_rows += columns if electrons == doses[0] else []
    study.write_table(job.output.table, [examine.COLUMNS, *examine.rounded(rows)])
    study.write_table(job.output.columns, [examine.WALL_COLUMNS, *examine.rounded(wall_rows)])
    figures.draw(rows, wall_rows, Path(job.output.table).parent)
