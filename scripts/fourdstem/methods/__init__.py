"""One module per stage; each has ``Params``, ``Result``, ``compute`` and its kernels, in that order."""
