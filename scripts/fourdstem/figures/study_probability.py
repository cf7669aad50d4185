"""Figure of the study of the probability of being right."""

from pathlib import Path

from matplotlib.figure import Figure as Canvas

from fourdstem.figures.orientation import SOURCE_COLOURS
from fourdstem.figures.probability import diagram
from fourdstem.figures.style import save, styled
from fourdstem.methods.orientation import scores


@styled
def draw(pairs: dict, folder: Path):
    """Draw one reliability diagram per source and dose, from ``{(dose, source): (probability, outcome)}``."""
    doses = sorted({dose for dose, _ in pairs})
    sources = sorted({source for _, source in pairs}, reverse=True)
    fig = Canvas(figsize=(2.1 * len(doses), 2.3 * len(sources)), layout="constrained")
    axes = fig.subplots(len(sources), len(doses), squeeze=False, sharex=True, sharey=True)
    for row, source in zip(axes, sources, strict=True):
        for ax, dose in zip(row, doses, strict=True):
            predicted, outcome = pairs[dose, source]
            told = scores(predicted, outcome)
            name = f"{100 * outcome.mean():.0f} % right\nECE {told['ece']:.3f}\nAUC {told['auc']:.2f}"
            diagram(ax, {name: (predicted, outcome)}, SOURCE_COLOURS[source])
            ax.set_title(f"{source}, {dose:g} electrons", fontsize=8)
    for ax in axes.flat:
        ax.label_outer()
    return save(fig, folder, "probability", _CAPTION)


_CAPTION = (
    "Predicted and observed: marks on the diagonal mean that of the positions with a probability of 0.8 indeed 80 % "
    "are right (right phase, within 5° of the truth). Areas grow with counts, bars are one standard deviation of a "
    "count; positions of one grain are right or wrong together, so true deviations are larger. Films that nothing was "
    "tuned on."
)
