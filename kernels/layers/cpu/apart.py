"""Images by themselves: in evaluation mode every thread takes blocks of images through the whole network.

Nobody waits for anybody.  No answer depends on the block an image is in, so neither blocks nor threads change a bit.
"""

from concurrent.futures import wait

import numpy as np

from ...cpu import engine as patch_engine
from ...cpu.layout import lines
from ..program import EVALUATE
from .backward import Backward
from .forward import Forwards
from .passes import Pass
from .team import Memory

BLOCK = 64  # images, at most


class _Weights(Pass):
    """The weights of all convolutions, prepared by all threads for whoever reads them."""

    def __init__(self, engine, arrays, dtype, numbers, turned):
        super().__init__(engine, arrays, 1, dtype)
        self.prepare_weights(numbers, turned)


class Apart:
    """The plans of all threads for one network up to the value `last`, forward, and with `back` back to the images."""

    def __init__(self, engine, arrays, dtype, last: int, back: bool):
        self.engine, self.arrays, self.dtype, self.last, self.back = engine, arrays, np.dtype(dtype), last, back
        numbers = [number for number, operation in enumerate(engine.program.operations[:last])
                   if operation.kind in ("convolution", "linear")]  # fmt: skip
        self.weights = [_Weights(engine, arrays, dtype, numbers, turned) for turned in (False, True)[: 1 + back]]
        self.plans: dict[tuple[int, int], tuple] = {}
        self.memory: dict[int, Memory] = {}

    def is_for(self, arrays) -> bool:
        return all(self.arrays[name] is a for name, a in arrays.items())

    def of(self, thread: int, n: int):
        """The plans of a thread for n images."""
        if (thread, n) not in self.plans:
            memory = self.memory.setdefault(thread, Memory(self.dtype))
            own = {"memory": memory, "given": self.weights[0].prepared}
            plans = [Forwards(self.engine, self.arrays, n, self.dtype, EVALUATE, self.last, self.back, **own)]
            if self.back:
                plans.append(Backward(plans[0], True, False, memory=memory, given=self.weights[1].prepared))
            work = max(plan.steps.work for plan in plans)
            for plan in plans:
                plan.own = lines(work, self.dtype)
                plan.steps.compile(self.dtype)
            self.plans[thread, n] = tuple(plans)
        return self.plans[thread, n]

    def run(self, X, coefficients):
        """The values of images X, and with `back` what C = coefficients(values float64 (1, n, k), slice of X) pulls
        back."""
        threads, n = patch_engine.get_num_threads(), len(X)
        size = -(-n // (threads * -(-n // (threads * BLOCK))))  # as many blocks for every thread
        blocks = [slice(lo, min(lo + size, n)) for lo in range(0, n, size)]
        values = np.empty((n, *self.engine.program.shapes[self.last]), self.dtype)
        dX = np.empty(X.shape, self.dtype) if self.back else None
        with patch_engine._team:
            for weights in self.weights:
                weights.run()
            for thread in range(threads):
                for block in (blocks[0], blocks[-1]):
                    self.of(thread, block.stop - block.start)
            left = iter(blocks)

            def work(thread):
                for block in left:
                    plans = self.of(thread, block.stop - block.start)
                    passed = plans[0].run_on(X[block])
                    values[block] = passed.values[-1]
                    if self.back:
                        C = np.asarray(coefficients(passed.values[-1].astype(np.float64)[None], block)[0], self.dtype)
                        dX[block] = plans[1].run_on(C)[0]

            jobs = [patch_engine._workers().submit(work, thread) for thread in range(1, threads)]
            try:
                work(0)
            finally:
                wait(jobs)
            for job in jobs:
                job.result()
        return values, dX
