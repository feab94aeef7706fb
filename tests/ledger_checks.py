"""What every entry of the ledger is checked for, on whatever numbers it is given."""

import numpy as np
from advfeat.validation.pages import drawn
from advfeat.validation.run import recorded
from figure_layout import well_laid_out

RECORDED = recorded(quick=True)


def as_recorded(entry, measured):
    """The rule sees the verdict on record, with a margin that is a number; its rows are texts and booleans."""
    judgement = entry.judge(measured)
    assert judgement.verdict == RECORDED[entry.label], [check.row for check in judgement.checks]
    assert np.isfinite(judgement.margin)
    for check in [*judgement.checks, *judgement.assumptions]:
        assert type(check.met) is bool  # as JSON has them
        assert all(type(text) is str for text in check.row)
        assert check.what.strip()
        assert "none" not in check.row[1], check.row


def draws(entry, measured):
    """The figure shows something and says over what; its legend, insets and colour bars stand where they should."""
    figure = well_laid_out(drawn(entry.draw(measured)))
    axis = figure.axes[0]
    assert axis.has_data()
    assert axis.get_xlabel()
    assert axis.get_legend() is None  # `drawn` puts it below
    assert figure.legends or len(figure.axes) > 1  # a colour bar
