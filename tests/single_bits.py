"""Files with one bit flipped, and what reading them says."""

import numpy as np

from advfeat.core import store


def errors(path, read, n, last=0, seed=0):
    """Flip single bits of `path`, `n` spread over the file and `n` over its `last` bytes: each time `read()` gives what
    it gave before, or raises CheckpointError, whose words are returned."""
    intact, rng, held, said = path.read_bytes(), np.random.default_rng(seed), read(), []
    for low in (0, len(intact) - last)[: 1 + bool(last)]:
        low, size = 8 * max(low, 0), 8 * (len(intact) - max(low, 0))
        for place in (low + np.arange(n) * size // n + rng.integers(0, max(size // n, 1), n)).tolist():
            broken = bytearray(intact)
            broken[place // 8] ^= 1 << place % 8
            path.write_bytes(broken)
            try:
                assert read() == held, f"bit {place} was silent"
            except store.CheckpointError as error:
                said.append(str(error))
    path.write_bytes(intact)
    assert read() == held
    return said
