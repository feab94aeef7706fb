"""What a refusal of bad input must be, whatever was called: judged by what was raised, where, and by its message."""

import linecache
import re
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

import advfeat

ROOT = Path(advfeat.__file__).resolve().parents[1]
LIBRARY = tuple(ROOT / name for name in ("advfeat", "kernels", "validation"))
KINDS = (ValueError, TypeError, OSError, MemoryError)  # CheckpointError is a ValueError
LONGEST = 500  # characters of a message
RULE = re.compile(r"\b(must|unknown|choose|needs?|only|cannot|there is no|holds? NaN|no axis|the network has)\b")


def faults(call: Callable[[], object], name: str, *value: object) -> list[str]:
    """What is wrong with how `call` refuses: it must raise, by a ``raise`` of the library and an error of its kinds,
    one short line that holds `name`, each of `value` as `shown`, and a rule."""
    try:
        call()
    except Exception as error:
        where, message = traceback.extract_tb(error.__traceback__)[-1], str(error)
        raised = linecache.getline(where.filename, where.lineno).lstrip().startswith("raise")
        own = raised and any(Path(where.filename).is_relative_to(folder) for folder in LIBRARY)
        if not own or not isinstance(error, KINDS):
            return [f"fails: {type(error).__name__}: {message} ({Path(where.filename).name}:{where.lineno})"]
        return spoken(message, name, *value)
    return ["is taken"]


def spoken(message: str, name: str, *value: object) -> list[str]:
    """What is wrong with a message."""
    found = [f"does not name {name}"] * (re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message) is None)
    found += [f"does not show {one!r:.50}" for one in value if not any(way in message for way in shown(one))]
    found += ["has no rule"] * (RULE.search(message) is None)
    found += ["is long"] * (len(message) > LONGEST) + ["has several lines"] * ("\n" in message)
    return [f"{fault}: {message:.200}" for fault in found]


def shown(value: object) -> list[str]:
    """How a message may show a value: whole or its beginning; what makes an array also by shape, dtype or an entry."""
    ways = [" ".join(repr(value).split())[:20], type(value).__name__, "NaN or infinite", "support from", "have shapes"]
    for kind in (None, object):
        try:
            held = np.asarray(value, kind)
        except (TypeError, ValueError):  # ragged
            continue
        ways += [f"shape {held.shape}", f"dtype {held.dtype}", *map(repr, held.ravel()[:9].tolist()), "off by"]
    return ways
