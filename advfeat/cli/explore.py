"""A page on which the theory is dragged: Figure 3, the plateau and the phase boundary move."""

import webbrowser

from . import common

PORT = 5006


def add_arguments(parser):
    help = f"port on loopback, 0 for any that is free (default {PORT})"
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help=help)
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    common.add_output(parser, table=False)


def run(args) -> int:
    try:
        import bokeh  # noqa: F401
    except ModuleNotFoundError:
        raise ValueError("the package bokeh is missing: pip install 'advfeat[explore]'") from None
    from ..explorer import server

    def started(address: str):
        common.say(args, f"advfeat explore: {address} (Ctrl-C ends it)")
        if not args.no_browser:
            webbrowser.open(address)

    server.prepare()
    server.serve(args.port, started)
    common.say(args, "Stopped.")
    return 0
