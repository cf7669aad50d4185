"""Compare the probability of being right with the truth of films at several doses, as a table and a figure."""

from fourdstem.stage import stage

with stage(snakemake) as job:
    from pathlib import Path

    from fourdstem import crystal, io, study
    from fourdstem.figures import study_probability as figures
    from fourdstem.methods import evaluation, orientation, simulate

    crystals = crystal.read_all(job.input.cif, job.params.phases)
    truths = [io.read_truth(path, simulate.Result) for path in job.input.truth]
    found = {}
    for source in job.params.sources:
        for dose, truth, path in zip(job.params.doses, truths, job.input[source], strict=True):
            result = io.read_result(path, orientation.Result)
            found.setdefault((dose, source), []).append(evaluation.outcomes(truth, result, crystals))
    pairs = evaluation.pooled(found)
    study.write_table(job.output.table, evaluation.study_rows(pairs, job.params.seed))
    figures.draw(pairs, Path(job.output.table).parent)
