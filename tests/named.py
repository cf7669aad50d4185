"""Snakemake's named lists, for tests of jobs without Snakemake."""


class Named(list):
    """A list whose items also have names, as Snakemake's are."""

    def __init__(self, **named):
        super().__init__(named.values())
        self._named = named

    def __getattr__(self, name):
        try:
            return self.__dict__["_named"][name]
        except KeyError:
            raise AttributeError(name) from None

    def items(self):
        return self._named.items()
