"""Reports, the summary across samples, and the record of every file."""


rule report:
    input:
        notebook=str(NOTEBOOK),
        results=results_of,
        sidecars=sidecars_of,
        cif=cif_files,
    output:
        html="results/{sample}/report.html",
        notebook="results/{sample}/report.ipynb",
        figures=report(
            directory("results/{sample}/figures"),
            patterns=["{figure}.png"],
            caption="../report/figure.rst",
            category="{sample}",
            labels={"figure": "{figure}"},
        ),
        metrics="results/{sample}/metrics.json",
        sidecar="results/{sample}/provenance/report.json",
    log:
        "results/{sample}/logs/report.log",
    benchmark:
        "results/{sample}/logs/report.benchmark.tsv"
    conda:
        "../../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        code=code("report", NOTEBOOK),
        changed=changed_of,
        phases=phase_names,
    message:
        "{wildcards.sample}: figures and report"
    script:
        "../../scripts/report.py"


rule summary:
    input:
        metrics=expand("results/{sample}/metrics.json", sample=SAMPLES),
        sidecars=expand("results/{sample}/provenance/report.json", sample=SAMPLES),
    output:
        html=report(
            "results/summary.html", caption="../report/summary.rst", category="Summary"
        ),
        table="results/summary.csv",
        sidecar="results/provenance/summary.json",
    log:
        "results/logs/summary.log",
    benchmark:
        "results/logs/summary.benchmark.tsv"
    conda:
        "../../envs/summary.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        code=code("summary"),
    message:
        "all samples side by side"
    script:
        "../../scripts/summary.py"


rule provenance:
    input:
        sidecars=all_sidecars,
    output:
        record="results/provenance.json",
    log:
        "results/logs/provenance.log",
    conda:
        "../../envs/provenance.yaml"
    threads: 1
    resources:
        mem_mb=500,
    params:
        code=code("provenance"),
    message:
        "record every file with its hash"
    script:
        "../../scripts/provenance.py"
