"""What both ways through a network share: how values are read, shapes of kernels, steps and memory."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from . import direct, winograd
from .direct import Reading
from .rows import ROWS
from .team import Buffer, Memory, Steps
from .winograd import Tiling


@dataclass(frozen=True, eq=False)
class View:
    """How a value is read: an array in blocks of channels, or one as it is given (`plain`); through the coefficients of
    an operation, and max(., 0) then."""

    buffer: Buffer
    shape: tuple[int, int, int]  # C, H, W
    plain: bool = False
    norm: int | None = None
    relu: bool = False


@dataclass
class Passed:
    """A forward pass: its last value, the statistics of its batch norms, and the plan whose memory holds the rest."""

    values: list
    statistics: dict
    mode: str
    plan: object


def image(shape) -> tuple[int, int, int]:
    """A value's shape as C, H, W."""
    return tuple(shape) if len(shape) == 3 else (*shape, 1, 1)


class Pass:
    """What both ways share: steps, memory, shapes."""

    def __init__(self, engine, arrays, n: int, dtype, memory=None, given=None):
        """`memory` and the prepared weights `given`: where they are not those of the engine and of this pass."""
        self.engine, self.program, self.arrays, self.n, self.dtype = engine, engine.program, arrays, n, np.dtype(dtype)
        self.L = engine.lanes(self.dtype.itemsize)
        self.lanes = (0,) * self.L
        self.steps, self.memory = Steps(), engine.pool(dtype) if memory is None else memory
        self.sums_memory = engine.pool(np.float64) if memory is None else Memory(np.float64)
        self.given, self.own, self.seconds = given, None, np.inf

    @cached_property
    def nothing(self):
        return np.zeros(4 * self.L, self.dtype)

    @cached_property
    def no_sums(self):
        return np.zeros(1)

    def blocks(self, channels: int) -> int:
        return -(-channels // self.L)

    def new(self, shape) -> Buffer:
        """Memory for n images (C, H, W) in blocks."""
        C, h, w = shape
        return self.memory.take(self.n * self.blocks(C) * self.L * h * w)

    def identity(self, channels: int, padded: bool = True):
        """Coefficients that change nothing."""
        K = self.blocks(channels) * self.L if padded else channels
        return np.concatenate([np.ones(K), np.zeros(K)]).astype(self.dtype)

    def prepare_weights(self, numbers, turned: bool) -> None:
        """The weights of convolutions as their kernels read them, first of all; wide layers prepare their own."""
        self.prepared: dict[int, Buffer] = {}
        if self.given is not None:
            self.prepared = {number: self.given[number].held() for number in numbers if number in self.given}
            return
        for number in numbers:
            operation = self.program.operations[number]
            V, plain = self.arrays[operation.arrays[0]].reshape(-1), self.engine.is_plain(operation.inputs[0])
            if self.engine.by_tiles(number, plain):
                s = self.engine.tiling(number, self.n, self.L, self.dtype.itemsize, turned)
                if not self.engine.is_wide(s, self.dtype.itemsize):
                    U = self.memory.take(36 * (s.Cb * self.L * s.Kb + winograd.PAD) * self.L)
                    work = 9 * s.Cb * self.L**2
                    self.steps.add(winograd.lift_weights_in, self.lanes, s, V, U.array, int(turned), work=work,
                                   free=True)  # fmt: skip
                    self.prepared[number] = U
            else:
                s = self.engine.shape(number, self.n, self.L, self.dtype.itemsize, plain)
                P = self.memory.take(s.Q * self.L * s.Kb * self.L)
                self.steps.add(direct.pack, self.lanes, s, V, P.array, int(turned), free=True)
                self.prepared[number] = P
        self.steps.wait()

    def by_tiles(self, number: int, s: Tiling, source, target, bias, turned: bool) -> None:
        """Winograd's convolution with an operation's weights, or with them turned, of s's tiling."""
        V = self.arrays[self.program.operations[number].arrays[0]].reshape(-1)
        if self.engine.is_wide(s, self.dtype.itemsize):
            lifted, T = self.lifted(s, 6, source, s.Cb), -(-s.N * s.TH * s.TW // ROWS) * ROWS
            rows = s.Cb * self.L
            work = 6 * (4 * s.TW + 2) * self.L + 36 * (rows * 2 + winograd.PAD) * self.L
            work += max(36 * (2 * T + 1), 9 * rows) * self.L
            self.steps.add(winograd.convolve_wide, self.lanes, s, lifted.array, V, int(turned), target, bias,
                           work=work)  # fmt: skip
            self.steps.release(lifted)
            return
        U = self.prepared.pop(number)
        T = -(-s.units * s.TW // ROWS) * ROWS
        work = 6 * (4 * s.TW + 2) * self.L + 36 * ((s.Cb + s.Kb) * T + 2) * self.L
        self.steps.add(winograd.convolve_tiles, self.lanes, s, source, target, U.array, bias, work=work)
        self.steps.release(U)

    def chunks(self, s: Tiling) -> int:
        """Of answers, each with sums of its own."""
        return 1 if self.engine.is_wide(s, self.dtype.itemsize) else -(-s.N * s.TH // s.units)

    def lifted(self, s: Tiling, count: int, source, channels: int) -> Buffer:
        """All tiles of a wide layer, lifted."""
        T = -(-s.N * s.TH * s.TW // ROWS) * ROWS
        V = self.memory.take(36 * (channels * T + 1) * self.L)
        work = 6 * (4 * s.TW + 2) * self.L
        self.steps.add(winograd.lift_all, self.lanes, s, count, source, channels, V.array, work=work)
        return V

    def reading(self, view: View, coefficients) -> Reading:
        """A view as kernels read it."""
        x = view.buffer.array
        if view.plain:
            C = view.shape[0]
            return Reading(3, x, x, self.identity(C, False) if view.norm is None else coefficients[view.norm, True])
        if view.norm is None:
            return Reading(0, x, x, self.nothing)
        return Reading(1 if view.relu else 3, x, x, coefficients[view.norm, False])

    def run(self):
        if self.own is not None:  # a thread's own plan
            self.steps.alone(self.own)
            return
        self.steps.run(self.dtype, self.engine.scratch.setdefault(self.dtype, {}), self.seconds)
