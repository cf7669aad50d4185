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


rule study_averaging:
    input:
        tables=expand("results/{sample}/evaluation.csv", sample=SAMPLES),
        sidecars=expand("results/{sample}/provenance/evaluation.json", sample=SAMPLES),
    output:
        table="studies/averaging.csv",
        figures=expand(
            "studies/averaging_{figure}.{kind}",
            figure=("success", "bending", "root", "quality", "weight"),
            kind=("png", "pdf"),
        ),
        sidecar="studies/provenance/averaging.json",
    log:
        "results/logs/study_averaging.log",
    conda:
        "../../envs/study_averaging.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        code=code("study_averaging"),
        doses=doses_of,
    message:
        "gather the evaluation of every sample by dose"
    script:
        "../../scripts/study_averaging.py"


rule study_probability:
    input:
        cif=cifs_of_first,
    output:
        table="studies/probability.csv",
        figures=expand("studies/probability.{kind}", kind=("png", "pdf")),
        sidecar="studies/provenance/probability.json",
    log:
        "results/logs/study_probability.log",
    conda:
        "../../envs/study_probability.yaml"
    threads: 16
    resources:
        mem_mb=4000,
        device="auto",
    params:
        code=code("study_probability"),
        films=films_of,
        phases=phases_of_first,
        orientation=lambda wildcards: configuration.settings(
            config, SAMPLES[0], "orientation"
        ),
        seed=0,
    message:
        "compare the probability of being right with the truth, by dose"
    script:
        "../../scripts/study_probability.py"


rule study_kills:
    input:
        config=workflow.configfiles[0],
    output:
        table="studies/kills.csv",
        sidecar="studies/provenance/kills.json",
    log:
        "results/logs/study_kills.log",
    conda:
        "../../envs/study_kills.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        code=code("study_kills"),
        each=1,
        seed=0,
    message:
        "kill runs at random moments and resume them"
    script:
        "../../scripts/study_kills.py"


rule study_faults:
    output:
        table="studies/faults.csv",
        sidecar="studies/provenance/faults.json",
    log:
        "results/logs/study_faults.log",
    conda:
        "../../envs/study_faults.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        code=code("study_faults"),
        configurations=27,
        damages=4,
        seed=1,
    message:
        "make mistakes in configurations, damage files, and see what becomes of them"
    script:
        "../../scripts/study_faults.py"


rule study_nmf_mixtures:
    output:
        table="results/{sample}/nmf_mixtures.csv",
        sidecar="results/{sample}/provenance/study_nmf_mixtures.json",
    log:
        "results/{sample}/logs/study_nmf_mixtures.log",
    conda:
        "../../envs/study_nmf_mixtures.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        device="auto",
    params:
        code=code("study_nmf_mixtures"),
        nmf=lambda wildcards: configuration.settings(config, wildcards.sample, "nmf"),
        film=lambda wildcards: configuration.settings(
            config, wildcards.sample, "simulate"
        ),
        ratio=0.75,
    message:
        "{wildcards.sample}: choose ranks, labels and overlap of mixtures that are known"
    script:
        "../../scripts/study_nmf_mixtures.py"


rule study_nmf:
    input:
        tables=expand("results/{sample}/nmf_mixtures.csv", sample=SAMPLES),
        sidecars=expand(
            "results/{sample}/provenance/study_nmf_mixtures.json", sample=SAMPLES
        ),
    output:
        table="studies/nmf.csv",
        figures=expand(
            "studies/nmf_{figure}.{kind}",
            figure=("rank", "labels"),
            kind=("png", "pdf"),
        ),
        sidecar="studies/provenance/nmf.json",
    log:
        "results/logs/study_nmf.log",
    conda:
        "../../envs/study_nmf.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        code=code("study_nmf"),
    message:
        "gather the mixtures of every seed"
    script:
        "../../scripts/study_nmf.py"


rule evaluate_preprocess:
    input:
        weights=f"{TRAINED}/denoise.safetensors",
        many_beam=os.path.relpath(
            SCRIPTS.parent / "tests" / "fixtures" / "dynamical_disks.npz"
        ),
    output:
        table="studies/preprocess.csv",
        figures=expand(
            "studies/preprocess_{figure}.{kind}",
            figure=("denoise", "centre", "parts", "ellipse"),
            kind=("png", "pdf"),
        ),
        sidecar="studies/provenance/preprocess.json",
    log:
        "results/logs/evaluate_preprocess.log",
    conda:
        "../../envs/evaluate_preprocess.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        device="auto",
    params:
        code=code("evaluate_preprocess"),
        settings=configuration.general(config, "evaluate_preprocess"),
    message:
        "evaluate denoising, centres and ellipses on patterns whose truth is known"
    script:
        "../../scripts/evaluate_preprocess.py"
