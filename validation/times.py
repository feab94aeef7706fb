"""Predicted against measured times over many configurations: take-off of B, Phase II, entry into the linear part."""

from __future__ import annotations

import numpy as np

from ..kernels.recursion import Types
from ..reporting.style import NON_ROBUST, ROBUST
from ..theory import State, phase_two_started, plateau, population_types, simulate
from ..theory.leading_order import LeadingOrder
from .lab import SMALL_RHO
from .ledger import Assumption, Judgement, entry
from .statistics import spread

N_CONFIGURATIONS, RECORD_EVERY, N_ITER = 64, 10, 5000
TYPICAL, MOST = 0.05, 0.15  # relative errors: median, and the largest of nine in ten


def configurations(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """`n` drawn settings around SMALL_RHO: strengths, threshold, init, rates; eps = beta.

    lr is set so that B of typical start takes off at iteration 250 to 600; lr~ so that lr~ rho, which decides how far
    B* lies below rho, is 3 to 8 (6 in SMALL_RHO).
    """
    rng = np.random.default_rng(seed)
    c = {
        "alpha": rng.uniform(1.7, 2.4, n),
        "beta": rng.uniform(0.85, 1.15, n),
        "rho": SMALL_RHO["rho"] * rng.uniform(0.7, 1.4, n),
        "init_std": SMALL_RHO["init_std"] * np.exp(rng.uniform(-0.7, 0.7, n)),
    }
    k, P_NR, q = SMALL_RHO["n_classes"], SMALL_RHO["n_patches"] - SMALL_RHO["n_robust"], SMALL_RHO["q"]
    kappa = (1 - 1 / k) / k * c["rho"] ** (1 - q) * P_NR * c["beta"] ** q
    c["lr"] = 1 / (kappa * 1.5 * c["init_std"] * rng.uniform(250, 600, n))
    c["ascent_lr"] = rng.uniform(3, 8, n) / c["rho"]
    return c


def measure_times(lab) -> dict:
    """Times of every class of every configuration, measured on the exact recursion and predicted; (n, k) each."""

    def make():
        c, s = configurations(N_CONFIGURATIONS), SMALL_RHO
        k, P_R, P_NR = s["n_classes"], s["n_robust"], s["n_patches"] - s["n_robust"]
        drawn = [
            State.draw(k, s["n_neurons"], s["patch_dim"], rng=i, init_std=std) for i, std in enumerate(c["init_std"])
        ]
        phi, gram = (np.concatenate([getattr(one, name) for one in drawn]) for name in ("phi", "gram"))
        state = State(phi, gram, drawn[0].n_orthogonal)
        laws = [population_types(k, s["n_patches"], P_R, a, b) for a, b in zip(c["alpha"], c["beta"])]
        types = Types(*(np.concatenate(parts) for parts in zip(*laws)))
        rates = {"rho": c["rho"], "lr": c["lr"], "ascent_lr": c["ascent_lr"], "eps": c["beta"]}
        found = simulate(state, types, q=s["q"], n_iter=N_ITER, record_every=RECORD_EVERY, **rates)
        t, A, B = found.iteration, found.A, found.B
        column = {name: value[:, None] for name, value in c.items()}
        lead = LeadingOrder(
            k, column["alpha"], column["beta"], P_R, P_NR, s["q"], column["rho"], column["lr"],
            column["ascent_lr"], column["beta"],
        )  # fmt: skip
        level = plateau(column["beta"], s["q"], column["rho"], column["ascent_lr"]) / 2
        half = phase_two_started(B, column["beta"], s["q"], column["rho"], column["ascent_lr"])
        linear = column["rho"] / column["alpha"]
        start = A[0, :, :1], B[0, :, :1]  # the flow of one class per configuration: a solution takes 10 ms
        top_A, top_B = A.max(axis=-1), B.max(axis=-1)
        B_time, A_time = lead.take_off_time("B", top_B[0], level), lead.take_off_time("A", top_A[0], linear)
        left_out = lead.neglected(phi, gram)
        leads = B_time < A_time  # the premise of Lemma B.2: elsewhere the robust feature is learned first
        leads &= left_out.small  # the premise of the leading order
        return {
            "take-off": _pair(t, top_B >= level, B_time, leads),
            "phase two": _pair(t, half, lead.phase_two_estimate(B[0]), leads),
            "linear part": _pair(t, top_A >= linear, A_time, leads),
            "flow": {
                "take-off": lead.passage_time(*start, "B", level, rtol=1e-6),
                "phase two": lead.phase_two_time(*start, rtol=1e-6),
                "linear part": lead.passage_time(*start, "A", linear, rtol=1e-6),
            },
            "saturated": float(np.isfinite(found.saturated_at).sum()),
            "small": left_out.small,
        }

    return lab.once(("times",), make)


def _pair(iteration, reached, predicted, leads):
    """First recorded iteration less half a record's width, NaN where it never comes; the closed form; the premise."""
    first = np.where(reached.any(axis=0), iteration[reached.argmax(axis=0)] - RECORD_EVERY / 2, np.nan)
    return {"measured": first, "closed form": predicted, "leads": leads}


def errors(m: dict, of: str) -> np.ndarray:
    """predicted / measured - 1 where B leads, little is neglected and the event came within the run; 1 where it should
    never come."""
    predicted = m[of]
    measured, leads = (m[name][:, : predicted.shape[1]] for name in ("measured", "leads"))
    error = np.where(np.isfinite(predicted), predicted / measured - 1, 1.0)
    return error[np.isfinite(measured) & leads]


def judge_times(m: dict) -> Judgement:
    """Flow against measured, the closed form beside it."""
    (typical, most), closed = (np.quantile(np.abs(errors(m, of)), (0.5, 0.9)) for of in ("flow", "closed form"))
    small, leads, seen = m["small"].mean(), m["leads"].mean(), np.isfinite(m["measured"])[m["leads"]].mean()
    return Judgement(
        f"times of the leading-order flow, {spread(m['flow'])} iterations",
        f"{spread(m['measured'])} iterations; relative error, median and nine in ten: flow {typical:.3f}, {most:.3f}; "
        f"closed form {closed[0]:.3f}, {closed[1]:.3f}",
        min(1 - typical / TYPICAL, 1 - most / MOST),
        [
            Assumption("orthogonal axes saturated", f"{m['saturated']:g} runs", "none", m["saturated"] == 0),
            Assumption("classes with little neglected, Neglected.small", f"{small:.1%}", ">= 50%", bool(small >= 0.5)),
            Assumption("of all, these whose B leads, t_B < t_A", f"{leads:.1%}", ">= 50%", bool(leads >= 0.5)),
            Assumption("of these it happens within the run in", f"{seen:.1%}", ">= 90%", bool(seen >= 0.9)),
        ],
    )


def draw_times(color):
    def draw(axis, m):
        measured = np.where(m["leads"], m["measured"], np.nan)
        axis.plot(measured.ravel(), m["closed form"].ravel(), ".", color="0.4", ms=3, label="closed form, all classes")
        style = {"color": color, "ms": 3.5, "alpha": 0.7, "mew": 0, "label": "flow, one class per configuration"}
        axis.plot(measured[:, : m["flow"].shape[1]].ravel(), m["flow"].ravel(), "o", **style)
        ends = np.nanmin(m["measured"]), np.nanmax(m["measured"])
        axis.plot(ends, ends, color="k", lw=0.8)
        low, high = np.array(ends) * (1 - MOST), np.array(ends) * (1 + MOST)
        axis.fill_between(ends, low, high, color="0.5", alpha=0.12, lw=0, label=f"±{MOST:.0%}")
        axis.set(xscale="log", yscale="log", xlabel="measured, iterations", ylabel="predicted, iterations")

    return draw


def _entry(name, title, statement, formula, color):
    def measure(lab):
        m = measure_times(lab)
        return {**m[name], "flow": m["flow"][name], "saturated": m["saturated"], "small": m["small"]}

    parts = {"measure": measure, "judge": judge_times, "draw": draw_times(color)}
    entry(
        f"times ({name})", "times", title, statement=statement, formula=formula,
        rule=f"{N_CONFIGURATIONS} drawn configurations, classes whose B leads: error of the flow <= {TYPICAL:.0%} in "
        f"the median and <= {MOST:.0%} for nine in ten; margin: 1 - error / allowed, the smaller of the two",
    )(type("Times", (), parts))  # fmt: skip


_entry(
    "take-off", "Take-off of the non-robust feature",
    "Adversarial training: the non-robust feature takes off, max_r B_{i,r} reaches B*/2, when the flow says.",
    "x' = kappa_B x^(q-1), kappa_B = (eta/k)(1 - 1/k) rho^(1-q) P_NR beta^q; closed form: "
    "t = (x_0^(2-q) - L^(2-q)) / ((q-2) kappa_B)",
    NON_ROBUST,
)  # fmt: skip
_entry(
    "phase two", "Phase I to Phase II",
    "Phase II starts, an ascent step takes half of a non-robust patch away, when the leading-order flow says.",
    "first t with eta~ sum_r sigma'(beta B_r) B_r >= beta/2; closed form: one neuron, to (1/2)^(1/q) B*",
    NON_ROBUST,
)  # fmt: skip
_entry(
    "linear part", "Entry into the linear part",
    "The robust feature enters the linear part of the activation (max_r A_{i,r} reaches rho/alpha) when the flow says.",
    "first t with alpha max_r A_{i,r} >= rho; closed form with kappa_A = (eta/k)(1 - 1/k) rho^(1-q) P_R alpha^q",
    ROBUST,
)  # fmt: skip
