"""Both trainings, figure3.png and .pdf, history.npz, report.html."""

from contextlib import ExitStack
from pathlib import Path

from ..core import store
from ..core.lock import Lock
from . import common


def add_arguments(parser):
    common.add_config(parser)
    parser.add_argument("--out", metavar="DIR", help="run folder (default advfeat-runs/figure3-<hash>)")
    common.add_output(parser, force="remove the run that the folder holds, and train anew")


def run(args) -> int:
    from ..experiments import figure3 as experiment
    from ..reporting.figures import figure3
    from ..reporting.run_page import outcome, outcome_rows, write_report
    from ..reporting.style import save

    config, weights = common.config_of(args)
    if weights is not None:
        config.network(weights)  # refuses what does not fit, before there is a folder
    common.reserve(args, config.memory(), "give fewer seeds, samples, patches or neurons")
    out = Path(args.out or f"advfeat-runs/figure3-{config.digest(weights)}")
    with common.continued(out), Lock(store.make_folder(out)):
        with ExitStack() as stack:
            bars = {}

            def progress(name, iteration):
                if name not in bars:
                    label = f"{name.capitalize()} training, {config.n_seeds} seeds"
                    new = common.bar(args, total=config.n_iter, desc=f"{label:<34}", unit="it")
                    bars[name] = stack.enter_context(new)
                bars[name].update(iteration - bars[name].n)

            done = experiment.run(config, out, weights=weights, progress=progress, force=args.force)
        theory = experiment.recursions(config, weights)
        save(figure3(done.histories, config, theory), out / "figure3")
        write_report(done, config, out / "figure3.png", out / "report.html", theory)
    page, found = out / "report.html", outcome(done, config, theory)
    document = {"folder": out, "report": page, "seeds": config.seeds, "n_iter": config.n_iter, "trainings": found}
    common.show(args, document, outcome_rows(found, config.noise_std), f"Report: {page}")
    return 0
