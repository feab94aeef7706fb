"""Real images: train networks on them, evaluate, verify, represent; the paper's experiment in one command."""

import sys
from dataclasses import replace
from pathlib import Path

from ..core import checks, store
from ..core.progress import Stopwatch
from . import common, representatives

NETWORKS = ("best", "last")


def add_arguments(parser):
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")

    train = parts.add_parser("train", help="a training, with report.html; the same command continues a stopped one")
    train.add_argument("--preset", metavar="NAME", help="a recipe (--preset list names them)")
    common.add_values(train)
    train.add_argument("--seeds", type=int, nargs="+", metavar="S", help="train each of them, in OUT/seed-S")
    train.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that share the cores (default 1)")
    train.add_argument(
        "--start", metavar="RUN[@ITERATION]", help="begin with another run's weights, its last by default"
    )
    train.add_argument("--plan", action="store_true", help="only say how long it will take here, and how much memory")
    train.add_argument("--out", metavar="DIR", help="folder (default advfeat-runs/images-<preset or hash>)")
    common.add_output(train, force="remove the training that the folder holds, and train anew")
    train.set_defaults(command_of_images=_train)

    evaluate = parts.add_parser("evaluate", help="the attack suite on test images, written down image by image")
    evaluate.add_argument("run", metavar="RUN", help="folder of advfeat images train")
    evaluate.add_argument("--network", choices=NETWORKS, default="best", help="which of its networks (default best)")
    evaluate.add_argument("--eps", type=float, help="radius (default: the configuration's)")
    evaluate.add_argument("--samples", type=int, default=500, metavar="N", help="test images (default 500)")
    what = "the last certificate that is asked for what still stands (default: none)"
    evaluate.add_argument("--certificate", choices=("interval", "linear"), help=what)
    evaluate.add_argument("--out", metavar="DIR", help="folder (default RUN/evaluate)")
    common.add_output(evaluate, force="evaluate anew, whatever the folder holds")
    evaluate.set_defaults(command_of_images=_evaluate)

    verify = parts.add_parser("verify", help="check every adversarial image of an evaluation, with NumPy alone")
    verify.add_argument("folder", metavar="FOLDER", help="what advfeat images evaluate wrote")
    common.add_output(verify)
    verify.set_defaults(command_of_images=_verify)

    fetch = parts.add_parser("fetch", help="download a data set, checked by its digests")
    fetch.add_argument("name", metavar="NAME", help="mnist, fashion_mnist, cifar10 or svhn")
    fetch.add_argument("--out", metavar="DIR", help="folder (default: where trainings look)")
    fetch.add_argument(
        "--address", metavar="URL", help="what stands in front of the files' names, instead of the usual"
    )
    common.add_output(fetch)
    fetch.set_defaults(command_of_images=_fetch)
    representatives.add_parts(parts)


def run(args) -> int:
    return args.command_of_images(args)


# ------------------------------------------------------------------ train
def _train(args) -> int:
    from ..experiments import images
    from ..experiments.image_configuration import ImageConfig
    from ..experiments.image_presets import PRESETS
    from ..reporting.image_page import outcome_rows, write_report

    if args.preset == "list":
        rows = [[name, one.source, one.differs or "nothing"] for name, one in PRESETS.items()]
        document = {name: {"values": one.values, "source": one.source, "differs": one.differs} for name, one in
                    PRESETS.items()}  # fmt: skip
        common.show(args, document, (["preset", "source", "what differs from it"], rows))
        return 0
    given = {} if args.preset is None else PRESETS[checks.choice("preset", args.preset, PRESETS)].values
    config = ImageConfig.build(args.config, [*common.pairs(given, args), *args.set])
    start = None if args.start is None else _start(args.start)
    net = config.untrained() if start is None else start
    net.reserve(config.batch_size)
    if args.plan:
        return _plan(args, config)
    out = Path(args.out or f"advfeat-runs/images-{args.preset or store.digest_of_text(config.as_dict())[:10]}")
    options = {"start": start, "force": args.force}
    checks.integer("jobs", args.jobs, 1)
    with common.continued(out):
        if args.seeds is None:
            done = [_with_bar(args, config, out, options)]
        elif args.jobs == 1:
            done = [_with_bar(args, replace(config, seed=seed), out / f"seed-{seed}", options) for seed in args.seeds]
        else:
            done = images.run_seeds(config, out, args.seeds, args.jobs, **options)
        pages = [write_report(one) for one in done]
    results = {str(one.path): store.load_json(one.path / "result.json") for one in done}
    for one in done:
        for line in one.warnings:
            print(f"Warning: {line}", file=sys.stderr)
    document = {"runs": results, "reports": pages}
    common.show(args, document, outcome_rows(results), "Report: " + ", ".join(map(str, pages)))
    return 0


def _plan(args, config) -> int:
    from ..core.memory import available
    from ..experiments import forecast

    f = forecast.of_training(config)
    seeds = 1 if args.seeds is None else len(args.seeds)
    rows = [[f"{f.steps:,} steps of {1000 * f.step:,.0f} ms", forecast.duration(f.training)],
            ["records on validation images", forecast.duration(f.records)],
            ["test of the best and the last network", forecast.duration(f.test)],
            ["in all" + f", {seeds} seeds" * (seeds > 1), forecast.duration(seeds * f.seconds)],
            ["memory, at the most", f"{f.memory / 1e6:,.0f} MB of {available() / 1e6:,.0f} MB that are free"]]
    common.show(args, f.as_dict() | {"seeds": seeds}, (["part", "predicted on this machine"], rows))
    return 0


def _with_bar(args, config, out, options):
    from ..experiments import images
    from ..reporting.image_page import TITLES

    with common.Bar(args) as bar:
        part = Stopwatch(bar).part(0, 1, f"{TITLES[config.training]} training, seed {config.seed}")
        return images.run(config, out, progress=part, **options)


def _start(text: str):
    from ..experiments import images

    folder, at, iteration = text.rpartition("@") if "@" in text else (text, "", "")
    if not at:
        return images.load(folder).nets["last"]
    if not iteration.isdigit():
        raise ValueError(f"--start {text}: must be RUN or RUN@ITERATION")
    return images.at(folder, int(iteration))


# ------------------------------------------------------------------ evaluate, verify
def _evaluate(args) -> int:
    from ..core.lock import Lock
    from ..experiments import images
    from ..reporting.image_page import evaluation_rows, write_evaluation

    found = images.load(args.run)
    eps = found.config.eps if args.eps is None else checks.number("eps", args.eps, above=0)
    checks.integer("samples", args.samples, 1)
    out = Path(args.out or Path(args.run) / "evaluate")
    with common.continued(out), Lock(store.make_folder(out)):
        with common.Bar(args) as bar:
            held = images.evaluate(found, args.network, eps, args.samples, out, certificate=args.certificate,
                                   force=args.force, progress=bar)  # fmt: skip
        page = write_evaluation(out)
    common.show(args, held | {"folder": out, "report": page}, evaluation_rows(held), f"Report: {page}")
    return 0


def _verify(args) -> int:
    from ..experiments import images

    said, transcript = images.verified(args.folder)
    broken = int((transcript.broken_by != "").sum())
    document = {"folder": args.folder, "images": len(transcript.y), "broken": broken, "faults": said}
    if said:
        common.show(args, document, "\n".join(said))
        raise common.Failed(f"{args.folder}: {len(said)} statements do not hold")
    what = f"{len(transcript.y)} images, {broken} adversarial or wrong ones: every statement holds, by NumPy's engine."
    common.show(args, document, what)
    return 0


def _fetch(args) -> int:
    from ..images.data import fetch

    paths = fetch(args.name, args.out, address=args.address, progress=not (args.quiet or args.json))
    common.show(args, {"name": args.name, "files": paths}, "\n".join(map(str, paths)))
    return 0
