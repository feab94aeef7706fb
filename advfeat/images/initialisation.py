"""Initial weights of networks of layers."""

from __future__ import annotations

import numpy as np

from ..core import checks
from ..core.rng import stream
from ..core.types import Float64Array
from ..kernels.layers import Program


def initialised(program: Program, rng: int | np.random.Generator) -> dict[str, Float64Array]:
    """Initial arrays, float64, drawn in the order of the layers.

    Convolutions' weights are N(0, 2 / (O K^2)), O channels out: He et al. 2015 with fan-out, which keeps the
    variance of gradients.  Linear weights are uniform in +-1/sqrt(E), E numbers in.  Biases are 0; batch norm begins
    with weight 1, bias 0, running mean 0 and variance 1.
    """
    rng = rng if isinstance(rng, np.random.Generator) else stream(checks.seeds(rng, 1, "rng")[0], "init")
    arrays = {}
    for operation in program.operations:
        for name in operation.arrays:
            shape, last = (program.parameters | program.statistics)[name], name.rpartition(".")[2]
            if operation.kind == "batch_norm":
                arrays[name] = np.full(shape, float(last in ("weight", "running_var")))
            elif last == "bias":
                arrays[name] = np.zeros(shape)
            elif operation.kind == "convolution":
                arrays[name] = rng.standard_normal(shape) * np.sqrt(2 / (shape[0] * shape[2] * shape[3]))
            else:
                arrays[name] = rng.uniform(-1, 1, shape) / np.sqrt(shape[1])
    return arrays
