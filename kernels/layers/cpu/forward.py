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

FLOPS = 1.5e11  # of one thread in float32, about


class Forwards(Pass):
    """The plan of a pass forward over n images, to be run any number of times.

    Attributes
    ----------
    views : how every value is read
    read : operation -> the views of its inputs
    coefficients : (operation, whether they are for an image as it is given) -> those that its views are read with
    statistics : operation -> mean and biased variance (2 C,) of a batch norm
    """

    def __init__(self, engine, arrays, n, dtype, mode, last, keep, **own):
        super().__init__(engine, arrays, n, dtype, **own)
        self.mode, self.keep, self.last = mode, keep, last
        self.read, self.coefficients, self.statistics, self.backs = {}, {}, {}, {}
        self.biases: list[tuple] = []  # with 0 behind the last channel, and as they are
        self.sums: dict[Buffer, tuple] = {}
        shape = image(self.program.shapes[0])
        given = Buffer(None, np.empty(n * int(np.prod(shape)), self.dtype))
        given.users = 2**60  # never given back
        self.views = [View(given, shape, plain=True)]
        operations = self.program.operations[:last]
        self.prepare_weights([i for i, one in enumerate(operations) if one.kind in ("convolution", "linear")], False)
        for number, operation in enumerate(operations):
            views = [self.views[v] for v in operation.inputs]
            self.views.append(getattr(self, operation.kind)(number, operation, *views))
            for v in () if keep else set(operation.inputs):
                if max(self.engine.consumers[v]) == number:
                    self.steps.release(self.views[v].buffer)
        end = self.stored(self.views[last])
        C, h, w = end.shape
        self.F = np.empty((n, *self.program.shapes[last]), self.dtype)
        if end.plain:
            self.F = given.array.reshape(self.F.shape)
        else:
            self.steps.add(pointwise.to_plain, self.lanes, self.F.reshape(-1), end.buffer.array, n, C, h * w,
                           self.blocks(C))  # fmt: skip
        self.steps.close()
        if keep:
            weakref.finalize(self, _give_back, [view.buffer for view in self.views])
        self.seconds = n * engine.macs(last) * self.dtype.itemsize / 2 / FLOPS
        self.user = lambda: None  # the pass whose values lie in this plan's memory

    def is_for(self, arrays) -> bool:
        """Whether it reads these very arrays, and nobody needs what lies in its memory."""
        return self.user() is None and all(self.arrays[name] is a for name, a in arrays.items())

    def run_on(self, X) -> Passed:
        self.views[0].buffer.array[:] = X.reshape(-1)
        for padded, bias in self.biases:
            padded[: len(bias)] = bias
        self.run()
        statistics = {number: tuple(both.reshape(2, -1).copy()) for number, both in self.statistics.items()}
        passed = Passed([None] * self.last + [self.F.copy()], statistics, self.mode, self)
        self.user = weakref.ref(passed)
        return passed

    # -------------------------------------------------------------- views
    def blocked(self, view: View) -> View:
        """The view in blocks."""
        if not view.plain:
            return view
        C, h, w = view.shape
        out = self.new(view.shape)
        self.steps.add(pointwise.to_blocks, self.lanes, out.array, view.buffer.array, self.n, C, h * w, self.blocks(C))
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
        out, c = self.new(view.shape), self.coefficients[view.norm, False]
        z = view.buffer.array
        self.steps.add(pointwise.join, self.lanes, 2 * view.relu, out.array, z, z, c, c, self.no_sums, self.n, h * w,
                       self.blocks(C))  # fmt: skip
        return View(out, view.shape)

    def factors(self, view: View):
        """The coefficients that a view is read with, those that change nothing included."""
        return self.identity(view.shape[0]) if view.norm is None else self.coefficients[view.norm, False]

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
        self.read[number] = [view]
        y = out.array
        target = Writing(kind, y, y, y, y, self.nothing, sums)
        self.by_tiles(number, s, self.reading(view, self.coefficients), target, self.bias(operation, s), False)
        return View(out, (s.K, s.H, s.W))

    def bias(self, operation, s):
        """The bias of a convolution's channels, 0 behind the last one."""
        bias = np.zeros(s.Kb * self.L, self.dtype)
        self.biases += [(bias, self.arrays[name]) for name in operation.arrays[1:]]
        return bias

    def answer_sums(self, number, out, rows, channels):
        """Memory for the sums that a batch norm behind an answer wants, and the epilogue that takes them."""
        if not self.wants_sums(number):
            return self.no_sums, 0
        held = self.new_sums(rows, channels)
        self.sums[out] = held, rows
        return held.array, SUMS

    def convolution(self, number, operation, view):
        if self.engine.by_tiles(number, view.plain):
            return self.tiled(number, operation, view)
        s = self.engine.shape(number, self.n, self.L, self.dtype.itemsize, view.plain)
        K, h, w = image(self.program.shapes[number + 1])
        P, out, chunks = self.prepared.pop(number), self.new((K, h, w)), -(-s.N * s.h // s.rows)
        bias = self.bias(operation, s) if operation.arrays[1:] else np.zeros(0, self.dtype)
        sums, kind = self.answer_sums(number, out, chunks, K)
        y = out.array
        T = -(-s.rows * s.w // ROWS) * ROWS
        self.read[number] = [view]
        self.steps.add(direct.convolve, self.lanes, s, self.reading(view, self.coefficients),
                       Writing(kind, y, y, y, y, self.nothing, sums), P.array, bias,
                       work=(s.Q + s.Kb) * T * self.L)  # fmt: skip
        self.steps.release(P)
        return View(out, (K, h, w))

    linear = convolution

    def batch_norm(self, number, operation, view):
        view = self.stored(view)
        view = self.blocked(view)
        C, h, w = view.shape
        K = self.blocks(C) * self.L
        weight, bias, mean, variance = (self.arrays[name] for name in operation.arrays)
        held, rows = self.sums.pop(view.buffer, (None, 0))
        if self.mode == TRAIN and held is None:
            held, rows, z = self.new_sums(self.n, C), self.n, view.buffer.array
            self.steps.add(pointwise.finish, self.lanes, Reading(0, z, z, self.nothing),
                           Writing(SUMS, z, z, z, z, self.nothing, held.array), self.n, h * w, self.blocks(C),
                           work=h * w * self.L)  # fmt: skip
        c, statistics = np.zeros(4 * K, self.dtype), np.zeros(2 * C)
        self.coefficients[number, False], self.statistics[number] = c, statistics
        sums = self.no_sums if held is None else held.array
        self.steps.add(pointwise.norm_coefficients, int(self.mode == TRAIN), sums,
                       rows, self.n * h * w, weight, bias, mean, variance, operation.options["eps"], c, statistics,
                       each=True)  # fmt: skip
        if held is not None:
            self.steps.release(held)
        self.read[number] = [view]
        return View(view.buffer.held(), view.shape, norm=number)

    def normalise(self, number, operation, view):
        if view.norm is not None:
            view = self.stored(view)
        C, K = view.shape[0], self.blocks(view.shape[0]) * self.L
        scale = 1 / np.asarray(operation.options["deviation"])
        both = scale, -np.asarray(operation.options["mean"]) * scale
        self.coefficients[number, True] = np.concatenate(both).astype(self.dtype)
        c = np.zeros((2, K), self.dtype)
        c[:, :C] = both
        self.coefficients[number, False] = c.reshape(-1)
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
        out, z, c = self.new(view.shape), view.buffer.array, self.factors(view)
        self.read[number] = [view]
        if self.engine.is_plain_relu(operation):
            self.steps.add(pointwise.join, self.lanes, 2, out.array, z, z, c, c, self.no_sums, self.n, h * w,
                           self.blocks(C))  # fmt: skip
        else:
            q, rho = operation.options["q"], self.dtype.type(operation.options["rho"])
            self.steps.add(pointwise.smooth, self.lanes, 0, out.array, z, z, c, q, rho, self.dtype.type(1) / rho,
                           self.n, h * w, self.blocks(C))  # fmt: skip
        return View(out, view.shape)

    def add(self, number, operation, *views):
        first, second = (self.without_relu(view) for view in views)
        C, h, w = first.shape
        out, sums = self.new(first.shape), self.no_sums
        kind = 1 | 2 * self.engine.is_joined(number + 1)
        reader = self.engine.consumers[number + 1][0] if kind & 2 else number  # whose answer is what is written
        if self.wants_sums(reader):
            held = self.new_sums(self.n, C)
            self.sums[out], sums, kind = (held, self.n), held.array, kind | 4
        self.read[number] = [first, second]
        self.steps.add(pointwise.join, self.lanes, kind, out.array, first.buffer.array, second.buffer.array,
                       self.factors(first), self.factors(second), sums, self.n, h * w, self.blocks(C))  # fmt: skip
        return View(out, first.shape)

    def sum_pool(self, number, operation, view):
        view = self.blocked(view)
        C, H, W = view.shape
        size = operation.options["size"]
        kh, kw = (H, W) if size is None else (size, size)
        shape = C, side(H, kh, kh, 0), side(W, kw, kw, 0)
        out = self.new(shape)
        self.read[number] = [view]
        self.steps.add(pointwise.pool, self.lanes, self.reading(view, self.coefficients), out.array,
                       self.dtype.type(operation.options["scale"]), self.n, H, W, kh, kw, self.blocks(C),
                       work=H * W * self.L)  # fmt: skip
        return View(out, shape)


def _give_back(buffers) -> None:
    for buffer in buffers:
        buffer.release()
