"""Where compiled kernels are kept; known without Numba."""

import os
from pathlib import Path


def folder() -> Path:
    """Where compiled kernels are kept: ``NUMBA_CACHE_DIR`` where it is set, else the user's cache folder.

    Not the package's own folder, Numba's default: files left there after an uninstall make an empty `advfeat` that
    hides an editable install.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("NUMBA_CACHE_DIR") or os.path.join(home, "advfeat"))
