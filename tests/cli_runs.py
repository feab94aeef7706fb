"""A run so small that a command trains it in a second, and commands as processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import advfeat

ROOT = Path(advfeat.__file__).resolve().parent.parent
SMALL = [
    *("n_classes=3", "n_neurons=4", "patch_dim=12", "n_patches=8", "n_train=6", "n_test=6"),
    *("n_iter=40", "n_records=4", "rho=10", "lr=2"),
]
TINY = ["--seeds", "2", "--set", *SMALL]


def content(folder) -> dict[Path, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def shell(command: str, **options) -> subprocess.CompletedProcess:
    """`advfeat` is this checkout's, in a shell with pipes and redirections."""
    here = f'advfeat() {{ "{sys.executable}" -m advfeat "$@"; }}; {command}'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(["bash", "-c", here], capture_output=True, text=True, env=environment, check=False, **options)
