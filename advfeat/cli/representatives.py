"""The parts of `advfeat images` around representatives: reproduce, table, invert."""

from pathlib import Path

from ..core import checks, store
from ..images.representatives import STARTS
from . import common

NETWORKS = ("best", "last")


def add_parts(parts) -> None:
    reproduce = parts.add_parser(
        "reproduce", help="Figures 1, 4, 5 and Table 1: trainings, representatives, feature learning accuracy"
    )
    reproduce.add_argument("--preset", metavar="NAME", help="an experiment (--preset list names them; default digits)")
    reproduce.add_argument("--data", metavar="NAME", help="image set, as --set dataset=NAME")
    reproduce.add_argument("--model", metavar="NAME", help="architecture, as --set network=NAME")
    reproduce.add_argument("--width", type=int, metavar="W", help="channels of the first stage")
    reproduce.add_argument("--seeds", type=int, metavar="S", help="networks of each kind (default 3)")
    common.add_values(reproduce)
    reproduce.add_argument("--out", metavar="DIR", help="folder (default advfeat-runs/representatives-<hash>)")
    common.add_output(reproduce, force="remove the experiment that the folder holds, and begin anew")
    reproduce.set_defaults(command_of_images=_reproduce)

    table = parts.add_parser("table", help="the tables and pages of an experiment, from what its folder holds")
    table.add_argument("folder", metavar="FOLDER", help="of advfeat images reproduce")
    common.add_output(table)
    table.set_defaults(command_of_images=_table)

    invert = parts.add_parser("invert", help="representatives by one network, with a datasheet; or the same once more")
    invert.add_argument("run", metavar="RUN", help="folder of advfeat images train; with --again, of an inversion")
    invert.add_argument("--again", action="store_true", help="make them anew from the datasheet and compare every bit")
    invert.add_argument("--network", choices=NETWORKS, default="last", help="which of its networks (default last)")
    invert.add_argument("--start", choices=STARTS, default="image", help="what images begin as (default image)")
    invert.add_argument("--part", choices=("test", "train"), default="test", help="images represented (default test)")
    invert.add_argument("--data", metavar="DIR", help="with --again: the folder of the image set's files")
    what = "change n_images, inversion_steps and the like"
    invert.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help=what)
    invert.add_argument("--out", metavar="DIR", help="folder (default RUN/representatives-<network>-<start>)")
    common.add_output(invert, force="make them anew, whatever the folder holds")
    invert.set_defaults(command_of_images=_invert)


# ------------------------------------------------------------------ reproduce, table
def _reproduce(args) -> int:
    from ..experiments.representatives import Experiment
    from ..experiments.representatives_configuration import EXPERIMENTS, RepresentativesConfig

    if args.preset == "list":
        rows = [[name, " ".join(common.pairs(values))] for name, values in EXPERIMENTS.items()]
        common.show(args, EXPERIMENTS, (["preset", "values"], rows))
        return 0
    given = {"dataset": args.data, "network": args.model, "width": args.width, "n_seeds": args.seeds}
    preset = args.preset or next((name for name, one in EXPERIMENTS.items() if one["dataset"] == args.data), "digits")
    values = EXPERIMENTS[checks.choice("preset", preset, EXPERIMENTS)]
    config = RepresentativesConfig.build(args.config, [*common.pairs(values, args), *args.set], None, **given)
    config.of_training("adversarial", config.seed).untrained().reserve(config.batch_size)
    out = Path(args.out or f"advfeat-runs/representatives-{store.digest_of_text(config.as_dict())[:10]}")
    experiment = Experiment(config, out)
    with common.continued(out):
        with _Stages(args) as stages:
            evidence = experiment.run(stages, force=args.force)
        return _show(args, experiment, evidence)


def _table(args) -> int:
    from ..experiments.representatives import load

    experiment = load(args.folder)
    with _Stages(args) as stages:
        evidence = experiment.evidence(stages)
    return _show(args, experiment, evidence)


def _show(args, experiment, evidence) -> int:
    from ..experiments.feature_table import document
    from ..reporting import representatives_page as page

    found = document(experiment, evidence)
    report = page.write_report(experiment, evidence, found)
    parts = [page.network_rows(found), page.cell_rows(found), page.difference_rows(found)]
    common.show(args, found | {"folder": experiment.path, "report": report}, *parts, f"Report: {report}")
    return 0


class _Stages:
    """A progress bar for every stage in turn, in percent."""

    def __init__(self, args):
        self.args, self.bar, self.what = args, None, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()

    def __call__(self, what: str, share: float) -> None:
        if what != self.what:
            self.__exit__()
            self.bar, self.what = common.bar(self.args, total=100, desc=f"{what:<34}", unit="%"), what
        self.bar.update(round(100 * share) - self.bar.n)


# ------------------------------------------------------------------ invert
def _invert(args) -> int:
    from ..experiments import images
    from ..experiments.representatives import invert_run, rebuild
    from ..experiments.representatives_configuration import RepresentativesConfig

    with common.bar(args, desc="inversion", unit="step") as bar:

        def progress(start, step, left):
            bar.set_postfix_str(f"start {start}, {left} left", refresh=False)
            bar.update()

        if args.again:
            found, said = rebuild(args.run, args.data, progress)
        else:
            run = images.load(args.run)
            kept = {name: value for name, value in run.config.as_dict().items() if name != "training"}
            config = RepresentativesConfig.build(None, [*common.pairs(kept), *args.set])
            out = Path(args.out or run.path / f"representatives-{args.network}-{args.start}")
            with common.continued(out):
                found, said = invert_run(run, args.network, config, args.start, out, part=args.part, force=args.force,
                                         progress=progress), []  # fmt: skip
    gate, folder = found.gate, args.run if args.again else out
    rows = [["images", len(found.y)], ["gate", "passed" if gate.passed else "not converged"],
            *[["", one] for one in gate.failed], ["the reference's accuracy on x", f"{gate.accuracy:.3f}"],
            ["on x_r", f"{gate.own_accuracy:.3f}"], ["own target nearest", f"{gate.own_nearest:.3f}"],
            ["distance, median", f"{gate.median:.4f}"], ["distance, p90", f"{gate.p90:.4f}"],
            ["spacing of a class", f"{gate.spacing:.4f}"]]  # fmt: skip
    document = {"folder": folder, "images": len(found.y), "passed": gate.passed, "gate": found.head["gate"],
                "failed": gate.failed, "differs": said}  # fmt: skip
    end = "Made anew: every bit as the datasheet says." if args.again else f"Datasheet: {folder}/representatives.json"
    common.show(args, document, "\n".join(said) if said else (["", "value"], rows), *([] if said else [end]))
    if said:
        raise common.Failed(f"{folder}: {len(said)} statements of the datasheet do not hold")
    return 0
