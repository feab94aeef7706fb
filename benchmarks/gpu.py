"""The GPU rows of the benchmarks: checked against the reference, then timed by CUDA events beside JAX on the same GPU.

``python benchmarks/gpu.py [--quick] [--only NAME ...] [--no-jax] [--out FILE.json]`` (``make bench-gpu``).  Without a
GPU it says what is missing and ends with status 1.  First this GPU's ceilings: a kernel of nothing but multiply-adds, a
copy, cuBLAS on large squares.  Then row by row (NAME is a part of a row's name, as in ``batch`` or ``large/tf32``):

- weights after a few iterations (logits, PGD's margins) against the NumPy reference; two runs have the same bits; in
  the persistent regime a run of a batch has the bits of the run alone.  What fails is not timed, and the status is 1;
- whole calls of the engine (weights from the host and back, every launch), medians of repeats in turn with the fastest
  variant of JAX, which does the same: `jit` and `scan`, over runs `vmap`.  Regime "auto" is the engine's own choice,
  the others are forced;
- necessary FLOPs and bytes against the ceilings, and the time against that of the necessary matrix products alone:
  through cuBLAS, in a CUDA graph, the ascent's in the fastest of three ways.

``--quick``: tiny shapes, a few repeats; shows that everything runs, its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import traceback
from datetime import date
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from advfeat.kernels.gpu.device import Gpu, missing
from advfeat.kernels.gpu.engine import CupyEngine
from gpu_ceilings import PRECISIONS, QUICK, Effort, Products, ceilings, formula, milliseconds
from gpu_checks import FEW, Check, CheckFailed, our_job, packed, tf32_errors
from workloads import ASCENT, Workload

SHAPES = {  # runs, k, m, d, P, N, robust patches
    "default": (1, 5, 20, 100, 64, 20, 1),
    "batch": (4096, 5, 5, 32, 16, 50, 1),
    "large": (1, 10, 64, 1024, 32, 256, 4),
}
TINY = {"default": (1, 3, 4, 10, 4, 6, 1), "batch": (5, 3, 2, 8, 4, 5, 1), "large": (1, 3, 5, 12, 3, 7, 1)}
LONG = 100  # iterations after which tf32 is compared with float64
CHUNK = 256  # runs that JAX maps at a time: their inputs fit in the L2 cache
UNROLL = 8  # iterations in one step of JAX's loop, tried with its fastest variant


class Row(NamedTuple):
    workload: str
    precision: str
    step: str

    def __str__(self):
        return "/".join(self)


STEPS = ("adversarial", "standard", "logits", "PGD-20")
ROWS = [
    *(Row("default", "float32", step) for step in STEPS),
    *(Row("default", "float64", step) for step in STEPS[:2]),
    Row("batch", "float32", "adversarial"),
    *(Row("large", p, step) for p in PRECISIONS for step in STEPS if (p, step) != ("tf32", "PGD-20")),  # see LIMIT
    Row("large", "tf32", "error"),
]
TARGETS = [  # row, number of its regime "auto", 1 where it is to be small and -1 where large, bound, meaning
    ("default/float32/adversarial", "us", 1, 40, "microseconds an iteration"),
    ("default/float32/adversarial", "jax_ratio", -1, 3, "times JAX's speed"),
    ("batch/float32/adversarial", "jax_ratio", -1, 4, "times JAX's speed"),
    ("batch/float32/adversarial", "of_multiply_adds", -1, 0.4, "of the multiply-add peak"),
    *((f"large/{p}/adversarial", "products_ratio", 1, 1.25, "times its matrix products") for p in PRECISIONS),
]


# ------------------------------------------------------------------ jobs, each (call, iterations that it makes)
def many_calls(gpu, job, effort):
    """A warm job of one call, repeated until it takes long enough."""
    n = int(np.clip(effort.milliseconds / max(milliseconds(gpu, job), 1e-3), 1, effort.iterations[1]))
    return lambda: [job() for _ in range(n)], n


def long_enough(gpu, job_of, effort):
    """Training of as many iterations as take long enough, judged by the difference of two calls."""
    least, most = effort.iterations
    times = []
    for n in (least, 5 * least):
        job = job_of(n)
        job()
        times.append(milliseconds(gpu, job))
    each = max((times[1] - times[0]) / (4 * least), 1e-3)
    n = int(np.clip(effort.milliseconds / each, least, most))
    job = job_of(n)
    job()
    return job, n


def without_jax() -> str | None:
    """Why there is no peer, or None."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # or it takes three quarters of the memory
    try:
        import jax

        backend = jax.default_backend()
    except Exception as error:
        return f"the package JAX does not load ({type(error).__name__}: {error})"
    if backend != "gpu":
        return f"JAX {jax.__version__} sees no GPU, its device is {backend} (extra 'cuda12' or 'cuda13' of JAX)"
    return None


def fastest_peer(gpu, check, n_iter, effort):
    """Name, job and iterations of JAX's fastest variant, and the microseconds per iteration of all.

    A variant that is wrong or breaks, for want of memory say, is told and left out; without any it is ("", None, {}).
    """
    from jax_peer import Peer

    step, took = check.step, {}
    peer = Peer(check.load, "tensorfloat32" if check.precision == "tf32" else "highest", CHUNK, from_host=True)

    def works(call, name, job):
        try:
            return call(name, job)
        except Exception as error:
            print(f"  JAX, {name}, left out: {type(error).__name__}: {str(error).partition(chr(10))[0]}", flush=True)

    def compare(name, job):
        return check.theirs(name, job())

    def attempt(name, job):
        job()
        took[name] = 1e3 * min(milliseconds(gpu, job) for _ in range(2)) / n_iter

    jobs = peer.jobs(step, FEW)
    errors = {name: works(compare, name, job) for name, job in jobs.items()}
    jobs = jobs if step not in ASCENT else peer.jobs(step, n_iter)
    for name, error in errors.items():
        if error is not None:
            works(attempt, name, jobs[name])
    if not took:
        return "", None, {}
    good = [errors[name] for name in took]
    print(f"  JAX: {len(good)} variants, errors {min(good):.1e} to {max(good):.1e}", flush=True)
    name = min(took, key=took.get)
    if step not in ASCENT:
        return name, many_calls(gpu, jobs[name], effort), took
    unrolled = f"{name}, unroll {UNROLL}"
    jobs[unrolled] = peer.jobs(step, n_iter, UNROLL)[name]
    works(attempt, unrolled, jobs[unrolled])
    name = min(took, key=took.get)
    return name, (jobs[name], n_iter), took


# ------------------------------------------------------------------ a row
def checked(gpu, row, check, batch):
    """{regime: engine} of those that can do the row, "auto" among them; prints what was checked."""
    tf32 = row.precision == "tf32"
    regimes = ("auto", "persistent", "products") if row.step in ASCENT and not tf32 else ("auto",)
    engines, found = {}, {}
    for regime in regimes:
        engine = CupyEngine(gpu, regime, tf32=tf32)
        try:
            found[regime], said = check.ours(gpu, regime, engine, batch)
        except ValueError as refused:
            if regime != "persistent":
                raise
            said = str(refused)
        else:
            engines[regime] = engine
        print(f"  {regime}: {said}", flush=True)
    if row.step in ASCENT:
        like = [name for name in engines if name != "auto" and np.array_equal(found[name], found["auto"])]
        plan = "; ".join(f"{what}: {how}" for what, how in engines["auto"].plan(check.load.W, batch))
        print(f"  auto has the bits of {' and '.join(like) or 'itself alone'}; its plan is {plan}")
    return engines


def measure(gpu, load, row, top, with_jax, effort):
    """The results of one row, a dictionary for each regime and for JAX."""
    check = Check(load, row.precision, row.step)
    batch = packed(CupyEngine(gpu), load, row.step)
    engines, jobs, peer = checked(gpu, row, check, batch), {}, ""
    products = Products(gpu, load, row.precision == "tf32").measure(row.step, effort)
    rates = ", ".join(f"{name} {rate / 1e12:.4g} TFLOP/s" for name, rate in products["flops_per_s"].items())
    how = f", the ascent's {products['how']}" if products["how"] else ""
    print(f"  products alone: {products['us']:.4g} us{how}; each apart: {rates}", flush=True)
    for regime, engine in engines.items():
        if row.step in ASCENT:
            job_of = lambda n, engine=engine: our_job(engine, load, batch, row.step, n)  # noqa: E731
            jobs[regime] = long_enough(gpu, job_of, effort)
        else:
            jobs[regime] = many_calls(gpu, our_job(engine, load, batch, row.step), effort)
    if with_jax:
        n_iter = jobs["auto"][1] if row.step in ASCENT else 1
        peer, job, tried = fastest_peer(gpu, check, n_iter, effort)
        jobs |= {"JAX": job} if peer else {}
    times = {name: [] for name in jobs}
    for _ in range(effort.repeats):
        for name, (job, n) in jobs.items():
            times[name].append(1e3 * milliseconds(gpu, job) / n)
    for name, took in times.items():
        low, us, high = np.quantile(took, (0.25, 0.5, 0.75)).tolist()
        found = {"row": str(row), "shape": load.shape, "regime": name, "us": us, "q25_us": low, "q75_us": high}
        found |= {"iterations": jobs[name][1], "repeats": effort.repeats} | against(load, row, us, top, products)
        if peer:
            found["jax_ratio"] = float(np.median(np.divide(times["JAX"], took)))
            found |= {"variant": peer, "tried": tried} if name == "JAX" else {}
        yield found


def against(load, row, us, top, products):
    """A time beside the necessary work and this GPU's ceilings."""
    flops, moved = load.flops(row.step), load.bytes(row.step)
    rate = flops / (1e-6 * us)
    return {
        "run_iterations_per_s": load.n_runs / (1e-6 * us),
        "flops": flops,
        "formula": formula(load, row.step),
        "bytes": moved,
        "flops_per_s": rate,
        "of_multiply_adds": rate / top["multiply-adds"][PRECISIONS[row.precision]],
        "of_cublas": rate / top["cuBLAS"][row.precision],
        "of_copy": moved / (1e-6 * us) / top["copy"],
        "products": products,
        "products_ratio": us / products["us"],
    }


# ------------------------------------------------------------------ report
def about(gpu) -> dict:
    """The device, and the versions of all that worked on it."""
    found = {"device": gpu.name, "date": date.today().isoformat(), "Python": platform.python_version()}
    if smi := shutil.which("nvidia-smi"):
        asked = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
        found["driver"] = subprocess.run(asked, capture_output=True, text=True).stdout.split("\n")[0]
    if "cupy" in sys.modules:
        runtime = sys.modules["cupy"].cuda.runtime
        found |= {"driver's CUDA": runtime.driverGetVersion(), "CuPy's CUDA": runtime.runtimeGetVersion()}
    found |= {name: sys.modules[name].__version__ for name in ("numpy", "cupy", "jax", "jaxlib") if name in sys.modules}
    return found | {name: os.environ[name] for name in ("XLA_FLAGS",) if name in os.environ}


def ceiling_lines(top):
    for name in ("multiply-adds", "cuBLAS"):
        yield f"{name}: " + ", ".join(f"{rate / 1e12:.4g} TFLOP/s {precision}" for precision, rate in top[name].items())
    yield f"copy: {top['copy'] / 1e9:.4g} GB/s, read and written"


def line(found):
    """A result in one line."""
    name = found["regime"]
    if "logits_norm" in found:
        errors = (
            f"{what} {found[f'{what}_norm']:.1e} in the norm, {found[f'{what}_largest']:.1e} at most"
            for what in ("logits", "weights")
        )
        return f"  {name} against float64 after {found['iterations']} iterations: {'; '.join(errors)}"
    name += f" ({found['variant']})" if "variant" in found else ""
    parts = [
        f"  {name}: {found['us']:.4g} us [{found['q25_us']:.4g} to {found['q75_us']:.4g}]",
        f"{found['run_iterations_per_s']:.4g} run-iterations/s",
        f"{found['flops_per_s'] / 1e12:.3g} TFLOP/s, {found['of_multiply_adds']:.1%} of the multiply-adds' and "
        f"{found['of_cublas']:.1%} of cuBLAS's",
        f"{found['of_copy']:.1%} of the copy's bytes/s",
        f"{found['products_ratio']:.2f} times the products' {found['products']['us']:.4g} us",
    ]
    if "jax_ratio" in found and "variant" not in found:
        parts.append(f"JAX takes {found['jax_ratio']:.2f} times as long")
    return "; ".join(parts)


def verdicts(results):
    """The targets whose rows were measured."""
    for row, key, sign, bound, what in TARGETS:
        for found in results:
            if found["row"] == row and found["regime"] == "auto" and key in found:
                verdict = "met" if sign * found[key] <= sign * bound else "MISSED"
                yield f"{row}: {found[key]:.3g} {what}, {'at most' if sign > 0 else 'at least'} {bound}: {verdict}"


def write(path, record):
    """The whole record so far, under a temporary name first."""
    if path is not None:
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        fresh.write_text(json.dumps(record, indent=1) + "\n")
        fresh.rename(path)


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny shapes: whether everything runs, not how fast")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[""], help="rows with one of these in their names")
    parser.add_argument("--no-jax", action="store_true", help="our rows alone")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="every number, rewritten after each row")
    args = parser.parse_args(argv)
    args.rows = [row for row in ROWS if any(name in str(row) for name in args.only)]
    if not args.rows:
        parser.error(f"--only: no row has such a name; rows: {', '.join(map(str, ROWS))}")
    return args


def main(argv=None):
    args = arguments(argv)
    if (what := missing()) is not None:
        raise SystemExit(f"benchmarks/gpu.py needs a GPU: {what}")
    gpu, effort, shapes = Gpu(), QUICK if args.quick else Effort(), TINY if args.quick else SHAPES
    no_jax = "left out" if args.no_jax else without_jax()
    top = ceilings(gpu, effort)
    record = {"machine": about(gpu), "without_jax": no_jax, "ceilings": top, "rows": [], "failed": []}
    print("; ".join(f"{name} {value}" for name, value in record["machine"].items()))
    print(*ceiling_lines(top), *([f"No JAX rows: {no_jax}"] if no_jax else []), sep="\n")

    @cache
    def load_of(workload, dtype):
        return Workload(workload, *shapes[workload], dtype=dtype)

    for row in args.rows:
        load = load_of(row.workload, PRECISIONS[row.precision])
        print(f"\n{row}: {load.shape}", flush=True)
        try:
            if row.step == "error":
                results = tf32_errors(gpu, load, FEW if args.quick else LONG)
            else:
                results = measure(gpu, load, row, top, no_jax is None, effort)
                flops, moved = load.flops(row.step), load.bytes(row.step)
                print(f"  {formula(load, row.step)}: {flops:.4g} FLOPs; {moved:.4g} bytes")
            for found in results:
                record["rows"].append(found)
                print(line(found), flush=True)
        except Exception as error:  # a row that breaks costs no other row its times
            if not isinstance(error, CheckFailed):
                traceback.print_exc()
            print(f"  FAILED: {error}", flush=True)
            record["failed"].append(f"{row}: {error}")
        write(args.out, record)
    print("", *([] if args.quick else verdicts(record["rows"])), sep="\n")
    if record["failed"]:
        raise SystemExit("\n".join(record["failed"]))


if __name__ == "__main__":
    main()
