"""The way forward: a convolution writes its answers raw, with the sums of a batch norm behind it."""

import weakref

import numpy as np

from ..formulas import side
from ..program import TRAIN
from . import direct, pointwise
from .direct import Reading, Writing
from .passes import Pass, Passed, View, image
from .rows import ROWS, SUMS
from .team import Buffer


class Forwards(Pass):
    """One pass forward."""

    def __init__(self, engine, arrays, X, mode, last, keep):
        super().__init__(engine, arrays, len(X), X.dtype)
        self.mode, self.keep, self.last = mode, keep, last
        self.passed = Passed([None] * (last + 1), {}, mode, n=self.n)
        given = Buffer(None, np.ascontiguousarray(X).reshape(-1))
        given.users = 2**60  # it is not ours
        self.views = self.passed.views = [View(given, image(X.shape[1:]), plain=True)]
        self.sums: dict[int, tuple] = {}  # of a buffer, by its id
        self.owned = []

    def result(self) -> Passed:
        for number, operation in enumerate(self.program.operations[: self.last]):
            views = [self.views[v] for v in operation.inputs]
            self.views.append(getattr(self, operation.kind)(number, operation, *views))
            for v in () if self.keep else set(operation.inputs):
                if max(self.engine.consumers[v]) == number:
                    self.views[v].buffer.release()
        end = self.stored(self.views[self.last])
        C, h, w = end.shape
        shape = (self.n, *self.program.shapes[self.last])
        if end.plain:
            F = end.buffer.array.reshape(shape)
        else:
            F = np.empty(shape, self.dtype)
            self.steps.add(pointwise.to_plain, self.lanes_, F.reshape(-1), end.buffer.array, self.n, C, h * w, self.blocks(C))
        self.run()
        self.passed.values[-1] = F
        if self.keep:
            weakref.finalize(self.passed, _give_back, [view.buffer for view in self.views], self.extra)
        return self.passed

    extra: tuple = ()

    # -------------------------------------------------------------- views
    def blocked(self, view: View) -> View:
        """The view in blocks."""
        if not view.plain:
            return view
        C, h, w = view.shape
        out = self.new(view.shape)
        self.steps.add(pointwise.to_blocks, self.lanes_, out.array, view.buffer.array, self.n, C, h * w, self.blocks(C))
        return View(out, view.shape, norm=view.norm, relu=view.relu)

    def without_relu(self, view: View) -> View:
        return self.stored(view) if view.relu else self.blocked(view)

    def stored(self, view: View) -> View:
        """The view as it is read, written down in blocks."""
        if view.plain and view.norm is None:
            return view
        view = self.blocked(view)
        if view.norm is None:
            return view
        C, h, w = view.shape
        out, c = self.new(view.shape), self.passed.coefficients[view.norm, False]
        z = view.buffer.array
        self.steps.add(pointwise.join, self.lanes_, 2 * view.relu, out.array, z, z, c, c, self.no_sums, self.n, h * w,
                       self.blocks(C))  # fmt: skip
        return View(out, view.shape)

    def coefficients(self, view: View):
        if view.norm is None:
            return self.identity(view.shape[0])
        return self.passed.coefficients[view.norm, False]

    def wants_sums(self, number: int) -> bool:
        """Whether a batch norm that needs them reads the operation's answer, or the ReLU's that is taken with it."""
        readers = self.engine.consumers[number + 1]
        return self.mode == TRAIN and any(self.program.operations[r].kind == "batch_norm" for r in readers)

    def new_sums(self, rows: int, channels: int):
        return self.sums_memory.take(rows * 2 * self.blocks(channels) * self.L)

    # -------------------------------------------------------------- operations
    def tiled(self, number, operation, view):
        """A convolution by Winograd's tiles."""
        s = self.engine.tiling(number, self.n, self.L, self.dtype.itemsize, False)
        out, chunks = self.new((s.K, s.H, s.W)), self.chunks(s)
        sums, kind = self.answer_sums(number, out, chunks, s.K)
        self.passed.read[number] = [view]
        y = out.array
        target = Writing(kind, y, y, y, y, self.nothing, sums)
        self.by_tiles(number, s, self.reading(view, self.passed.coefficients), target, self.bias(operation, s), False)
        return View(out, (s.K, s.H, s.W))

    def bias(self, operation, s):
        """The bias of a convolution's channels, 0 behind the last one."""
        bias = np.zeros(s.Kb * self.L, self.dtype)
        if operation.arrays[1:]:
            held = self.arrays[operation.arrays[1]]
            bias[: len(held)] = held
        return bias

    def answer_sums(self, number, out, rows, channels):
        """Memory for the sums that a batch norm behind an answer wants, and the epilogue that takes them."""
        if not self.wants_sums(number):
            return self.no_sums, 0
        held = self.new_sums(rows, channels)
        self.sums[id(out)] = held, rows
        return held.array, SUMS

    def convolution(self, number, operation, view):
        if self.engine.by_tiles(number, view.plain):
            return self.tiled(number, operation, view)
        s = self.engine.shape(number, self.n, self.L, self.dtype.itemsize, view.plain)
        K, h, w = image(self.program.shapes[number + 1])
        P, out, chunks = self.weights(number, s, False), self.new((K, h, w)), -(-s.N * s.h // s.rows)
        bias = self.bias(operation, s) if operation.arrays[1:] else np.zeros(0, self.dtype)
        sums, kind = self.answer_sums(number, out, chunks, K)
        y = out.array
        T = -(-s.rows * s.w // ROWS) * ROWS
        self.passed.read[number] = [view]
        self.steps.add(direct.convolve, self.lanes_, s, self.reading(view, self.passed.coefficients),
                       Writing(kind, y, y, y, y, self.nothing, sums), P.array, bias,
                       work=(s.Q + s.Kb) * T * self.L)  # fmt: skip
        P.release()
        return View(out, (K, h, w))

    def linear(self, number, operation, view):
        return self.convolution(number, operation, view)

    def batch_norm(self, number, operation, view):
        view = self.stored(view)
        view = self.blocked(view)
        C, h, w = view.shape
        K = self.blocks(C) * self.L
        weight, bias, mean, variance = (self.arrays[name] for name in operation.arrays)
        held, rows = self.sums.pop(id(view.buffer), (None, 0))
        if self.mode == TRAIN and held is None:
            held, rows, z = self.new_sums(self.n, C), self.n, view.buffer.array
            self.steps.add(pointwise.finish, self.lanes_, Reading(0, z, z, self.nothing),
                           Writing(SUMS, z, z, z, z, self.nothing, held.array), self.n, h * w, self.blocks(C),
                           work=h * w * self.L)  # fmt: skip
        c, statistics = np.zeros(4 * K, self.dtype), np.zeros(2 * C)
        self.passed.coefficients[number, False] = c
        self.passed.statistics[number] = statistics[:C], statistics[C:]
        self.steps.add(pointwise.norm_coefficients, int(self.mode == TRAIN), self.no_sums if held is None else held.array,
                       rows, self.n * h * w, weight, bias, mean, variance, operation.options["eps"], c, statistics)  # fmt: skip
        if held is not None:
            held.release()
        self.passed.read[number] = [view]
        return View(view.buffer.held(), view.shape, norm=number)

    def normalise(self, number, operation, view):
        if view.norm is not None:
            view = self.stored(view)
        C, K = view.shape[0], self.blocks(view.shape[0]) * self.L
        scale = 1 / np.asarray(operation.options["deviation"])
        both = scale, -np.asarray(operation.options["mean"]) * scale
        self.passed.coefficients[number, True] = np.concatenate(both).astype(self.dtype)
        c = np.zeros((2, K), self.dtype)
        c[:, :C] = both
        self.passed.coefficients[number, False] = c.reshape(-1)
        return View(view.buffer.held(), view.shape, plain=view.plain, norm=number)

    def relu(self, number, operation, view):
        if self.engine.is_joined(operation.inputs[0]):
            return View(view.buffer.held(), view.shape)
        if view.relu and self.engine.is_plain_relu(operation):
            view = self.stored(view)
        view = self.without_relu(view)
        if view.norm is not None and self.engine.is_plain_relu(operation):
            return View(view.buffer.held(), view.shape, norm=view.norm, relu=True)
        C, h, w = view.shape
        out, z, c = self.new(view.shape), view.buffer.array, self.coefficients(view)
        self.passed.read[number] = [view]
        if self.engine.is_plain_relu(operation):
            self.steps.add(pointwise.join, self.lanes_, 2, out.array, z, z, c, c, self.no_sums, self.n, h * w, self.blocks(C))
        else:
            q, rho = operation.options["q"], self.dtype.type(operation.options["rho"])
            self.steps.add(pointwise.smooth, self.lanes_, 0, out.array, z, z, c, q, rho, self.dtype.type(1) / rho, self.n,
                           h * w, self.blocks(C))  # fmt: skip
        return View(out, view.shape)

    def add(self, number, operation, *views):
        first, second = (self.without_relu(view) for view in views)
        C, h, w = first.shape
        out, sums = self.new(first.shape), self.no_sums
        kind = 1 | 2 * self.engine.is_joined(number + 1)
        reader = self.engine.consumers[number + 1][0] if kind & 2 else number  # whose answer is what is written
        if self.wants_sums(reader):
            held = self.new_sums(self.n, C)
            self.sums[id(out)], sums, kind = (held, self.n), held.array, kind | 4
        self.passed.read[number] = [first, second]
        self.steps.add(pointwise.join, self.lanes_, kind, out.array, first.buffer.array, second.buffer.array,
                       self.coefficients(first), self.coefficients(second), sums, self.n, h * w, self.blocks(C))  # fmt: skip
        return View(out, first.shape)

    def sum_pool(self, number, operation, view):
        view = self.blocked(view)
        C, H, W = view.shape
        size = operation.options["size"]
        kh, kw = (H, W) if size is None else (size, size)
        shape = C, side(H, kh, kh, 0), side(W, kw, kw, 0)
        out = self.new(shape)
        self.passed.read[number] = [view]
        self.steps.add(pointwise.pool, self.lanes_, self.reading(view, self.passed.coefficients), out.array,
                       self.dtype.type(operation.options["scale"]), self.n, H, W, kh, kw, self.blocks(C),
                       work=H * W * self.L)  # fmt: skip
        return View(out, shape)


def _give_back(buffers, _):
    for buffer in buffers:
        buffer.release()
