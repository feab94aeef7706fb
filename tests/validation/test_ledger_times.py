"""Predicted times on settings that no rule was made on: what is recorded, what would hold, what must fail."""

import numpy as np
import pytest
from advfeat.validation.lab import Lab
from advfeat.validation.run import ENTRIES
from ledger_checks import as_recorded, draws


class Few(Lab):
    """Six seeds of simulations."""

    n_draws = 6


LABELS = ("times (q = 2)", "times (q = 5)")


@pytest.fixture(scope="module")
def measured():
    lab = Few(quick=True)
    return {label: ENTRIES[label].measure(lab) for label in LABELS}


def changed(m, **values):
    return {name: run | {key: change(run) for key, change in values.items()} for name, run in m.items()}


def as_predicted(m):
    """Events when the flow says, and the plateau that it says."""
    return changed(m, measured=lambda run: run["flow"], plateau=lambda run: np.ones_like(run["plateau"]))


SPOIL = {
    "later than predicted": lambda m: changed(m, measured=lambda run: 1.2 * run["measured"]),
    "another plateau": lambda m: changed(m, plateau=lambda run: 0.9 * run["plateau"]),
    "never": lambda m: changed(m, measured=lambda run: np.nan * run["measured"]),
    "of another class": lambda m: changed(m, measured=lambda run: np.roll(run["measured"], 1, axis=-1)),
}


@pytest.mark.parametrize("label", LABELS)
def test_times_as_recorded(label, measured):
    as_recorded(ENTRIES[label], measured[label])
    draws(ENTRIES[label], measured[label])


@pytest.mark.parametrize("spoil", SPOIL)
@pytest.mark.parametrize("label", [*LABELS, "times (default)"])
def test_times_as_predicted_hold_and_others_fail(label, spoil, measured):
    """All share one rule; the default's networks are trained by the ledger alone."""
    true = as_predicted(measured.get(label, measured["times (q = 2)"]))
    judge = ENTRIES[label].judge
    assert judge(true).verdict == "holds"
    assert judge(SPOIL[spoil](true)).verdict == "fails"
