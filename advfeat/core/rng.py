"""The one source of randomness: named NumPy streams of a run's own seed, drawn on the CPU for every engine."""

import numpy as np

STREAMS = ("init", "train_data", "test_data", "minibatches", "attacks", "split", "augmentation",
           "representatives")


def stream(seed: int, name: str, *key: int) -> np.random.Generator:
    """The generator of stream `name` of run seed `seed`; `key` splits it further (epoch; restart and sample).

    A run's numbers depend on its seed alone, never on its place in a batch: ``SeedSequence(seed, spawn_key=...)``.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAMS.index(name), *key)))
