"""The one place that asks which device torch may use."""


def pick(wanted: str = "auto") -> str:
    """Return "cpu" or "cuda".

    Parameters
    ----------
    wanted : {"auto", "cpu", "cuda"}
        "auto" takes CUDA where torch sees a device.

    Raises
    ------
    RuntimeError
        If "cuda" is demanded and torch sees none.
    """
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise RuntimeError("device: cuda was demanded, but torch sees no CUDA device; use device: auto or cpu")
    return "cpu"


def describe(device: str) -> str:
    """Return the name of a device, "cpu" or "cuda", as the system gives it."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    import platform

    return f"{platform.machine()} CPU"


def free_bytes(device: str) -> float:
    """Return the memory that is free on a graphics card; without limit for "cpu", whose memory Snakemake gives out."""
    if device == "cpu":
        return float("inf")
    import torch

    return float(torch.cuda.mem_get_info(device)[0])
