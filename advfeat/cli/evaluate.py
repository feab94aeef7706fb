"""Accuracy, robust accuracy by attack and certificate of a run's networks or of given weights."""

from pathlib import Path

from ..core import checks, store
from ..core.lock import Lock
from ..core.progress import Stopwatch
from ..robustness.catalogue import SEARCH
from ..robustness.evaluate import MEASURED_BY
from . import common


def add_arguments(parser):
    parser.add_argument("run", nargs="?", metavar="RUN", help="run folder of advfeat reproduce")
    common.add_config(parser, seeds=False)
    seeds = "with RUN these seeds of it (default all), with --weights how many (default 4)"
    parser.add_argument("--seeds", type=int, nargs="+", metavar="S", help=seeds)
    parser.add_argument("--eps", type=float, help="radius (default: the configuration's eps_test)")
    parser.add_argument("--out", metavar="DIR", help="where to keep it (default RUN/evaluate; with --weights nowhere)")
    common.add_output(parser, force="evaluate anew, whatever is kept of it")


def run(args) -> int:
    nets, config, chosen = _subject(args)
    eps = config.eps_test if args.eps is None else checks.number("eps", args.eps, low=0)
    identity = {"eps": eps, "norm": config.norm, "config": config.as_dict()}
    identity["weights"] = {name: net.fingerprint() for name, net in nets.items()}
    folder = args.out or (args.run and Path(args.run) / "evaluate")
    if folder is None:
        found, where = _measure(args, nets, config, eps, chosen), {}
    else:
        where = {"kept": Path(folder) / f"eps={eps!r}-{config.norm}.json"}
        with Lock(store.make_folder(folder)):
            found = _kept(where["kept"], nets, identity, args)
            kept = {row["seed"] for held in found.values() for row in held}
            left = [seed for seed in chosen if seed not in kept]
            if left:
                new = _measure(args, nets, config, eps, left)
                found = {name: sorted(found[name] + new[name], key=lambda row: row["seed"]) for name in nets}
                held = {"environment": store.environment(), "identity": identity, "networks": found}
                store.save_json(where["kept"], held)
        found = {name: [row for row in found[name] if row["seed"] in chosen] for name in nets}
    document = {"eps": eps, "norm": config.norm, "n_test": config.n_test, "networks": found} | where
    head = f"eps = {eps:g} ({config.norm}), {config.n_test} test samples per seed"
    common.show(args, document, head, _table(found), *(f"Kept: {path}" for path in where.values()))
    return 0


def _subject(args):
    """Networks by name, their configuration, and the seeds that are asked for."""
    if (args.run is None) == (args.weights is None):
        raise ValueError("give either a run folder or --weights FILE.npz")
    if args.run is None:
        if len(args.seeds or [0]) > 1:
            raise ValueError(f"--seeds {' '.join(map(str, args.seeds))}: with --weights must be one number, how many")
        args.seeds = args.seeds and args.seeds[0]
        config, weights = common.config_of(args)
        return {"weights": config.network(weights)}, config, config.seeds
    seeds, args.seeds = args.seeds, None
    if common.options_given(args):
        raise ValueError("with RUN the configuration is the run's own; only --eps and --seeds choose")
    held, config = common.open_run(args.run)
    for seed in seeds or ():
        checks.choice("seed", seed, config.seeds)
    return held.nets, config, config.seeds if seeds is None else sorted(set(seeds))


def _kept(path, nets, identity, args) -> dict[str, list[dict]]:
    """Per network, the rows of seeds that were evaluated before, of the same networks; in a folder of one's own choice
    no others may be there."""
    if args.force or not path.exists():
        return {name: [] for name in nets}
    held = store.load_json(path)
    if held.get("identity") == identity:
        return {name: held["networks"][name] for name in nets}
    if args.out is not None:
        raise store.CheckpointError(f"{path}: of other weights or another configuration; --force writes over it")
    return {name: [] for name in nets}


def _measure(args, nets, config, eps, seeds) -> dict[str, list[dict]]:
    from ..experiments.figure3 import bounds, samples_of

    _, test = samples_of(config, config.n_test, seeds)
    places, found = [config.seeds.index(seed) for seed in seeds], {}
    with common.Bar(args) as bar:
        for number, (name, net) in enumerate(nets.items()):
            part = Stopwatch(bar).part(number / len(nets), (number + 1) / len(nets))
            by = bounds(net.with_weights(net.W[places]), test, config, eps, seeds=seeds, progress=part)
            found[name] = common.plain([
                {
                    "seed": seed, "accuracy": by.correct[r].mean(), "robust": by.robust_accuracy[r],
                    "certified": by.certified_accuracy[r], "interval": by.interval_certified[r].mean(),
                    "broken": {attack: hit[r].sum() for attack, hit in by.broken.items() if hit[r].any()},
                }
                for r, seed in enumerate(seeds)
            ])  # fmt: skip
    return found


def _table(found):
    rows = []
    for name, row in ((name, row) for name, held in found.items() for row in held):
        shares = (f"{row[share]:.2f}" for share in ("accuracy", "robust", "certified", "interval"))
        broken = (f"{attack} {row['broken'][attack]}" for attack in (*MEASURED_BY, SEARCH) if attack in row["broken"])
        rows.append([name, row["seed"], *shares, ", ".join(broken) or "nothing"])
    return ["network", "seed", "accuracy", "robust", "certified", "by intervals", "samples broken, by attack"], rows
