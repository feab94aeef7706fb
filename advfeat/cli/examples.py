"""The examples that come with advfeat and what each asks; with names, copies of them to change."""

from importlib.util import find_spec
from pathlib import Path

from ..core import checks, store
from . import common

COMMANDS = {"*.toml": "sweep", "images/*.toml": "images study"}  # files below examples/, and what runs them


def add_arguments(parser):
    parser.add_argument("names", nargs="*", metavar="NAME", help="examples to copy (default: list them all)")
    parser.add_argument("--all", action="store_true", help="copy every example")
    parser.add_argument("--out", metavar="DIR", help="folder of the copies (default: this one)")
    common.add_output(parser, force="write over files that are there")


def run(args) -> int:
    if args.all and args.names:
        raise ValueError("--all: copies every example, so it takes no names")
    for name in args.names:
        checks.choice("example", name, files())
    if args.all or args.names:
        return _copy(args, args.names or files())
    for option in ("out", "force"):
        if getattr(args, option):
            raise ValueError(f"--{option}: only with names or --all, which copy")
    rows = [(name, f"advfeat {command} {name}", asks(path)) for name, (path, command) in files().items()]
    head = "example", "command", "question"
    common.show(args, {"examples": [dict(zip(head, row)) for row in rows]}, (head, rows))
    return 0


def _copy(args, names) -> int:
    out, rows = Path(args.out or "."), []
    chosen = {out / path.name: (path, command) for path, command in map(files().get, names)}
    there = [copy for copy in chosen if copy.exists()]
    if there and not args.force:
        raise FileExistsError(f"{there[0]}: is there already; --force writes over it")
    store.make_folder(out)
    for copy, (path, command) in chosen.items():
        content = path.read_bytes()
        store.write(copy, lambda file, content=content: file.write(content))
        rows.append((copy, f"advfeat {command} {copy}"))
    head = "file", "command"
    common.show(args, {"copies": [dict(zip(head, row)) for row in rows]}, (head, rows))
    return 0


def files() -> dict[str, tuple[Path, str]]:
    """Name -> file of every example, and the command that runs it."""
    folder = Path(find_spec("advfeat.examples").submodule_search_locations[0])
    found = ((path, command) for pattern, command in COMMANDS.items() for path in sorted(folder.glob(pattern)))
    return {path.stem: (path, command) for path, command in found}


def asks(path: Path) -> str:
    """The question on the first line of an example, a comment."""
    with open(path, encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def file_of(given: str) -> Path:
    """The file that a command was given; where there is none, the example of that name."""
    path = Path(given)
    return path if path.is_file() else files().get(given, (path,))[0]
