"""Samples on the GPU: every run's samples sorted by label, runs of the same length, a block of rows for each class."""

from copy import copy
from functools import cached_property

import numpy as np

FILL = 0.1  # share of slots that may fill up, so that all labels' products are one call: they are a k-th of the work


class GpuBatch:
    """Samples in slots; run r's first count[r] slots hold its active samples sorted by label, the rest fill up.

    X, y : (R or 1, N, P, d) and (R or 1, N), as given
    order : (R or 1, n) the sample in every slot; one row where all runs share samples and labels
    count : (R,) samples per run
    n : slots per run, the largest count
    inputs : (R or 1, n P, d) on the device; ``labels`` (R, n) int32 there, -1 where a slot fills up
    blocks : rows (run or None for all, label, first slot, last + 1)
    each : slots of every label where those are the same number (:meth:`even`), else None
    """

    each = _even = None

    def __init__(self, gpu, X, y, n_runs, active):
        self.gpu, self.X, self.y, self.n_runs = gpu, X, y, n_runs
        _, self.N, self.P, self.d = X.shape
        shared = len(X) == len(y) == 1 and active is None
        rows = 1 if shared else n_runs
        labels = np.broadcast_to(y, (rows, self.N))
        on = np.ones((rows, self.N), bool) if active is None else active
        self.count = np.broadcast_to(on.sum(axis=1), n_runs)
        self.n = int(self.count.max(initial=0))
        self.order = np.lexsort((np.broadcast_to(np.arange(self.N), on.shape), labels, ~on))[:, : self.n]
        sorted_labels = np.take_along_axis(labels, self.order, 1)
        self.slot_labels = np.where(np.arange(self.n) < self.count[:rows, None], sorted_labels, -1)

    def even(self, k):
        """These samples with equally many slots for each of k labels, or as they are where that fills too many."""
        if self._even is not None:
            return self._even
        held = [[np.flatnonzero(labels == i) for i in range(k)] for labels in self.slot_labels]
        each = max(len(slots) for of_run in held for slots in of_run)
        if (len(self.order) == 1 < self.n_runs) or k * each > (1 + FILL) * self.n:
            self._even = self
            return self
        self._even = other = copy(self)
        for name in ("inputs", "labels", "counts", "shares", "resting", "blocks"):
            vars(other).pop(name, None)
        other.n, other.each = k * each, each
        other.order, other.slot_labels = np.zeros((2, len(held), other.n), np.int64)
        other.slot_labels[:] = -1
        for r, of_run in enumerate(held):
            for i, slots in enumerate(of_run):
                here = slice(i * each, i * each + len(slots))
                other.order[r, here], other.slot_labels[r, here] = self.order[r, slots], i
        return other

    @property
    def shared(self) -> bool:
        """Whether all runs read the same rows."""
        return len(self.order) == 1 < self.n_runs

    def gather(self, values):
        """Values (R or 1, N, ...) of every slot, on the host: (R or 1, n, ...)."""
        if len(values) == 1:
            return values[0][self.order]
        orders = np.broadcast_to(self.order, (len(values), self.n))
        return np.stack([of_run[order] for of_run, order in zip(values, orders)])

    @cached_property
    def inputs(self):
        rows = self.gather(self.X)
        return self.gpu.upload(rows.reshape(len(rows), self.n * self.P, self.d))

    @cached_property
    def labels(self):
        return self.gpu.upload(np.broadcast_to(self.slot_labels, (self.n_runs, self.n)), np.int32)

    @cached_property
    def counts(self):
        return self.gpu.upload(self.count, np.int32)

    @cached_property
    def shares(self):
        """1 / count (R,), the weight of a sample in its run's loss."""
        return self.gpu.upload(1 / np.maximum(self.count, 1), np.float64)

    @cached_property
    def resting(self):
        """(R, n) int32: 1 where a slot only fills up."""
        return (np.broadcast_to(self.slot_labels, (self.n_runs, self.n)) < 0).astype(np.int32)

    @cached_property
    def blocks(self):
        """Slots of one label each: for all runs at once where they agree on every label, else run by run."""
        alike = (self.slot_labels == self.slot_labels[0]).all()
        found = []
        for r, labels in enumerate(self.slot_labels[:1] if alike else self.slot_labels):
            for label in np.unique(labels[labels >= 0]).tolist():
                slots = np.flatnonzero(labels == label)
                found.append((None if alike else r, label, int(slots[0]), int(slots[-1]) + 1))
        return found

    def scatter(self, values, rest):
        """(R, N, ...) from values (R, n, ...) of every slot; samples that are not active as in `rest`."""
        out = np.array(np.broadcast_to(rest, (self.n_runs, self.N, *values.shape[2:])), values.dtype, order="C")
        for r, rest in enumerate(self.resting):
            slots = np.flatnonzero(rest == 0)
            out[r, self.order[r % len(self.order), slots]] = values[r, slots]
        return out
