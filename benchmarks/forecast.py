"""Predicted beside measured times of trainings on images: whole ones of presets that end soon, and steps of others.

    python benchmarks/forecast.py [PRESET ...] [--steps N] [--set KEY=VALUE ...] [--json FILE]

Presets are those of `advfeat images train`.  With --steps, N steps on random images stand for the whole training, so
that no files are needed.  Leave the machine alone meanwhile.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from advfeat.cli import common
from advfeat.core.data import Samples
from advfeat.experiments import forecast, images
from advfeat.experiments.image_configuration import ImageConfig
from advfeat.experiments.image_presets import PRESETS
from advfeat.images.data import DATA_SETS
from advfeat.training.loop import Trainer


def random_steps(config: ImageConfig, n: int) -> float:
    """Seconds of n steps of a training on random images, after one that is not timed."""
    shape, k = DATA_SETS[config.dataset].shape, len(DATA_SETS[config.dataset].classes)
    rng, many = np.random.default_rng(0), (n + 1) * config.batch_size
    data = Samples(rng.random((many, *shape)).astype(config.dtype), rng.integers(k, size=many))
    trainer = Trainer(config.untrained(), data, config.training_config(many))
    trainer.advance(1)
    started = time.perf_counter()
    trainer.advance(n)
    return time.perf_counter() - started


def whole(config: ImageConfig) -> float:
    """Seconds of a training with its records and its test."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        images.run(config, Path(folder) / "run")
        return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("presets", nargs="*", default=["digits", "digits-pgd", "mnist-5k", "mnist-5k-pgd"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    rows = []
    for name in args.presets:
        config = ImageConfig.build(None, [*common.pairs(PRESETS[name].values), *args.set])
        predicted = forecast.of_training(config)
        if args.steps is None:
            row = {"preset": name, "predicted": predicted.seconds, "measured": whole(config)}
        else:
            row = {"preset": name, "steps": args.steps, "predicted": args.steps * predicted.step,
                   "measured": random_steps(config, args.steps)}  # fmt: skip
        rows.append(row | {"ratio": row["measured"] / row["predicted"]})
        numbers = ", ".join(f"{key} {value:.3g}" for key, value in rows[-1].items() if key != "preset")
        print(f"{name}: {numbers}", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
