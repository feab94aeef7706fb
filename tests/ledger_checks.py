"""What every entry of the ledger is checked for, on whatever numbers it is given."""

import json

import matplotlib.pyplot as plt
import numpy as np
from advfeat.validation.run import EXPECTED

RECORDED = json.loads(EXPECTED.read_text())


def as_recorded(entry, measured):
    """The rule sees the verdict on record, with a margin that is a number."""
    judgement = entry.judge(measured)
    assert judgement.verdict == RECORDED[entry.label], judgement
    assert np.isfinite(judgement.margin)
    assert all(type(a.met) is bool for a in judgement.assumptions)  # as JSON has them


def draws(entry, measured):
    """The figure shows something and says over what."""
    figure, axis = plt.subplots()
    entry.draw(axis, measured)
    figure.draw_without_rendering()
    assert axis.has_data()
    assert axis.get_xlabel()
    plt.close(figure)
