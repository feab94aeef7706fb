"""The package's version, which setup.cfg reads."""

__version__ = "0.2.0.dev0"
