"""Every key of the configuration: its value, default, unit and meaning; or all of it as a commented TOML file."""

from pathlib import Path

from ..core import store
from . import common

HEAD = ("key", "value", "default", "unit", "meaning")


def add_arguments(parser):
    common.add_config(parser)
    parser.add_argument("--out", metavar="FILE.toml", help="write it as a file for --config")
    common.add_output(parser, force="write over a file that is there")


def run(args) -> int:
    config, _ = common.config_of(args)
    about, keys = ("default", "unit", "help", "rule"), config.keys()
    found = {
        name: {"value": value} | {part: getattr(keys[name], part) for part in about}
        for name, value in config.as_dict().items()
    }
    parts = [(HEAD, config.rows())]
    if args.out is not None:
        path = Path(args.out)
        if path.exists() and not args.force:
            raise FileExistsError(f"{path}: is there already; --force writes over it")
        store.make_folder(path.parent)
        store.write(path, lambda file: file.write(config.toml()), "w")
        parts.append(f"Configuration: {path}")
    common.show(args, {"keys": found, "file": args.out}, *parts)
    return 0
