"""What the headers of raw files and the CIFs of a configuration say against it, before anything runs."""

from fourdstem import config as configuration
from fourdstem import crystal, formats
from fourdstem.errors import FourdstemError
from fourdstem.methods import scan
from fourdstem.schema import build


def check(config: dict) -> list[str]:
    """Return the mistakes that the first job of each sample would find, all samples at once.

    Parameters
    ----------
    config : dict
        A configuration that passed `config.check`.
    """
    mistakes = []
    for sample in config["samples"]:
        name = sample["name"]
        checks = [(crystal.read_cif, (cif, phase)) for phase, cif in configuration.cif_files(config, name).items()]
        if "file" in sample:
            checks.append((_open, (config, sample)))
        for look, arguments in checks:
            try:
                look(*arguments)
            except FourdstemError as error:
                mistakes.append(f"sample {name}: {error}")
    return mistakes


def _open(config: dict, sample: dict) -> None:
    name = sample["name"]
    params = build(scan.Params, configuration.settings(config, name, "scan"))
    needed = configuration.needed_acquisition(config, name)
    given = configuration.acquisition(config, name)
    with formats.open_raw(sample["file"], sample.get("dataset")) as raw:
        acquisition, _ = scan.resolve_acquisition(raw.metadata, given, needed, raw.shape[-2:])
        shape = scan.resolve_scan_shape(raw.shape, acquisition.scan_shape, params.roi)
        scan.select(raw.data, shape, params)
        if acquisition.mask:
            formats.read_mask(acquisition.mask, raw.shape[-2:])
