"""Phase diagrams and bands of a finished sweep, with the predicted boundaries; a gallery of all drawn so far."""

from ..core.config import parse_pair
from . import common

OPTIONS = {
    "x": "swept field (or strength_ratio, robust_share, density_ratio ...) across",
    "y": "another one upwards: a heat map",
    "metric": "what to draw; 'claims' for the share in which each claim of Thm. 4.3 and 4.4 holds",
    "facet": "one panel or colour for each value of this field",
    "training": "standard or adversarial, where both were swept",
    "engine": "network, recursion or both, where there is a choice",
    "iteration": "a recorded time (default the last)",
}


def add_arguments(parser):
    parser.add_argument("folder", metavar="DIR", help="folder of a finished sweep")
    for name, what in OPTIONS.items():
        parser.add_argument(f"--{name}", help=what, type=int if name == "iteration" else str)
    parser.add_argument("--at", metavar="FIELD=VALUE", nargs="+", help="other axes held at these values")
    common.add_output(parser, table=False)


def run(args) -> int:
    from ..sweeps.gallery import plot as draw

    request = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    if args.at:
        request["at"] = dict(parse_pair("--at", text) for text in args.at)
    if request and args.metric is None:
        raise ValueError("give --metric, or no option at all for the plots of the sweep's own spec")
    common.show(args, None, "\n".join(map(str, draw(args.folder, [request] if request else None))))
    return 0
