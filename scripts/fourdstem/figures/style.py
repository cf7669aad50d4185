"""What all figures share: one look, one way to save, one way to be shown."""

import base64
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure as Canvas

from fourdstem.files import complete_or_absent

DPI = 200
MISSING = "#c4c4c4"  # neutral grey: no colour map used here contains it
INK = "#1d2733"
FAINT = "#66727f"
# Okabe and Ito's palette, told apart by colour-blind readers.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")
LOOK = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that the bytes do not depend on installed fonts
    "mathtext.fontset": "dejavusans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 5.0,
    "axes.labelsize": 8.5,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.7,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Figure:
    """A figure that lies on disk and knows its caption; a notebook shows both.

    Attributes
    ----------
    name : str
        ``<stage>_<name>``, the stem of both files.
    folder : str
        Where ``<name>.png`` and ``<name>.pdf`` lie.
    caption : str
        HTML: what is drawn, what to look for, what it looks like when something is wrong.
    """

    name: str
    folder: str
    caption: str

    @property
    def png(self) -> Path:
        """Path of the PNG."""
        return Path(self.folder) / f"{self.name}.png"

    def _repr_html_(self) -> str:
        data = base64.b64encode(self.png.read_bytes()).decode()
        image = f'<img alt="{self.name}" src="data:image/png;base64,{data}">'
        return f'<figure id="{self.name}">{image}<figcaption>{self.caption}</figcaption></figure>'


def styled(draw):
    """Decorate a function that draws, so that it does so in the house's look whatever the user's matplotlibrc says."""

    def wrapper(*args, **kwargs):
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(LOOK)
            return draw(*args, **kwargs)

    wrapper.__doc__, wrapper.__name__ = draw.__doc__, draw.__name__
    return wrapper


def save(fig: Canvas, folder, name: str, caption: str) -> Figure:
    """Write ``<name>.png`` and ``<name>.pdf``, the same bytes every time."""
    dates = {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None}
    for kind, options in (("png", {"dpi": DPI, "metadata": {"Software": None}}), ("pdf", {"metadata": dates})):
        with complete_or_absent(Path(folder) / f"{name}.{kind}") as temporary:
            fig.savefig(temporary, format=kind, **options)
    return Figure(name, str(folder), caption)
