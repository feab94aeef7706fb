"""The command line: the parser and its loop, what commands share, and one module a command."""

from .main import entry, main

__all__ = ["entry", "main"]
