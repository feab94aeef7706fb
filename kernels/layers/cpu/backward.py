"""The way back through the CPU engine's passes.

A *slot* gathers the gradients by one value.  Whoever writes the last of them also does what follows in front of the
value: adds the others, applies the ReLU's mask, sums for the batch norm's gradient (the *ending* of the value).  A
batch norm's gradient c0 g + c1 z + c2 is written nowhere: it is a `Mix`, which the convolution in front of it reads.
"""

import sys
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..program import TRAIN
from . import direct, pointwise, winograd
from .direct import Reading, Writing
from .passes import Pass, image
from .rows import MASK_O, MASK_Z, NORM, RESIDUAL, ROWS, SUMS
from .team import Buffer

UNUSED = 3  # references to a gradient that nobody holds: the plan's, that of its flat form, the question itself


@dataclass(frozen=True, eq=False)
class Mix:
    """A gradient that is read as c0 g + c1 z + c2, or c0 g where z is None."""

    g: Buffer
    z: Buffer | None
    c: np.ndarray

    def release(self):
        self.g.release()


@dataclass(frozen=True)
class Ending:
    """What is done to the gradient by a value before it is passed on; `norm`: whose sums are taken with it."""

    kind: int = 0
    z: np.ndarray | None = None
    o: np.ndarray | None = None
    c: np.ndarray | None = None
    norm: int | None = None


class Backward(Pass):
    """The plan of a pass back from the gradient G by the last value of a plan forward, run any number of times."""

    def __init__(self, forward, inputs, parameters, **own):
        super().__init__(forward.engine, forward.arrays, forward.n, forward.dtype, **own)
        self.passed, self.inputs, self.parameters, self.last = forward, inputs, parameters, forward.last
        self.needed = self.program.needed(inputs, parameters)
        self.slots: dict[int, list] = {}
        self.ended: set[int] = set()  # values whose ending is done
        self.norm_sums: dict[int, tuple] = {}  # norm -> (the gradient that was summed, sums, rows)
        self.found, self.places, self.plain, self.after = {}, {}, [], []
        operations = list(enumerate(self.program.operations[: self.last]))
        self.prepare_weights([i for i, one in operations if one.kind in ("convolution", "linear")
                              and self.needed[one.inputs[0]]], True)  # fmt: skip
        C, h, w = image(self.program.shapes[self.last])
        start, self.G = self.new((C, h, w)), np.empty(self.n * C * h * w, self.dtype)
        self.steps.add(pointwise.to_blocks, self.lanes, start.array, self.G, self.n, C, h * w, self.blocks(C))
        self.slots[self.last] = [start]
        for number in reversed(range(self.last)):
            if number + 1 in self.slots:
                operation = self.program.operations[number]
                getattr(self, operation.kind)(number, operation)
        if self.inputs and self.slots.get(0):
            g, shape = self.written(self.slots.pop(0), image(self.program.shapes[0])), image(self.program.shapes[0])
            self.plain.append(np.empty(self.n * int(np.prod(shape)), self.dtype))
            C, h, w = shape
            self.steps.add(pointwise.to_plain, self.lanes, self.plain[-1], g.array, self.n, C, h * w, self.blocks(C))
            self.steps.release(g)
        self.steps.close()
        self.seconds = forward.seconds * (inputs + parameters)
        self.passed = None  # which holds this plan

    def run_on(self, G):
        """(dJ/dX or None, dJ/d parameter by name)."""
        self.G[:] = G.reshape(-1)
        for name, (number, place) in self.places.items():
            if sys.getrefcount(self.found[name]) > UNUSED:  # somebody still holds the last answer
                self.found[name] = np.empty_like(self.found[name])
                self.steps.replace(number, place, self.found[name].reshape(-1))
        self.run()
        for then in self.after:
            then()
        dX = None
        if self.inputs:
            dX = sum(self.plain[1:], self.plain[0].copy()).reshape(self.n, *self.program.shapes[0])
        return dX, dict(self.found)

    def output(self, name: str, place: int):
        """A parameter's gradient, which the next step writes as its argument `place`, flat."""
        V = self.found[name] = np.empty(self.program.parameters[name], self.dtype)
        self.places[name] = len(self.steps.calls), place
        return V.reshape(-1)

    # -------------------------------------------------------------- gradients as they are read
    def reading_of(self, one) -> Reading:
        if isinstance(one, Buffer):
            return Reading(0, one.array, one.array, self.nothing)
        if one.z is None:
            return Reading(3, one.g.array, one.g.array, one.c)
        return Reading(2, one.g.array, one.z.array, one.c)

    def written(self, several: list, shape) -> Buffer:
        """The sum of gradients by one value, in memory."""
        first, *rest = several
        if not isinstance(first, Buffer):
            first = self.finished(first, None, Ending(), shape)
        for other in rest:
            first = self.finished(other, first, Ending(), shape)
        return first

    def single(self, several: list, shape):
        """One gradient that is their sum."""
        return several[0] if len(several) == 1 else self.written(several, shape)

    def finished(self, source, other: Buffer | None, ending: Ending, shape) -> Buffer:
        """The ending of source + other, as a step of its own."""
        out = self.new(shape)
        C, h, w = shape
        target = self.target(out, other, ending, self.n, C)
        self.steps.add(pointwise.finish, self.lanes, self.reading_of(source), target, self.n, h * w, self.blocks(C),
                       work=h * w * self.L)  # fmt: skip
        self.steps.release(source)
        if other is not None:
            self.steps.release(other)
        return out

    def target(self, out: Buffer, other, ending: Ending, rows: int, channels: int):
        """Where a gradient is written, with its ending."""
        y, kind, sums = out.array, ending.kind | (RESIDUAL if other is not None else 0), self.no_sums
        if kind & NORM:
            held = self.sums_memory.take(rows * 2 * self.blocks(channels) * self.L)
            sums = held.array
            if ending.norm is not None:
                self.norm_sums[ending.norm] = out, held, rows
            else:
                held.release()
        r = y if other is None else other.array
        z, o = (y if a is None else a for a in (ending.z, ending.o))
        return Writing(kind, y, z, r, o, self.nothing if ending.c is None else ending.c, sums)

    def ending(self, v: int) -> Ending:
        """What stands in front of a value."""
        if v == 0:
            return Ending()
        operation, view = self.program.operations[v - 1], self.passed.views[v]
        alone = len(self.engine.consumers[operation.inputs[0]]) == 1
        if self.engine.is_plain_relu(operation):
            if view.norm is not None:
                c = self.passed.coefficients[view.norm, False]
                return Ending(MASK_Z | NORM, view.buffer.array, None, c, view.norm if alone else None)
            if self.engine.is_joined(operation.inputs[0]):
                join = operation.inputs[0] - 1
                for u, read in zip(self.program.operations[join].inputs, self.passed.read[join]):
                    alone = len(self.engine.consumers[u]) == 1
                    if alone and (read.norm, False) in self.norms:
                        c = self.passed.coefficients[read.norm, False]
                        return Ending(MASK_O | NORM, read.buffer.array, view.buffer.array, c, read.norm)
            return Ending(MASK_O, None, view.buffer.array)
        return Ending()

    @property
    def norms(self):
        return {key for key in self.passed.coefficients if self.program.operations[key[0]].kind == "batch_norm"}

    def gather(self, v: int, number: int, rows: int):
        """The place for operation `number`'s gradient by value v; where no other will come, with the value's ending."""
        shape = image(self.program.shapes[v])
        out = self.new(shape)
        if min(self.engine.consumers[v]) != number:
            self.slots.setdefault(v, []).append(out)
            return self.target(out, None, Ending(), rows, shape[0])
        others = self.slots.pop(v, [])
        other = self.written(others, shape) if others else None
        target = self.target(out, other, self.ending(v), rows, shape[0])
        self.slots[v] = [out]
        self.ended.add(v)
        if other is not None:
            self.steps.release(other)
        return target

    def pass_on(self, g: Buffer, *values) -> None:
        """One gradient in memory to the slots of several values."""
        for v in values:
            if self.needed[v]:
                self.slots.setdefault(v, []).append(g.held())
        self.steps.release(g)

    # -------------------------------------------------------------- operations
    def convolution(self, number, operation):
        v, (u,) = number + 1, operation.inputs
        shape, (view,) = image(self.program.shapes[v]), self.passed.read[number]
        g = self.single(self.slots.pop(v), shape)
        slopes = self.reading_of(g)
        if self.engine.by_tiles(number, view.plain):
            self.tiled(number, operation, view, slopes, shape)
            self.steps.release(g)
            return
        s = self.engine.shape(number, self.n, self.L, self.dtype.itemsize, view.plain)
        if self.parameters:
            self.weight_gradient(number, operation, s, view, slopes, shape)
        if self.needed[u]:
            P = self.prepared.pop(number)
            T = -(-s.images * s.h * s.w // ROWS) * ROWS
            work = (s.Kb + s.Q) * T * self.L + (s.W + 2 * s.padding + s.stride + s.kw) * self.L
            if view.plain:
                dX = np.empty(self.n * s.C * s.H * s.W, self.dtype)
                c = self.reading(view, self.passed.coefficients).c
                target = Writing(0, dX, dX, dX, dX, c, self.no_sums)
                self.plain.append(dX)
            else:
                target = self.gather(u, number, -(-s.N // s.images))
            self.steps.add(direct.input_gradient, self.lanes, s, slopes, target, P.array, work=work)
            self.steps.release(P)
        self.steps.release(g)

    linear = convolution

    def tiled(self, number, operation, view, slopes, shape):
        """A convolution by Winograd's tiles."""
        (u,) = operation.inputs
        if self.parameters:
            s = self.engine.tiling(number, self.n, self.L, self.dtype.itemsize, False)
            source = self.reading(view, self.passed.coefficients)
            if self.engine.is_wide(s, self.dtype.itemsize):
                self.wide_weight_gradient(s, source, slopes, operation.arrays[0])
            else:
                self.tiled_weight_gradient(s, source, slopes, operation.arrays[0])
            self.bias_gradient(operation, slopes, shape)
        if self.needed[u]:
            s = self.engine.tiling(number, self.n, self.L, self.dtype.itemsize, True)
            target = self.gather(u, number, self.chunks(s))
            self.by_tiles(number, s, slopes, target, np.zeros(s.Kb * self.L, self.dtype), True)

    def tiled_weight_gradient(self, s, source, slopes, name):
        D = self.memory.take(s.groups * 36 * (s.Cb * self.L * s.Kb + winograd.PAD) * self.L)
        T = -(-s.units * s.TW // 2) * 2
        work = 6 * (4 * s.TW + 2) * self.L + 36 * ((s.Cb + s.Kb) * T + 2) * self.L
        self.steps.add(winograd.weight_gradient_tiles, self.lanes, s, source, slopes, D.array, work=work)
        V = self.output(name, 3)
        self.steps.add(winograd.lower_weights_out, self.lanes, s, D.array, V, work=9 * s.Cb * self.L**2, free=True)
        self.steps.release(D)

    def wide_weight_gradient(self, s, source, slopes, name):
        x = self.lifted(s, 6, source, s.Cb)
        g = self.lifted(s, 4, slopes, s.Kb)
        rows = s.Cb * self.L
        work = 36 * (rows * 2 + winograd.PAD) * self.L + 9 * rows * self.L
        V = self.output(name, 4)
        self.steps.add(winograd.weight_gradient_wide, self.lanes, s, x.array, g.array, V, work=work, free=True)
        self.steps.release(x)
        self.steps.release(g)

    def weight_gradient(self, number, operation, s, view, slopes, shape):
        size = s.Q * self.L * s.Kb * self.L
        D = self.memory.take(s.groups * size)
        T = -(-s.rows * s.w // 2) * 2
        source = self.reading(view, self.passed.coefficients)
        self.steps.add(direct.weight_gradient, self.lanes, s, source, slopes, D.array, work=(s.Q + s.Kb) * T * self.L)
        self.steps.add(direct.unpack, self.lanes, s, D.array, self.output(operation.arrays[0], 3), free=True)
        self.steps.release(D)
        self.bias_gradient(operation, slopes, shape)

    def bias_gradient(self, operation, slopes, shape):
        """The sums of a gradient over images and pixels, where the operation has a bias."""
        for name in operation.arrays[1:]:
            C, h, w = shape
            out, sums = self.new(shape), np.zeros(self.n * 2 * self.blocks(C) * self.L)
            target = Writing(SUMS, out.array, out.array, out.array, out.array, self.nothing, sums)
            self.steps.add(pointwise.finish, self.lanes, slopes, target, self.n, h * w, self.blocks(C),
                           work=h * w * self.L)  # fmt: skip
            self.steps.release(out)
            rows = sums.reshape(self.n, 2, -1)[:, 0, :C]
            self.after.append(partial(_sum_rows, self.found, name, rows, self.dtype))

    def batch_norm(self, number, operation):
        v, (u,) = number + 1, operation.inputs
        shape, (view,) = image(self.program.shapes[v]), self.passed.read[number]
        g, c = self.written(self.slots.pop(v), shape), self.passed.coefficients[number, False]
        train, wanted = self.passed.mode == TRAIN, self.parameters or self.passed.mode == TRAIN
        summed, held, rows = self.norm_sums.pop(number, (None, None, 0))
        z = view.buffer.array
        C, h, w = shape
        if summed is not g and wanted:
            held, rows = self.sums_memory.take(self.n * 2 * self.blocks(C) * self.L), self.n
            y = g.array  # every number is written as it is
            self.steps.add(pointwise.finish, self.lanes, Reading(0, y, y, self.nothing),
                           Writing(NORM, y, z, y, y, c, held.array), self.n, h * w, self.blocks(C),
                           work=h * w * self.L)  # fmt: skip
        weight, statistics = self.arrays[operation.arrays[0]], self.passed.statistics[number]
        mixed = np.zeros(3 * self.blocks(C) * self.L, self.dtype)
        slopes = [self.output(name, 8 + i) for i, name in enumerate(operation.arrays[:2])] if self.parameters else [
            np.empty(C, self.dtype) for _ in range(2)]  # fmt: skip
        self.steps.add(pointwise.norm_gradient, int(train), self.no_sums if held is None else held.array,
                       rows if held is not None else 0, self.n * h * w, weight, statistics, operation.options["eps"],
                       mixed, *slopes, each=True)  # fmt: skip
        if held is not None:
            self.steps.release(held)
        if self.needed[u]:
            self.slots.setdefault(u, []).append(Mix(g, view.buffer if train else None, mixed))
        else:
            self.steps.release(g)

    def normalise(self, number, operation):
        v, (u,) = number + 1, operation.inputs
        g = self.written(self.slots.pop(v), image(self.program.shapes[v]))
        if self.needed[u]:
            c = self.passed.coefficients[number, False].copy()
            c[len(c) // 2 :] = 0
            self.slots.setdefault(u, []).append(Mix(g, None, c))

    def relu(self, number, operation):
        v, (u,) = number + 1, operation.inputs
        several, shape = self.slots.pop(v), image(self.program.shapes[v])
        if not self.engine.is_plain_relu(operation):
            (view,), g, (C, h, w) = self.passed.read[number], self.written(several, shape), shape
            out, z = self.new(shape), view.buffer.array
            q, rho = operation.options["q"], self.dtype.type(operation.options["rho"])
            c = self.identity(C) if view.norm is None else self.passed.coefficients[view.norm, False]
            self.steps.add(pointwise.smooth, self.lanes, 1, out.array, z, g.array, c, q, rho, self.dtype.type(1) / rho,
                           self.n, h * w, self.blocks(C))  # fmt: skip
            self.steps.release(g)
            self.pass_on(out, u)
            return
        if v in self.ended:
            (g,) = several
        else:
            first, *rest = several
            other = self.written(rest, shape) if rest else None
            g = self.finished(first, other, self.ending(v), shape)
        self.pass_on(g, u)

    def add(self, number, operation):
        v = number + 1
        g = self.written(self.slots.pop(v), image(self.program.shapes[v]))
        self.pass_on(g, *operation.inputs)

    def sum_pool(self, number, operation):
        v, (u,) = number + 1, operation.inputs
        g, (view,) = self.written(self.slots.pop(v), image(self.program.shapes[v])), self.passed.read[number]
        if self.needed[u]:
            C, H, W = view.shape
            _, h, w = image(self.program.shapes[v])
            target = self.gather(u, number, self.n)
            scale = self.dtype.type(operation.options["scale"])
            self.steps.add(pointwise.spread, self.lanes, g.array, target, scale, self.n, H, W, H // h, W // w,
                           self.blocks(C), work=H * W * self.L)  # fmt: skip
        self.steps.release(g)


def _sum_rows(found, name, rows, dtype) -> None:
    found[name] = rows.sum(axis=0).astype(dtype)
