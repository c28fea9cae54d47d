"""adstool: the machine-learning side of an ads platform, from raw logs to a ranked slate."""

__version__ = "0.1.0"
