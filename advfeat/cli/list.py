"""Every run and sweep below a folder: how far it is, and how its configuration differs from the defaults."""

from ..core.config import word
from . import common, folders


def add_arguments(parser):
    parser.add_argument("folder", nargs="?", default="advfeat-runs", metavar="DIR", help="default advfeat-runs")
    common.add_output(parser)


def run(args) -> int:
    found, rows = [], []
    for path in folders.search(args.folder):
        try:
            held = folders.read(path)
        except Exception as error:  # whatever somebody left there: the others are listed all the same
            said = " ".join(f"{error or type(error).__name__}".split())
            found.append({"path": path, "error": said})
            rows.append([path, "damaged", "", said])
        else:
            found.append(held.as_dict())
            rows.append([path, held.kind, held.state, " ".join(_pairs(held))])
    common.show(args, {"folders": found}, (("folder", "kind", "state", "differs from the defaults by"), rows))
    return 0


def _pairs(held):
    yield from (f"{name}={word(value)}" for name, value in held.differences.items())
    yield from (f"{name}={folders.axis(values)}" for name, values in held.axes.items())
