"""Errors that a user can act on: what was found, where, what was expected, what to do."""


class FourdstemError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(FourdstemError):
    """A file or value given by the user cannot be used as it is.

    Parameters
    ----------
    found : str
        What was found, with the offending value.
    where : str
        File, dataset or config key in which it was found.
    expected : str
        What would have been accepted.
    do : str
        What the user can do about it.
    """

    def __init__(self, found: str, *, where: str, expected: str, do: str):
        self.found, self.where, self.expected, self.do = found, where, expected, do
        super().__init__(f"{found} (in {where}). Expected {expected}. {do}")


class ConfigError(FourdstemError):
    """All mistakes of a configuration, listed at once.

    Parameters
    ----------
    mistakes : list of str
        One sentence per mistake, each naming its place.
    where : str
        The configuration file or "config".
    """

    def __init__(self, mistakes: list[str], where: str = "config"):
        self.mistakes = list(mistakes)
        count = len(self.mistakes)
        head = f"{count} mistake{'s' if count != 1 else ''} in {where}:"
        super().__init__("\n".join([head, *(f"  - {m}" for m in self.mistakes)]))
