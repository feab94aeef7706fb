"""A finished run of `advfeat reproduce`, which no test may change, and copies of it."""

import shutil
from pathlib import Path

import pytest
from cli_runs import TINY

from advfeat.cli import main


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["reproduce", "--out", str(out), *TINY]) == 0
    return out


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))
