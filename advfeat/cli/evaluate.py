"""Accuracy, robust accuracy by attack and certificate of a run's networks or of given weights."""

from pathlib import Path

from ..core import checks, store
from ..core.lock import Lock
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
    identity["weights"] = {name: f"{store.digest(net.W)} q={net.q} rho={net.rho!r}" for name, net in nets.items()}
    folder = args.out or (args.run and Path(args.run) / "evaluate")
    if folder is None:
        rows = _measure(nets, config, eps, chosen)
    else:
        with Lock(store.make_folder(folder)):
            path = Path(folder) / f"eps={eps!r}-{config.norm}.json"
            kept = [] if args.force or not path.exists() else _kept(path, identity, theirs=args.out is not None)
            left = [seed for seed in chosen if seed not in {row["seed"] for row in kept}]
            if left:
                kept = sorted(kept + _measure(nets, config, eps, left), key=lambda row: row["seed"])
                store.save_json(path, {"environment": store.environment(), "identity": identity, "rows": kept})
        rows = [row for row in kept if row["seed"] in chosen]
    document = {"eps": eps, "norm": config.norm, "n_test": config.n_test}
    document["networks"] = {name: [row for row in rows if row["network"] == name] for name in nets}
    rows = [row for held in document["networks"].values() for row in held]
    head = f"eps = {eps:g} ({config.norm}), {config.n_test} test samples per seed"
    where = [] if folder is None else [f"Kept: {path}"]
    common.show(args, document | ({} if folder is None else {"kept": path}), head, _table(rows), *where)
    return 0


def _subject(args):
    """Networks by name, their configuration, and the seeds that are asked for."""
    if (args.run is None) == (args.weights is None):
        raise ValueError("evaluate: give either a run folder or --weights FILE.npz")
    if args.run is None:
        if len(args.seeds or [0]) > 1:
            raise ValueError(f"--seeds {' '.join(map(str, args.seeds))}: with --weights must be one number, how many")
        args.seeds = args.seeds and args.seeds[0]
        config, weights = common.config_of(args)
        return {"weights": config.network(weights)}, config, config.seeds
    seeds, args.seeds = args.seeds, None
    if common.options_given(args):
        raise ValueError("evaluate RUN: the configuration is the run's own; only --eps and --seeds choose")
    held, config = common.open_run(args.run)
    for seed in seeds or ():
        checks.choice("seed", seed, config.seeds)
    return held.nets, config, config.seeds if seeds is None else sorted(set(seeds))


def _kept(path, identity, theirs) -> list[dict]:
    """Rows evaluated before, of the same networks; in a folder of one's own choice, none but those may be there."""
    held = store.load_json(path)
    if held.get("identity") == identity:
        return held["rows"]
    if theirs:
        raise store.CheckpointError(f"{path}: of other weights or another configuration; --force writes over it")
    return []


def _measure(nets, config, eps, seeds) -> list[dict]:
    from ..experiments.figure3 import bounds, samples_of

    _, test = samples_of(config, config.n_test, seeds)
    places, rows = [config.seeds.index(seed) for seed in seeds], []
    for name, net in nets.items():
        found = bounds(net.with_weights(net.W[places]), test, config, eps, seeds=seeds)
        for r, seed in enumerate(seeds):
            row = {"network": name, "seed": seed, "accuracy": found.correct[r].mean()}
            row |= {"robust": found.robust_accuracy[r], "certified": found.certified_accuracy[r]}
            row |= {"interval": found.interval_certified[r].mean()}
            row["broken"] = {attack: hit[r].sum() for attack, hit in found.broken.items() if hit[r].any()}
            rows.append(common.plain(row))
    return rows


def _table(rows):
    shares = ("accuracy", "robust", "certified", "interval")
    cells = []
    for row in rows:
        broken = ", ".join(f"{attack} {n}" for attack, n in row["broken"].items()) or "nothing"
        cells.append([row["network"], row["seed"], *(f"{row[name]:.2f}" for name in shares), broken])
    return ["network", "seed", "accuracy", "robust", "certified", "by intervals", "samples broken, by attack"], cells
