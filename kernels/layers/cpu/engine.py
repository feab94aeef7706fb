"""The CPU engine of layers: a program's operations as few passes over memory.

A convolution writes its answers raw, with the sums of a batch norm behind it; batch norm and ReLU are applied by
whoever reads them, through a *view* of the raw answers (`forward.py`).  Backward, the mask of a ReLU and the sums of a
batch norm's gradient go with the gradient that is written, and the batch norm's own formula with what reads it
(`backward.py`).
"""

from functools import wraps

import numpy as np

from ...cpu import engine as patch_engine
from ...cpu.vectors import VECTOR_BYTES
from ..formulas import running_statistics
from ..program import Operation, Program
from .apart import BLOCK, Apart
from .backward import Backward
from .direct import Shape
from .forward import FLOPS, Forwards
from .passes import Passed, image
from .rows import ROWS
from .team import HAND_OVER, Memory
from .winograd import Tiling

CHUNK_BYTES = 2**20  # columns and products of a chunk: an L2
GROUPS = 4  # of chunks with weight gradients of their own, at most
GROUP_BYTES = 2**20
PLANS, PLAN_BYTES = 100, 2**28  # that are kept, and of one that is: to plan costs some milliseconds
PLANS_BYTES = 2**31  # of all that are kept
WIDE_BYTES = 2**22  # of lifted weights
PIXELS, TILES = 64, 32  # of a chunk, at most


def _remembered(method):
    """A method that an engine answers once for the same arguments."""

    @wraps(method)
    def answer(self, *args):
        if (key := (method.__name__, *args)) not in self.answers:
            self.answers[key] = method(self, *args)
        return self.answers[key]

    return answer


class CpuLayers:
    """The engine of one program; see :class:`advfeat.kernels.layers.numpy_engine.NumpyLayers` for the methods."""

    name = "numba"
    running_statistics = staticmethod(running_statistics)

    def __init__(self, program: Program):
        self.program, self.pools, self.scratch, self.plans, self.parts = program, {}, {}, {}, {}
        self.answers: dict = {}
        self.consumers = [[] for _ in program.shapes]
        for number, operation in enumerate(program.operations):
            for v in operation.inputs:
                self.consumers[v].append(number)

    # -------------------------------------------------------------- what shapes decide
    @_remembered
    def lanes(self, itemsize: int) -> int:
        """L: the vector's numbers, or fewer where narrow layers would leave most of them empty."""
        widest = VECTOR_BYTES // itemsize

        def cost(L):
            """Cycles for an image: of products, two registers a cycle, and of what is lifted and lowered."""
            total = 0
            for number, operation in enumerate(self.program.operations):
                if operation.kind in ("convolution", "linear"):
                    C = image(self.program.shapes[operation.inputs[0]])[0]
                    K, h, w = image(self.program.shapes[number + 1])
                    window = np.prod(self.program.parameters[operation.arrays[0]][2:], dtype=int)
                    window = 36 / 16 if self.by_tiles(number, self.is_plain(operation.inputs[0])) else window
                    Cb, Kb = -(-C // L), -(-K // L)
                    total += h * w * (window * Cb * L * Kb / 2 + 1.2 * (Cb + Kb) * L)
            return total

        return min((L for L in (widest, widest // 2, widest // 4) if L >= 2), key=cost)

    def shape(self, number: int, n: int, L: int, itemsize: int, plain: bool) -> Shape:
        """The convolution of an operation: a linear layer is one whose window is the image."""
        operation = self.program.operations[number]
        C, H, W = image(self.program.shapes[operation.inputs[0]])
        K, h, w = image(self.program.shapes[number + 1])
        if operation.kind == "linear":
            kh, kw, stride, padding = H, W, 1, 0
        else:
            kh = kw = self.program.parameters[operation.arrays[0]][2]
            stride, padding = operation.options["stride"], operation.options["padding"]
        Cb, Kb = -(-C // L), -(-K // L)
        Q = -(-kh * kw * C // L) if plain else kh * kw * Cb
        most = CHUNK_BYTES // ((Q + Kb) * L * itemsize)
        most = max(min(most, PIXELS) // w, 1)
        rows = max(range(1, min(most, n * h) + 1), key=lambda r: (r * w / (-(-r * w // ROWS) * ROWS), r))
        groups = min(self.groups(Q * Kb * L * L * itemsize), -(-n * h // rows))
        images = max(PIXELS // (h * w), 1)
        return Shape(n, H, W, h, w, C, Cb, Kb, kh, kw, stride, padding, int(plain), Q, rows, images, groups)

    def by_tiles(self, number: int, plain: bool) -> bool:
        """Whether Winograd's products are fewer than a direct convolution's: for 3x3 windows at stride 1, not of the
        images as they are given, and not of images of a pixel or four."""
        operation = self.program.operations[number]
        if plain or operation.kind != "convolution" or operation.options != {"stride": 1, "padding": 1}:
            return False
        _, H, W = image(self.program.shapes[number + 1])
        tiles = -(-H // 4) * -(-W // 4)
        return self.program.parameters[operation.arrays[0]][2] == 3 and 36 * tiles < 9 * H * W

    @staticmethod
    def groups(size: int) -> int:
        """How many weight gradients of `size` bytes are added up at the end: few large ones."""
        return GROUPS if size < GROUP_BYTES else GROUPS // 2

    def is_wide(self, s: Tiling, itemsize: int) -> bool:
        """Whether lifted weights are too many to be read again for every chunk."""
        return 36 * s.C * s.K * itemsize > WIDE_BYTES

    def tiling(self, number: int, n: int, L: int, itemsize: int, turned: bool) -> Tiling:
        """How Winograd's convolution of an operation is cut; `turned`: that of its input gradient."""
        C, H, W = image(self.program.shapes[self.program.operations[number].inputs[0]])
        K = image(self.program.shapes[number + 1])[0]
        C, K = (K, C) if turned else (C, K)
        Cb, Kb, TH, TW = -(-C // L), -(-K // L), -(-H // 4), -(-W // 4)
        most = max(min(TILES, CHUNK_BYTES // (36 * (Cb + Kb) * L * itemsize)), ROWS)
        most = min(max(most // TW, 1), n * TH)
        units = max(range(1, most + 1), key=lambda r: (r * TW / (-(-r * TW // ROWS) * ROWS), r))
        groups = min(self.groups(36 * Cb * Kb * L * L * itemsize), -(-n * TH // units))
        return Tiling(n, H, W, C, K, Cb, Kb, TH, TW, units, groups)

    def is_plain(self, v: int) -> bool:
        """Whether a convolution of the value reads images as they are given, normalised on the way."""
        if v == 0:
            return True
        operation = self.program.operations[v - 1]
        return operation.kind == "normalise" and operation.inputs[0] == 0

    @_remembered
    def macs(self, last: int) -> int:
        """Multiply-adds of convolutions for an image, up to the value `last`, by the direct algorithm."""
        total = 0
        for number, operation in enumerate(self.program.operations[:last]):
            if operation.kind in ("convolution", "linear"):
                pixels = int(np.prod(image(self.program.shapes[number + 1])[1:]))
                total += pixels * int(np.prod(self.program.parameters[operation.arrays[0]]))
        return total

    def is_joined(self, v: int) -> bool:
        """Whether the value is a sum whose only reader is a ReLU, which is then taken with the sum."""
        readers = self.consumers[v]
        return (v > 0 and self.program.operations[v - 1].kind == "add" and len(readers) == 1
                and self.is_plain_relu(self.program.operations[readers[0]]))  # fmt: skip

    @staticmethod
    def is_plain_relu(operation: Operation) -> bool:
        return operation.kind == "relu" and operation.options["q"] == 1

    @_remembered
    def memory(self, n: int, itemsize: int, keep: bool) -> int:
        """About how many bytes a pass over n images takes beside images and arrays, with `keep` back as well."""
        L, total, largest = self.lanes(itemsize), 0, 0
        for shape in self.program.shapes[1:]:
            C, h, w = image(shape)
            size = -(-C // L) * L * h * w
            total, largest = total + size, max(largest, size)
        prepared = [0]  # weights as kernels read them, and as they make their gradients, group by group
        for number, operation in enumerate(self.program.operations):
            if operation.kind in ("convolution", "linear"):
                plain = self.is_plain(operation.inputs[0])
                if not self.by_tiles(number, plain):
                    s = self.shape(number, n, L, itemsize, plain)
                    prepared.append(s.Q * L * s.Kb * L)
                elif not self.is_wide(s := self.tiling(number, n, L, itemsize, False), itemsize):
                    prepared.append(36 * s.Cb * L * s.Kb * L)
        weights = (1 + keep) * sum(prepared) + GROUPS * keep * max(prepared)
        return itemsize * (n * (total + 4 * largest if keep else 4 * largest) + weights)

    def plan(self, n: int, itemsize: int) -> list[tuple[str, str]]:
        """How a pass over n images would work: rows (layer, kernel), every choice a function of the shapes."""
        L, rows = self.lanes(itemsize), []
        rows.append(("blocks", f"{L} channels in a register of {8 * L * itemsize} bits"))
        for number, operation in enumerate(self.program.operations):
            name = operation.arrays[0].rpartition(".")[0] if operation.arrays else f"{operation.kind} {number}"
            plain = self.is_plain(operation.inputs[0])
            if operation.kind in ("convolution", "linear") and not self.by_tiles(number, plain):
                s = self.shape(number, n, L, itemsize, plain)
                about = f"direct, {s.kh} x {s.kw} at stride {s.stride}, {s.rows} rows of {s.w} pixels a chunk"
                rows.append((name, about + ", of the images as they are given" * plain))
            elif operation.kind == "convolution":
                s = self.tiling(number, n, L, itemsize, False)
                wide = self.is_wide(s, itemsize)
                chunk = "all tiles at once, panels of channels" if wide else f"{s.units} rows of {s.TW} tiles a chunk"
                rows.append((name, f"Winograd F(4x4, 3x3), {chunk}"))
            elif operation.kind in ("batch_norm", "normalise"):
                rows.append((name, "in what reads it"))
            elif operation.kind == "relu":
                smooth = "smooth" if operation.options["q"] > 1 else "join"
                joined, normed = self.is_joined(operation.inputs[0]), self.reads_norm(operation.inputs[0])
                fused = self.is_plain_relu(operation) and (joined or normed)
                rows.append((name, "with the sum" if joined and fused else "in what reads it" if fused else smooth))
            else:
                rows.append((name, {"add": "join", "sum_pool": "pool"}[operation.kind]))
        return rows

    def reads_norm(self, v: int) -> bool:
        return v > 0 and self.program.operations[v - 1].kind in ("batch_norm", "normalise")

    # -------------------------------------------------------------- the passes
    def forward(self, arrays, X, mode, last=None, keep=False) -> Passed:
        last = self.program.logits if last is None else last
        key = len(X), X.dtype, mode, last, keep
        with patch_engine._team:  # whoever calls besides waits: a plan's memory is for one
            plan = self.plans.get(key)
            if plan is None or not plan.is_for(arrays):
                # a plan that is kept has memory of its own: what it writes again, no other holds meanwhile
                kept = (size := self.memory(len(X), X.dtype.itemsize, keep)) <= PLAN_BYTES
                memory = Memory(X.dtype) if kept else None
                plan = Forwards(self, dict(arrays), len(X), X.dtype, mode, last, keep, memory=memory)
                if kept:
                    plan.size = size
                    self.plans = {other: one for other, one in self.plans.items() if other != key} | {key: plan}
                    while len(self.plans) > PLANS or sum(one.size for one in self.plans.values()) > PLANS_BYTES:
                        del self.plans[next(iter(self.plans))]  # the oldest
            return plan.run_on(X)

    def backward(self, arrays, passed, G, inputs=True, parameters=True):
        forward, key = passed.plan, (inputs, parameters)
        with patch_engine._team:
            plan = forward.backs.get(key)
            if plan is None:
                kept = forward.memory is not self.pool(forward.dtype)
                plan = Backward(forward, inputs, parameters, memory=forward.memory if kept else None)
                if kept:
                    forward.backs[key] = plan
            return plan.run_on(G)

    def apart(self, arrays, X, last=None, coefficients=None):
        """(values, dJ/dX or None) of images by themselves, in evaluation mode: every thread takes its own through the
        whole network.  The gradient is that of J with dJ/dF = coefficients(F (1, n, k) float64, slice of the images).

        None where a layer is so wide that its weights are better read once for all images, or images are few; by one
        thread, where they are one block.
        """
        last, dtype = self.program.logits if last is None else last, X.dtype
        threads = patch_engine.get_num_threads()
        seconds = len(X) * self.macs(last) * dtype.itemsize / 2 / FLOPS
        few = seconds < 2 * HAND_OVER  # work that one thread does sooner than two that wait for Python's lock
        if few or len(X) <= (BLOCK if threads == 1 else 2 * threads - 1) or self.has_wide(dtype.itemsize):
            return None
        key = dtype, last, coefficients is not None
        with patch_engine._team:
            plans = self.parts.get(key)
            if plans is None or not plans.is_for(arrays):
                plans = self.parts[key] = Apart(self, dict(arrays), dtype, last, coefficients is not None)
            return plans.run(X, coefficients)

    @_remembered
    def has_wide(self, itemsize: int) -> bool:
        L = self.lanes(itemsize)
        numbers = [i for i, one in enumerate(self.program.operations) if one.kind == "convolution"]
        tiled = [i for i in numbers if self.by_tiles(i, self.is_plain(self.program.operations[i].inputs[0]))]
        return any(self.is_wide(self.tiling(i, 1, L, itemsize, False), itemsize) for i in tiled)

    def pool(self, dtype) -> Memory:
        return self.pools.setdefault(np.dtype(dtype), Memory(dtype))
