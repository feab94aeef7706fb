"""``python docs/extensions/check_site.py docs/_build/html``: the built site needs no network and has no dead link."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NOT_LOADED = {"canonical", "next", "prev", "search", "index", "author", "copyright"}  # kinds of <link>


class Page(HTMLParser):
    """What a page loads, where it leads to, and the anchors it has."""

    def __init__(self, text: str):
        super().__init__()
        self.loads, self.links, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        target = attrs.get(LOADS.get(tag, ""))
        if target and not (tag == "link" and attrs.get("rel") in NOT_LOADED):
            self.loads.append(target)
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])


def complaints(site: Path) -> list[str]:
    """What a page loads from elsewhere, or leads to within the site though it is not there."""
    pages = {
        path: Page(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
        if "_static" not in path.parts
    }  # the theme's own templates
    found = []
    for path, page in pages.items():
        where = path.relative_to(site)
        found += [f"{where}: loads {target}" for target in page.loads if elsewhere(target)]
        for target in [*page.loads, *page.links]:
            parts = urlsplit(target)
            if elsewhere(target) or parts.scheme:
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            if not to.exists():
                found.append(f"{where}: {target} is not there")
            elif parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].anchors:
                found.append(f"{where}: {target} has no such place")
    for path in sorted(site.rglob("*.css")):
        loads = re.findall(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""", path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(site)}: loads {one}" for one in map("".join, loads) if elsewhere(one)]
    return found


def elsewhere(target: str) -> bool:
    """Whether an address lies on another machine."""
    return target.startswith(("http:", "https:", "//"))


if __name__ == "__main__":
    said = complaints(Path(sys.argv[1]).resolve())
    print("\n".join(said) or "The site loads nothing from elsewhere, and every link within it leads somewhere.")
    sys.exit(1 if said else 0)
