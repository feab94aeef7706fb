"""The parts of `advfeat images` around representatives: reproduce, table, table2, attack, invert."""

from pathlib import Path

from ..core import checks, store
from ..images.representatives import STARTS
from . import common, examples

NETWORKS = ("best", "last")
SMALL = "small"
FORECAST = "only say how long it will take here, and how much memory"


def add_parts(parts) -> None:
    reproduce = parts.add_parser(
        "reproduce", help="Figures 1, 4, 5, Tables 1 and 2: trainings, representatives, feature learning accuracy"
    )
    _add_experiment(reproduce)
    reproduce.set_defaults(command_of_images=_reproduce)

    table = parts.add_parser("table", help="the tables and pages of an experiment, from what its folder holds")
    table.add_argument("folder", metavar="FOLDER", help="of advfeat images reproduce")
    common.add_output(table)
    table.set_defaults(command_of_images=_table)

    table2 = parts.add_parser("table2", help="Table 2 alone: classes turned into each other by features, no inversions")
    _add_experiment(table2)
    table2.set_defaults(command_of_images=_table2)

    attack = parts.add_parser("attack", help="a class turned into another by the features of one training's network")
    attack.add_argument("reference", metavar="REFERENCE", help="folder of advfeat images train: whose features")
    attack.add_argument("--victims", metavar="RUN", nargs="+", default=[], help="trainings that are asked")
    attack.add_argument("--source", metavar="CLASS", required=True, help="class of the images, by number or name")
    attack.add_argument("--target", metavar="CLASS", required=True, help="class that they shall be taken for")
    attack.add_argument("--eps", type=float, help="radius (default: the reference's)")
    attack.add_argument("--network", choices=NETWORKS, default="last", help="which networks (default last)")
    attack.add_argument("--steps", type=int, default=50, metavar="N", help="steps (default 50)")
    attack.add_argument("--samples", type=int, metavar="N", help="test images of the class (default all)")
    attack.add_argument("--out", metavar="DIR", help="folder (default REFERENCE/attack-<source>-<target>)")
    common.add_output(attack, force="attack anew, whatever the folder holds")
    attack.set_defaults(command_of_images=_attack)

    study = parts.add_parser("study", help="what carries the order of D_NR and D_R: kinship, steps, factors")
    study.add_argument("plan", metavar="PLAN.toml", help="the study, or the name of an example")
    study.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help="change the base")
    study.add_argument("--out", metavar="DIR", help="folder (default advfeat-runs/study-<plan>)")
    what = "folder of the cells' results (default: of the plan's name, beside it)"
    study.add_argument("--results", metavar="DIR", help=what)
    study.add_argument("--draw", action="store_true", help="only the page, of what is measured")
    study.add_argument("--plan", dest="forecast", action="store_true", help=FORECAST)
    _add_workers(study)
    common.add_output(study)
    study.set_defaults(command_of_images=_study)

    phases = parts.add_parser("phases", help="the theory's two phases, on patches and along trainings on images")
    phases.add_argument("folders", metavar="FOLDER", nargs="+", help="experiments of advfeat images reproduce")
    phases.add_argument("--run", metavar="RUN", required=True, help="folder of advfeat reproduce, for the patches")
    phases.add_argument("--start", choices=STARTS, default="image", help="start of the representatives (default image)")
    phases.add_argument("--out", metavar="DIR", default="advfeat-runs/phases", help="folder of the page")
    common.add_output(phases)
    phases.set_defaults(command_of_images=_phases)

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


def _add_experiment(parser) -> None:
    """The options that say which experiment it is, and where."""
    what = "an experiment (--preset list names them; default digits), or small: the one of --data"
    parser.add_argument("--preset", metavar="NAME", help=what)
    parser.add_argument("--data", metavar="NAME", help="image set, as --set dataset=NAME")
    parser.add_argument("--model", metavar="NAME", help="architecture, as --set network=NAME")
    parser.add_argument("--width", type=int, metavar="W", help="channels of the first stage")
    parser.add_argument("--seeds", type=int, metavar="S", help="networks of each kind (default 3)")
    common.add_values(parser)
    parser.add_argument("--plan", action="store_true", help=FORECAST)
    parser.add_argument("--out", metavar="DIR", help="folder (default advfeat-runs/representatives-<hash>)")
    _add_workers(parser)
    common.add_output(parser, force="remove the experiment that the folder holds, and begin anew")


def _add_workers(parser) -> None:
    parser.add_argument("--jobs", type=int, metavar="N", help="processes that share the cores (default: a core each)")
    where = "loky (processes), dask=tcp://HOST:PORT, or another backend of joblib"
    parser.add_argument("--scheduler", default="loky", metavar="NAME", help=where)


# ------------------------------------------------------------------ reproduce, table, table2
def _experiment(args):
    """The experiment that the options describe, or None where they ask for a list of presets or for a plan alone, which
    is printed."""
    from ..experiments import forecast
    from ..experiments.representatives import Experiment
    from ..experiments.representatives_configuration import EXPERIMENTS, FREE, RepresentativesConfig

    if args.preset == "list":
        rows = [[name, " ".join(common.pairs(values))] for name, values in EXPERIMENTS.items()]
        common.show(args, EXPERIMENTS, (["preset", "values"], rows))
        return None
    data = args.data and args.data.replace("-", "_")
    given = {"dataset": data, "network": args.model, "width": args.width, "n_seeds": args.seeds}
    of_data = next((name for name, one in EXPERIMENTS.items() if one["dataset"] == data), None)
    preset = (of_data or "digits") if args.preset in (None, SMALL) else args.preset
    if args.preset == SMALL and of_data is None:
        raise ValueError(f"--preset {SMALL}: is the small experiment of an image set; name one with --data")
    values = EXPERIMENTS[checks.choice("preset", preset, EXPERIMENTS)]
    config = RepresentativesConfig.build(args.config, [*common.pairs(values, args), *args.set], None, **given)
    config.of_training("adversarial", config.seed).untrained().reserve(config.batch_size)
    of = {name: value for name, value in config.as_dict().items() if name not in FREE}
    out = Path(args.out or f"advfeat-runs/representatives-{store.digest_of_text(of)[:10]}")
    if args.plan:
        experiment = Experiment(config, out)
        _show_plan(args, forecast.of_experiment(experiment, args.command_of_images is _reproduce))
        return None
    return Experiment(config, out)


def _show_plan(args, rows: list[dict]) -> None:
    """Stages with what they will take, and all of them together."""
    from ..core.memory import available
    from ..experiments.forecast import duration, row

    least, most = (sum(r[name] for r in rows) for name in ("least", "most"))
    rows = [*rows, row("in all", least, most, max((r["memory"] for r in rows), default=0))]

    def told(row):
        least, most = (duration(row[name]) for name in ("least", "most"))
        return least if least == most else f"{least} to {most}"

    free = f"{available() / 1e6:,.0f} MB are free; each of several jobs takes as much."
    table = ["stage", "predicted on this machine", "MB"], [
        [row["stage"], told(row), f"{row['memory'] / 1e6:,.0f}"] for row in rows]  # fmt: skip
    common.show(args, {"stages": rows, "memory_free": available()}, table, free)


def _reproduce(args) -> int:
    experiment = _experiment(args)
    if experiment is None:
        return 0
    with common.continued(experiment.path):
        with common.Bar(args) as bar:
            evidence = experiment.run(bar, args.force, args.jobs, args.scheduler)
            attacks = experiment.attack(bar, False, args.jobs, args.scheduler)
        return _show(args, experiment, evidence, attacks)


def _table(args) -> int:
    from ..experiments.representatives import load

    experiment = load(args.folder)
    with common.Bar(args) as bar:
        evidence, attacks = experiment.evidence(bar), experiment.attacks(bar)
    return _show(args, experiment, evidence, attacks)


def _show(args, experiment, evidence, attacks) -> int:
    from ..experiments import feature_attacks, feature_table
    from ..reporting import feature_attack_page
    from ..reporting import representatives_page as page

    found = feature_table.document(experiment, evidence) | {"table2": feature_attacks.document(experiment, attacks)}
    report = page.write_report(experiment, evidence, found)
    parts = [page.network_rows(found), page.cell_rows(found), page.difference_rows(found),
             feature_attack_page.table_rows(found["table2"], pairs=False)]  # fmt: skip
    common.show(args, found | {"folder": experiment.path, "report": report}, *parts, f"Report: {report}")
    return 0


def _table2(args) -> int:
    from ..experiments import feature_attacks
    from ..reporting import feature_attack_page as page

    experiment = _experiment(args)
    if experiment is None:
        return 0
    with common.continued(experiment.path), common.Bar(args) as bar:
        found = feature_attacks.document(experiment, experiment.attack(bar, args.force, args.jobs, args.scheduler))
    report = page.write_report(experiment.config.dataset, found, experiment.path)
    parts = [page.table_rows(found), *[page.equal_rows(found)] * bool(found["equal"])]
    common.show(args, found | {"folder": experiment.path, "report": report}, *parts, f"Report: {report}")
    return 0


def _attack(args) -> int:
    from ..experiments import images
    from ..experiments.feature_attacks import attack_runs

    reference = images.load(args.reference)
    out = Path(args.out or reference.path / f"attack-{args.source}-{args.target}".replace("/", "-"))
    victims = [images.load(run) for run in args.victims] or [reference]
    eps = reference.config.eps if args.eps is None else args.eps
    found = attack_runs(reference, victims, args.source, args.target, eps, out, network=args.network,
                        n_steps=args.steps, most=args.samples, force=args.force)  # fmt: skip
    rows = [[r["victim"], r["training"], f"{r['success']:.3f}",
             "" if r["success_of_correct"] is None else f"{r['success_of_correct']:.3f}", f"{r['confusion']:.3f}",
             f"{r['accuracy']:.3f}"] for r in found["victims"]]  # fmt: skip
    head = ["victim", "training", "success", "of correct ones", "confusion", "accuracy"]
    moved = f"{found['images']} images of {found['source']} towards {found['target']}: distance to the representation "
    moved += f"aimed at {found['distance_before']:.3f} before, {found['distance']:.3f} after (medians)."
    common.show(args, found | {"folder": out}, (head, rows), moved, f"Images: {out / 'crafted.npz'}")
    return 0


def _study(args) -> int:
    from ..experiments import forecast
    from ..experiments.study import Study, StudyPlan
    from ..reporting import study_page as page

    plan, name = Path(args.plan), Path(args.plan).stem
    results = Path(args.results or plan.with_suffix(""))
    out = Path(args.out or f"advfeat-runs/study-{name}")
    study = Study(StudyPlan.read(examples.file_of(args.plan), args.set), out, results)
    if args.forecast:
        _show_plan(args, forecast.of_study(study))
        return 0
    with common.continued(study.path):
        if not args.draw:
            with common.Bar(args) as bar:
                study.run(bar, args.jobs, args.scheduler)
        report, found = page.write_report(study, name)
    common.show(args, found | {"folder": study.path, "report": report}, page.cell_rows(study),
                page.claim_rows(found["contrasts"]), f"Report: {report}")  # fmt: skip
    return 0


def _phases(args) -> int:
    from ..experiments import phases
    from ..experiments.representatives import load
    from ..reporting import phases_page as page

    run, config = common.open_run(args.run)
    found = {}
    for folder in args.folders:
        experiment = load(folder)
        if args.start not in experiment.config.starts or experiment.config.n_seeds < 2:
            raise ValueError(f"{folder}: has no representatives of other seeds from --start {args.start}")
        with common.Bar(args) as bar:
            evidence = experiment.evidence(bar)
        title = f"{experiment.config.dataset}, eps = {experiment.config.eps:g}"
        title += f", {Path(folder).name}" * (title in found)
        found[title] = phases.rows(experiment, evidence, args.start)
    report = page.write_report((run.histories, config), found, args.out)
    common.show(args, found | {"report": report}, page.phase_rows(found), f"Report: {report}")
    return 0


# ------------------------------------------------------------------ invert
def _invert(args) -> int:
    from ..experiments import images
    from ..experiments.representatives import invert_run, rebuild
    from ..experiments.representatives_configuration import RepresentativesConfig

    with common.Bar(args) as bar:
        if args.again:
            found, said = rebuild(args.run, args.data, bar)
        else:
            run = images.load(args.run)
            kept = {name: value for name, value in run.config.as_dict().items() if name != "training"}
            config = RepresentativesConfig.build(None, [*common.pairs(kept), *args.set])
            out = Path(args.out or run.path / f"representatives-{args.network}-{args.start}")
            with common.continued(out):
                found, said = invert_run(run, args.network, config, args.start, out, part=args.part, force=args.force,
                                         progress=bar), []  # fmt: skip
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
