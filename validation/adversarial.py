"""Adversarial training without noise: its leading order (Lemma 5.2), and what all entries on it share."""

from __future__ import annotations

import numpy as np

from ..patches.features import q_sum
from ..patches.network import SmoothedReLU
from ..reporting.style import NON_ROBUST, PAPER, ROBUST
from ..theory import State, phase_two_started, plateau, population_types, simulate
from ..theory.leading_order import LATE, RIVALS, LeadingOrder, Neglected
from ..theory.window import density_ratio
from .lab import SMALL_RHO, Scaling, first_record
from .ledger import Assumption, Judgement, entry
from .standard import fit_paired, smallest, within
from .statistics import spread

GROUP = "adversarial training"


def dense(lab):
    """`lab.exact`, adversarial."""
    return lab.exact(True)


def settings(lab) -> dict:
    """Simulations of SMALL_RHO with sigma_0, m, k or P changed, by name."""
    found = {"small rho": Scaling("", 0, SMALL_RHO, lab.small(True))}
    for name in ("init_std", "n_neurons", "n_classes", "n_patches"):
        found |= {f"{name} = {s.value:g}": s for s in lab.scaling(name, True) if s.value != SMALL_RHO[name]}
    return found


def levels(B: np.ndarray, c: dict) -> np.ndarray:
    """(sum_s (B_s)_+^q)^(1/q) / B* of B (..., m)."""
    return q_sum(B, c["q"]) / plateau(c["beta"], c["q"], c["rho"], c["ascent_lr"])


def one_leader(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """Whether one neuron has both the largest A and the largest B of its class; (..., m) -> (...)."""
    return A.argmax(axis=-1) == B.argmax(axis=-1)


def left_out(c: dict, seeds: int = 16) -> Neglected:
    """What the leading order neglects in a setting's drawn starts, (seeds, k)."""
    start = State.draw(c["n_classes"], c["n_neurons"], c["patch_dim"], rng=list(range(seeds)), init_std=c["init_std"])
    return leading_order(c).neglected(start.phi, start.gram)


def density(c: dict) -> float:
    """P_R alpha^q / (P_NR beta^q)."""
    return density_ratio(*(c[name] for name in ("alpha", "beta", "n_patches", "n_robust", "q")))


def premises(settings: list[dict]) -> list[Assumption]:
    """What Lemma 5.2 and D.22-D.26 ask of a setting, said or not: the worst value over all settings."""
    denser = max(density(c) for c in settings)
    ball = min(c["eps"] / c["beta"] for c in settings)
    stops = [plateau(c["beta"], c["q"], c["rho"], c["ascent_lr"]) for c in settings]
    poly = max(c["beta"] * stop / c["rho"] for c, stop in zip(settings, stops))
    parts = [left_out(c) for c in settings]
    late, rivals = (max(getattr(part, name).max() for part in parts) for name in ("late", "rivals"))
    small = all(part.small.all() for part in parts)
    return [
        Assumption("non-robust is denser: c", f"{denser:.3g}", "< 1", denser < 1),
        Assumption("eps / beta", f"{ball:.3g}", ">= 1", ball >= 1),
        Assumption("plateau in the polynomial part: beta B* / rho", f"{poly:.3g}", "<= 1", poly <= 1),
        Assumption(
            "neglected by the leading order: Phase II late by (all of w but B, see 5.2 (orthogonal)); rivals' logits",
            f"{late:.3g}; {rivals:.3g}", f"<= {LATE:g}; <= {RIVALS:g}", small,
        ),
    ]


# ------------------------------------------------------------------ one ascent step
def patch_kinds(c: dict):
    """(strength, how many, columns of phi for y = 0..k-1) of robust and of non-robust patches."""
    own = np.arange(c["n_classes"])
    return (c["alpha"], c["n_robust"], own), (c["beta"], c["n_patches"] - c["n_robust"], c["n_classes"] + own)


def ascended(phi, c, strength, column):
    """One ascent step on -F_y at a clean patch of each class y, from correlations phi (..., k, m, 2k).

    Returns z (..., k, K) of all K neurons, their ascent weights gamma (..., k, K) and delta's features (..., k, 2k).
    """
    k, m = phi.shape[-3:-1]
    flat = phi.reshape(*phi.shape[:-3], k * m, 2 * k)
    z = strength * flat[..., column].swapaxes(-1, -2)
    own = np.repeat(np.arange(k), m) == np.arange(k)[:, None]
    gamma = np.where(own, -SmoothedReLU(c["q"], c["rho"]).derivative(z), 0)
    return z, gamma, np.clip(c["ascent_lr"] * gamma @ flat, -c["eps"], c["eps"])


def adversarial_logits(phi, gram, c) -> np.ndarray:
    """F_j at the adversarial example of a noiseless sample of class y, (..., y, j); gram (..., K, K) is H."""
    k, m = phi.shape[-3:-1]
    flat, F = phi.reshape(*phi.shape[:-3], k * m, 2 * k), 0
    for strength, n, column in patch_kinds(c):
        z, gamma, delta = ascended(phi, c, strength, column)
        z = z + delta @ flat.swapaxes(-1, -2) + c["ascent_lr"] * gamma @ gram
        F = F + n * SmoothedReLU(c["q"], c["rho"])(z).reshape(*z.shape[:-1], k, m).sum(axis=-1)
    return F


# ------------------------------------------------------------------ Lemma 5.2
FOLLOWED = 150  # records of `lab.small` in which leading order and exact recursion run side by side
RATES = np.array([10.0, 20, 40, 80, 160])  # ascent_lr of the plateaus
FEW = {"n_classes": 3, "n_neurons": 5, "lr": 0.04}
CLOSE, SLOPE = 0.25, 0.02


def leading_order(c: dict) -> LeadingOrder:
    names = ("n_classes", "alpha", "beta", "n_robust", "q", "rho", "lr", "ascent_lr", "eps")
    return LeadingOrder(n_nonrobust=c["n_patches"] - c["n_robust"], **{name: c[name] for name in names})


def over_rates(c: dict, rates, seeds: int, n_iter: int):
    """Simulations of `c` from the same drawn states with every ascent rate: (recursion, H at the start, shape).

    The runs axis is rates x seeds, `shape` splits it.
    """
    shape = (c["n_classes"], c["n_neurons"], c["patch_dim"])
    one = State.draw(*shape, rng=list(range(seeds)), init_std=c["init_std"])
    n = len(rates)
    state = State(np.tile(one.phi, (n, 1, 1, 1)), np.tile(one.gram, (n, 1, 1)), one.n_orthogonal)
    types = population_types(c["n_classes"], c["n_patches"], c["n_robust"], c["alpha"], c["beta"])
    options = {"q": c["q"], "rho": c["rho"], "lr": c["lr"], "eps": c["eps"], "n_iter": n_iter}
    return simulate(state, types, ascent_lr=np.repeat(rates, seeds), **options), state.gram, (n, seeds)


def plateaus(seeds: int) -> np.ndarray:
    """(sum_s (B_s)_+^q)^(1/q) at the end, (rates, seeds, classes); NaN where Phase II has not begun at every rate."""
    c = SMALL_RHO | FEW
    found, _, shape = over_rates(c, RATES, seeds, 2500)
    B = found.B[-1].reshape(*shape, *found.B.shape[-2:])
    begun = [phase_two_started(b, c["beta"], c["q"], c["rho"], rate) for b, rate in zip(B, RATES)]
    return np.where(np.all(begun, axis=0), q_sum(B, c["q"]), np.nan)


def phase_one(m):
    """Classes that reach Phase II with A > 0 in the polynomial part; deviation of max_s A and max_s B until then."""
    before = np.arange(len(m["iteration"]))[:, None, None] <= m["begun"]
    poly = (m["setting"]["alpha"] * m["A"] <= m["setting"]["rho"]) | ~before
    apart = {name: np.abs(m[name] / m["leading_" + name] - 1) for name in "AB"}
    deviation = {name: np.where(before, apart[name], 0).max(axis=0) for name in "AB"}
    return (m["begun"] >= 0) & poly.all(axis=0) & (m["A"][0] > 0), deviation


@entry(
    "5.2",
    GROUP,
    "Feature learning in two phases",
    statement="In the polynomial part the class's A and B follow the leading-order recursion with the strengths that "
    "the ascent leaves, and B stops once its total is of order ascent_lr^(-1/q), while A goes on; our reading: until "
    "Phase II begins, for the class's strongest correlations, where B is ahead and no neuron leads in both.",
    formula="A += (eta/k)(1 - logit) rho^(1-q) P_R a~^q A^(q-1), a~ = alpha - min(eps, eta~ sum_s sigma'(alpha A_s) "
    "A_s), B likewise with P_NR, b~; end: (sum_s (B_s)_+^q)^(1/q) = B* = (rho^(q-1) beta^(2-q) / eta~)^(1/q)",
    rule=f"max_s A and max_s B of both recursions within {CLOSE:.0%} at every record of Phase I; exponent of the "
    f"plateau in eta~ within -1/q +- {SLOPE:g}, interval and all; median plateau within 5% of B*; margin: what is left "
    "of the tightest tolerance, as a share",
)
class TwoPhases:
    def measure(lab):
        c, found = SMALL_RHO, lab.small(True)
        A, B = found.A[: FOLLOWED + 1], found.B[: FOLLOWED + 1]
        every = int(found.iteration[1])
        other = leading_order(c).recursion(A[0], B[0], FOLLOWED * every, every)
        return {
            "setting": c,
            "iteration": other.iteration,
            "A": A.max(axis=-1), "B": B.max(axis=-1),
            "leading_A": other.A.max(axis=-1), "leading_B": other.B.max(axis=-1),
            "begun": first_record(other.iteration, levels(B, c) ** c["q"] >= 0.5),
            "leading_begun": first_record(other.iteration, levels(other.B, c) ** c["q"] >= 0.5),
            "shared": one_leader(A[0], B[0]),
            "rates": RATES,
            "plateau": lab.once(("plateaus",), lambda: plateaus(lab.n_draws)),
            "predicted": np.array([plateau(c["beta"], c["q"], c["rho"], rate) for rate in RATES]),
        }  # fmt: skip

    def judge(m):
        ahead, deviation = phase_one(m)
        inside, both = ahead & ~m["shared"], deviation["A"][ahead & m["shared"]]
        times = (m["iteration"][m["begun"]] / np.maximum(m["iteration"][m["leading_begun"]], 1))[inside]
        fit, expected = fit_paired(m["rates"], m["plateau"]), -1 / m["setting"]["q"]
        ratio = (m["plateau"] / m["predicted"][:, None, None])[np.isfinite(m["plateau"])]
        return Judgement(
            f"the same trajectories; plateau ~ eta~^{expected:.3f}, plateau / B* = 1",
            f"{inside.sum()} classes: deviation of A {spread(deviation['A'][inside])}, of B "
            f"{spread(deviation['B'][inside])}, Phase II begins at {spread(times)} of the leading order's time; "
            f"exponent {fit}, plateau / B* {spread(ratio)}; in {len(both)} classes one neuron leads in both, A off by "
            f"{spread(both)}; in {((m['begun'] >= 0) & ~ahead).sum()} A leaves the polynomial part first",
            smallest(
                *(1 - deviation[name][inside] / CLOSE for name in "AB"),
                within(fit, expected, SLOPE),
                1 - abs(np.median(ratio) - 1) / 0.05 if ratio.size else np.nan,
            ),
            premises([m["setting"]]),
        )

    def draw(axis, m):
        inside = np.argwhere(phase_one(m)[0] & ~m["shared"])
        for j, (r, i) in enumerate(inside[np.linspace(0, len(inside) - 1, 4).astype(int)]):
            for name, color in (("B", NON_ROBUST), ("A", ROBUST)):
                label = f"max {name}, exact" if j == 0 else None
                axis.semilogy(m["iteration"], m[name][:, r, i], color=color, lw=2, alpha=0.6, label=label)
                label = "leading order" if j == 0 and name == "A" else None
                axis.semilogy(m["iteration"], m["leading_" + name][:, r, i], "k--", lw=0.7, label=label)
        c = m["setting"]
        axis.axhline(plateau(c["beta"], c["q"], c["rho"], c["ascent_lr"]), color=PAPER, lw=1, label="B*")
        axis.set_xlabel("iteration")
        axis.set_ylabel(r"$\max_s A$, $\max_s B$ of four classes")
        small = axis.inset_axes([0.09, 0.79, 0.3, 0.18])
        small.loglog(m["rates"], m["plateau"].reshape(len(m["rates"]), -1), "o", color=NON_ROBUST, ms=2, alpha=0.3)
        small.loglog(m["rates"], m["predicted"], color=PAPER, lw=1)
        small.set_title(r"plateau of B over $\tilde\eta$", fontsize=7)
        small.tick_params(labelsize=6, which="both")
        small.set_xticks([10, 100], ["10", "100"])
        small.set_yticks([0.1, 0.2], ["0.1", "0.2"])
        small.minorticks_off()


# ------------------------------------------------------------------ Lemma 5.2, what it silently needs
WIDE = SMALL_RHO | FEW | {"n_patches": 64, "alpha": 3.0, "rho": 1.0, "lr": 0.1}
LENGTHS = ((40000, 0.005), (10000, 0.01), (3000, 0.01), (1000, 0.01), (300, 0.01))  # d, sigma_0
WIDE_RATES = np.array([5.0, 20.0])


def stopping(chi, q):
    """Where a feature stops, as a share of B*: (1 + chi^(q/(q-2)))^(-1/q), chi = |w_orth(0)|^2 / (B*)^2.

    While a neuron learns v, both B and w_orth move with the patch that the ascent leaves: dB = c (beta - g B),
    dw_orth = -c g w_orth, g = eta~ sigma'(beta B) = beta B^(q-1) / (B*)^q.  Hence w_orth falls as (1 - x^q)^(1/q),
    x = B / B*, and the left-over preactivation, beta B - g (B^2 + |w_orth|^2), is zero where 1 - x^q =
    chi x^(q-2) (1 - x^q)^(2/q).  For chi >> 1 that is z = beta B = (rho^(q-1) / (eta~ |w_orth|^2))^(1/(q-2)).
    """
    return (1 + chi ** (q / (q - 2))) ** (-1 / q)


def stops(C, gram, strength, rate, c):
    """Per class: chi of the neuron that leads C (R, k, m) at the end, and its C over the plateau; (R, k) each."""
    star = plateau(strength, c["q"], c["rho"], rate)
    lead = C.argmax(axis=-1)[..., None]
    square = np.einsum("raa->ra", gram).reshape(C.shape)
    return np.take_along_axis(square, lead, -1)[..., 0] / star**2, C.max(axis=-1) / star


@entry(
    "5.2 (orthogonal)",
    GROUP,
    "What stops both features: the orthogonal part",
    statement="Ours: the ascent also cancels a neuron's own orthogonal part, eta~ sigma'(z) |w_orth|^2 of its "
    "preactivation; unless |w_orth| << B* this stops B early, and A too, both at the level z* of alpha A and beta B. "
    "In the polynomial part B* <= rho/beta, so |w_orth| = 1 (sigma_0 = 1/sqrt(d)) needs rho >> beta.",
    formula="B = B* (1 + chi^(q/(q-2)))^(-1/q), chi = (|w_orth| / B*)^2 = eta~ |w_orth|^2 (beta B*)^(q-2) / "
    "rho^(q-1); chi >> 1: z* = eta~ (z*/rho)^(q-1) |w_orth|^2; A likewise with alpha while its ascent stays below eps",
    rule="median over seeds and classes of the last max_s B within 10% of the prediction in every setting, of max_s A "
    "in those with chi_A >= 4; margin: 0.1 - the largest relative deviation",
)
class OrthogonalStop:
    def measure(lab):
        rows = []
        for d, std in LENGTHS[:4] if lab.quick else LENGTHS:
            c = WIDE | {"patch_dim": d, "init_std": std}
            found, first, shape = over_rates(c, WIDE_RATES, lab.n_draws, 4000)
            ends = [getattr(found, name)[-1].reshape(*shape, *found.A.shape[-2:]) for name in "AB"]
            starts = [getattr(found, name)[0].reshape(ends[0].shape).max(axis=-1) > 0.3 * std for name in "AB"]
            gram = first.reshape(*shape, *first.shape[1:])
            for j, rate in enumerate(WIDE_RATES):
                row = {"patch_dim": d, "init_std": std, "ascent_lr": rate}
                for name, C, there, strength in zip("AB", ends, starts, (c["alpha"], c["beta"])):
                    chi, x = stops(C[j], gram[j], strength, rate, c)
                    row |= {f"chi_{name}": chi[there[j]], f"x_{name}": x[there[j]]}
                rows.append(row)
        return {"q": WIDE["q"], "cap": WIDE["eps"] / WIDE["alpha"], "rows": rows}

    def judge(m):
        off = {"A": {}, "B": {}}
        for row in m["rows"]:
            for name in "AB":
                chi = float(np.median(row[f"chi_{name}"]))
                off[name][chi] = float(np.median(row[f"x_{name}"] / stopping(row[f"chi_{name}"], m["q"])) - 1)
        stuck = {chi: value for chi, value in off["A"].items() if chi >= 4}
        free = [np.mean(r["x_A"] > 2) for r in m["rows"] if np.median(r["chi_A"]) < 1]
        said = "; ".join(f"chi {chi:.3g}: {value:+.1%}" for chi, value in sorted(off["B"].items()))
        return Judgement(
            "B / B* = (1 + chi^3)^(-1/3); A alike where it stays stuck",
            f"B off by {said}; A, chi_A from {min(stuck):.3g}: off by {spread(list(stuck.values()), 2)}; share of "
            f"classes where A escapes, chi_A < 1: {spread(free, 2)}",
            smallest(*(0.1 - abs(value) for value in [*off["B"].values(), *stuck.values()])),
        )

    def draw(axis, m):
        chi = np.geomspace(0.05, 60, 200)
        axis.loglog(chi, stopping(chi, m["q"]), "k", lw=1, label=r"$(1+\chi^{q/(q-2)})^{-1/q}$")
        axis.loglog(chi, 1 / chi, "k:", lw=1, label=r"$z^*$, orthogonal part alone")
        axis.axhline(m["cap"] ** (1 / m["q"]), color=ROBUST, ls="--", lw=0.8, label="A: eps is used up")
        for name, color in (("B", NON_ROBUST), ("A", ROBUST)):
            for j, row in enumerate(m["rows"]):
                label = rf"max {name}, in $\chi_{name}$" if j == 0 else None
                chi, x = row[f"chi_{name}"], row[f"x_{name}"]
                axis.loglog(chi, x, "o", color=color, ms=3, alpha=0.25, mew=0, label=label)
        axis.set_ylim(0.02, 30)
        axis.set_xlabel(r"$\chi = |w_\perp|^2 / (B^*)^2$")
        axis.set_ylabel(r"where it stops, of $B^*$ ($A^*$)")
