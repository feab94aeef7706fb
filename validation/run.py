"""Run the ledger: measure, judge, compare with the verdicts on record, write ledger.json, .md and .html."""

import importlib.util
import json
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..core import checks, store
from ..core.progress import Progress, Stopwatch

# isort: off
from . import (
    adversarial,
    adversarial_exact,
    adversarial_stages,
    elsewhere,
    lemmas,
    logits,
    minima,
    noise,
    preliminaries,
)
from . import simplified, stages, standard, theorems, whole_ball

# isort: on
from .lab import HELD_OUT, Lab
from .ledger import Entry, Judgement, Result
from .pages import as_html, as_json, as_markdown, data_url

EXPECTED = Path(__file__).with_name("expected.json")
MODULES = (
    adversarial, adversarial_exact, adversarial_stages, elsewhere, lemmas, logits, minima, noise, preliminaries,
    simplified, stages, standard, theorems, whole_ball,
)  # fmt: skip


def entries_of(module) -> list[Entry]:
    """The entries that stand at the top level of a module, in their order."""
    return [value for value in vars(module).values() if isinstance(value, Entry)]


def by_label(entries: Sequence[Entry], held: dict[str, Entry]) -> dict[str, Entry]:
    """`held` and the entries; ValueError for a label that is taken."""
    held = dict(held)
    for entry in entries:
        if entry.label in held:
            raise ValueError(f"label {entry.label!r}: is in the ledger already, {held[entry.label].title!r}")
        held[entry.label] = entry
    return held


def recorded(quick: bool = False) -> dict[str, str]:
    """The verdicts on record, in their order; a quick run has its own where it has too few seeds to see a failure."""
    held = json.loads(EXPECTED.read_text(encoding="utf-8"))
    return {label: v if isinstance(v, str) else v["quick" if quick else "full"] for label, v in held.items()}


def in_order(entries: dict[str, Entry]) -> dict[str, Entry]:
    """In the order of the record, which is the paper's; what it does not know comes last."""
    place = {label: i for i, label in enumerate(recorded())}
    return dict(sorted(entries.items(), key=lambda item: place.get(item[0], len(place))))


ENTRIES = in_order(by_label([entry for module in MODULES for entry in entries_of(module)], {}))


# ------------------------------------------------------------------ statements of one's own
class EntryFault(ValueError):
    """A file of entries, or one of its functions, did not do what the ledger asks of it."""


def _where(error: BaseException, path: str) -> str:
    """', line n' of the deepest place in the file at `path`."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        line = frame.lineno if frame.filename == path else line
    return f", line {line}" if line else ""


def load(path: str | Path) -> list[Entry]:
    """The entries of a Python file, as `Entry` objects at its top level; `EntryFault` says what is wrong with it."""
    path = str(path)
    if not Path(path).is_file():
        raise EntryFault(f"--entries {path}: there is no such file")
    spec = importlib.util.spec_from_file_location(f"advfeat_entries_{Path(path).stem}", path)
    if spec is None:
        raise EntryFault(f"--entries {path}: must be a Python file, named *.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise EntryFault(f"--entries {path}{_where(error, path)}: {type(error).__name__}: {error}") from error
    found = [replace(entry, source=path) for entry in entries_of(module)]
    if not found:
        raise EntryFault(f"--entries {path}: has no Entry at its top level (docs/statements.md)")
    return found


def known(files: Sequence[str | Path] | None = None) -> dict[str, Entry]:
    """The ledger's entries and those of `files`, by label."""
    held = ENTRIES
    for path in files or ():
        try:
            held = by_label(load(path), held)
        except EntryFault:
            raise
        except ValueError as error:
            raise EntryFault(f"--entries {path}: {error}") from error
    return held


@contextmanager
def _guarded(entry: Entry, what: str):
    """What a function of a file's entry raises is named by file, line, entry and function."""
    try:
        yield
    except Exception as error:
        if not entry.from_file:
            raise
        where = f"{entry.source}{_where(error, entry.source)}: entry {entry.label!r}"
        raise EntryFault(f"{where}: {what}: {type(error).__name__}: {error}") from error


def judged(entry: Entry, measured: dict) -> Judgement:
    """The entry's judgement, with a verdict and a margin that can be had."""
    with _guarded(entry, "judge"):
        judgement = entry.judge(measured)
        if not isinstance(judgement, Judgement):
            raise TypeError(f"returned {type(judgement).__name__}: must be a Judgement")
        if not (judgement.untestable or len(judgement.checks)):
            raise ValueError("returned a Judgement without checks: must have one at least")
        judgement.verdict, judgement.margin, judgement.rule, judgement.measured  # noqa: B018  what fails, fails here
    return judgement


# ------------------------------------------------------------------ running
def choose(labels: Sequence[str] | None, entries: dict[str, Entry] = ENTRIES) -> list[Entry]:
    """The entries of `labels` in the ledger's order, all for None; ValueError names the nearest to an unknown one."""
    for label in labels or ():
        if label not in entries:
            raise ValueError(f"--only {label}: no such entry; {checks.nearest(label, entries)}")
    return [entry for label, entry in entries.items() if not labels or label in labels]


def run(
    labels: Sequence[str] | None = None, quick: bool = False, progress: Progress | None = None,
    entries: dict[str, Entry] = ENTRIES,
) -> list[Result]:  # fmt: skip
    """Measure and judge the chosen entries on both kinds of seeds; `progress` as in :mod:`advfeat.core.progress`."""
    labs, results, clock, chosen = (Lab(quick), Lab(quick, HELD_OUT)), [], Stopwatch(progress), choose(labels, entries)
    for number, entry in enumerate(chosen):
        clock.tell(f"ledger, {entry.label}", number / len(chosen))
        start, found = time.perf_counter(), []
        for lab in labs:
            with _guarded(entry, "measure"):
                measured = entry.measure(lab)
            found.append((measured, judged(entry, measured)))
        (measured, judgement), (_, held_out) = found
        results.append(Result(entry, measured, judgement, time.perf_counter() - start, held_out))
    clock.tell("ledger", 1.0)
    return results


def differences(results: Sequence[Result], quick: bool = False) -> list[str]:
    """Lines 'label: recorded -> found' for verdicts that are not those of expected.json, or of a file's own entries;
    an entry of a file that records none has none."""
    on_record, changed = recorded(quick), []
    for result in results:
        entry, found = result.entry, result.verdict
        held = on_record.get(entry.label, entry.recorded) or (found if entry.from_file else "not recorded")
        changed += [f"{entry.label}: {held} -> {found}"] if held != found else []
    return changed


def write(results: Sequence[Result], out: str | Path, quick: bool) -> Path:
    """ledger.json, ledger.md and ledger.html into the folder `out`; returns the path of the last."""
    out = store.make_folder(out)
    pictures = []
    for result in results:
        with _guarded(result.entry, "draw"):
            pictures.append(data_url(result.entry.draw(result.measured)))
    store.save_json(out / "ledger.json", as_json(results, quick))
    pages = {"ledger.md": as_markdown(results, quick), "ledger.html": as_html(results, pictures, quick)}
    for name, page in pages.items():
        store.write(out / name, lambda file, page=page: file.write(page), "w")
    return out / "ledger.html"
