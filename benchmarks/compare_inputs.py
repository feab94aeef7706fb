"""What the two versions of `compare.py` work on: data and networks of numbers that no version of the package trains.

Only names that stay are used: those of ``advfeat.__all__``, ``advfeat.attacks``, ``advfeat.theory`` and the command
line, so that the same script drives versions whose modules stand elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import advfeat as af

Q = 3


@dataclass(frozen=True)
class Shape:
    """R networks of k classes with m neurons each, and n samples of P patches of dimension d for each of them."""

    R: int
    k: int
    m: int
    d: int
    P: int
    n: int
    n_robust: int = 1
    noise: float = 0.05
    rho: float = 100.0

    def law(self) -> af.PatchDistribution:
        return af.PatchDistribution(
            n_classes=self.k, patch_dim=self.d, n_patches=self.P, n_robust=self.n_robust, alpha=3.0, beta=1.0,
            noise_std=self.noise,
        )  # fmt: skip

    def data(self, seed: int = 0, dtype="float64") -> af.PatchData:
        """(R, n, P, d); every run has its own samples."""
        law = self.law()
        runs = [law.sample(self.n, 1000 * seed + r, balanced=True) for r in range(self.R)]
        return af.PatchData.stack(runs).astype(np.dtype(dtype))

    def fresh(self, backend: str, dtype) -> af.PatchCNN:
        """Where a training starts: w ~ N(0, 0.1^2 I)."""
        W = 0.1 * np.random.default_rng(1).standard_normal((self.R, self.k, self.m, self.d))
        return af.PatchCNN(W.astype(dtype), Q, self.rho, backend)

    def learned(self, backend: str, dtype="float64", robust=12.0, non_robust=1.0, noise=0.02) -> af.PatchCNN:
        """Networks that classify: neuron s of class i is a_s u_i + b_s v_i + noise, with a_s, b_s up to the given
        sizes.  With the default sizes most robust radii of the default law lie at 0.4 to 0.6."""
        draw = np.random.default_rng(2)
        W = noise * draw.standard_normal((self.R, self.k, self.m, self.d))
        for feature, size in zip(self.law().features, (robust, non_robust)):
            strength = size * draw.uniform(0.2, 1.0, (self.R, self.k, self.m, 1))
            W += strength * feature[:, None]
        return af.PatchCNN(W.astype(dtype), Q, self.rho, backend)


def command(*arguments, folder: Path) -> None:
    """``python -m advfeat ...`` of this worker's version, in `folder`; what it prints is shown only where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "advfeat", *map(str, arguments)], cwd=folder, env=os.environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"advfeat {arguments[0]}: exit status {done.returncode}: {done.stdout.strip()[-300:]}")


@contextmanager
def scratch():
    """A folder that is removed behind its `with`."""
    with tempfile.TemporaryDirectory(prefix="advfeat-compare-") as name:
        yield Path(name)


def settings(**values) -> list[str]:
    """The arguments of --set."""
    return ["--set", *(f"{name}={value}" for name, value in values.items())]
