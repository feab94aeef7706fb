"""The ledger on standard training: each rule sees its measurement, and an experiment that must fail."""

from unittest.mock import patch

import numpy as np
import pytest
from advfeat.validation import logits, stages, standard
from advfeat.validation.lab import SMALL_RHO, Exact, Lab, small_rho
from advfeat.validation.ledger import Judgement, exponent
from advfeat.validation.run import ENTRIES
from advfeat.validation.statistics import Exponent, fit_paired
from ledger_checks import as_recorded, draws

from advfeat.theory import State, population_types, simulate
from advfeat.theory.outputs import outputs, own_output

MINE = {label: e for label, e in ENTRIES.items() if e.group == standard.GROUP}
SWEEPS = {"n_classes": (3,), "n_neurons": (5,), "init_std": (2e-3, 1e-3), "n_patches": (8,)}


class Cheap(Lab):
    """A laboratory with fewer simulations: six seeds, one other value per sweep."""

    n_draws = 6

    def scaling(self, name, adversarial):
        return [self.scaled(name, value, adversarial) for value in SWEEPS[name]]


lab = Cheap(quick=True)


@pytest.fixture(scope="module")
def measured():
    """label -> its numbers, measured once; D.3's rule asks for 16 seeds."""
    return lambda label: lab.once(label, lambda: MINE[label].measure(Lab(quick=True) if label == "D.3" else lab))


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
def elsewhere(**changes) -> Exact:
    """The default network beside the recursion of another configuration."""
    pair = lab.exact(False)
    c = pair.config.as_dict() | changes
    types = population_types(*(c[name] for name in ("n_classes", "n_patches", "n_robust", "alpha", "beta")))
    state = State.from_weights(pair.weights[0], pair.config.distribution().features)
    options = {"q": c["q"], "rho": c["rho"], "n_iter": c["n_iter"], "record_every": int(pair.iteration[1])}
    return pair._replace(recursion=simulate(state, types, lr=c["lr"], **options))


def another_recursion(label, **changes):
    """The entry measured where `lab.exact` is the network beside a wrong recursion."""
    other = Cheap(quick=True)
    other.give(elsewhere(**changes), Lab.exact, False)
    return MINE[label].measure(other)


def weights_of_another_law(k, m, d, seeds):
    """Uniform weights of the right variance."""
    rng = np.random.default_rng([k, m, d])
    return rng.uniform(-np.sqrt(3), np.sqrt(3), (len(seeds), k, m, 2 * k)).max(axis=2)


def initialised_by(draw):
    with patch.object(standard, "initial_maxima", draw):
        return MINE["D.3"].measure(Lab(quick=True))


def loud_noise(m):
    """Noise levels at which its second order is the larger part."""
    levels = tuple(100 * level for level in standard.LEVELS)
    return m | standard.noisy_runs(12, levels, range(2), standard.NOISY_NET["n_iter"])


def labels_confused(m):
    """Each sample's logits taken for those of a sample of the next class."""
    return {name: run | {"F": np.roll(run["F"], 1, axis=1)} for name, run in m.items()}


def smaller_start(m):
    """Bounds from a start with less in other classes' outputs than there is."""
    return {name: run | {"tau": run["tau"] / 1000} for name, run in m.items()}


def adversarially_trained(m):
    """Adversarial training, where single entries grow (D.21 speaks of their maximum alone)."""
    found = small_rho(True, range(2), 0.3)
    return m | {"adversarial": logits.entries_and_steps(found.phi, SMALL_RHO)}


def without_learning_rate(m):
    """The leading order of half the learning rate."""
    return {name: run | {part: 2 * run[part] for part in "AB"} for name, run in m.items()}


def base(m, setting, recursion):
    """SMALL_RHO's run replaced by `recursion`, read with `setting`."""
    run = {"name": "", "setting": setting, "pairs": stages.race(setting, recursion)}
    return m | {"runs": m["runs"] | {"small rho": run}}


def stronger_robust_features(m):
    """Training on alpha = 2.4, read as on alpha = 2: classes that lack the head start are taken to have it."""
    return base(m, SMALL_RHO, small_rho(False, range(6), alpha=2.4))


def claimed_learning_rate(m):
    """Training at lr = 0.02, its duration predicted for 0.2."""
    run = m["runs"]["small rho"]
    return m | {"runs": m["runs"] | {"small rho": run | {"setting": run["setting"].but(lr=0.2)}}}


def claimed_slower(m):
    """Training at lr = 0.02, its outputs bounded for 0.005."""
    return m | {"after": stages.after(SMALL_RHO.but(lr=0.005), lab.small(False))}


SPOIL = {
    "5.1": lambda m: another_recursion("5.1", lr=12.5 * (1 + 1e-7)),
    "D.2": lambda m: m | {"noisy": standard.rotated_basis(lab, noise_std=0.01)},
    "D.3": lambda m: initialised_by(weights_of_another_law),
    "D.4": lambda m: another_recursion("D.4", n_robust=2),
    "D.4 (noise)": loud_noise,
    "D.5": labels_confused,
    "D.6": smaller_start,
    "D.7": adversarially_trained,
    "D.8": without_learning_rate,
    "D.9": lambda m: of_every_fourth(m, A1=1.0),
    "D.9 (head start)": stronger_robust_features,
    "D.10": lambda m: of_every_fourth(m, A2=1.0),
    "D.10 (head start)": claimed_learning_rate,
    "D.11": lambda m: of_every_fourth(m, A_end=1.0),
    "D.11 (head start)": claimed_slower,
}


def first_order(m, **values):
    """All pairs of all runs as the lemma says: A of the order sigma_0, T2 right after T1."""
    runs = {}
    for key, run in m["runs"].items():
        full = {name: np.full(run["pairs"]["A0"].shape, value) for name, value in values.items()}
        runs[key] = run | {"pairs": run["pairs"] | {n: v * run["setting"].init_std if n[0] == "A" else v
                                                    for n, v in full.items()}}  # fmt: skip
    return m | {"runs": runs}


def of_every_fourth(m, **values):
    """One class in four with another number: a robust feature that is learned."""
    runs = {}
    for key, run in m["runs"].items():
        pairs = dict(run["pairs"])
        for name, value in values.items():
            which = np.arange(pairs[name].size).reshape(pairs[name].shape) % 4 == 0
            pairs[name] = np.where(which, value, pairs[name])
        runs[key] = run | {"pairs": pairs}
    return m | {"runs": runs}


#: Of what fails on record: a measurement on which the claim is true, so that the rule can hold.
TRUE = {
    "D.9": lambda m: first_order(m, A1=1.0),
    "D.10": lambda m: first_order(m, A2=1.0, T1=10.0, T2=11.0, F1=0.0),
    "D.11": lambda m: first_order(m, A_end=1.0),
}


@pytest.mark.parametrize("label", TRUE)
def test_a_rule_that_fails_on_record_can_hold(label, measured):
    true = TRUE[label](measured(label))
    assert verdict(label, true) == "holds"
    assert verdict(label, SPOIL[label](true)) == "fails"


def test_every_entry_is_spoiled():
    assert sorted(SPOIL) == sorted(MINE)


@pytest.mark.parametrize("label", MINE)
def test_a_bad_experiment_fails(label, measured):
    before = MINE[label].judge(measured(label))
    judgement = MINE[label].judge(SPOIL[label](measured(label)))
    assert judgement.verdict == "fails", judgement
    again = MINE[label].judge(measured(label))
    assert (again.margin, again.measured) == (before.margin, before.measured)  # nothing was changed in place


MORE = {
    "the init's exponent": ("D.3", lambda m: initialised_by(lambda k, m, d, n: d**0.1 * INITIAL(k, m, d, n))),
    "other classes first": ("D.6", labels_confused),
    "too small a start": ("D.5", smaller_start),
    "first order of another N": (
        "D.4 (noise)",
        lambda m: m | {"early_first_order": m["early_first_order"] * np.sqrt(12 / m["n_train"])},
    ),
    "overshoot beyond a step": (
        "D.7",
        lambda m: m | {"big steps": m["big steps"] | {"step": m["big steps"]["step"] / 3}},
    ),
    "entries below zero that move": ("D.7", lambda m: m | {"b": m["big steps"] | {"moved": 1e-9}}),
    "a robust feature that goes on": ("D.10 (head start)", lambda m: grown(m, "A2", 1.1)),
    "a robust feature at the end": ("D.11 (head start)", lambda m: grown(m, "A_end", 1.3)),
    "B beyond its bound": ("D.11", lambda m: TRUE["D.11"](m) | {"after": m["after"] | {"B": 10 * m["after"]["B"]}}),
    "a time beyond its bound": ("D.10", lambda m: first_order(m, A2=1.0, T1=10.0, T2=1e6, F1=0.0)),
    "a width that is no 1 + o(1)": ("D.5", lambda m: {name: run | {"tau": 0.1} for name, run in m.items()}),
    "other classes' features of order one": (
        "D.7",
        lambda m: m | {"default, network": m["default, network"] | {"size": 1.1}},
    ),
    "a logit that stays": (
        "D.8",
        lambda m: {name: run | {"A": np.ones_like(run["A"]), "B": np.ones_like(run["B"])} for name, run in m.items()},
    ),
    "one class that is late": (
        "D.8",
        lambda m: m | {"small rho": m["small rho"] | {"time": m["small rho"]["time"] * 1.1}},
    ),
    "w from a wrong recursion": ("D.2", lambda m: another_recursion("D.2", n_robust=2)),
    "an orthogonal part that moves": ("D.2", lambda m: m | {"b": m[ROTATED] | {"moved": np.array([0, 1e-9])}}),
    "growth beyond the lemma's": ("D.9 (head start)", lambda m: grown(m, "A1", 1.1)),
    "a network elsewhere": ("D.9 (head start)", lambda m: m | {"network": np.array([0, 1e-9])}),
    "NaN in the network": ("D.4", lambda m: m | {"network": np.full_like(m["network"], np.nan)}),
    "NaN in an increment's time": ("D.8", lambda m: {k: run | {"time": run["time"] * np.nan} for k, run in m.items()}),
    "NaN in A": ("D.9 (head start)", lambda m: grown(m, "A1", np.nan)),
    "NaN in T2": ("D.10 (head start)", lambda m: grown(m, "T2", np.nan)),
    "NaN in tau": ("D.5", lambda m: {name: run | {"F": run["F"] * np.nan} for name, run in m.items()}),
}
INITIAL = standard.initial_maxima
ROTATED = "rotated features, random strengths"


def grown(m, name, factor):
    """`name` times `factor` in every pair of every run."""
    runs = {key: run | {"pairs": run["pairs"] | {name: run["pairs"][name] * factor}} for key, run in m["runs"].items()}
    return m | {"runs": runs}


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
@pytest.mark.parametrize("case", MORE)
def test_more_that_fails(case, measured):
    label, spoil = MORE[case]
    assert verdict(label, spoil(measured(label))) == "fails"


OUTSIDE = {
    "5.1": lambda m: m | {"noise_std": 0.05},
    "D.2": lambda m: {name: run | {"grown": 1.0} for name, run in m.items()},
    "D.3": lambda m: MINE["D.3"].measure(lab),
    "D.4 (noise)": lambda m: m | {"moved": m["moved"] * 10},
    "D.8": lambda m: m | {"large": stages.one_step(SMALL_RHO, small_rho(False, range(2), 0.1, init_std=0.1))},
    **dict.fromkeys(("D.9 (head start)", "D.10 (head start)", "D.11 (head start)"), lambda m: grown(m, "ahead", False)),
}


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value encountered")
@pytest.mark.parametrize("label", OUTSIDE)
def test_outside_its_assumptions(label, measured):
    assert verdict(label, OUTSIDE[label](measured(label))) == "outside its assumptions"


# ------------------------------------------------------------------ what the rules are made of
def test_the_race_is_run_to_the_step():
    """T1 and T2 found from coarse records are those of a run with every step recorded."""
    fine, coarse = small_rho(False, range(2), 0.4, 1), small_rho(False, range(2), 0.4)
    found = stages.race(SMALL_RHO, coarse)
    B, F = fine.B.max(axis=-1), own_output(fine.phi, SMALL_RHO)
    linear = SMALL_RHO.rho <= B
    for when, reached in (("1", linear), ("2", linear & (2 * np.log(5) <= F))):
        first = np.where(reached.any(axis=0), reached.argmax(axis=0), -1)
        assert (first > 0).sum() >= 4
        np.testing.assert_array_equal(np.nan_to_num(found["T" + when], nan=-1), first)
        there = np.take_along_axis(B, first[None], 0)[0]
        np.testing.assert_allclose(found["B" + when][first > 0], there[first > 0])


def test_outputs_are_the_networks(measured):
    pair = logits.small_network(lab, n_iter=4000)
    F, y = logits.network_outputs(pair)
    expected = sum(outputs(pair.phi, SMALL_RHO)).swapaxes(-1, -2)
    assert np.abs(pair.phi).max() > SMALL_RHO.rho  # in the linear part too
    runs = np.arange(len(y))[:, None]
    np.testing.assert_allclose(F, expected[:, runs, y], rtol=1e-12, atol=1e-15)


def test_the_bands_are_attained():
    """Where all other outputs are 0 or tau, or the one in question and the rest are so by turns."""
    F_y, tau, k = np.array([0.0, 1.0, 7.0]), np.full(3, 0.6), 4

    def outputs(one, rest):
        return np.column_stack([F_y, one * tau, *[rest * tau] * (k - 2)])

    wrong = [logits.log_logits(outputs(all_, all_))[0] for all_ in (0, 1)]
    other = [logits.log_logits(outputs(one, 1 - one))[1][:, 0] for one in (0, 1)]
    bounds = logits.wrong_bounds(F_y, tau, k)
    np.testing.assert_allclose(bounds, wrong, rtol=1e-14)
    low, high = logits.other_bounds(F_y, tau, k)
    np.testing.assert_allclose(high, other[1], rtol=1e-14)
    assert (low < other[0]).all()  # its sum lets logit_j's own output be tau beside itself
    np.testing.assert_allclose(low, -np.log(np.exp(F_y) + (k - 1) * np.exp(0.6)), rtol=1e-14)


def test_the_premise_is_as_frequent_as_drawn():
    """B0 >= 1.1 S A0 > 0 among a hundred thousand classes, against the quadrature."""
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((2, 100_000, SMALL_RHO.n_neurons)).max(axis=-1)
    needed = 1.1 * SMALL_RHO.density * A
    share = np.mean((A > 0) & (needed <= B))
    assert stages.drawn_share(SMALL_RHO) == pytest.approx(share, abs=0.005)


def test_fit_paired_takes_constants_out():
    x = np.array([1.0, 2.0, 4.0])
    y = 3 * x[:, None] ** 0.5 * np.array([1e-3, 1.0, 1e4, np.nan])
    assert fit_paired(x, y)[:3] == pytest.approx((0.5, 0.5, 0.5))
    none = fit_paired(x, y * np.nan)
    assert np.isnan(none).all()
    assert exponent("", Exponent(1.0, 0.9, 1.15, 1.0), 1, 0.2).margin == pytest.approx(0.25)  # the farther end counts
    assert Judgement([exponent("", none, 1, 0.2)]).verdict == "fails"


def test_noise_moves_the_orthogonal_part():
    assert standard.rotated_basis(lab, noise_std=0.01)["moved"].max() > 1e-3
