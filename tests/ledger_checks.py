"""What every entry of the ledger is checked for, on whatever numbers it is given."""

import json

import numpy as np
from advfeat.validation.pages import drawn
from advfeat.validation.run import EXPECTED
from figure_layout import well_laid_out

RECORDED = json.loads(EXPECTED.read_text())


def as_recorded(entry, measured):
    """The rule sees the verdict on record, with a margin that is a number."""
    judgement = entry.judge(measured)
    assert judgement.verdict == RECORDED[entry.label], judgement
    assert np.isfinite(judgement.margin)
    assert all(type(a.met) is bool for a in judgement.assumptions)  # as JSON has them


def draws(entry, measured):
    """The figure shows something and says over what; its legend, insets and colour bars stand where they should."""
    axis = well_laid_out(drawn(entry, measured)).axes[0]
    assert axis.has_data()
    assert axis.get_xlabel()
    assert axis.get_legend() is None  # `drawn` puts it below
