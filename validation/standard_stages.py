"""Standard training without noise, in stages: early growth, the race to the linear part, and after it (D.8-D.11)."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST
from ..theory import State, density_ratio, gaussian_maximum, population_types, simulate
from ..theory.tensor_power import bound, flow_bound
from ..theory.timing import flow_time, growth_rate
from .lab import SMALL_RHO, at, first_record
from .ledger import Assumption, Judgement, entry
from .standard import EXACT, GROUP, fit_paired, relative, smallest, within
from .standard_bounds import outputs, small_network
from .statistics import shortfall, spread, wilson

HEAD_START = 0.1  # delta of the tensor power lemma's premise: B0 >= (1 + delta) S^(1/(q-2)) A0
WINDOW = 80  # iterations that are looked at one by one from the record before T1 on: 20 until T1, the rest until T2
SWEPT = {
    "": ("SMALL_RHO", ACCURACY), "n_classes": ("other k", CERTIFIED), "n_neurons": ("other m", PAPER),
    "init_std": ("other sigma_0", NON_ROBUST), "n_patches": ("other P", "#e69f00"),
}  # fmt: skip
SHARP = 0.01  # of a proven bound that the finite experiment comes close to: what its rule allows beyond it
ORDER = 0.1  # how far an exponent may be from its predicted value


def settings(lab) -> dict:
    """SMALL_RHO and its sweeps, {(name, value): (setting, recursion)}; the configuration itself once, as ("", 0)."""
    found = {("", 0): (SMALL_RHO, lab.small(False))}
    for name in filter(None, SWEPT):
        for s in lab.scaling(name, False):
            if s.setting != SMALL_RHO:
                found[name, s.value] = s.setting, s.recursion
    return found


def own_output(phi, setting) -> np.ndarray:
    """F_y of a clean sample of every class, (..., k)."""
    return np.einsum("...yy->...y", outputs(phi, setting))


def steps_from(phi, setting, n_iter):
    """`n_iter` iterations of the engine from correlations (R, k, m, 2k), each recorded."""
    types = population_types(*(setting[n] for n in ("n_classes", "n_patches", "n_robust", "alpha", "beta")))
    K = setting["n_classes"] * setting["n_neurons"]
    state = State(phi, np.zeros((len(phi), K, K)), setting["patch_dim"] - 2 * setting["n_classes"])
    return simulate(
        state, types, q=setting["q"], rho=setting["rho"], lr=setting["lr"], n_iter=n_iter, record_every=1
    )  # fmt: skip


def ratio_of_rates(setting) -> float:
    """S = kappa_A / kappa_B = P_R alpha^q / (P_NR beta^q)."""
    return density_ratio(*(setting[n] for n in ("alpha", "beta", "n_patches", "n_robust", "q")))


def race(setting, recursion) -> dict:
    """When max_s B of a class reaches rho/beta (T1) and F_y then 2 log k (T2); max_s A, max_s B and F_y there.

    (R, k) each; NaN where a class never gets there.  Both times are exact: from the record before T1 on, the engine
    goes on step by step.
    """
    k, level = setting["n_classes"], setting["rho"] / setting["beta"]
    A, B = recursion.A.max(axis=-1), recursion.B.max(axis=-1)
    found = {"A0": A[0], "B0": B[0], "A_end": A[-1], "B_end": B[-1]}
    found |= {name + when: np.full(A[0].shape, np.nan) for when in "12" for name in "TABF"}
    before = first_record(recursion.iteration, level <= B) - 1
    for i in range(k):
        rows = np.flatnonzero(before[:, i] >= 0)
        if not len(rows):
            continue
        start = before[rows, i]
        near = steps_from(recursion.phi[start, rows], setting, WINDOW)
        held = {"T": near.iteration[:, None] + recursion.iteration[start], "F": own_output(near.phi, setting)[..., i]}
        held |= {"A": near.A[:, :, i].max(axis=-1), "B": near.B[:, :, i].max(axis=-1)}
        linear = held["B"] >= level
        for when, reached in (("1", linear), ("2", linear & (held["F"] >= 2 * np.log(k)))):
            for name in "TABF":
                found[name + when][rows, i] = at(held[name], first_record(near.iteration, reached))
    S = ratio_of_rates(setting)
    found["head"] = B[0] / (S ** (1 / (setting["q"] - 2)) * A[0])
    found["ahead"] = (A[0] > 0) & (found["head"] >= 1 + HEAD_START)  # the premise, for classes in which both grow
    found["limit"] = early_bound(found, setting)
    return found


def races(lab) -> dict:
    return lab.once(
        ("races", False),
        lambda: {key: {"setting": c, "pairs": race(c, found)} for key, (c, found) in settings(lab).items()},
    )


def ahead(run, name) -> np.ndarray:
    """What `race` found for the (seed, class) pairs that meet the premise."""
    return run["pairs"][name][run["pairs"]["ahead"]]


def over_init(runs, names) -> tuple[np.ndarray, list]:
    """sigma_0 in falling order, and per name an array (n, R k) over the sweep, NaN for pairs that miss the premise."""
    held = {run["setting"]["init_std"]: run["pairs"] for key, run in runs.items() if key[0] in ("", "init_std")}
    x = sorted(held, reverse=True)
    return np.array(x), [np.stack([np.where(held[v]["ahead"], f(held[v]), np.nan).ravel() for v in x]) for f in names]


def described(runs) -> str:
    return ", ".join(f"{name or 'SMALL_RHO'}{f' = {value:g}' if name else ''}" for name, value in runs)


def premise(runs) -> Assumption:
    """The share of pairs with the head start; the others are outside the lemma and left out."""
    every = np.concatenate([run["pairs"]["ahead"].ravel() for run in runs.values()])
    low, high = wilson(every.sum(), every.size)
    value = f"{every.sum()} of {every.size} (seed, class) pairs, {every.mean():.2f} [{low:.2f}, {high:.2f}]"
    need = f"B0 >= {1 + HEAD_START:g} S^(1/(q-2)) A0, A0 > 0; other pairs are left out"
    return Assumption("head start of B (premise of Lemma B.2)", value, need, bool(every.any()))


def early_bound(pairs, setting) -> np.ndarray:
    """The most that A(T1) / A(0) can be (tensor_power.bound), with 1 - logit <= 1; NaN without the premise."""
    q, held = setting["q"], pairs["ahead"]
    rate = setting["lr"] / setting["n_classes"] * setting["rho"] ** (1 - q)
    rate *= (setting["n_patches"] - setting["n_robust"]) * setting["beta"] ** q
    found = np.full(held.shape, np.nan)
    options = {"q": q, "S": ratio_of_rates(setting), "lr": 1.0, "level": setting["rho"] / setting["beta"]}
    found[held] = bound(pairs["B0"][held], pairs["A0"][held], growth_max=rate, **options)
    return found


# ------------------------------------------------------------------ D.8
EARLY = 0.1  # F_y on a clean sample up to which a class counts as early; (1 - logit)/(1 - 1/k) is 0.966 there at k = 3
CLOSE = 0.05  # how far the ratio to the leading order may be from 1 until then
LOOKS = 16  # records of a run at which one step is taken


def one_step(setting, recursion) -> dict:
    """Increments of each class's strongest A and B over their leading order, at records until all have taken off."""
    k, q = setting["n_classes"], setting["q"]
    F = own_output(recursion.phi, setting)
    last = int((F <= 1).any(axis=2).any(axis=1).nonzero()[0][-1])
    looks = np.unique(np.linspace(0, last, LOOKS).astype(int))
    phi = recursion.phi[looks].reshape(-1, *recursion.phi.shape[2:])
    near = steps_from(phi, setting, 1)
    found, kappa = {"F": own_output(phi, setting)}, {}
    kinds = {"A": ("alpha", setting["n_robust"]), "B": ("beta", setting["n_patches"] - setting["n_robust"])}
    for name, (strength, count) in kinds.items():
        C = getattr(near, name)
        best = C[0].argmax(axis=-1)[..., None]
        now, then = (np.take_along_axis(c, best, -1)[..., 0] for c in C)
        kappa[name] = growth_rate(setting[strength], count, k, q, setting["rho"], setting["lr"])
        found[name] = (then - now) / (kappa[name] * np.where(now > 0, now, np.nan) ** (q - 1))
        found[name + " polynomial"] = setting[strength] * now <= setting["rho"]
    start = recursion.B[0].max(axis=-1)
    off = first_record(recursion.iteration, F >= EARLY)
    reached = at(recursion.B.max(axis=-1), off)
    took = at(np.broadcast_to(recursion.iteration[:, None, None].astype(float), F.shape), off)
    grew = (start > 0) & (reached >= 2 * start)
    flow = flow_time(np.where(grew, start, 1), np.where(grew, reached, 2), kappa["B"], q)
    return found | {"time": np.where(grew, took / flow, np.nan), "start": F[0].max(), "k": k}


@entry(
    "D.8",
    GROUP,
    "Early stage",
    statement="Until take-off A and B grow as powers of themselves at a constant rate; our reading of the threshold: "
    f"while F_y <= {EARLY:g} on a clean sample, the increments are the leading order's up to {CLOSE:.0%}.",
    formula="A_{i,r} += (eta/k)(1 - 1/k)(1 + o(1)) rho^{1-q} sum_{J_R} alpha_p^q (A_{i,r})_+^{q-1}, B likewise; here "
    "1 + o(1) = k / (k - 1 + e^{F_y}) where other classes' features do not count",
    rule=f"increment / leading order of each class's strongest A and B within 1 +- {CLOSE:g} while F_y <= {EARLY:g}; "
    f"median of time to F_y = {EARLY:g} / the flow's time within 1 +- {CLOSE:g}; margin: the smaller of "
    f"1 - |ratio - 1|/{CLOSE:g}",
)
class EarlyStage:
    def measure(lab):
        return {described([key]): one_step(*values) for key, values in settings(lab).items()}

    def early(m):
        """The ratios of all early increments, A's and B's."""
        kept = [(run[n], (run["F"] <= EARLY) & run[n + " polynomial"]) for run in m.values() for n in "AB"]
        return np.concatenate([ratio[early & ~np.isnan(ratio)] for ratio, early in kept])

    def judge(m):
        ratio, time = EarlyStage.early(m), np.concatenate([run["time"].ravel() for run in m.values()])
        time = time[np.isfinite(time)]
        typical, start = np.median(time), max(run["start"] for run in m.values())
        return Judgement(
            "both ratios 1",
            f"increment / leading order {spread(ratio, 4)} over {len(ratio)} early steps; time to F_y = {EARLY:g} / "
            f"flow's time {spread(time, 4)}",
            smallest(1 - np.abs(ratio - 1) / CLOSE, 1 - abs(typical - 1) / CLOSE),
            [Assumption("F_y on clean samples at t = 0", f"{start:.1e}", "<= 0.01", bool(start <= 0.01))],
        )

    def draw(axis, m):
        run = m["SMALL_RHO"]
        k, F = run["k"], np.geomspace(1e-7, 12, 400)
        for name, color in (("B", NON_ROBUST), ("A", ROBUST)):
            axis.plot(run["F"], run[name], "o", color=color, ms=3, mew=0, alpha=0.5)[0].set_label(f"{name}'s increment")
        axis.plot(F, k / (k - 1 + np.exp(F)), "k", lw=0.8, label="k / (k - 1 + e^F)")
        axis.fill_between([1e-7, EARLY], 1 - CLOSE, 1 + CLOSE, color=CERTIFIED, alpha=0.2, lw=0, label="allowed, early")
        axis.set_xscale("log")
        axis.set_xlim(1e-7, 12)
        axis.set_xlabel("F_y on a clean sample")
        axis.set_ylabel("increment / leading order")


# ------------------------------------------------------------------ D.9
def drawn_share(setting) -> float:
    """Probability of the premise: of B0 >= (1 + delta) S^(1/(q-2)) A0 > 0, both maxima of m normals (Lemma B.1)."""
    m, S = setting["n_neurons"], ratio_of_rates(setting) ** (1 / (setting["q"] - 2))
    p = (np.arange(20000) + 0.5) / 20000
    B = np.maximum(gaussian_maximum.quantile(p, m), 0)
    return float(np.mean(gaussian_maximum.cdf(B / (S * (1 + HEAD_START)), m) - ndtr(0) ** m))


@entry(
    "D.9",
    GROUP,
    "Non-robust feature learning dominates at the early stage",
    statement="When a class's non-robust feature reaches the linear part, at T1, its robust one is still of the order "
    "sigma_0, provided B began ahead (the tensor power lemma's premise).",
    formula="T1 = first t with max_s B_{i,s} >= rho/beta: max_s A_{i,s}^(T1) = O~(sigma_0); explicitly A(T1)/A(0) <= "
    "(1 - E)^(-1/(q-2)), E = S (A0/B0)^(q-2) + O(eta), S = P_R alpha^q / (P_NR beta^q)",
    rule=f"A(T1)/A(0) <= its bound + {SHARP:.0%} for every pair with the premise, in every k, m, sigma_0, P; exponent "
    f"of A(T1) in sigma_0 within 1 +- {ORDER:g}, interval and all; network = simulation to {EXACT:g}; margin: the "
    f"smallest of 1 - (growth/bound - 1)/{SHARP:g}, 1 - |exponent - 1|/{ORDER:g} and decades below {EXACT:g}",
)
class EarlyDominance:
    def measure(lab):
        pair = small_network(lab, n_iter=4000)
        return {
            "runs": races(lab),
            "drawn_share": drawn_share(SMALL_RHO),
            "network": relative(pair.phi, pair.recursion.phi),
        }

    def judge(m):
        runs = m["runs"]
        growth = np.concatenate([ahead(run, "A1") / ahead(run, "A0") for run in runs.values()])
        share = growth / np.concatenate([ahead(run, "limit") for run in runs.values()])
        x, (A1,) = over_init(runs, [lambda p: p["A1"]])
        fit = fit_paired(x, A1)
        small = runs["", 0]["pairs"]
        behind = ~small["ahead"] & (small["A0"] > 0) & (small["B0"] > 0)
        wins = small["A_end"][behind] >= SMALL_RHO["rho"] / SMALL_RHO["alpha"]
        constants = [np.median(ahead(run, "A1")) / run["setting"]["init_std"] for run in runs.values()]
        return Judgement(
            f"A(T1)/A(0) below the lemma's bound; A(T1) ~ sigma_0; premise met with probability {m['drawn_share']:.2f}",
            f"A(T1)/A(0) {spread(growth)}, its share of the bound {spread(share)}; median A(T1)/sigma_0 "
            f"{spread(constants)} over {described(runs)}; exponent {fit}; without the premise {wins.sum()} of "
            f"{wins.size} classes of SMALL_RHO learn the robust feature; network against simulation "
            f"{np.max(m['network']):.1e}",
            smallest(1 - (share - 1) / SHARP, within(fit, 1, ORDER), shortfall(m["network"], EXACT)),
            [premise(runs)],
        )

    def draw(axis, m):
        """A(T1)/A(0) over the head start, the flow's bound, and the pairs behind (at the end, A or B may have won)."""
        delta = np.geomspace(1e-3, 60, 300)
        axis.plot(1 + delta, flow_bound(delta, SMALL_RHO["q"]), "k", lw=0.9, label="flow's bound")
        for sweep, (name, color) in SWEPT.items():
            runs = [run for key, run in m["runs"].items() if key[0] == sweep]
            head, first, last = (np.concatenate([ahead(run, part) for run in runs]) for part in ("head", "A0", "A1"))
            axis.plot(head, last / first, "o", color=color, ms=3, mew=0, alpha=0.6, label=name)
        pairs = m["runs"]["", 0]["pairs"]
        left = ~pairs["ahead"] & (pairs["A0"] > 0) & (pairs["B0"] > 0)
        lost = (pairs["A_end"] / pairs["A0"])[left]
        axis.plot(pairs["head"][left], lost, "x", color=ROBUST, ms=4, label="no premise, at the end")
        axis.axvline(1 + HEAD_START, color="0.6", lw=0.8, ls=":")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(0.2, 60)
        axis.set_xlabel("head start B0 / (S^(1/(q-2)) A0); dotted: premise")
        axis.set_ylabel("A(T1) / A(0)")
