"""Files outside of docs/ as pages of the site, and links to them, which on a code host lead to the files."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = {"README.md": "index", "CONTRIBUTING.md": "contributing", "CHANGELOG.md": "changelog",
         "kernels/OPTIMISATION.md": "optimisation"}  # fmt: skip
FOLDERS = {"examples/gallery": "gallery/index.rst"}


def shown(text: str, folder: str = "") -> str:
    """Text of a file in a folder of the checkout with the links that a page in docs/ has."""

    def link(match):
        target, _, anchor = match[1].partition("#")
        path = "/".join(Path(folder, target).parts)
        path = re.sub(r"[^/]+/\.\./", "", path)
        if path in PAGES or path in FOLDERS:
            page = FOLDERS.get(path) or f"{PAGES[path]}.md"
        else:
            page = path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}"
        return f"]({page}{'#' if anchor else ''}{anchor})"

    return re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", link, text)


def _read(app, docname, source):
    """A page that stands for a file outside has its text, and keeps its own toctree."""
    source[0] = shown(source[0], "docs")
    for file, page in PAGES.items():
        if page == docname:
            app.env.note_dependency(str(ROOT / file))
            text = shown((ROOT / file).read_text(encoding="utf-8"), "/".join(Path(file).parts[:-1]))
            source[0] = text + "\n" + "".join(re.findall(r"^```\{toctree\}.*?^```\n", source[0], re.M | re.S))


def setup(app):
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
