"""fourdstem: from raw 4D-STEM scans to maps that can be trusted."""

__version__ = "0.1.0"
