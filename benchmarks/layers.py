"""Steps of networks of layers beside PyTorch and JAX: training, and PGD in both modes of batch norm.

    python benchmarks/layers.py [CASE ...] [--peers NAME ...] [--rounds N] [--threads N] [--json FILE]

Every contender has the same weights and batch, and all take turns, each after a step that is not timed; the table shows
medians, GFLOP/s of the direct algorithm (2 per multiply-add; 3 passes of training, 2 of an attack), their share of the
multiply-add peak, and the ratio to the best peer.  Needs the extras "test" (PyTorch) and "bench" (JAX).
Leave the machine alone meanwhile, unset OPENBLAS_CORETYPE.  `ADVFEAT_VECTOR_BITS=256 ONEDNN_MAX_CPU_ISA=AVX2` holds
both sides to AVX2.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from advfeat.kernels.cpu import engine
from advfeat.kernels.target import VECTOR_BITS
from layer_peers import CONTENDERS
from machine import multiply_add_peak

from advfeat.images import PreActResNet18, ResNet18, WideResNet
from advfeat.images.exchange import to_state_dict

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import torch_networks

PAUSE = 0.3  # seconds: threads of the one before spin that long after their work
STEPS = {"train": 3, "attack": 2, "attack_in_training": 2}  # passes of a step


def resnet(width, shape):
    return lambda **o: ResNet18(width, shape, **o), lambda: torch_networks.ResNet(width, shape), "torchvision"


def wide(depth, widen, shape):
    return (lambda **o: WideResNet(depth, widen, shape, **o), lambda: torch_networks.WideResNet(depth, widen, shape),
            "robust_overfitting")  # fmt: skip


#: Name -> (network, its twin and the style of its names), batch, dtype.
CASES = {
    "w64": (resnet(64, (3, 32, 32)), 64, "float32"),
    "w16": (resnet(16, (1, 28, 28)), 128, "float32"),
    "w8": (resnet(8, (1, 28, 28)), 128, "float32"),
    "wrn-34-10": (wide(34, 10, (3, 32, 32)), 8, "float32"),
    "wrn-16-2": (wide(16, 2, (3, 32, 32)), 64, "float32"),
    "preact": ((lambda **o: PreActResNet18(16, (3, 32, 32), **o),
                lambda: torch_networks.PreActResNet(16, (3, 32, 32)), "robust_overfitting"), 64, "float32"),
    "odd": (resnet(16, (3, 23, 19)), 32, "float32"),
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


def measure(case, peers, rounds, threads):
    """Rows of (step, contender, seconds of every round)."""
    (make, twin, style), n, dtype = CASES[case]
    net, rng = make(dtype=dtype), np.random.default_rng(0)
    X, y = rng.random((n, *net.sample_shape)).astype(dtype), rng.integers(10, size=n)
    made = []
    for name in ["advfeat", *peers]:
        module = torch_networks.filled(twin(), to_state_dict(net, style), True)
        try:
            made.append(CONTENDERS[name](net, module, X, y))
        except ModuleNotFoundError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
    rows = []
    for step in STEPS:
        seconds = {one.name: [] for one in made}
        for one in made:  # compiles, and fills caches
            getattr(one, step)()
            getattr(one, step)()
        for _ in range(rounds):
            for one in made:
                time.sleep(PAUSE)
                getattr(one, step)()
                start = time.perf_counter()
                getattr(one, step)()
                seconds[one.name].append(time.perf_counter() - start)
        rows += [(step, name, times) for name, times in seconds.items()]
    return rows, flops(net) * n, dtype


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=["w64", "w16", "w8"], metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--peers", nargs="*", default=[name for name in CONTENDERS if name != "advfeat"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=engine.get_num_threads())
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    engine.set_num_threads(args.threads)
    found = []
    print(f"{args.threads} threads, {VECTOR_BITS}-bit vectors, PyTorch {torch.__version__}")
    for case in args.cases:
        rows, work, dtype = measure(case, args.peers, args.rounds, args.threads)
        peak = multiply_add_peak(np.dtype(dtype), args.threads)
        for step, passes in STEPS.items():
            medians = {name: float(np.median(times)) for one, name, times in rows if one == step}
            ours, best = medians["advfeat"], min((t for n, t in medians.items() if n != "advfeat"), default=np.nan)
            for name, seconds in medians.items():
                rate = passes * work / seconds / 1e9
                ratio = f"{best / ours:6.2f} to the best peer" if name == "advfeat" else ""
                numbers = f"{1e3 * seconds:9.1f} ms {rate:8.0f} GFLOP/s {rate / peak:6.0%} {ratio}"
                print(f"{case:12} {step:20} {name:26} {numbers}", flush=True)
                row = {"case": case, "step": step, "contender": name, "median": seconds, "gflops": rate}
                found.append(row | {"share_of_peak": rate / peak, "ratio": best / ours if name == "advfeat" else None})
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
