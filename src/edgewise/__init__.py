"""edgewise makes a deep-learning model fit a device, proves that it fits, and runs it there."""

__version__ = "0.1.0"
