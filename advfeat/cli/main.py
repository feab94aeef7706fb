"""The loop around commands: a parser made of their modules, errors as one line, and an exit status for each end."""

import argparse
import contextlib
import os
import signal
import sys

from ..core._version import __version__
from ..core.memory import keep_what_is_freed
from . import (
    config,
    data,
    evaluate,
    examples,
    explore,
    images,
    info,
    plot,
    reproduce,
    robustness,
    show,
    sweep,
    validate,
    warmup,
)
from . import list as listing
from .common import Failed

COMMANDS = (reproduce, images, data, evaluate, robustness, sweep, plot, explore, examples, validate, config, listing,
            show, info, warmup)  # fmt: skip
FAILED, REFUSED, STOPPED, UNREAD = 1, 2, 130, 141  # exit statuses; the last two are 128 + SIGINT and 128 + SIGPIPE


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="advfeat", description="Feature learning under adversarial training.")
    top.add_argument("--version", action="version", version=f"advfeat {__version__}")
    commands = top.add_subparsers(dest="command", required=True)
    for module in COMMANDS:
        first = module.__doc__.splitlines()[0]
        sub = commands.add_parser(module.__name__.rpartition(".")[2], help=first, description=first)
        sub.set_defaults(function=module.run)
        module.add_arguments(sub)
    return top


def main(argv=None) -> int:
    """Run one command.  Returns 0; 1 where it ended without what was asked for; 2 for what it refuses, before any work;
    130 after Ctrl-C; 141 when nobody reads its output any more.  All but 0 and 141 are one line on stderr."""
    _open_closed_streams()
    status, command = 0, "advfeat"
    try:
        args = parser().parse_args(argv)
        command = f"advfeat {args.command}"
        status = args.function(args)
        sys.stdout.flush()
    except SystemExit as end:  # of the parser, after --help and after what it refuses
        status = end.code or 0
    except KeyboardInterrupt as stop:
        status = _complain(f"{command}: {str(stop) or 'stopped'}", STOPPED)
    except BrokenPipeError:
        status = UNREAD
    except Failed as error:
        status = _complain(f"{command}: {error}", FAILED)
    except (ValueError, TypeError, OSError, MemoryError) as error:
        missing = "there is not enough memory" if isinstance(error, MemoryError) else type(error).__name__
        status = _complain(f"{command}: {str(error) or missing}", REFUSED)
    return _let_go_of_stdout(status)


def entry() -> int:
    """`main` of a process of its own, which keeps its memory; Ctrl-C on its way out ends it at once, without Python's
    traceback."""
    keep_what_is_freed()
    status = main()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return status


def _complain(message: str, status: int) -> int:
    with contextlib.suppress(OSError):
        print(" ".join(message.split("\n")), file=sys.stderr, flush=True)
    return status


def _let_go_of_stdout(status: int) -> int:
    """Flush it; where that cannot be, let it end in nothing, so that the interpreter's last flush is silent."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
        return UNREAD if isinstance(error, BrokenPipeError) else status or REFUSED
    return status


def _open_closed_streams() -> None:
    """Descriptors 0 to 2 that are closed (as by ``2>&-``) lead to nothing, before the next opened file gets one of
    them and what is printed lands in it."""
    descriptor = 0
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest that is free
        os.set_inheritable(descriptor, descriptor <= 2)
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
