"""Does the trained network tell the paper's story?  ``python -m advfeat.validation.figure3 --seeds 8``.

Runs Figure 3's experiment at the default configuration, or reads a finished run folder, and checks what Theorems 4.3
and 4.4 and the plateau of Lemma 5.2 say about it, seed by seed.  Exit status 0 when every claim holds, 1 otherwise.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass

import numpy as np

from ..experiments import figure3 as experiment
from ..experiments.configuration import Figure3Config
from ..patches.features import q_sum
from ..theory.events import first_time, took_off
from ..training import run_folder


@dataclass(frozen=True)
class FigureClaim:
    """A statement with its measured value and verdict."""

    statement: str
    measured: str
    holds: bool


def check(run: run_folder.Run, config: Figure3Config) -> list[FigureClaim]:
    """The claims about a finished run, each decided by the rule in its statement."""
    claims = []

    def claim(statement, measured, holds):
        claims.append(FigureClaim(statement, measured, bool(np.all(holds))))

    def numbers(values):
        return "[" + " ".join(f"{v:.4g}" for v in np.ravel(values)) + "]"

    final = {}
    for name, history in run.histories.items():
        robust = history["robust_accuracy"][-1]
        final[name] = history["test_accuracy"][-1], robust
    accuracy, robust = final["standard"]
    claim("standard training: final accuracy = 1 on every seed", numbers(accuracy), accuracy == 1)
    claim(f"standard: robust accuracy <= 0.05 at eps = {config.eps_test:g}", numbers(robust), robust <= 0.05)
    accuracy, robust = final["adversarial"]
    claim("adversarial training: final accuracy = 1 on every seed", numbers(accuracy), accuracy == 1)
    claim(f"adversarial: robust accuracy >= 0.95 at eps = {config.eps_test:g}", numbers(robust), robust >= 0.95)

    history = run.histories["adversarial"]
    times, robust = history.at("robust_accuracy")
    accuracy = history["test_accuracy"][np.isin(history["iteration"], times)]
    one = first_time(times, (accuracy >= 0.95) & (robust <= 0.05))
    two = first_time(times, robust >= 0.95)
    claim("Phase I (accuracy >= 0.95, robust <= 0.05) comes ...", f"at {numbers(one)}", ~np.isnan(one))
    claim("... before Phase II (robust >= 0.95) on every seed", f"at {numbers(two)}", one < two)

    B = q_sum(history["B"][-1], config.q) / config.plateau()
    grown = took_off(history, "B").any(axis=0)
    medians = [np.median(b[g]) if g.any() else np.nan for b, g in zip(B, grown)]
    close = np.abs(np.array(medians) - 1) <= 0.1
    text = f"{numbers(medians)} ({grown.sum()} of {grown.size} classes took off)"
    claim("class median of (sum_s (B_s)_+^q)^(1/q) / B* within 10% of 1", text, close)
    return claims


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", help="a finished run folder (default: run the experiment now)")
    parser.add_argument("--seeds", type=int, default=8)
    args = parser.parse_args(argv)
    if args.run:
        run = run_folder.load(args.run)
        config = Figure3Config.from_dict(run.config)
    else:
        config = Figure3Config(n_seeds=args.seeds)
        with tempfile.TemporaryDirectory() as folder:
            run = experiment.run(config, folder)
    claims = check(run, config)
    for c in claims:
        print(f"{'holds' if c.holds else 'FAILS':<6} {c.statement}\n       {c.measured}")
    return 0 if all(c.holds for c in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
