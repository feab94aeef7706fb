"""What a run or a sweep is: configuration, versions, how far it is, the last recorded numbers, its files."""

from pathlib import Path

import numpy as np

from ..core.config import word
from ..experiments.representatives_configuration import KIND
from . import common, folders


def add_arguments(parser):
    parser.add_argument("run", metavar="RUN", help="folder of a run or of a sweep")
    common.add_output(parser)


def run(args) -> int:
    held = folders.read(args.run)
    last = {} if held.kind in ("sweep", KIND) else _last(held)
    files = {str(path.relative_to(args.run)): path.stat().st_size for path in _files(Path(args.run))}
    document = held.as_dict() | {"config": held.config, "environment": held.environment, "last": last, "files": files}
    config = held.config["base"] if held.kind == "sweep" else held.config
    order = [*held.differences, *(name for name in config if name not in held.differences)]
    rows = [["" if name not in held.differences else "*", name, word(config[name])] for name in order]
    parts = [f"{held.path}: {held.kind}, {held.state}"]
    if held.axes:
        parts.append((("swept", "values"), [[name, folders.axis(axis)] for name, axis in held.axes.items()]))
    parts.append((("", "key (* not the default)", "value"), rows))
    if last:
        names = list(dict.fromkeys(name for found in last.values() for name in found))
        cells = [[name, *(_number(found.get(name)) for found in last.values())] for name in names]
        parts.append((("last recorded: median (range)", *last), cells))
    parts.append((("part", "version"), list(held.environment.items())))
    parts.append((("file", "bytes"), [[name, f"{size:,}"] for name, size in files.items()]))
    common.show(args, document, *parts)
    return 0


def _files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _last(held) -> dict:
    """Per training that has begun: name -> the last recorded value; "iteration" is the loss's."""
    from ..training import run_folder

    found = {}
    for name in held.done:
        place = held.path if name == "run" else held.path / name
        if (place / "checkpoint.npz").exists():
            found[name] = {key: values[-1] for key, values in run_folder.load(place).history.items()}
    return found


def _number(value):
    from ..reporting.run_page import spread

    return "-" if value is None else spread(value, 0 if np.asarray(value).dtype.kind in "iu" else 4)
