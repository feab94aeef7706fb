"""Single convolutions on every path of the CPU engine beside oneDNN's (through PyTorch): speed, and float32's error.

    python benchmarks/layer_paths.py [--batch N] [--rounds N]

Rows are the convolutions of ResNet18, columns its answers and its gradients by images and by weights: milliseconds by
all threads, GFLOP/s of the direct algorithm, the ratio to oneDNN in its better memory layout, and the largest error
of float32 beside float64, relative to the largest number, ours and oneDNN's.  Needs the extra "test" (PyTorch).
Leave the machine alone meanwhile, unset OPENBLAS_CORETYPE.
"""

import argparse
import time

import numpy as np
import torch
from advfeat.kernels.cpu import engine
from advfeat.kernels.layers.cpu.direct import Shape
from advfeat.kernels.layers.cpu.team import Steps
from advfeat.kernels.layers.cpu.winograd import Tiling
from layers import PAUSE

from advfeat.images import Convolution, Linear, Network

#: channels in and out, side, window, stride: those of width 64 on 32 x 32 and of width 16 on 28 x 28.
LAYERS = [(3, 64, 32, 3, 1), (64, 64, 32, 3, 1), (64, 128, 32, 3, 2), (64, 128, 32, 1, 2), (128, 128, 16, 3, 1),
          (256, 256, 8, 3, 1), (512, 512, 4, 3, 1), (16, 16, 28, 3, 1), (16, 32, 28, 3, 2), (32, 32, 14, 3, 1),
          (64, 64, 7, 3, 1), (128, 128, 4, 3, 1)]  # fmt: skip
CALLS = 10  # in a row: what starts the threads counts for little
KINDS = ("answers", "by images", "by weights")


class Ours:
    """This library's convolution of images in blocks of channels, which a convolution that changes nothing makes of
    them; 3 channels are read as they are given."""

    def __init__(self, C, K, side, window, stride, X, V):
        layers = [Convolution(K, window, stride, padding=window // 2), Linear(2, bias=False)]
        layers = layers if C == 3 else [Convolution(C, 1, padding=0), *layers]
        self.net = Network(layers, X.shape[1:], dtype=X.dtype, box=None, rng=0)
        self.name = f"{len(layers) - 2}.weight"
        if C > 3:
            self.net.parameters["0.weight"][...] = np.eye(C)[:, :, None, None]
        self.net.parameters[self.name][...] = V
        self.X, self.window, self.stride = X, window, stride

    def found(self, C, w):
        """Answers and gradients, dJ/d answers being C (N, 1) times w."""
        self.net.parameters[f"{int(self.name[0]) + 1}.weight"][...] = np.concatenate([w, 0 * w])
        answers, by_images = self.net.representation(self.X), self.net.pull_back_representation(self.X, C * w)
        return answers, by_images, self.net.weights_grad(self.X, np.concatenate([C, 0 * C], axis=1))[self.name]

    def calls(self):
        """The calls of the convolution's kernels, by what they compute."""
        net, n = self.net, len(self.X)
        arrays, engine = net.arrays(), net.engine
        passed = engine.forward(arrays, self.X, "evaluate", keep=True)
        plans = [passed.plan]
        for inputs in (True, False):
            engine.backward(arrays, passed, np.ones((n, 2), self.X.dtype), inputs, not inputs)
            plans.append(passed.plan.backs[inputs, not inputs])
        for kind, plan in zip(KINDS, plans):
            several = Steps()
            several.calls = CALLS * [call for call in plan.steps.calls if call[0] is None or self.is_ours(kind, call)]
            several.work = plan.steps.work
            yield kind, plan, several

    def is_ours(self, kind, call):
        kernel, args = call[0].__name__, call[1]
        shapes = [a for a in args if isinstance(a, Tiling)
                  or (isinstance(a, Shape) and (a.kh, a.stride) == (self.window, self.stride))]  # fmt: skip
        weights = kernel.startswith(("weight_gradient", "lower_weights", "unpack", "lift_all"))
        return bool(shapes) and (kind != "by weights" or weights)


def theirs(X, V, G, stride, padding, last):
    """PyTorch's three functions, by kind."""
    x, v, g = (torch.from_numpy(a).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
               for a in (X, V, G))  # fmt: skip
    options = {"stride": stride, "padding": padding}
    return dict(zip(KINDS, (
        lambda: torch.nn.functional.conv2d(x, v, **options),
        lambda: torch.nn.grad.conv2d_input(x.shape, v, g, **options),
        lambda: torch.nn.grad.conv2d_weight(x, v.shape, g, **options))))  # fmt: skip


def seconds(run, rounds, calls=1):
    """The median of a call, `calls` of which `run` makes."""
    time.sleep(PAUSE)
    run()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return np.median(times) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(engine.get_num_threads())
    for C, K, side, window, stride in LAYERS:
        rng, n, out = np.random.default_rng(0), args.batch, -(-side // stride)
        X, V = rng.standard_normal((n, C, side, side)), rng.standard_normal((K, C, window, window))
        w, c = rng.standard_normal((1, K * out * out)), rng.standard_normal((n, 1))
        G = (c * w).reshape(n, K, out, out)
        exact = theirs(X, V, G, stride, window // 2, False)
        one = Ours(C, K, side, window, stride, X.astype(np.float32), V.astype(np.float32))
        found = dict(zip(KINDS, one.found(c, w)))
        layouts = [theirs(*(a.astype(np.float32) for a in (X, V, G)), stride, window // 2, last) for last in (0, 1)]
        flops = 2 * n * out * out * K * C * window * window
        print(f"{C} -> {K}, {side} x {side}, window {window}, stride {stride}")
        for kind, plan, several in one.calls():
            scratch = plan.engine.scratch.setdefault(plan.dtype, {})
            ours = seconds(lambda: several.run(plan.dtype, scratch, np.inf), args.rounds, CALLS)  # noqa: B023
            several = [lambda run=layout[kind]: [run() for _ in range(CALLS)] for layout in layouts]
            best = min(seconds(run, args.rounds, CALLS) for run in several)
            reference = exact[kind]().numpy()
            errors = [np.abs(a.reshape(reference.shape) - reference).max() / np.abs(reference).max()
                      for a in (found[kind], layouts[0][kind]().numpy())]  # fmt: skip
            speed = f"{1e3 * ours:7.2f} ms {flops / ours / 1e9:6.0f} GFLOP/s  {best / ours:5.2f} of oneDNN's"
            print(f"    {kind:12} {speed}   error {errors[0]:.1e}, oneDNN's {errors[1]:.1e}", flush=True)


if __name__ == "__main__":
    main()
