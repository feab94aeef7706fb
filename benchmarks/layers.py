"""Steps of networks of layers beside PyTorch and JAX: training, PGD in both modes of batch norm, and the gradient of a
function of the representation.

    python benchmarks/layers.py [CASE ...] [--peers NAME ...] [--rounds N] [--threads N] [--memory] [--json FILE]

Every contender has the same weights and batch, and all take turns, each after steps that are not timed; the table shows
medians, GFLOP/s of the direct algorithm (2 per multiply-add; 3 passes of training, 2 of an attack), their share of the
multiply-add peak, and the ratio to the best peer.  With --memory it shows instead the peak memory of a fresh process
that makes three steps of training.  Needs the extras "test" (PyTorch) and "bench" (JAX).
Leave the machine alone meanwhile, unset OPENBLAS_CORETYPE.  `ADVFEAT_VECTOR_BITS=256 ONEDNN_MAX_CPU_ISA=AVX2` holds
both sides to AVX2.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import numpy as np
from advfeat.kernels.cpu import engine
from advfeat.kernels.target import VECTOR_BITS
from layer_peers import CONTENDERS
from machine import multiply_add_peak

from advfeat.images import ConvNet, PreActResNet18, ResNet18, WideResNet
from advfeat.images.exchange import to_state_dict

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

PAUSE = 0.3  # seconds: threads of the one before spin that long after their work
WARM = 0.2  # seconds of steps before one is timed: threads are on their cores again
STEPS = {"train": 3, "attack": 2, "attack_in_training": 2, "represent": 2}  # passes of a step


def peer(name, *args):
    """A network of PyTorch's."""

    def make():
        import torch_networks  # which this library's memory must not hold

        return getattr(torch_networks, name)(*args)

    return make


def resnet(width, shape):
    return lambda **o: ResNet18(width, shape, **o), peer("ResNet", width, shape), "torchvision"


def wide(depth, widen, shape):
    twin = peer("WideResNet", depth, widen, shape)
    return lambda **o: WideResNet(depth, widen, shape, **o), twin, "robust_overfitting"


def convnet(width, shape):
    return lambda **o: ConvNet(width, shape, **o), peer("ConvNet", width, shape), "torchvision"


#: Name -> (network, its twin and the style of its names), batch, dtype.
CASES = {
    "w64": (resnet(64, (3, 32, 32)), 64, "float32"),
    "w16": (resnet(16, (1, 28, 28)), 128, "float32"),
    "w8": (resnet(8, (1, 28, 28)), 128, "float32"),
    "wrn-34-10": (wide(34, 10, (3, 32, 32)), 8, "float32"),
    "wrn-16-2": (wide(16, 2, (3, 32, 32)), 64, "float32"),
    "preact": ((lambda **o: PreActResNet18(16, (3, 32, 32), **o),
                peer("PreActResNet", 16, (3, 32, 32)), "robust_overfitting"), 64, "float32"),
    "odd": (resnet(16, (3, 23, 19)), 32, "float32"),
    "convnet-1": (convnet(16, (1, 28, 28)), 128, "float32"),
    "convnet-3": (convnet(16, (3, 32, 32)), 128, "float32"),
    "batch-1": (resnet(16, (3, 32, 32)), 1, "float32"),
    "batch-7": (resnet(16, (3, 32, 32)), 7, "float32"),
    "w16-float64": (resnet(16, (1, 28, 28)), 128, "float64"),
}  # fmt: skip


def flops(net) -> int:
    """Of one pass over one image, by the direct algorithm."""
    total = 0
    for number, operation in enumerate(net.program.operations):
        if operation.kind in ("convolution", "linear"):
            out = net.program.shapes[number + 1]
            total += 2 * int(np.prod(net.program.parameters[operation.arrays[0]])) * int(np.prod(out[1:], dtype=int))
    return total


def contender(case, name):
    """One with a case's network and batch, and the work of a pass, in flops."""
    (make, twin, style), n, dtype = CASES[case]
    net, rng = make(dtype=dtype), np.random.default_rng(0)
    X, y = rng.random((n, *net.sample_shape)).astype(dtype), rng.integers(10, size=n)
    module = None
    if name.startswith(("eager", "compiled")):
        import torch_networks

        module = torch_networks.filled(twin(), to_state_dict(net, style), True)
    return CONTENDERS[name](net, module, X, y), flops(net) * n


def measure(case, peers, rounds):
    """Rows of (step, contender, seconds of every round)."""
    made = []
    for name in ["advfeat", *peers]:
        try:
            one, work = contender(case, name)
            made.append(one)
        except ModuleNotFoundError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
    rows = []
    for step in STEPS:
        several = [one for one in made if hasattr(one, step)]
        seconds = {one.name: [] for one in several}
        for one in several:  # compiles, and fills caches
            getattr(one, step)()
            getattr(one, step)()
        for _ in range(rounds):
            for one in several:
                time.sleep(PAUSE)
                warm = time.perf_counter() + WARM
                while time.perf_counter() < warm:
                    getattr(one, step)()
                start = time.perf_counter()
                getattr(one, step)()
                seconds[one.name].append(time.perf_counter() - start)
        rows += [(step, name, times) for name, times in seconds.items()]
    return rows, work


def peak_memory(case, name, threads, answer):
    """Put (contender, MB before its network is made, at the peak of three steps of training) into a queue."""
    set_threads(threads, name != "advfeat" and name != "jax")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    one, _ = contender(case, name)
    for _ in range(3):
        one.train()
    answer.put((one.name, before / 1e3, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3))


def set_threads(threads, also_torch):
    engine.set_num_threads(threads)
    if also_torch:
        import torch

        torch.set_num_threads(threads)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=["w64", "w16", "w8"], metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--peers", nargs="*", default=[name for name in CONTENDERS if name != "advfeat"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=engine.get_num_threads())
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    found = []
    print(f"{args.threads} threads, {VECTOR_BITS}-bit vectors")
    if args.memory:
        fresh = multiprocessing.get_context("spawn")
        for case in args.cases:
            for name in ["advfeat", *args.peers]:
                answer = fresh.Queue()
                process = fresh.Process(target=peak_memory, args=(case, name, args.threads, answer))
                process.start()
                one, before, peak = answer.get()
                process.join()
                print(f"{case:12} {one:26} {before:6.0f} MB before, {peak:6.0f} MB at the peak", flush=True)
        return 0
    set_threads(args.threads, True)
    for case in args.cases:
        (rows, work), dtype = measure(case, args.peers, args.rounds), CASES[case][-1]
        peak = multiply_add_peak(np.dtype(dtype), args.threads)
        for step, passes in STEPS.items():
            medians = {name: float(np.median(times)) for one, name, times in rows if one == step}
            ours, best = medians["advfeat"], min((t for n, t in medians.items() if n != "advfeat"), default=np.nan)
            for name, seconds in medians.items():
                rate = passes * work / seconds / 1e9
                ratio = f"{best / ours:6.2f} to the best peer" if name == "advfeat" and len(medians) > 1 else ""
                numbers = f"{1e3 * seconds:9.1f} ms {rate:8.0f} GFLOP/s {rate / peak:6.0%} {ratio}"
                print(f"{case:12} {step:20} {name:26} {numbers}", flush=True)
                row = {"case": case, "step": step, "contender": name, "median": seconds, "gflops": rate}
                found.append(row | {"share_of_peak": rate / peak, "ratio": best / ours if name == "advfeat" else None})
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
