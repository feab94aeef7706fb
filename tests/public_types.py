"""What users see of advfeat, walked by its annotations: public names, the classes that these lead to, their members."""

import ast
import importlib
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType

import numpy as np

import advfeat

PUBLIC = ("advfeat", "advfeat.theory", "advfeat.attacks", "advfeat.sweeps", "advfeat.images", "advfeat.images.data",
          "advfeat.training")  # fmt: skip
#: Without what they hold they say as much as Any.
BARE = {dict, list, tuple, set, frozenset, type, np.ndarray, np.dtype, Callable, Iterable, Iterator, Mapping, Sequence}
CALLED = ("__init__", "__call__", "__getitem__", "__iter__", "__len__", "__post_init__")


def hints(thing) -> dict[str, object]:
    """The annotations of a function, or of a class and its bases, as types."""
    return typing.get_type_hints(thing if isinstance(thing, type) else inspect.unwrap(thing))


def faults(hint) -> list[str]:
    """What is wrong with a type: Any, or a container that does not say of what.

    Arrays of any dtype are right: what an array in a history or a file holds is decided by its name.
    """
    origin = typing.get_origin(hint)
    if hasattr(hint, "__value__"):  # by the statement `type`: NumPy's own NDArray and ArrayLike from version 2.5 on
        return []
    if hint is typing.Any:
        return ["Any"]
    if hint in BARE:
        return [f"bare {hint}"]
    if origin is typing.Literal or origin in (np.ndarray, np.dtype):
        return []
    if isinstance(hint, typing.TypeVar):
        return faults(hint.__bound__)
    if isinstance(origin, type) and issubclass(origin, np.generic):
        return []
    return [fault for part in parts(hint) for fault in faults(part)]


def parts(hint) -> list:
    """The types that a type is made of."""
    return [one for part in typing.get_args(hint) for one in (part if isinstance(part, list) else [part])]


def classes_in(hint) -> Iterator[type]:
    if isinstance(hint, typing.TypeVar):
        hint = hint.__bound__
    for one in (hint, typing.get_origin(hint)):
        if isinstance(one, type) and one.__module__.startswith("advfeat.") and "advfeat.kernels" not in one.__module__:
            yield one
    for part in parts(hint):
        yield from classes_in(part)


def functions_of(one: type) -> Iterator[tuple[str, Callable]]:
    """Public methods and properties that the class itself writes down; generated ones of dataclasses are not."""
    for name, member in vars(one).items():
        if name.startswith("_") and name not in CALLED:
            continue
        member = getattr(member, "__func__", member)  # of class and static methods
        member = getattr(member, "fget", None) or getattr(member, "func", None) or member
        member = getattr(member, "__wrapped__", member)
        if inspect.isfunction(member) and member.__code__.co_filename == inspect.getfile(one):
            yield name, member


def signature_faults(where: str, function: Callable) -> list[str]:
    """Parameters without an annotation, an answer without one, and what is wrong with those that are there."""
    held, found = hints(function), []
    for place, (name, parameter) in enumerate(inspect.signature(inspect.unwrap(function)).parameters.items()):
        own = "." in where and place == 0 and name in ("self", "cls")
        if not own and parameter.annotation is inspect.Parameter.empty:
            found.append(f"{where}: {name} has no annotation")
    if "return" not in held and not where.endswith("__init__"):
        found.append(f"{where}: what it returns has no annotation")
    return found + [f"{where}: {name} is {fault}" for name, hint in held.items() for fault in faults(hint)]


def walk(modules: Iterable[ModuleType]) -> tuple[dict[str, Callable], list[type]]:
    """Public functions by name, and public classes with their bases and every class that annotations lead to."""
    functions, classes, todo = {}, [], []

    def reach(thing):
        for hint in hints(thing).values():
            todo.extend(classes_in(hint))

    for module in modules:
        for name in module.__all__:
            one = getattr(module, name)
            if isinstance(one, type):
                todo.append(one)
            elif callable(one):
                functions[f"{module.__name__}.{name}"] = one
                reach(one)
    while todo:
        one = todo.pop()
        if one in classes or not one.__module__.startswith("advfeat."):
            continue
        classes.append(one)
        todo.extend(one.__bases__)
        reach(one)
        for _, function in functions_of(one):
            reach(function)
    return functions, sorted(classes, key=lambda one: (one.__module__, one.__name__))


def public() -> tuple[dict[str, Callable], list[type]]:
    return walk([importlib.import_module(name) for name in PUBLIC])


def attributes(one: type) -> list[str]:
    """Public attributes of an object: fields, properties, and what `__init__` puts on it."""
    if typing.is_typeddict(one):
        return []
    found = [name for base in one.__mro__ if base.__module__.startswith("advfeat") for name in base.__annotations__]
    found += [name for name, value in vars(one).items() if isinstance(value, property) or hasattr(value, "attrname")]
    if "__init__" in vars(one) and inspect.isfunction(one.__init__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(one.__init__)))
        except OSError:  # made by dataclass
            tree = ast.Module([], [])
        for node in ast.walk(tree):
            target = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            if target and isinstance(node.value, ast.Name) and node.value.id == "self":
                found.append(node.attr)
    return [name for name in dict.fromkeys(found) if not name.startswith("_")]


assert advfeat  # puts the attacks of higher rooms into advfeat.attacks
