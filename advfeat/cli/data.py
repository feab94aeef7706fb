"""Assumption 2.3 and the window of a configuration's data, and Figure 2."""

from ..core import store
from ..patches.data import PatchData
from . import common


def add_arguments(parser):
    common.add_config(parser, seeds=False)
    parser.add_argument("--out", metavar="DIR", default=".", help="folder for figure2.png and .pdf (default .)")
    common.add_output(parser)


def run(args) -> int:
    from ..experiments.figure3 import predicted_strength
    from ..reporting.figures import figure2
    from ..reporting.run_page import data_numbers, data_rows
    from ..reporting.style import save

    config, weights = common.config_of(args)
    sample = config.data("test", config.seeds[:1])
    first = PatchData(sample.X[0], sample.y[0], sample.robust[0], sample.strength[0], sample.features)
    strength = predicted_strength(config, weights) if config.norm == "linf" else None
    numbers = data_numbers(config, first, config.window(strength)) | {"A": strength}
    parts = [data_rows(numbers)]
    if strength is not None:
        part = f"A: the largest <w, u> of adversarial training at iteration {config.n_iter}, by the exact recursion"
        parts.append(part)
    net = None if weights is None else config.network(weights).run(0)
    if net is not None:
        numbers["accuracy"] = net.accuracy(first.X, first.y)
        parts.append(f"accuracy of the given weights on {len(first)} samples: {numbers['accuracy']:.2f}")
    figure = store.make_folder(args.out) / "figure2"
    save(figure2(first, config.eps, net), figure)
    common.show(args, numbers | {"figure": f"{figure}.png"}, *parts, f"Figure 2: {figure}.png")
    return 0
