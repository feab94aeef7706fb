"""The command line: advfeat reproduce | data | evaluate | robustness | sweep | plot | validate | info | warmup."""

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .core import checks, store
from .core._version import __version__
from .core.config import parse_pair
from .experiments.configuration import DTYPES, Figure3Config
from .kernels import BACKENDS
from .patches.data import PatchData
from .patches.network import read_weights
from .training import run_folder
from .training.loop import DivergenceError, TrainingInterrupted

PLOT_OPTIONS = {
    "x": "swept field (or strength_ratio, robust_share, density_ratio ...) across",
    "y": "another one upwards: a heat map",
    "metric": "what to draw; 'claims' for the share in which each claim of Thm. 4.3 and 4.4 holds",
    "facet": "one panel or colour for each value of this field",
    "training": "standard or adversarial, where both were swept",
    "engine": "network, recursion or both, where there is a choice",
    "iteration": "a recorded time (default the last)",
}
SWEEP_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} runs [{elapsed}{postfix}]"


def _add_config(parser, seeds=True):
    parser.add_argument("--config", metavar="FILE.toml", help="configuration file (keys as in --set)")
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help="change values")
    if seeds:
        parser.add_argument("--seeds", type=int, metavar="S", help="number of seeds, run as one batch (default 4)")
    parser.add_argument("--backend", choices=BACKENDS, help="engine (default numba)")
    parser.add_argument("--dtype", choices=DTYPES, help="precision of the training (default float32)")
    parser.add_argument("--weights", metavar="FILE.npz", help="your own weights: array W (k, m, d) or (S, k, m, d)")


def _config(args) -> tuple[Figure3Config, np.ndarray | None]:
    """The configuration, with q and rho of the weights' file where it holds them, and the weights or None."""
    weights, held = (None, {}) if args.weights is None else read_weights(args.weights)
    given = {"n_seeds": getattr(args, "seeds", None), "backend": args.backend, "dtype": args.dtype}
    return Figure3Config.build(args.config, args.set, held, **given), weights


def _print_table(head, rows):
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip())


def reproduce(args) -> int:
    """Both trainings, figure3.png and .pdf, history.npz, report.html."""
    from .experiments import figure3 as experiment

    config, weights = _config(args)
    out = Path(args.out or f"advfeat-runs/figure3-{config.digest(weights)}")
    bars = {}

    def progress(name, iteration):
        if name not in bars:
            label = f"{name.capitalize()} training, {config.n_seeds} seeds"
            bars[name] = tqdm(total=config.n_iter, desc=f"{label:<34}", unit="it", disable=None, file=sys.stderr)
        bars[name].update(iteration - bars[name].n)

    try:
        run = experiment.run(config, out, weights=weights, progress=progress)
    except TrainingInterrupted as stop:
        print(f"\nStopped at iteration {stop.iteration}; the same command continues from {out}.", file=sys.stderr)
        return 130
    except DivergenceError as error:
        print(f"\n{error}; what was recorded is in {out}. Try a smaller lr.", file=sys.stderr)
        return 1
    finally:
        for bar in bars.values():
            bar.close()
    from .reporting.figures import figure3
    from .reporting.run_page import outcome_rows, write_report
    from .reporting.style import save

    theory = experiment.recursions(config, weights)
    save(figure3(run.histories, config, theory), out / "figure3")
    write_report(run, config, out / "figure3.png", out / "report.html", theory)
    _print_table(*outcome_rows(run, config, theory))
    print(f"\nReport: {out / 'report.html'}")
    return 0


def data(args) -> int:
    """Assumption 2.3 and the window of a configuration's data, and Figure 2."""
    from .experiments.figure3 import predicted_strength
    from .reporting.figures import figure2
    from .reporting.run_page import data_rows
    from .reporting.style import save

    config, weights = _config(args)
    sample = config.data("test", config.seeds[:1])
    first = PatchData(sample.X[0], sample.y[0], sample.robust[0], sample.strength[0], sample.features)
    strength = predicted_strength(config, weights) if config.norm == "linf" else None
    _print_table(*data_rows(config, first, config.window(strength)))
    if strength is not None:
        print(f"\nA: the largest <w, u> of adversarial training at iteration {config.n_iter}, by the exact recursion")
    net = None if weights is None else config.network(weights).run(0)
    if net is not None:
        print(f"\naccuracy of the given weights on {len(first)} samples: {net.accuracy(first.X, first.y):.2f}")
    out = store.make_folder(args.out)
    save(figure2(first, config.eps, net), out / "figure2")
    print(f"\nFigure 2: {out / 'figure2.png'}")
    return 0


def evaluate(args) -> int:
    """Accuracy, robust accuracy by attack and certificate of a run's networks or of given weights."""
    from .experiments.figure3 import bounds

    if (args.run is None) == (args.weights is None):
        raise ValueError("evaluate: give either a run folder or --weights FILE.npz")
    if args.run is not None:
        if args.config or args.set or args.backend or args.dtype:
            raise ValueError("evaluate RUN: the configuration is the run's own; only --eps changes it")
        run = run_folder.load(args.run)
        config, nets = Figure3Config.build(**_known(run, args.run)), run.nets
    else:
        config, weights = _config(args)
        nets = {"weights": config.network(weights)}
    eps = config.eps_test if args.eps is None else checks.number("eps", args.eps, low=0)
    test, rows = config.data("test"), []
    for name, net in nets.items():
        found = bounds(net, test, config, eps)
        for r, seed in enumerate(config.seeds):
            broken = ", ".join(f"{a} {b[r].sum()}" for a, b in found.broken.items() if b[r].any())
            cells = (found.correct[r].mean(), found.robust_accuracy[r], found.certified_accuracy[r])
            cells += (found.interval_certified[r].mean(),)
            rows.append([name, seed, *(f"{c:.2f}" for c in cells), broken or "nothing"])
    print(f"eps = {eps:g} ({config.norm}), {config.n_test} test samples per seed\n")
    head = ["network", "seed", "accuracy", "robust", "certified", "by intervals", "samples broken, by attack"]
    _print_table(head, rows)
    return 0


def robustness(args) -> int:
    """Robust accuracy against the radius, certificates below and attacks above, for a run's networks."""
    from .experiments.figure3 import samples_of
    from .reporting.robustness_page import radii_rows, write
    from .robustness.curves import EPS_GRID, grid, sandwich

    run = run_folder.load(args.run)
    config = Figure3Config.build(**_known(run, args.run))
    eps = EPS_GRID if args.eps_grid is None else grid(_radii(args.eps_grid))
    options = {"max_nodes": checks.integer("max_nodes", args.max_nodes, 1)}
    options |= {"rtol": checks.number("rtol", args.rtol, above=0)}
    seeds, data = samples_of(config, args.samples, args.seeds)
    rows = [config.seeds.index(seed) for seed in seeds]
    nets = {name: net.with_weights(net.W[rows]) for name, net in run.nets.items()}
    out, found = store.make_folder(args.out or Path(args.run) / "robustness"), {}
    options |= {"norm": config.norm, "ascent_lr": config.ascent_lr, "n_steps": config.pgd_steps}
    options |= {"n_restarts": config.pgd_restarts, "seed": seeds}
    with tqdm(total=len(nets) * (len(eps) + 3), unit="step", disable=None, file=sys.stderr) as bar:
        for name, net in nets.items():
            bar.set_description(name.capitalize())
            found[name] = sandwich(
                net, data, eps, progress=lambda label: bar.update() or bar.set_postfix_str(label), **options
            )
    page = write(found, nets, data, seeds, config, out, store.environment())
    _print_table(*radii_rows(found, seeds))
    print(f"\nFigures: {out / 'robustness.png'}, {out / 'worst_example.png'}\nReport: {page}")
    return 0


def _radii(values: list[str]) -> list[float]:
    """START:STOP:N, or the radii themselves."""
    try:
        if len(values) == 1 and ":" in values[0]:
            start, stop, n = values[0].split(":")
            return np.linspace(float(start), float(stop), checks.integer("eps_grid", int(n), 1)).tolist()
        return [float(value) for value in values]
    except ValueError:
        raise ValueError(f"--eps-grid {' '.join(values)}: must be START:STOP:N or radii") from None


def sweep(args) -> int:
    """Every point of a sweep, on this machine or a cluster; the same command continues it and draws its pictures."""
    from .sweeps import SweepFailed, SweepInterrupted, SweepSpec
    from .sweeps import sweep as run_sweep

    spec = SweepSpec.build(args.spec)
    out = Path(args.out or f"advfeat-runs/sweep-{Path(args.spec).stem}")
    bar = tqdm(total=spec.n_runs, unit="run", disable=None, file=sys.stderr, bar_format=SWEEP_BAR)
    first = []

    def started(plan, lines):
        bar.write("\n".join(lines), file=sys.stdout)
        sys.stdout.flush()
        bar.reset(plan.n_runs)

    def progress(state):
        bar.n = state.done
        bar.set_postfix_str(f"about {_duration(state.left)} left", refresh=True)
        if not first and state.batches_left:
            first.append(state)
            bar.write(f"  first batch after {state.seconds:.1f} s, about {_duration(state.left)} left", file=sys.stdout)
            sys.stdout.flush()

    options = {"memory": args.memory, "jobs": args.jobs, "scheduler": args.scheduler, "yes": args.yes}
    options |= {"largest_batch": args.largest_batch}
    try:
        table = run_sweep(args.spec, out, started=started, progress=progress, **options)
    except SweepInterrupted as stop:
        print(f"\nStopped; {stop.done:,} of {stop.total:,} runs are kept. The same command continues from {out}.",
              file=sys.stderr)  # fmt: skip
        return 130
    except SweepFailed as error:
        print(f"\nadvfeat sweep: {error}", file=sys.stderr)
        return 1
    finally:
        bar.close()
    print(f"\nResults: {table}")
    if spec.plots:
        from .sweeps.gallery import plot as draw

        draw(out, None)
        print(f"Pictures: {out / 'index.html'}")
    return 0


def plot(args) -> int:
    """Phase diagrams and bands of a finished sweep, with the predicted boundaries; a gallery of all drawn so far."""
    from .sweeps.gallery import plot as draw

    names = ("x", "y", "metric", "facet", "training", "engine", "iteration")
    request = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.at:
        request["at"] = dict(parse_pair("--at", text) for text in args.at)
    if request and args.metric is None:
        raise ValueError("plot: give --metric, or no option at all for the plots of the sweep's own spec")
    for path in draw(args.folder, [request] if request else None):
        print(path)
    return 0


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _known(run, path):
    if not isinstance(run.config, dict) or "n_classes" not in run.config:
        raise ValueError(f"{path}: is not a run of `advfeat reproduce`, so its test data are not known")
    return run.config


def validate(args) -> int:
    """The ledger: every statement of the paper, measured and judged; exit status 1 if a verdict is not the recorded."""
    from .validation import run as ledger
    from .validation.ledger import count

    total = len(ledger.choose(args.only))
    out = store.make_folder(args.out)
    with tqdm(total=total, desc="Ledger", unit="entry", disable=None, file=sys.stderr) as bar:
        results = ledger.run(args.only, args.quick, lambda label: bar.update() or bar.set_postfix_str(label))
    page = ledger.write(results, out, args.quick)
    _print_table(
        ("label", "verdict", "margin", "statement"),
        [(r.entry.label, r.judgement.verdict, f"{r.judgement.margin:.3g}", r.entry.title) for r in results],
    )
    print("\n" + ", ".join(f"{n} {verdict}" for verdict, n in count(results).items()) + f"\nLedger: {page}")
    changed = ledger.differences(results)
    if changed:
        print("\nNot the verdicts on record (recorded -> found):", *changed, sep="\n  ")
    return 1 if changed else 0


def info(args) -> int:
    """Engines, devices, versions, threads; with --plan, what the engine would do for a configuration."""
    from llvmlite.binding import get_host_cpu_name

    from .kernels import target
    from .kernels.cpu import engine as cpu_engine
    from .kernels.cpu import kernels as cpu_kernels
    from .kernels.gpu import device as gpu_device

    cache = getattr(cpu_kernels.train.stats, "cache_path", None)
    fused = "with" if target.FUSED else "without"
    rows = [
        ("numba engine", f"{target.VECTOR_BITS}-bit vectors, {cpu_engine.get_num_threads()} threads"),
        ("vectors", f"{fused} fused multiply-add; {target.SWITCH} = {', '.join(target.WITHOUT)} for narrower ones"),
        ("numpy engine", "the reference"),
        ("cupy engine", gpu_device.missing() or gpu_device.connect().name),
        ("cpu", get_host_cpu_name()),
        ("usable cores", len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        ("compiled kernels", cache or "not kept: no folder for them can be written"),
        *store.environment().items(),
    ]
    _print_table(("part", "state"), rows)
    if args.plan:
        config, weights = _config(args)
        net, data = config.network(weights), config.data("train")
        print(f"\nPlan for {config.n_seeds} seeds:")
        batch = net.prepare(*net.check(data.X, data.y))
        _print_table(("choice", config.backend), net.engine.plan(net.weights, batch))
    return 0


def warmup(args) -> int:
    """Compile every CPU kernel, so that later commands start at once."""
    from .kernels.cpu.engine import WARM_UPS, warm_up

    start = time.perf_counter()
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(WARM_UPS)), multiprocessing.get_context("spawn")) as pool:
        list(pool.map(warm_up, WARM_UPS))
    print(f"{', '.join(WARM_UPS)}: ready after {time.perf_counter() - start:.1f} s")
    return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="advfeat", description="Feature learning under adversarial training.")
    top.add_argument("--version", action="version", version=f"advfeat {__version__}")
    commands = top.add_subparsers(dest="command", required=True)
    for function in (reproduce, data, evaluate, robustness, sweep, plot, validate, info, warmup):
        sub = commands.add_parser(function.__name__, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(function=function)
        if function in (reproduce, data, evaluate, info):
            _add_config(sub, seeds=function is not data)
        if function is info:
            sub.add_argument("--plan", action="store_true", help="what the engine would do for this configuration")
        if function is reproduce:
            sub.add_argument("--out", metavar="DIR", help="run folder (default advfeat-runs/figure3-<hash>)")
        if function is data:
            sub.add_argument("--out", metavar="DIR", default=".", help="folder for figure2.png and .pdf (default .)")
        if function is validate:
            sub.add_argument("--quick", action="store_true", help="fewer seeds for trained networks: three minutes")
            only = {"metavar": "LABEL", "nargs": "+", "action": "extend"}
            sub.add_argument("--only", **only, help="these entries, as D.4 or 4.3.1")
            sub.add_argument("--out", metavar="DIR", default="advfeat-ledger", help="folder (default advfeat-ledger)")
        if function is robustness:
            sub.add_argument("run", metavar="RUN", help="run folder of advfeat reproduce")
            grid = {"metavar": "EPS", "nargs": "+", "help": "START:STOP:N or radii (default 0.05:1.2:24)"}
            sub.add_argument("--eps-grid", **grid)
            sub.add_argument("--samples", type=int, default=100, metavar="N", help="per seed (default 100)")
            sub.add_argument("--seeds", type=int, nargs="+", metavar="S", help="these seeds of the run (default all)")
            nodes = "branch and bound's budget per patch and rival (default 512)"
            sub.add_argument("--max-nodes", type=int, default=512, metavar="N", help=nodes)
            narrow = "certified radii are narrowed to this share of themselves (default 0.01)"
            sub.add_argument("--rtol", type=float, default=0.01, metavar="SHARE", help=narrow)
            sub.add_argument("--out", metavar="DIR", help="folder (default RUN/robustness)")
        if function is sweep:
            sub.add_argument("spec", metavar="SPEC.toml", help="what to sweep; see examples/")
            sub.add_argument("--out", metavar="DIR", help="folder (default advfeat-runs/sweep-<spec>)")
            sub.add_argument("--memory", default="2GB", help="peak of all local processes together (default 2GB)")
            sub.add_argument("--jobs", type=int, metavar="N", help="workers (default: the usable cores)")
            where = "loky, dask=tcp://HOST:PORT, or another joblib backend (default loky)"
            sub.add_argument("--scheduler", default="loky", metavar="NAME", help=where)
            most = {"type": int, "default": 256, "metavar": "N", "help": "runs in one batch at most (default 256)"}
            sub.add_argument("--largest-batch", **most)
            sub.add_argument("--yes", action="store_true", help="also for more than a million runs")
        if function is plot:
            sub.add_argument("folder", metavar="DIR", help="folder of a finished sweep")
            for name, what in PLOT_OPTIONS.items():
                sub.add_argument(f"--{name}", help=what, type=int if name == "iteration" else str)
            sub.add_argument("--at", metavar="FIELD=VALUE", nargs="+", help="other axes held at these values")
        if function is evaluate:
            sub.add_argument("run", nargs="?", metavar="RUN", help="run folder of advfeat reproduce")
            sub.add_argument("--eps", type=float, help="radius (default: the configuration's eps_test)")
    return top


def main(argv=None) -> int:
    args = parser().parse_args(argv)
    try:
        return args.function(args)
    except (ValueError, TypeError, OSError, MemoryError) as error:
        print(f"advfeat {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
