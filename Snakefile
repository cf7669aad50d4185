"""Entry point for `snakemake` in this folder; the workflow itself is workflow/Snakefile."""


include: "workflow/Snakefile"


rule default:
    default_target: True
    input:
        rules.all.input,
    localrule: True
