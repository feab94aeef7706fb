"""The reference engine of layers: it runs a program's operations forward and backward by the formulas."""

from collections.abc import Mapping
from functools import cache, wraps
from typing import NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from . import formulas
from .program import EVALUATE, TRAIN, Operation, Program


@cache
def _products() -> ThreadpoolController:
    """The libraries behind NumPy's matrix products; to look for them takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")


def on_one_thread(method):
    """Matrix products of one thread inside: the same bits on any number of cores, and no threads that wait for each
    other at a network's thousands of small products, which takes ten times as long beside another busy process."""

    @wraps(method)
    def call(*args, **options):
        with _products().limit(limits=1):
            return method(*args, **options)

    return call


class Forward(NamedTuple):
    """What a forward pass leaves for the backward one: every value (None where it was not kept), and the mean and
    biased variance by which each batch norm standardised, by its operation's number."""

    values: list
    statistics: dict[int, tuple[np.ndarray, np.ndarray]]
    mode: str


class NumpyLayers:
    """The engine of one program.  Engines share these methods, one signature each.

    ``arrays`` are parameters and statistics by name, ``X (N, C, H, W)`` images, all of one dtype.
    """

    name = "numpy"

    def __init__(self, program: Program):
        self.program = program
        self.last_use = [0] * (len(program.operations) + 1)
        for number, operation in enumerate(program.operations):
            for v in operation.inputs:
                self.last_use[v] = number

    # -------------------------------------------------------------- the two passes
    @on_one_thread
    def forward(self, arrays: Mapping, X, mode: str, last: int | None = None, keep: bool = False) -> Forward:
        """All values up to `last` (the logits without it); `keep` them for `backward`, else only the last one.

        In training mode batch norm takes the batch's statistics, which stand in the answer; nothing is updated here.
        """
        last = self.program.logits if last is None else last
        values, statistics = [X] + [None] * last, {}
        for number, operation in enumerate(self.program.operations[:last]):
            inputs = [values[v] for v in operation.inputs]
            if operation.kind == "batch_norm":
                statistics[number] = self.statistics(operation, arrays, inputs[0], mode)
            values[number + 1] = self.answer(operation, arrays, inputs, statistics.get(number))
            for v in () if keep else operation.inputs:
                if self.last_use[v] == number:
                    values[v] = None
        return Forward(values, statistics, mode)

    @on_one_thread
    def backward(self, arrays: Mapping, passed: Forward, G, inputs=True, parameters=True):
        """(dJ/dX or None, dJ/d parameter by name) of G, the gradient by the last value of the pass, which was kept."""
        last, needed = len(passed.values) - 1, self.program.needed(inputs, parameters)
        gradients, found = {last: G}, {}
        for number in reversed(range(last)):
            operation, g = self.program.operations[number], gradients.pop(number + 1, None)
            if g is None:
                continue
            values = [passed.values[v] for v in operation.inputs]
            if parameters and operation.arrays:
                found |= self.parameter_gradients(operation, arrays, values[0], g, passed.statistics.get(number))
            for v in operation.inputs:
                if needed[v]:
                    pulled = self.input_gradient(operation, arrays, values[0], g, passed.statistics.get(number), passed)
                    gradients[v] = gradients[v] + pulled if v in gradients else pulled
        return gradients.get(0), found

    def apart(self, arrays, X, last=None, coefficients=None):
        """Whole passes of images by themselves: this engine has none."""
        return None

    running_statistics = staticmethod(formulas.running_statistics)

    # -------------------------------------------------------------- one operation
    def statistics(self, operation: Operation, arrays, X, mode):
        """Mean and biased variance of a batch norm."""
        if mode == TRAIN:
            return formulas.batch_statistics(X)
        return tuple(np.asarray(arrays[name], np.float64) for name in operation.arrays[2:])

    def answer(self, operation: Operation, arrays, inputs, statistics):
        """The value of one operation."""
        X, held, options = inputs[0], [arrays[name] for name in operation.arrays], operation.options
        match operation.kind:
            case "convolution":
                Z = formulas.convolution(X, held[0], **options)
                return formulas.shift(Z, held[1]) if held[1:] else Z
            case "batch_norm":
                return formulas.batch_norm(X, *statistics, *held[:2], options["eps"])
            case "normalise":
                return formulas.normalise(X, np.asarray(options["mean"]), np.asarray(options["deviation"]))
            case "relu":
                return formulas.relu(X, **options)
            case "add":
                return inputs[0] + inputs[1]
            case "sum_pool":
                return formulas.sum_pool(X, options["size"]) * X.dtype.type(options["scale"])
            case "linear":
                return formulas.linear(X, *held)
        raise ValueError(f"kind = {operation.kind!r}: no operation of layers")

    def input_gradient(self, operation: Operation, arrays, X, G, statistics, passed):
        """dJ/dX of one operation, of either of its inputs for "add"."""
        held, options = [arrays[name] for name in operation.arrays], operation.options
        match operation.kind:
            case "convolution":
                return formulas.convolution_input_gradient(G, held[0], **options, sides=X.shape[2:])
            case "batch_norm":
                if passed.mode == EVALUATE:
                    return formulas.frozen_batch_norm_gradient(G, statistics[1], held[0], options["eps"])
                return formulas.batch_norm_gradient(G, X, *statistics, held[0], options["eps"])
            case "normalise":
                return G / formulas.of_channels(np.asarray(options["deviation"]), G)
            case "relu":
                return formulas.relu_gradient(G, X, **options)
            case "sum_pool":
                return formulas.sum_pool_gradient(G * G.dtype.type(options["scale"]), X.shape[2:], options["size"])
            case "linear":
                return formulas.linear_input_gradient(G, held[0], X.shape[1:])
        return G

    def parameter_gradients(self, operation: Operation, arrays, X, G, statistics) -> dict:
        """dJ/d parameter of one operation, by name and in the parameters' dtype."""
        weight, options = arrays[operation.arrays[0]], operation.options
        if operation.kind == "batch_norm":
            found = formulas.batch_norm_parameter_gradients(G, X, *statistics, options["eps"])
        else:
            linear = operation.kind == "linear"
            found = [formulas.linear_weight_gradient(G, X) if linear else
                     formulas.convolution_weight_gradient(G, X, weight.shape[-1], **options)]  # fmt: skip
            found += [formulas.channel_sum(G)] * len(operation.arrays[1:])
        return {name: g.astype(weight.dtype, copy=False) for name, g in zip(operation.arrays, found)}

    # -------------------------------------------------------------- sizes
    def plan(self, n: int, itemsize: int) -> list[tuple[str, str]]:
        """How a pass over n images would work: rows (layer, kernel)."""
        return [("all", "NumPy's matrix products on windows, and its functions, one operation at a time")]

    def memory(self, n: int, itemsize: int, keep: bool) -> int:
        """About how many bytes a pass over n images takes beside images and arrays, with `keep` back as well."""
        sizes, work = [int(np.prod(shape)) for shape in self.program.shapes], 0
        for number, operation in enumerate(self.program.operations):
            windows, beside = 0, sizes[operation.inputs[0]] + sizes[number + 1]
            if operation.kind == "convolution":
                window, pixels = self.program.parameters[operation.arrays[0]][1:], self.program.shapes[number + 1][1:]
                windows = int(np.prod(window + pixels))
            # a product holds all windows, backward in two orders; elsewhere there are copies of what goes in and out
            work = max(work, (2 * windows + 3 * beside) if keep else windows + 2 * beside)
        return n * itemsize * (work + (sum(sizes) if keep else 0))
