"""Run the ledger: measure, judge, compare with the verdicts on record, write ledger.json, .md and .html."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

# isort: off
# Modules register their entries when they are imported: in the order of the paper.
from . import preliminaries, minima, lemmas, standard, standard_noise, standard_bounds  # noqa: F401
from . import standard_stages, standard_late, adversarial, adversarial_exact, adversarial_bounds  # noqa: F401
from . import adversarial_stages, theorems, simplified, noise, times, whole_ball, transfer  # noqa: F401
# isort: on
from ..core import checks, store
from ..core.progress import Progress, Stopwatch
from .lab import Lab
from .ledger import ENTRIES, Entry, Result
from .pages import as_html, as_json, as_markdown

EXPECTED = Path(__file__).with_name("expected.json")


def choose(labels: Sequence[str] | None) -> list[Entry]:
    """The entries of `labels` in the ledger's order, all for None; ValueError names the nearest to an unknown one."""
    for label in labels or ():
        if label not in ENTRIES:
            raise ValueError(f"--only {label}: no such entry; {checks.nearest(label, ENTRIES)}")
    return [entry for label, entry in ENTRIES.items() if not labels or label in labels]


def run(
    labels: Sequence[str] | None = None, quick: bool = False, progress: Progress | None = None
) -> list[Result]:
    """Measure and judge the chosen entries; `progress` as in :mod:`advfeat.core.progress`."""
    lab, results, clock, chosen = Lab(quick), [], Stopwatch(progress), choose(labels)
    for number, entry in enumerate(chosen):
        clock.tell(f"ledger, {entry.label}", number / len(chosen))
        start = time.perf_counter()
        measured = entry.measure(lab)
        results.append(Result(entry, measured, entry.judge(measured), time.perf_counter() - start))
    clock.tell("ledger", 1.0)
    return results


def differences(results: Sequence[Result]) -> list[str]:
    """Lines 'label: recorded -> found' for verdicts that are not those of expected.json."""
    recorded = json.loads(EXPECTED.read_text(encoding="utf-8"))
    found = {result.entry.label: result.judgement.verdict for result in results}
    return [f"{k}: {recorded.get(k, 'not recorded')} -> {v}" for k, v in found.items() if recorded.get(k) != v]


def write(results: Sequence[Result], out: str | Path, quick: bool) -> Path:
    """ledger.json, ledger.md and ledger.html into the folder `out`; returns the path of the last."""
    out = store.make_folder(out)
    store.save_json(out / "ledger.json", as_json(results, quick))
    for name, page in (("ledger.md", as_markdown(results, quick)), ("ledger.html", as_html(results, quick))):
        store.write(out / name, lambda file, page=page: file.write(page), "w")
    return out / "ledger.html"
