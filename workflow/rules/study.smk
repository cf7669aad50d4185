"""Studies: longer work than the demo, run by name; their tables are committed under studies/."""


rule study_seeds:
    input:
        tables=expand("results/{sample}/evaluation.csv", sample=SAMPLES),
        sidecars=expand("results/{sample}/provenance/evaluation.json", sample=SAMPLES),
    output:
        table="studies/seeds.csv",
        sidecar="studies/provenance/seeds.json",
    log:
        "results/logs/study_seeds.log",
    conda:
        "../../envs/study_seeds.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        code=code("study_seeds"),
        samples=SAMPLES,
    message:
        "gather the evaluation of every sample"
    script:
        "../../scripts/study_seeds.py"
