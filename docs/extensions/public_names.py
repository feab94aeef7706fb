"""Which names of advfeat are public; that each has a docstring and stands in the reference; that references exist."""

import importlib
import inspect
import pkgutil
import re
import sys

PACKAGES = ("advfeat", "advfeat.attacks", "advfeat.theory", "advfeat.sweeps", "advfeat.images", "advfeat.images.data",
            "advfeat.training", "advfeat.patches.certify")  # fmt: skip
LONGEST = 50  # letters of the names of some parameters that share a line


def public_names() -> dict[str, object]:
    """Every name of the packages' ``__all__``, in full, with its object."""
    return {f"{package}.{name}": getattr(importlib.import_module(package), name)
            for package in PACKAGES for name in importlib.import_module(package).__all__}  # fmt: skip


def members(cls: type) -> set[str]:
    """The public methods and properties of a class, with those that it inherits from classes of advfeat."""
    found = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("advfeat"):
            found |= {name: one for name, one in vars(base).items() if not name.startswith("_")}
    return {name for name, one in found.items() if callable(one) or hasattr(one, "__get__")}


def undocumented() -> list[str]:
    """Public names, methods and properties without a docstring, of their own or of what they override."""
    missing = []
    for name, one in public_names().items():
        if (inspect.isclass(one) or inspect.isroutine(one)) and not inspect.getdoc(one):
            missing.append(name)
        if inspect.isclass(one):
            missing += [f"{name}.{member}" for member in sorted(members(one)) if not _documented(one, member)]
    return missing


def _documented(cls: type, member: str) -> bool:
    ways = [vars(base)[member] for base in cls.__mro__ if member in vars(base)]
    return any(way.__doc__ for way in ways if callable(way) or hasattr(way, "__get__"))


def misread() -> list[str]:
    """Docstrings of which numpydoc takes a paragraph for a parameter: it needs a heading of its own, such as Notes."""
    from numpydoc.docscrape import NumpyDocString

    found = []
    for name, one in public_names().items():
        for full, what in [(name, one), *((f"{name}.{member}", getattr(one, member)) for member in
                                          (members(one) if inspect.isclass(one) else ()))]:  # fmt: skip
            if callable(what):
                text = NumpyDocString(inspect.getdoc(what) or "")
                parts = [part for section in ("Parameters", "Attributes") for part in text[section]]
                found += [full for part in parts if len(part.name) > LONGEST and not part.type]
    return sorted(set(found))


def absent(documented: set[str]) -> list[str]:
    """Public names of which no name of the same object is among the `documented` ones."""
    names = public_names()
    shown = {id(one) for name, one in names.items() if name in documented}
    return [name for name, one in names.items() if id(one) not in shown]


def _check(app, env):
    from sphinx.util import logging

    warn = logging.getLogger(__name__).warning
    for name in undocumented():
        warn("public name without a docstring: %s", name)
    for name in misread():
        warn("a paragraph stands among the parameters of %s", name)
    for name in absent(set(env.domaindata["py"]["objects"])):
        warn("public name that the reference lacks: %s", name)


def exists(target: str, module: str = "") -> bool:
    """Whether a type or a name that documentation refers to, in full or seen from a module, is there at all."""
    name = re.match(r"[\w.]*", target.lstrip("~")).group()  # of "dict[str" the part before the bracket
    name = re.sub(r"^np\b", "numpy", name)
    for full in (name, f"builtins.{name}", f"{module}.{name}"):
        try:
            pkgutil.resolve_name(full)
        except (ImportError, AttributeError, ValueError):
            continue
        return True
    return False


def _without_a_page(app, env, node, contnode):
    """What exists without a page of its own, such as a class of NumPy, is shown without a link."""
    module, cls = node.get("py:module") or "", node.get("py:class")
    if cls and exists(f"{module}.{cls}"):
        module = pkgutil.resolve_name(f"{module}.{cls}").__module__
    target, modules = node["reftarget"], [module]
    if node["reftype"] == "class" and "." not in target:  # of an annotation: an alias of some module
        modules += [name for name in sys.modules if name.startswith("advfeat.")]
    found = node.get("refdomain") == "py" and any(exists(target, one) for one in modules)
    return contnode if found else None


def setup(app):
    app.connect("env-check-consistency", _check)
    app.connect("missing-reference", _without_a_page)
    return {"parallel_read_safe": True}
