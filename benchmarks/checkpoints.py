"""What a checkpoint costs early and late in a training: it must not grow with the history.

``python benchmarks/checkpoints.py`` trains the default networks with a record every 10 iterations, 1,000 in all, and
times every checkpoint, each at once followed by one of the same arrays in a plain .npz, as a measure of the disk.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from advfeat import train
from advfeat.core import store
from advfeat.experiments.configuration import Figure3Config
from advfeat.training.run_folder import RunFolder

N_ITER, EVERY, AROUND = 10_000, 10, 50


def main():
    config = Figure3Config(n_seeds=1, n_iter=N_ITER, n_records=20)
    times, plain, save = [], [], RunFolder.save

    def timed(self, *state):
        begin = time.perf_counter()
        save(self, *state)
        times.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        store.save_npz(Path(self.path).parent / "plain.npz", **state[1].arrays())
        plain.append(time.perf_counter() - begin)

    RunFolder.save = timed
    training = replace(config.training(False), record_every=EVERY, checkpoint_every=1)
    with tempfile.TemporaryDirectory() as folder:
        train(config.network(), config.data("train"), training, run_dir=Path(folder) / "run")
    first = 100 // EVERY  # the checkpoints around iteration 100, and the last ones
    for name, values in (("checkpoint", times), ("plain .npz", plain)):
        early, late = (statistics.median(values[lo : lo + AROUND]) for lo in (first, len(values) - AROUND))
        print(f"{name}: {1e3 * early:.2f} ms from iteration {100}, {1e3 * late:.2f} ms up to iteration {N_ITER}, "
              f"ratio {late / early:.2f} ({len(values)} of them)")  # fmt: skip


if __name__ == "__main__":
    main()
