"""What commands share: options of a configuration, output as tables or JSON, progress bars, folders."""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np

from ..core import memory, store
from ..core.config import word
from ..core.distribute import WorkFailed
from ..core.types import PRECISIONS
from ..experiments.configuration import Figure3Config
from ..kernels import BACKENDS
from ..patches.network import read_weights
from ..training import run_folder
from ..training.loop import DivergenceError

CONFIG_OPTIONS = ("config", "set", "seeds", "backend", "dtype", "weights")


class Failed(RuntimeError):
    """The command could not reach what was asked for; exit status 1."""


# ------------------------------------------------------------------ options
def add_values(parser) -> None:
    """--config and --set, which bring a configuration's values."""
    parser.add_argument("--config", metavar="FILE.toml", help="configuration file (keys as in --set)")
    parser.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help="change values")


def add_config(parser, seeds: bool = True) -> None:
    add_values(parser)
    if seeds:
        parser.add_argument("--seeds", type=int, metavar="S", help="number of seeds, run as one batch (default 4)")
    parser.add_argument("--backend", choices=BACKENDS, help="engine (default numba)")
    parser.add_argument("--dtype", choices=PRECISIONS, help="precision of the training (default float32)")
    parser.add_argument("--weights", metavar="FILE.npz", help="your own weights: array W (k, m, d) or (S, k, m, d)")


def add_output(parser, *, table: bool = True, force: str = "") -> None:
    """--quiet; --json of a command that prints a table; --force, with what it does."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="nothing on stdout and no progress bars")
    parser.set_defaults(json=False)
    if table:
        group.add_argument("--json", action="store_true", help="one JSON document on stdout, and nothing else")
    if force:
        parser.add_argument("--force", action="store_true", help=force)


def config_of(args) -> tuple[Figure3Config, np.ndarray | None]:
    """The configuration, with q and rho of the weights' file where it holds them, and the weights or None."""
    weights, held = (None, {}) if args.weights is None else read_weights(args.weights)
    given = {"n_seeds": getattr(args, "seeds", None), "backend": args.backend, "dtype": args.dtype}
    return Figure3Config.build(args.config, args.set, held, **given), weights


def pairs(values: dict, args=None) -> list[str]:
    """A preset's values as `--set` takes them, but for keys that stand in the configuration file of `args`."""
    held = {} if args is None or args.config is None else store.read_toml(args.config)
    return [f"{name}={word(list(value) if isinstance(value, tuple) else value)}" for name, value in values.items()
            if name not in held]  # fmt: skip


def options_given(args) -> list[str]:
    """The options of `add_config` that the user gave."""
    return [f"--{name}" for name in CONFIG_OPTIONS if getattr(args, name, None) not in (None, [])]


def open_run(path) -> tuple[run_folder.Run, Figure3Config]:
    """A run of `advfeat reproduce` and its configuration."""
    run = run_folder.load(path)
    if "n_classes" not in run.config:
        raise ValueError(f"{path}: is not a run of `advfeat reproduce`, so its test data are not known")
    return run, Figure3Config.from_dict(run.config)


# ------------------------------------------------------------------ output
def say(args, line: str) -> None:
    """A line before or during the work; not with --json or --quiet."""
    if not (args.json or args.quiet):
        print(line, flush=True)


def show(args, document, *parts) -> None:
    """The outcome: with --json `document`, else `parts` with an empty line between them; a part is text, or the head
    and the rows of a table."""
    if args.json:
        print(json.dumps(plain(document), indent=2, allow_nan=False))
    elif not args.quiet:
        print("\n\n".join(part if isinstance(part, str) else table(*part) for part in parts))


def table(head, rows) -> str:
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in cells)


def plain(value):
    """As JSON has it: numbers as numbers, arrays as nested lists, null for NaN, infinities and None."""
    if isinstance(value, dict):
        return {str(key): plain(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(held) for held in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, (str, int, type(None))) else str(value)


def bar(args, **options):
    """A progress bar on stderr, where that is a terminal."""
    from tqdm import tqdm  # takes 3 ms, which commands without a bar need not wait for

    return tqdm(disable=True if args.quiet else None, file=sys.stderr, **options)


class Bar:
    """The one bar of a command, fed by `progress` (`core.progress`): what is being done, the share that is done, and
    how long the rest will take at the pace of all of it so far.  A share that falls begins the next stage."""

    def __init__(self, args):
        self.args, self.bar, self.share = args, None, 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()

    def __call__(self, what: str, share: float) -> None:
        if self.bar is None or share < self.share:  # what was done before it began says nothing of its pace
            self.__exit__()
            form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
            options = {"desc": f"{what:<40}", "total": 1.0, "initial": share, "smoothing": 0, "leave": False}
            self.bar = bar(self.args, bar_format=form, **options)
        self.bar.set_description_str(f"{what:<40}", refresh=False)
        self.bar.update(share - self.bar.n)
        self.share = share


# ------------------------------------------------------------------ work
def reserve(args, needed: float, advice: str) -> None:
    """Say how much memory the command needs, and refuse with `advice` where that is not free."""
    say(args, f"Memory: about {needed / 1e6:,.0f} MB of {memory.available() / 1e6:,.0f} MB that are free")
    memory.require(needed, "this", advice)


@contextlib.contextmanager
def continued(out):
    """Ctrl-C in this context says how far the work was, where it says so, and where it continues; a training that
    diverges is a failure that says where its records are."""
    try:
        yield
    except DivergenceError as error:
        raise Failed(f"{error}; what was recorded is in {out}. Try a smaller lr.") from None
    except WorkFailed as error:
        raise Failed(f"{error}; what was done is kept in {out}") from None
    except KeyboardInterrupt as stop:
        iteration = getattr(stop, "iteration", None)
        where = "" if iteration is None else f" at iteration {iteration}"
        raise KeyboardInterrupt(f"stopped{where}; the same command continues from {out}") from None


def remove(paths) -> None:
    """Remove files that may be there, in this order."""
    for path in map(Path, paths):
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            store.sync_folder(path.parent)
