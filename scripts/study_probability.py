"""Compare the probability of being right with the truth of films at several doses, as a table and a figure.

The films are simulated, averaged and indexed here, one after the other, with true centres.
"""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from fourdstem import crystal, study
    from fourdstem.figures import study_probability as figures
    from fourdstem.methods import evaluation, nonlocal_average, orientation, simulate
    from fourdstem.schema import build

    crystals = crystal.read_all(job.input.cif, job.params.phases)
    matcher = build(orientation.Params, dict(job.params.orientation))
    averaging = nonlocal_average.Params()
    size = matcher.calibration_patterns, matcher.thickness_angstrom, matcher.beam_radius_px, matcher.seed, job.threads
    found = {}
    for settings in job.params.films:
        film = build(simulate.Params, dict(settings))
        job.say(f"film {film.seed}, {film.electrons_per_pattern:g} electrons per pattern")
        cube, truth = simulate.recorded(film, crystals, job.threads)
        with TemporaryDirectory() as folder:
            most = nonlocal_average.members(averaging, cube.scan_shape)
            out = nonlocal_average.Output(**evaluation.room_for_average(folder, cube.shape, most))
            nonlocal_average.compute(cube, averaging, out, simulate.beam_radius_px(film), folder)
            of_averages = (out.member, out.weight), orientation.averages(out.member, out.weight)
            sources = {
                "corrected": (cube, (), None),
                "averaged": (evaluation.stored(cube, out.patterns), *of_averages),
            }
            for source, (patterns, made_of, averages) in sources.items():
                result = orientation.indexed(patterns, crystals, matcher, device=job.device)
                about = {}
                if made_of:
                    foreign = orientation.foreign_weight(result, *made_of, crystals)
                    about = {"others": averages.picked, "foreign": foreign}
                known = simulate.conditions(cube, matcher.seed, *made_of, **about)
                played = simulate.rehearse(crystals, known, *size)
                rehearsed = orientation.indexed(played.cube, crystals, matcher, device=job.device)
                of_rehearsal = rehearsed, played, simulate.PATCH
                result = orientation.with_probability(result, *of_rehearsal, crystals, matcher, averages)
                key = film.electrons_per_pattern, source
                found.setdefault(key, []).append(evaluation.judged(truth, result, crystals, len(played.dose)))
    study.write_table(job.output.table, evaluation.study_rows(found, job.params.seed))
    figures.draw(evaluation.pooled(found), Path(job.output.table).parent)
