"""What a network does, as engines read it: a list of operations on numbered values."""

from typing import Final, Literal, NamedTuple, get_args

Mode = Literal["train", "evaluate"]
TRAIN: Final = "train"
EVALUATE: Final = "evaluate"
MODES: tuple[Mode, ...] = get_args(Mode)  # of batch norm: with the batch's statistics, or with the running ones


class Operation(NamedTuple):
    """One layer's work on one value; the sum of two for "add".

    ==============  ====================================  ===============================================
    kind            arrays                                options
    ==============  ====================================  ===============================================
    convolution     weight (O, C, K, K), bias (O,) or -   stride, padding
    batch_norm      weight, bias, running mean and        eps, momentum
                    variance, (C,) each
    normalise       -                                     mean, deviation: one number per channel
    relu            -                                     q, rho
    add             -                                     -
    sum_pool        -                                     size (None: all pixels), scale (1 / pixels: average)
    linear          weight (k, E), bias (k,) or -         -
    ==============  ====================================  ===============================================
    """

    kind: str
    inputs: tuple[int, ...]  # the values that it reads: 0 is the image, v > 0 the answer of operation v - 1
    arrays: tuple[str, ...] = ()  # the names of its arrays
    options: dict[str, object] = {}  # noqa: RUF012  (never changed)


class Program(NamedTuple):
    """Operations in the order in which they are done, and the shapes of all values, without the axis of images.

    ``parameters`` and ``statistics`` are the shapes of arrays by name: those that training moves, and batch norm's
    running ones.  ``representation`` is the value that the last linear layer reads.
    """

    operations: tuple[Operation, ...]
    shapes: tuple[tuple[int, ...], ...]
    parameters: dict[str, tuple[int, ...]]
    statistics: dict[str, tuple[int, ...]]
    representation: int

    @property
    def logits(self) -> int:
        """The last value."""
        return len(self.operations)

    def needed(self, inputs: bool, parameters: bool) -> list[bool]:
        """Which values have a gradient that is asked for: those that hang on the image or on a parameter."""
        hang = [inputs]
        for operation in self.operations:
            hang.append((parameters and bool(operation.arrays)) or any(hang[v] for v in operation.inputs))
        return hang
