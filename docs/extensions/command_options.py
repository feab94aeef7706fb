"""The directive ``command``: the options of a command of advfeat, as the command itself prints them."""

import os

COLUMNS = "100"


def command_parsers() -> dict:
    """The parser of every command by its words, as "images train"."""
    from advfeat.cli.main import parser

    found = {}

    def below(one, words):
        parts = [action.choices for action in one._actions if isinstance(action.choices, dict)]
        for name, sub in (parts[0] if parts else {}).items():
            below(sub, [*words, name])
        if words and not parts:
            found[" ".join(words)] = one

    below(parser(), [])
    return found


def help_of(parser) -> str:
    """What --help prints, whatever the width of the terminal."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = COLUMNS
    try:
        return parser.format_help()
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def _check(app, env):
    """Every command's options stand on one page."""
    from sphinx.util import logging

    shown = "".join(page.get("commands", "") for page in env.metadata.values()).splitlines()
    for name in command_parsers():
        if shown.count(name) != 1:
            logging.getLogger(__name__).warning("the options of advfeat %s stand on %d pages", name, shown.count(name))


def setup(app):
    from docutils import nodes
    from docutils.parsers.rst import Directive

    class Command(Directive):
        """Its text is ``advfeat images train --help``, and it shows what that prints."""

        has_content = True

        def run(self):
            name = " ".join(self.content).strip().removeprefix("advfeat ").removesuffix(" --help")
            parsers = command_parsers()
            if name not in parsers:
                raise self.error(f"no such command: {name}; there are {', '.join(parsers)}")
            env = self.state.document.settings.env
            env.metadata[env.docname]["commands"] = f"{env.metadata[env.docname].get('commands', '')}{name}\n"
            text = help_of(parsers[name])
            return [nodes.literal_block(text, text, language="text")]

    app.add_directive("command", Command)
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True}
