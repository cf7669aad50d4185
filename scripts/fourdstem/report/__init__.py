"""What a report says in words and tables. Figures are made in `fourdstem.figures`, the page in `fourdstem.notebook`."""

from fourdstem.report.metrics import metrics
from fourdstem.report.sample import Sample, patterns, read, sections
from fourdstem.report.tables import acquisition, clusters, grains, jobs, provenance, scores, settings, species, verdicts
from fourdstem.report.text import Text
from fourdstem.report.words import headline, methods, title, warnings

__all__ = [
    "Sample", "Text", "acquisition", "clusters", "grains", "headline", "jobs", "methods", "metrics", "patterns",
    "provenance", "read", "scores", "sections", "settings", "species", "title", "verdicts", "warnings",
]  # fmt: skip
