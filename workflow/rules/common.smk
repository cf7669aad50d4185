"""Names, and functions that tell each rule which settings and inputs are its own."""

import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.sourcecache import LocalSourceFile

# From elsewhere Snakemake fetches rules and scripts one by one, but not the library that the scripts import.
if not isinstance(workflow.current_basedir, LocalSourceFile):
    raise WorkflowError(
        f"The rules are read from {workflow.current_basedir.get_path_or_uri(secret_free=True)}. Expected a clone of "
        "the repository on this machine: the rules need its library too. Clone it, and name workflow/Snakefile of "
        "the clone as the module's snakefile, or run Snakemake in the clone."
    )

SCRIPTS = Path(workflow.current_basedir).resolve().parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from fourdstem import config as configuration
from fourdstem.errors import ConfigError
from fourdstem.provenance import code_fingerprint

try:
    configuration.check(config, *workflow.configfiles)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

SAMPLES = [sample["name"] for sample in config["samples"]]
TRAINED = os.path.relpath(SCRIPTS / "fourdstem" / "networks" / "trained")
NOTEBOOK = SCRIPTS.parent / "notebooks" / "report.ipynb"


wildcard_constraints:
    sample="|".join(SAMPLES),
    source="corrected|denoised|averaged",


def code(stage, *extra):
    """The fingerprint of a stage's code; editing it reruns the stage, editing its comments does not."""
    return code_fingerprint(SCRIPTS / f"{stage}.py", extra)


def settings_of(stage):
    """A function of the wildcards that returns the stage's settings for the sample."""

    def settings(wildcards):
        return configuration.settings(config, wildcards.sample, stage)

    return settings


def sample_of(wildcards):
    return configuration.sample_named(config, wildcards.sample)


def stages_of(sample):
    return configuration.stages(config, sample)


def raw_file(wildcards):
    if "simulate" in sample_of(wildcards):
        return "results/{sample}/simulated.h5"
    return sample_of(wildcards)["file"]


def companion_files(wildcards):
    """Files that belong to the raw file or to how it was recorded: a Merlin header, a mask."""
    raw = sample_of(wildcards).get("file", "")
    header = [Path(raw).with_suffix(".hdr")] if raw.endswith(".mib") else []
    mask = configuration.acquisition(config, wildcards.sample).get("mask")
    return [str(p) for p in header if p.is_file()] + ([mask] if mask else [])


def cif_files(wildcards):
    return list(configuration.cif_files(config, wildcards.sample).values())


def template_files(wildcards):
    """Pictures and masks that the templates of a sample are read from."""
    return configuration.template_files(config, wildcards.sample)


def phase_names(wildcards):
    return list(configuration.cif_files(config, wildcards.sample))


def acquisition_of(wildcards):
    return configuration.acquisition(config, wildcards.sample)


def needed_of(wildcards):
    """Acquisition keys that the sample's stages cannot do without, separated by spaces."""
    return (
        " ".join(configuration.needed_acquisition(config, wildcards.sample)) or "none"
    )


def dataset_of(wildcards):
    return sample_of(wildcards).get("dataset")


def truth_file(wildcards):
    return sample_of(wildcards).get("truth", "results/{sample}/simulated.h5")


def simulation_of(wildcards):
    """Settings of the simulation, by which noise-free patterns can be made; None for a real scan."""
    return (
        settings_of("simulate")(wildcards)
        if "simulate" in sample_of(wildcards)
        else None
    )


MADE = {  # source -> its patterns and their sidecar
    "denoised": (
        "results/{sample}/denoised.h5",
        "results/{sample}/provenance/denoise.json",
    ),
    "averaged": (
        "results/{sample}/nonlocal_average.h5",
        "results/{sample}/provenance/nonlocal_average.json",
    ),
}


def made(source, named, sidecar=False):
    """Return an input function: patterns of a source, or their sidecar, where ``named`` gives this source, else nothing."""
    path = MADE[source][sidecar]
    return lambda wildcards: path if source in named(wildcards) else []


def source_read(wildcards):
    return [wildcards.source]


def source_factorised(wildcards):
    return [configuration.settings(config, wildcards.sample, "nmf")["source"]]


def sources_indexed(wildcards):
    return sources_of(wildcards.sample)


def sources_of(sample):
    return configuration.settings(config, sample, "orientation")["sources"]


def job_names(sample):
    """Every job of a sample before its report, as named by its sidecar."""
    stages = stages_of(sample)
    names = (
        ["simulate"] if "simulate" in configuration.sample_named(config, sample) else []
    )
    names += [
        "scan",
        "preprocess",
        *(
            s
            for s in (
                "virtual_image",
                "denoise",
                "nonlocal_average",
                "nmf",
                "clusters",
                "template_mask",
            )
            if s in stages
        ),
    ]
    if "orientation" in stages:
        names += [f"orientation_{source}" for source in sources_of(sample)]
    if "grains" in stages:
        names += [f"grains_{source}" for source in sources_of(sample)]
    return names + (["evaluation"] if "evaluation" in stages else [])


def sidecars_of(wildcards):
    return [
        f"results/{{sample}}/provenance/{name}.json"
        for name in job_names(wildcards.sample)
    ]


def results_of(wildcards):
    """Every result file of a sample that its report reads."""
    names = [name for name in job_names(wildcards.sample) if name != "simulate"]
    files = [
        (
            "denoised"
            if name == "denoise"
            else name.replace("orientation_", "orientation/").replace(
                "grains_", "grains/"
            )
        )
        for name in names
    ]
    return [f"results/{{sample}}/{name}.h5" for name in files]


def indexed(pattern):
    """A function of the wildcards that returns one path per pattern source that the sample indexes."""

    def paths(wildcards):
        return [
            pattern.format(sample=wildcards.sample, source=s)
            for s in sources_of(wildcards.sample)
        ]

    return paths


def changed_of(wildcards):
    """Settings that differ from their defaults, for the report: {stage: {key: [value, default]}}."""
    sample = wildcards.sample
    names = ["scan", "preprocess", *stages_of(sample)]
    names += ["orientation"] if "clusters" in names else []  # the clusters' matcher
    names = ["simulate", *names] if "simulate" in sample_of(wildcards) else names
    changed = {
        name: configuration.changed_settings(config, sample, name) for name in names
    }
    return {name: values for name, values in changed.items() if values}


def all_sidecars(wildcards):
    paths = [
        f"results/{s}/provenance/{n}.json"
        for s in SAMPLES
        for n in (*job_names(s), "report")
    ]
    return [*paths, "results/provenance/summary.json"]


def doses_of(wildcards):
    """Electrons per pattern of every sample; all are simulated."""
    return [
        configuration.settings(config, sample, "simulate")["electrons_per_pattern"]
        for sample in SAMPLES
    ]


def cifs_of_first(wildcards):
    """CIF files of the first sample; a study pools samples of the same phases."""
    return list(configuration.cif_files(config, SAMPLES[0]).values())


def phases_of_first(wildcards):
    return list(configuration.cif_files(config, SAMPLES[0]))


def films_of(wildcards):
    """Settings of the simulation of every sample."""
    return [configuration.settings(config, sample, "simulate") for sample in SAMPLES]
