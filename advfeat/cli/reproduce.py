"""Both trainings, figure3.png and .pdf, history.npz, report.html."""

from contextlib import nullcontext
from pathlib import Path

from ..core import store
from ..core.lock import Lock
from . import common
from .ahead import compiled_ahead


def add_arguments(parser):
    common.add_config(parser)
    parser.add_argument("--out", metavar="DIR", help="run folder (default advfeat-runs/figure3-<hash>)")
    common.add_output(parser, force="remove the run that the folder holds, and train anew")


def run(args) -> int:
    config, weights = common.config_of(args)
    later = f"train:{config.dtype}:{config.n_seeds}", "search", "recursion"
    with compiled_ahead(*later) if config.backend == "numba" else nullcontext():
        return _run(args, config, weights)


def _run(args, config, weights) -> int:
    from ..experiments import figure3 as experiment
    from ..reporting.figures import figure3
    from ..reporting.run_page import outcome, outcome_rows, write_report
    from ..reporting.style import save

    if weights is not None:
        config.network(weights)  # refuses what does not fit, before there is a folder
    common.reserve(args, config.memory(), "give fewer seeds, samples, patches or neurons")
    out = Path(args.out or f"advfeat-runs/figure3-{config.digest(weights)}")
    with common.continued(out), Lock(store.make_folder(out)):
        with common.Bar(args) as bar:
            done = experiment.run(config, out, weights=weights, progress=bar, force=args.force)
        theory = experiment.recursions(config, weights)
        save(figure3(done.histories, config, theory), out / "figure3")
        write_report(done, config, out / "figure3.png", out / "report.html", theory)
    page, found = out / "report.html", outcome(done, config, theory)
    document = {"folder": out, "report": page, "seeds": config.seeds, "n_iter": config.n_iter, "trainings": found}
    common.show(args, document, outcome_rows(found, config.noise_std), f"Report: {page}")
    return 0
