"""Attacks on images of a model that is not ours: how their own work compares with the model's.

    python benchmarks/image_attacks.py [--samples N]

The model is that of docs/extending.md, one hidden layer of 1,024 on (1, 28, 28); its own time is measured in its two
methods, an attack's is the rest.  The radius is one at which nearly every sample stands, so that each costs all steps.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import advfeat as af

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from own_models import OneHiddenLayer

ATTACKS = (af.PGD("cross_entropy", 20), af.PGD("margin", 20), af.APGD("cross_entropy", 20), af.Square(n_steps=60))


class Timed(OneHiddenLayer):
    """Counts the seconds of its methods."""

    spent = 0.0

    def logits(self, X):
        return self._timed(super().logits, X)

    def pull_back(self, X, C):
        return self._timed(super().pull_back, X, C)

    def _timed(self, method, *args):
        start = time.perf_counter()
        answer = method(*args)
        self.spent += time.perf_counter() - start
        return answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000)
    n = parser.parse_args().samples
    for dtype in ("float32", "float64"):
        rng = np.random.default_rng(0)
        A, B = rng.standard_normal((784, 1024)) / 28, rng.standard_normal((1024, 10)) / 32
        weights = (a.astype(dtype) for a in (A, np.zeros(1024), B, np.zeros(10)))
        model = Timed(*weights, (1, 28, 28))
        X = rng.random((n, 1, 28, 28)).astype(dtype)
        y = model.logits(X).argmax(axis=1)
        for attack in ATTACKS:
            model.spent, start = 0.0, time.perf_counter()
            found = attack(model, (X, y), af.ThreatModel("linf", 5e-4, box=(0, 1)))
            own = time.perf_counter() - start - model.spent
            times = f"model {model.spent:6.2f} s, attack {own:5.2f} s, ratio {own / model.spent:.2f}"
            print(f"{dtype} {attack.name:18} {attack.n_steps:3} steps: {times}; {1 - found.success.mean():.2f} stand")
    return 0


if __name__ == "__main__":
    sys.exit(main())
