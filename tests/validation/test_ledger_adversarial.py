"""The ledger on adversarial training: each rule sees its measurement, and an experiment that must fail."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from advfeat.validation import adversarial, adversarial_exact, adversarial_stages, logits
from advfeat.validation.lab import HELD_OUT, SMALL_RHO, Lab, Scaling, Setting, small_rho
from advfeat.validation.run import ENTRIES
from advfeat.validation.statistics import order_of
from ledger_checks import as_recorded, draws

import advfeat as af
from advfeat.theory import State, plateau, simulate
from advfeat.theory.events import late_slope
from advfeat.theory.outputs import outputs
from advfeat.theory.plateau import stopping

MINE = {label: e for label, e in ENTRIES.items() if e.group == adversarial.GROUP}


class Cheap(Lab):
    """A laboratory with fewer simulations: eight seeds, and one other value of init_std instead of two sweeps."""

    n_draws = 8

    def scaling(self, name, adversarial):
        values = (2e-3,) if name == "init_std" else ()
        return [self.scaled(name, value, adversarial) for value in values]


lab = Cheap(quick=True)
held_out = Cheap(True, HELD_OUT)  # where 80 classes are enough for D.24's share: on the others 75 arrive


@pytest.fixture(scope="module")
def measured():
    """label -> its numbers, measured once."""
    return lambda label: lab.once(label, lambda: MINE[label].measure(held_out if label == "D.24" else lab))


def verdict(label, m):
    return MINE[label].judge(m).verdict


@pytest.mark.parametrize("label", MINE)
def test_as_recorded(label, measured):
    as_recorded(MINE[label], measured(label))


@pytest.mark.parametrize("label", MINE)
@pytest.mark.one_in(3)
def test_the_figure_shows_something(label, measured):
    draws(MINE[label], measured(label))


# ------------------------------------------------------------------ experiments that must fail
def another_leading_order(label, **changes):
    """The entry measured with the leading order of another setting."""
    right = Setting.leading_order.fget
    with patch.object(Setting, "leading_order", property(lambda c: right(c.but(**changes)))):
        return MINE[label].measure(lab)


def without_orthogonal_part(m):
    """Where features really stop without W_orth, beside the chi of runs that have one."""
    c = adversarial.WIDE.but(patch_dim=2 * adversarial.WIDE.n_classes, init_std=0.01)
    found, _, shape = adversarial.over_rates(c, adversarial.WIDE_RATES, range(4), 2000)
    B = found.B[-1].reshape(*shape, *found.B.shape[-2:]).max(axis=-1)
    rows = []
    for row in m["rows"]:
        j = list(adversarial.WIDE_RATES).index(row["ascent_lr"])
        star = plateau(c.beta, c.q, c.rho, row["ascent_lr"])
        rows.append(row | {"chi_B": np.full(B[j].size, np.median(row["chi_B"])), "x_B": B[j].ravel() / star})
    return m | {"rows": rows}


def smaller_ball(m):
    """Adversarial examples of a radius, perturbations predicted for another."""
    right = adversarial_exact.ascended
    with patch.object(adversarial_exact, "ascended", lambda phi, c, *kind: right(phi, replace(c, eps=0.9), *kind)):
        return MINE["D.17"].measure(lab)


def blind_recursion(m):
    """A recursion that takes H for zero."""
    pair = lab.exact(True)
    c, gram = pair.config, np.zeros_like(pair.state.gram)
    found = simulate(
        State(pair.state.phi, gram, pair.state.n_orthogonal), adversarial_exact.recursion_types(pair.data, c.n_classes),
        q=c.q, rho=c.rho, lr=c.lr, n_iter=c.n_iter, ascent_lr=c.ascent_lr, eps=c.eps, record_every=c.n_iter // 40,
    )  # fmt: skip
    return m | {"recursion": found.phi}


def flags_of_another_radius(m):
    """The watch of a ball that is a third larger than the network's."""
    right = adversarial_exact.beside_recursion
    larger = adversarial_exact.SATURATING | {"eps": adversarial_exact.SATURATING["eps"] * 4 / 3}

    def mixed(config, *args):
        other = right(config.__class__(n_seeds=config.n_seeds, **larger), *args)
        return right(config, *args)._replace(recursion=other.recursion)

    with patch.object(adversarial_exact, "beside_recursion", mixed):
        return MINE["D.18 (saturation)"].measure(lab)


def labels_confused(m):
    """Each sample's outputs taken for those of a sample of the next class."""
    return {name: run | {"F": np.roll(run["F"], 1, axis=1)} for name, run in m.items()}


def louder_rivals(m):
    """Other classes' outputs larger by twice what the rule leaves them."""
    return {name: run | {"F": run["F"] + np.where(np.arange(run["F"].shape[1]), 0.2, 0)} for name, run in m.items()}


def own_features_as_others(m):
    """Correlations one class further: own features, which grow, among the others."""
    found = lab.small(True)
    return m | {"small rho": logits.extremes(found.iteration, np.roll(found.phi, 1, axis=-1), SMALL_RHO)}


def rows_with(**changes):
    """Every setting's numbers with some computed from the row."""
    return lambda m: {name: row | {k: change(row) for k, change in changes.items()} for name, row in m.items()}


def another_run(m):
    """The leading order from another seed's start."""
    return m | {f"leading_{name}": np.roll(m[f"leading_{name}"], 1, axis=1) for name in "AB"}


def followed(m):
    """Classes that do what the leading order does, to the plateau that it predicts; enough of them for an interval."""
    plateau = np.broadcast_to(m["predicted"][:, None, None], (len(m["predicted"]), 16, 3))
    A, begun = np.abs(m["leading_A"]), np.maximum(m["leading_begun"], 0)
    return m | {"A": A, "leading_A": A, "B": m["leading_B"], "begun": begun, "plateau": plateau}


def times(m, factor):
    """Increments off by a factor, those without the ascent by twice as much."""
    return m | {f"ratio_{x}": factor + 0 * m[f"ratio_{x}"] for x in "AB"} | {
        f"plain_{x}": 2 + 0 * m[f"plain_{x}"] for x in "AB"}  # fmt: skip


#: Of what fails on record: a measurement on which the claim is true, so that the rule can hold.
TRUE = {
    "5.2": followed,
    "D.21 (own start)": lambda m: {
        name: run | {"grew": 0, "top": np.minimum(run["top"], run["top"][0])} for name, run in m.items()},
    "D.22": lambda m: times(m, 1.05),
    "D.23": lambda m: rows_with(A_half=lambda row: np.full(row["a0"].shape, row["setting"].init_std))(m),
}  # fmt: skip


@pytest.mark.parametrize("label", TRUE)
def test_a_rule_that_fails_on_record_can_hold(label, measured):
    true = TRUE[label](measured(label))
    assert verdict(label, true) == "holds"
    assert verdict(label, SPOIL[label](true)) == "fails"


SPOIL = {
    "5.2": another_run,
    "5.2 (two leaders)": lambda m: another_leading_order("5.2 (two leaders)", n_patches=18),
    "5.2 (orthogonal)": without_orthogonal_part,
    "D.16": lambda m: m | {"apart": m["moved"]},  # standard training's claim: W_orth rests
    "D.17": smaller_ball,
    "D.18": blind_recursion,
    "D.18 (saturation)": flags_of_another_radius,
    "D.19": labels_confused,
    "D.20": louder_rivals,
    "D.21": own_features_as_others,
    "D.21 (own start)": own_features_as_others,
    "D.22": lambda m: times(m, 1.2),
    "D.22 (early)": lambda m: another_leading_order("D.22 (early)", lr=1.2 * SMALL_RHO.lr),
    "D.23": rows_with(A_half=lambda row: np.full(row["a0"].shape, 1.1 * order_of(row["setting"]))),
    "D.23 (head start)": rows_with(A_half=lambda row: 2 * row["A_half"]),
    "D.24": rows_with(t_linear=lambda row: np.where(row["a0"] < np.median(row["a0"]), np.nan, row["t_linear"])),
    "D.25": rows_with(t_log_k=lambda row: 2 * row["t_log_k"]),
    "D.26": rows_with(B_max=lambda row: 1.2 * row["B_max"]),
}


def test_every_entry_has_a_bad_experiment():
    assert SPOIL.keys() == MINE.keys()


@pytest.mark.parametrize("label", MINE)
def test_a_bad_experiment_fails(label, measured):
    assert verdict(label, SPOIL[label](measured(label))) == "fails"


@pytest.mark.parametrize(
    "label", ["5.2", "5.2 (two leaders)", "D.16", "D.17", "D.19", "D.21", "D.22", "D.23", "D.25", "D.26"]
)
def test_a_number_that_is_missing_fails(label, measured):
    def broken(value):
        return {k: broken(v) for k, v in value.items()} if isinstance(value, dict) else hole(value)

    def hole(value):
        if isinstance(value, list):
            return [broken(v) for v in value]
        return value * np.nan if isinstance(value, np.ndarray) and value.dtype == float else value

    m = measured(label)
    kept = {"rates", "predicted", "iteration"} & m.keys()
    spoiled = broken(m) | {k: m[k] for k in kept}
    if label == "D.17":
        spoiled["rows"] = [row | {"error": np.nan} for row in m["rows"]]
    assert verdict(label, spoiled) != "holds"


# ------------------------------------------------------------------ more that must not hold
def test_a_plateau_of_another_exponent_fails(measured):
    m = measured("5.2 (two leaders)")
    tilted = m["plateau"] * (m["rates"] / 40)[:, None, None] ** 0.05
    assert verdict("5.2 (two leaders)", m | {"plateau": tilted}) == "fails"


def test_a_run_that_saturates_counts_up_to_there():
    C = np.arange(24.0).reshape(4, 2, 3)
    C[2:, 1] = np.nan
    np.testing.assert_array_equal(adversarial.last_exact(C), [C[3, 0], C[1, 1]])


def test_an_ascent_that_explains_nothing_fails(measured):
    m = times(measured("D.22"), 1.05)
    assert verdict("D.22", m | {f"plain_{x}": m[f"ratio_{x}"] for x in "AB"}) == "fails"


@pytest.mark.parametrize("shift", [{"flag": 1}, {"flag": -1}, {"bound": 100}])
def test_a_flag_at_another_iteration_fails(measured, shift):
    m = measured("D.18 (saturation)")
    assert verdict("D.18 (saturation)", m | {name: m[name] + by for name, by in shift.items()}) == "fails"


def test_a_plateau_above_the_ball_is_outside_the_assumptions():
    """With beta > eps nothing stops B: it is said, and B does pass B*."""
    changes = {"n_patches": 8, "beta": (15 / 7) ** (1 / 3)}
    one = Scaling("", 0, SMALL_RHO.but(**changes), small_rho(True, range(4), 0.5, **changes))
    row = adversarial_stages.timeline(one)
    m = {"odd": row, "again": row | {"setting": one.setting.but(init_std=2e-3)}}
    assert verdict("D.24", m) == "outside its assumptions"
    assert row["B_max"].max() > 2
    assert MINE["D.24"].judge(m).margin < 0


def test_wide_weights_are_outside_the_assumptions(measured):
    m = measured("5.2")
    wide = m["setting"].but(init_std=0.01)
    assert verdict("5.2", m | {"setting": wide}) == "outside its assumptions"


def test_logarithmic_growth_is_told_from_a_root():
    t, start = np.arange(0, 4001, 20), np.array([[500.0, 3000.0]])
    late = np.maximum(t[:, None, None] - start, 1)
    slow = late_slope(t, np.log(late), start)
    fast = late_slope(t, np.sqrt(late), start)
    assert slow[0, 0] == pytest.approx(1)
    assert fast[0, 0] > 10
    assert np.isnan(slow[0, 1])  # too late to be followed


# ------------------------------------------------------------------ the tools
@pytest.mark.parametrize("q", [3, 4, 5])
@pytest.mark.parametrize("chi", [0.1, 1.0, 4.0])
def test_the_stopping_level_solves_the_motion(q, chi):
    """B and |w_orth| of one neuron, in units of B*, integrated until the ascent leaves nothing of the preactivation."""
    x, w = 1e-3 * chi**0.5, chi**0.5
    for _ in range(20000):
        g = x ** (q - 1)
        left = x - g * (x * x + w * w)
        if left < 1e-7:
            break
        step = 0.01 * min(x, left, 1e-1) / max(1 - g * x, 0.1)
        x, w = x + step * (1 - g * x), w - step * g * w
    assert x == pytest.approx(stopping(chi, q), rel=0.02)


def test_logits_at_adversarial_examples_are_the_networks():
    k, m, d, c = 3, 4, 20, SMALL_RHO.but(n_classes=3, ascent_lr=3.0, eps=0.6, rho=0.8)
    law = af.PatchDistribution(n_classes=k, patch_dim=d, n_patches=16, n_robust=1, alpha=2.0, beta=1.0)
    data, net = law.sample(k, 0, balanced=True), af.PatchCNN.init(k, m, d, rng=1, init_std=0.02, rho=0.8)
    net = net.with_weights(net.W + 0.6 * np.repeat(sum(law.features)[:, None], m, axis=1))
    X = af.one_step_ascent(net, data.X, data.y, lr=3.0, eps=0.6)
    off = (np.concatenate(law.features) == 0).all(axis=0)
    moved = np.abs(X - data.X)
    assert 0.05 < moved[..., off].max() < 0.59 < moved.max()  # features saturate, other axes do not
    state = State.from_weights(net.W, law.features)
    F = sum(outputs(state.phi, c, state.gram))[0].T
    np.testing.assert_allclose(F[data.y], net.logits(X), rtol=1e-12, atol=1e-14)
    clean = net.logits(data.X)
    assert np.abs(F[data.y] - clean).max() > 0.01
