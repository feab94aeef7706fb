"""Standard training without noise, in stages: early growth, the race to the linear part, and after it (D.8-D.11)."""

from dataclasses import replace
from functools import partial

import numpy as np
from scipy.special import ndtr

from ..patches.network import SmoothedReLU
from ..reporting.pictures import SWEPT, Picture, band, line, mark, points
from ..reporting.style import ACCURACY, CERTIFIED, NON_ROBUST, PAPER, ROBUST
from ..theory import State, gaussian_maximum
from ..theory.events import at, first_record
from ..theory.outputs import outputs, own_output, patch_kinds
from ..theory.tensor_power import bound, duration_bound, flow_bound, late_bound
from ..theory.timing import flow_time, growth_rate
from .lab import SMALL_RHO, shared
from .ledger import EXACT, Check, Entry, Judgement, exact, exponent, near, share, sure
from .logits import small_network
from .standard import GROUP, relative
from .statistics import OF_ORDER, fit_paired, order_of, spread

HEAD_START = 0.1  # delta of the tensor power lemma's premise: B0 >= (1 + delta) S^(1/(q-2)) A0
WINDOW = 80  # iterations that are looked at one by one from the record before T1 on: 20 until T1, the rest until T2
SHARP = 0.01  # of a proven bound that the finite experiment comes close to: what its rule allows beyond it
ORDER = 0.1  # how far an exponent may be from its predicted value


def steps_from(phi, c, n_iter):
    """`n_iter` iterations of the engine from correlations (R, k, m, 2k), each recorded."""
    K = c.n_classes * c.n_neurons
    return c.simulate(State(phi, np.zeros((len(phi), K, K)), c.patch_dim - 2 * c.n_classes), n_iter)


def race(c, recursion) -> dict:
    """When max_s B of a class reaches rho/beta (T1) and F_y then 2 log k (T2); max_s A, max_s B and F_y there.

    (R, k) each; NaN where a class never gets there.  Both times are exact: from the record before T1 on, the engine
    goes on step by step.
    """
    k, level = c.n_classes, c.rho / c.beta
    A, B = recursion.A.max(axis=-1), recursion.B.max(axis=-1)
    found = {"A0": A[0], "B0": B[0], "A_end": A[-1], "B_end": B[-1]}
    found |= {name + when: np.full(A[0].shape, np.nan) for when in "12" for name in "TABF"}
    before = first_record(level <= B) - 1
    for i in range(k):
        rows = np.flatnonzero(before[:, i] >= 0)
        if not len(rows):
            continue
        start = before[rows, i]
        steps = steps_from(recursion.phi[start, rows], c, WINDOW)
        held = {"T": steps.iteration[:, None] + recursion.iteration[start], "F": own_output(steps.phi, c)[..., i]}
        held |= {"A": steps.A[:, :, i].max(axis=-1), "B": steps.B[:, :, i].max(axis=-1)}
        linear = held["B"] >= level
        for when, reached in (("1", linear), ("2", linear & (held["F"] >= 2 * np.log(k)))):
            for name in "TABF":
                found[name + when][rows, i] = at(held[name], first_record(reached))
    found["head"] = B[0] / (c.density ** (1 / (c.q - 2)) * A[0])
    found["ahead"] = (A[0] > 0) & (found["head"] >= 1 + HEAD_START)  # the premise, for classes in which both grow
    found["limit"] = early_bound(found, c)
    return found


@shared
def races(lab) -> dict:
    return {key: {"name": s.name, "setting": s.setting, "pairs": race(s.setting, s.recursion)}
            for key, s in lab.settings(False).items()}  # fmt: skip


def ahead(runs, *names) -> list[np.ndarray]:
    """What `race` found for the (seed, class) pairs that meet the premise, of all runs end to end."""
    return [np.concatenate([run["pairs"][name][run["pairs"]["ahead"]] for run in runs.values()]) for name in names]


def over_init(runs, *functions) -> tuple[np.ndarray, list]:
    """sigma_0 in falling order; per function an array (n, R k) over the sweep, NaN for pairs without the premise."""
    held = {run["setting"].init_std: run["pairs"] for run in runs.values() if run["name"] in ("", "init_std")}
    x = sorted(held, reverse=True)
    rows = [np.stack([np.where(held[v]["ahead"], f(held[v]), np.nan).ravel() for v in x]) for f in functions]
    return np.array(x), rows


ALMOST_ALL = 0.9  # "with high probability over the initialisation, for each i": the lower end of the share's interval
SIZE = f"<= {OF_ORDER:g} sigma_0 sqrt(2 log m)"


def of_all(runs, what: str, right) -> Check:
    """`right(pairs, setting)` of all (seed, class) pairs, whatever their start: NaN, which is never there, is wrong."""
    found = {key: right(run["pairs"], run["setting"]).ravel() for key, run in runs.items()}
    check = sure(f"(seed, class) pairs, whatever their start, {what}", np.concatenate([*found.values()]), ALMOST_ALL)
    return replace(check, shown=check.shown + "".join(f"; {key} {r.mean():.2f}" for key, r in found.items()))


def constants(runs, name) -> str:
    """Median of `name` / sigma_0 of the pairs with the premise, over the settings."""
    medians = [np.median(ahead({"": run}, name)) / run["setting"].init_std for run in runs.values()]
    return f"{spread(medians)} over {len(runs)} settings"


def premise(runs) -> Check:
    """The share of pairs with the head start; the others are outside the lemma and left out."""
    every = np.concatenate([run["pairs"]["ahead"].ravel() for run in runs.values()])
    what = f"(seed, class) pairs with the premise of Lemma B.2, B0 >= {1 + HEAD_START:g} S^(1/(q-2)) A0, A0 > 0"
    return Check(f"{what} (others are left out)", every.sum(), ">=", 1, shown=share(every))


def early_bound(pairs, c) -> np.ndarray:
    """The most that A(T1) / A(0) can be (tensor_power.bound), with 1 - logit <= 1; NaN without the premise."""
    held = pairs["ahead"]
    rate = c.lr / c.n_classes * c.rho ** (1 - c.q)
    rate *= c.n_nonrobust * c.beta**c.q
    found = np.full(held.shape, np.nan)
    options = {"q": c.q, "S": c.density, "lr": 1.0, "level": c.rho / c.beta}
    found[held] = bound(pairs["B0"][held], pairs["A0"][held], growth_max=rate, **options)
    return found


# ------------------------------------------------------------------ D.8
EARLY = 0.1  # F_y on a clean sample until which a class is early; (1 - logit)/(1 - 1/k) is 0.966 there at k = 3
CLOSE = 0.05  # how far the ratio to the leading order may be from 1 until then
LOOKS = 16  # records of a run at which one step is taken
FINE = np.geomspace(1e-7, 12, 400)


def one_step(c, recursion) -> dict:
    """Increments of each class's strongest A and B over their leading order, at records until all have taken off."""
    F = own_output(recursion.phi, c)
    last = int((F <= 1).any(axis=2).any(axis=1).nonzero()[0][-1])
    looks = np.unique(np.linspace(0, last, LOOKS).astype(int))
    phi = recursion.phi[looks].reshape(-1, *recursion.phi.shape[2:])
    steps = steps_from(phi, c, 1)
    found = {"F": own_output(phi, c)}
    for name, (strength, n, _) in zip("AB", patch_kinds(c)):
        C = getattr(steps, name)
        best = C[0].argmax(axis=-1)[..., None]
        now, then = (np.take_along_axis(x, best, -1)[..., 0] for x in C)
        kappa = growth_rate(strength, n, c.n_classes, c.q, c.rho, c.lr)
        found[name] = (then - now) / (kappa * np.where(now > 0, now, np.nan) ** (c.q - 1))
        found[name + " polynomial"] = strength * now <= c.rho
    start, off = recursion.B[0].max(axis=-1), first_record(F >= EARLY)
    reached = at(recursion.B.max(axis=-1), off)
    took = at(np.broadcast_to(recursion.iteration[:, None, None].astype(float), F.shape), off)
    grew = (start > 0) & (reached >= 2 * start)
    flow = flow_time(np.where(grew, start, 1), np.where(grew, reached, 2), kappa, c.q)
    return found | {"time": np.where(grew, took / flow, np.nan), "start": F[0].max(), "k": c.n_classes}


def judge_early_stages(m):
    """The rate itself while F_y is small, with its factor 1 + o(1) as far as the power law goes, and all times."""
    ratio, early, of_formula = [], [], []
    for run in m.values():
        formula = run["k"] / (run["k"] - 1 + np.exp(run["F"]))
        for n in "AB":
            power = run[n + " polynomial"] & ~np.isnan(run[n])
            ratio.append(run[n][power]), early.append((run["F"] <= EARLY)[power])
            of_formula.append((run[n] / formula)[power])
    ratio, early, of_formula = (np.concatenate(part) for part in (ratio, early, of_formula))
    time = np.concatenate([run["time"].ravel() for run in m.values()])
    time, start = time[np.isfinite(time)], max(run["start"] for run in m.values())
    return Judgement(
        [near(f"increment / leading order of a class's strongest A and B, while F_y <= {EARLY:g}", ratio[early], 1,
              CLOSE),
         near("that / (k / (k - 1 + e^F)) as long as the activation is a power", of_formula, 1, CLOSE),
         near(f"time to F_y = {EARLY:g} / the flow's time, every class", time, 1, CLOSE)],
        f"{early.sum()} early steps, {len(ratio)} in all; time / flow's time {spread(time, 4)}",
        [Check("F_y on clean samples at t = 0", start, "<=", 0.01)],
    )  # fmt: skip


# ------------------------------------------------------------------ D.9
def drawn_share(c) -> float:
    """Probability of the premise: of B0 >= (1 + delta) S^(1/(q-2)) A0 > 0, both maxima of m normals (Lemma B.1)."""
    m, S = c.n_neurons, c.density ** (1 / (c.q - 2))
    p = (np.arange(20000) + 0.5) / 20000
    B = np.maximum(gaussian_maximum.quantile(p, m), 0)
    return float(np.mean(gaussian_maximum.cdf(B / (S * (1 + HEAD_START)), m) - ndtr(0) ** m))


def early_dominance(lab):
    pair = small_network(lab, n_iter=4000)
    network = relative(pair.phi, pair.recursion.phi)
    return {"runs": races(lab), "drawn_share": drawn_share(SMALL_RHO), "network": network}


def judge_early_dominance(m):
    runs, small = m["runs"], m["runs"]["small rho"]["pairs"]
    A0, A1, limit = ahead(runs, "A0", "A1", "limit")
    growth = A1 / A0
    x, (over,) = over_init(runs, lambda p: p["A1"])
    behind = ~small["ahead"] & (small["A0"] > 0) & (small["B0"] > 0)
    wins = small["A_end"][behind] >= SMALL_RHO.rho / SMALL_RHO.alpha
    return Judgement(
        [Check("A(T1)/A(0) over its bound, less 1, of every pair with the premise", growth / limit - 1, "<=", SHARP,
               "share", f"of the bound {spread(growth / limit)}"),
         exponent("A(T1), exponent in sigma_0", fit_paired(x, over), 1, ORDER),
         exact("network against simulation, largest deviation", m["network"], EXACT)],
        f"A(T1)/A(0) {spread(growth)}; median A(T1)/sigma_0 {constants(runs, 'A1')}; the premise is met with "
        f"probability {m['drawn_share']:.2f}; without it {wins.sum()} of {wins.size} classes of small rho learn the "
        "robust feature",
        [premise(runs)],
    )  # fmt: skip


def draw_early_dominance(m):
    """A(T1)/A(0) over the head start, the flow's bound, and the pairs behind (at the end, A or B may have won)."""
    delta = np.geomspace(1e-3, 60, 300)
    layers = [line(1 + delta, flow_bound(delta, SMALL_RHO.q), "flow's bound", "k", lw=0.9),
              mark(x=1 + HEAD_START, color="0.6", style=":")]  # fmt: skip
    for key, run in m["runs"].items():
        head, first, last = ahead({key: run}, "head", "A0", "A1")
        layers.append(points(head, last / first, run["name"] or key, SWEPT[run["name"]], alpha=0.6))
    pairs = m["runs"]["small rho"]["pairs"]
    left = ~pairs["ahead"] & (pairs["A0"] > 0) & (pairs["B0"] > 0)
    lost = (pairs["A_end"] / pairs["A0"])[left]
    layers.append(points(pairs["head"][left], lost, "no premise, at the end", PAPER, "x", 4, 1))
    return Picture("head start B0 / (S^(1/(q-2)) A0); dotted: premise", "A(T1) / A(0)", layers, "xy", xlim=(0.2, 60))


# ------------------------------------------------------------------ D.10
def growth_check(runs, end) -> tuple[Check, np.ndarray]:
    """A's growth from T1 on to `end` ("2", "_end") below its bound, and the growth itself, pairs of all runs."""
    A, later = ahead(runs, "A1", "A" + end)
    limit = []
    for run in runs.values():
        start, B, gained = ahead({"": run}, "A1", "B1", "B" + end)
        limit.append(late_bound(start, gained - B, run["setting"]) / start)
    over = later / A / np.concatenate(limit) - 1
    what = f"A's growth from T1 to {'T2' if end == '2' else 'the end'} over its bound, less 1, of those pairs"
    return Check(what, over, "<=", SHARP, "share"), later / A


def judge_linear_region(m):
    runs = m["runs"]
    T1, T2 = ahead(runs, "T1", "T2")
    limit = np.concatenate([duration_bound(ahead({"": run}, "F1")[0], run["setting"]) for run in runs.values()])
    took = T2 - T1
    steps = np.where(took > 0, (took - 1) / np.maximum(limit, 1e-300), 0)
    x, rows = over_init(runs, lambda p: p["T1"], lambda p: p["T2"] - p["T1"], lambda p: p["A2"])
    below, grown = growth_check(runs, "2")
    powers = [exponent(f"{name}, exponent in sigma_0", fit_paired(x, y), expected, ORDER)
              for name, y, expected in zip(("T1", "T2 - T1", "A(T2)"), rows, (-1, 0, 1))]  # fmt: skip
    return Judgement(
        [Check("(T2 - T1 - 1) / bound of every pair with the premise", steps, "<=", 1, "share"), below, *powers],
        f"T2 - T1 {spread(took)} iterations, {spread(took / T1, 2)} of T1; A(T2)/A(T1) {spread(grown, 4)}",
        [premise(runs)],
    )


def draw_linear_region(m):
    """T1 and T2 - T1 of every pair over sigma_0, with their predicted powers, and the bound of T2 - T1."""
    x, (T1, took, limit) = over_init(
        m["runs"], lambda p: p["T1"], lambda p: p["T2"] - p["T1"], lambda p: 1 + duration_bound(p["F1"], SMALL_RHO)
    )
    layers, jitter = [], np.geomspace(0.94, 1.06, T1.shape[1])
    for y, power, color, name in ((T1, -1, NON_ROBUST, "T1"), (took, 0, PAPER, "T2 - T1")):
        middle = np.nanmedian(y, axis=1)
        layers += [points(x[:, None] * jitter, y, name, color, size=2.5),
                   line(x, middle[1] * (x / x[1]) ** power, f"sigma_0^{power}", color, lw=1)]  # fmt: skip
    layers.append(line(x, np.nanmax(limit, axis=1), "bound of T2 - T1", "k", "--", lw=1))
    return Picture("sigma_0 (a point per seed and class)", "iterations", layers, "xy")  # fmt: skip


# ------------------------------------------------------------------ D.11
LATE = 10  # dF_y/dlog t is taken LATE times e^F(T2)/c after T2, when it is 1 up to 1/(LATE + 1) in the bound
SLOPE = 0.1  # how far dF_y / dlog t may be from 1 in the median; more while another neuron joins


def after(c, recursion) -> dict:
    """F_y and max_s B of every class from its first record with F_y >= 2 log k on, and F_y's logarithmic bound.

    A step adds at most (eta/k)(1 - logit) G to F_y, where G = (P_NR beta)^2 sum_s sigma'(beta B_s)^2 + (P_R alpha)^2
    sum_s sigma'(alpha A_s)^2 at the end (slopes only rise), and 1 - logit <= (k-1) e^(tau - F_y).  With c = (eta/k)
    (k-1) e^tau G and e^x <= 1 + x e^x:  e^F(t) <= e^F(T2) + c e^(c e^-F(T2)) (t - T2).  "most" is that bound with all
    slopes 1, which is known before the run.
    """
    k, t, F = c.n_classes, recursion.iteration[:, None, None], own_output(recursion.phi, c)
    others = sum(outputs(recursion.phi[0], c)).swapaxes(-1, -2) * (1 - np.eye(k))
    G, sigma = 0.0, SmoothedReLU(c.q, c.rho)
    for C, (strength, n, _) in zip((recursion.A[-1], recursion.B[-1]), patch_kinds(c)):
        G = G + (n * strength) ** 2 * (sigma.derivative(strength * C) ** 2).sum(axis=-1)
    all_ = c.n_neurons * ((c.n_nonrobust * c.beta) ** 2 + (c.n_robust * c.alpha) ** 2)
    rate, most = (c.lr / k * (k - 1) * np.exp(others.max(axis=-1)) * gain for gain in (G, all_))
    index = first_record(2 * np.log(k) <= F)
    F2, T2 = at(F, index), recursion.iteration[index].astype(float)
    held = (index >= 0) & (t >= T2)
    since = np.where(held, t - T2, np.nan)
    return {
        "since": since,
        "F": np.where(held, F, np.nan),
        "B": np.where(held, recursion.B.max(axis=-1), np.nan),
        "limit": np.log(np.exp(F2) + rate * np.exp(rate * np.exp(-F2)) * since),
        "most": np.log(np.exp(F2) + most * np.exp(most * np.exp(-F2)) * since),
        "reached": index >= 0,
        "scale": np.exp(F2) / rate,
    }


def log_slopes(m) -> np.ndarray:
    """dF_y / dlog(t - T2) of each class from LATE of its own time scales after T2 on, where it has had that long."""
    since, F = (m["after"][name].reshape(len(m["after"]["F"]), -1).T for name in ("since", "F"))
    slopes = []
    for x, y, scale in zip(since, F, m["after"]["scale"].ravel()):
        late = x >= LATE * scale
        if late.sum() >= 50:
            slopes.append(np.polyfit(np.log(x[late]), y[late], 1)[0])
    return np.array(slopes)


def judge_late_times(m):
    runs, late, c, slopes = m["runs"], m["after"], SMALL_RHO, log_slopes(m)
    excess = np.nanmax(late["F"] - late["limit"])
    B_excess = np.nanmax(c.beta * late["B"] - (1 - 1 / c.q) * c.rho - late["F"] / c.n_nonrobust)
    below, grown = growth_check(runs, "_end")
    x, (A,) = over_init(runs, lambda p: p["A_end"])
    return Judgement(
        [Check("F_y less its bound at every record after T2 of every class", excess, "<=", SHARP, "share"),
         Check("beta max_s B less its bound there", B_excess, "<=", SHARP, "share"),
         near("median of dF_y/dlog t, late", np.median(slopes) if len(slopes) else np.nan, 1, SLOPE),
         below, exponent("A(T), exponent in sigma_0", fit_paired(x, A), 1, ORDER)],
        f"{int(late['reached'].sum())} classes; dF_y/dlog t {spread(slopes)} of {len(slopes)}; max_s B "
        f"{spread(late['B'][-1])} at t = {m['n_iter']}; A(T)/A(T1) {spread(grown, 4)}; median A(T)/sigma_0 "
        f"{constants(runs, 'A_end')}",
        [premise(runs)],
    )  # fmt: skip


def judge_all_late(m):
    """O~(1), as F_y's bound without measured slopes makes of max_s B, and A's order at the end, of all classes."""
    late, c = m["after"], SMALL_RHO
    most = ((1 - 1 / c.q) * c.rho + late["most"] / c.n_nonrobust) / c.beta
    return Judgement([
        Check("max_s B over its bound at every record after T2 of every class", np.nanmax(late["B"] / most), "<=", 1),
        of_all(m["runs"], f"with max_s A {SIZE} at the end", lambda p, c: p["A_end"] <= order_of(c)),
    ])  # fmt: skip


def draw_late_times(m):
    """F_y of every class after its T2 on logarithmic time, by the feature that it learned, and the bounds."""
    robust = m["runs"]["small rho"]["pairs"]["A_end"] >= SMALL_RHO.rho / SMALL_RHO.alpha
    held = {name: np.where(m["after"]["since"] > 0, m["after"][name], np.nan) for name in ("since", "F", "limit")}
    x = np.geomspace(200, np.nanmax(held["since"]), 20)
    return Picture("iterations since T2", "F_y on a clean sample", [
        *(line(held["since"][:, r, i], held["F"][:, r, i], name, color, lw=0.8, alpha=0.5)
          for chosen, color, name in ((~robust, NON_ROBUST, "learned v alone"), (robust, ROBUST, "learned u, or both"))
          for r, i in np.argwhere(chosen & m["after"]["reached"])),
        line(*(np.fmax.reduce(held[n], axis=(1, 2)) for n in ("since", "limit")), "largest bound", CERTIFIED, "--"),
        line(x, np.nanmin(m["after"]["F"][-1]) - 0.5 + np.log(x / x[-1]), "slope 1 in log t", ACCURACY),
    ], "x")  # fmt: skip


def late_times(lab):
    found = lab.small(False)
    return {"runs": races(lab), "after": after(SMALL_RHO, found), "n_iter": int(found.iteration[-1])}


def draw_sizes(name, m):
    """max_s A of every pair over sigma_0 sqrt(2 log m), by the start's head start; never reached: not drawn."""
    layers = [points(run["pairs"]["head"], run["pairs"][name] / order_of(run["setting"]) * OF_ORDER, run["name"] or key,
                     SWEPT[run["name"]], alpha=0.5) for key, run in m["runs"].items()]  # fmt: skip
    return Picture("head start B0 / (S^(1/(q-2)) A0)", "max_s A / (sigma_0 sqrt(2 log m))",
                   [*layers, mark(y=OF_ORDER, label="of the order")], "xy", xlim=(0.05, 60))  # fmt: skip


D8 = Entry(
    "D.8", GROUP, "Early stage",
    "Until take-off A and B grow as powers of themselves at a constant rate; our reading of the threshold: while "
    f"F_y <= {EARLY:g} on a clean sample, the increments are the leading order's up to {CLOSE:.0%}.",
    "A_{i,r} += (eta/k)(1 - 1/k)(1 + o(1)) rho^{1-q} sum_{J_R} alpha_p^q (A_{i,r})_+^{q-1}, B likewise; here 1 + "
    "o(1) = k / (k - 1 + e^{F_y}) where other classes' features do not count",
    lambda lab: {name: one_step(s.setting, s.recursion) for name, s in lab.settings(False).items()},
    judge_early_stages,
    lambda m: Picture("F_y on a clean sample", "increment / leading order", [
        *(points(m["small rho"]["F"], m["small rho"][name], f"{name}'s increment", color)
          for name, color in (("B", NON_ROBUST), ("A", ROBUST))),
        line(FINE, m["small rho"]["k"] / (m["small rho"]["k"] - 1 + np.exp(FINE)), "k / (k - 1 + e^F)", "k", lw=0.8),
        band([1e-7, EARLY], 1 - CLOSE, 1 + CLOSE, "allowed, early", CERTIFIED),
    ], "x", xlim=(1e-7, 12)),
)  # fmt: skip
D9 = Entry(
    "D.9", GROUP, "Non-robust feature learning dominates at the early stage",
    "When a class's non-robust feature reaches the linear part, at T1, its robust one is still of the order sigma_0, "
    "for each class with high probability over the initialisation (our reading of the order: ten times).",
    "T1 = first t with max_s B_{i,s} >= rho/beta: max_s A_{i,s}^(T1) = O~(sigma_0)",
    lambda lab: {"runs": races(lab)},
    lambda m: Judgement([of_all(m["runs"], f"that reach T1 with max_s A {SIZE}", lambda p, c: p["A1"] <= order_of(c))]),
    partial(draw_sizes, "A1"),
)  # fmt: skip
D9_AHEAD = Entry(
    "D.9 (head start)", GROUP, "Non-robust feature learning dominates at the early stage, where it began ahead",
    "When a class's non-robust feature reaches the linear part, at T1, its robust one is still of the order "
    "sigma_0, provided B began ahead (the tensor power lemma's premise); judged in every k, m, sigma_0 and P.",
    "T1 = first t with max_s B_{i,s} >= rho/beta: max_s A_{i,s}^(T1) = O~(sigma_0); explicitly A(T1)/A(0) <= (1 - "
    "E)^(-1/(q-2)), E = S (A0/B0)^(q-2) + O(eta), S = P_R alpha^q / (P_NR beta^q)",
    early_dominance, judge_early_dominance, draw_early_dominance, "ours", weaker_than="D.9",
)  # fmt: skip
D10 = Entry(
    "D.10", GROUP, "Non-robust feature learning arrives at the linear region",
    "Each class's output reaches the order log k (our reading: 2 log k, at T2 >= T1), and its robust feature is of the "
    "order sigma_0 then, with high probability over the initialisation.",
    "T2 - T1 = O~(k^2/eta), max_s A_{i,s}^(T2) = O~(sigma_0)",
    lambda lab: {"runs": races(lab)},
    lambda m: Judgement([
        of_all(m["runs"], f"that reach T2 with max_s A {SIZE}", lambda p, c: p["A2"] <= order_of(c)),
        of_all(m["runs"], "that do so within the bound of T2 - T1",
               lambda p, c: p["T2"] - p["T1"] - 1 <= duration_bound(p["F1"], c))]),
    partial(draw_sizes, "A2"),
)  # fmt: skip
D10_AHEAD = Entry(
    "D.10 (head start)", GROUP, "Non-robust feature learning arrives at the linear region, where it began ahead",
    "Where B began ahead, the class's output reaches the order log k from T1 on within a time that does not depend on "
    "sigma_0, while the robust feature stays of the order sigma_0; our reading: T2 is the first t >= T1 with F_y >= 2 "
    "log k.",
    "T2 - T1 - 1 <= (2 log k - F_y^(T1)) k / (eta (P_NR beta)^2 (k-1)/(k-1+k^2)) = O~(k^2/eta); A(T2)^{2-q} >= "
    "A(T1)^{2-q} - (q-2) rho^{1-q} P_R alpha^q (B(T2) - B(T1)) / (P_NR beta), so A(T2) = O~(sigma_0)",
    lambda lab: {"runs": races(lab)}, judge_linear_region, draw_linear_region, "ours", weaker_than="D.10",
)  # fmt: skip
D11 = Entry(
    "D.11", GROUP, "After the linear region is reached",
    "For all later times max_s B = O~(1) and the robust feature stays of the order sigma_0, for each class with high "
    "probability over the initialisation.",
    "max_s B <= ((1 - 1/q) rho + (log t + O(1)) / P_NR) / beta with a constant from the setting alone; max_s A^(T) = "
    "O~(sigma_0)",
    late_times, judge_all_late, partial(draw_sizes, "A_end"),
)  # fmt: skip
D11_AHEAD = Entry(
    "D.11 (head start)", GROUP, "After the linear region is reached, where B began ahead",
    "For all later times the correlations grow logarithmically at most: max_s B = O~(1), and the robust feature "
    "stays of the order sigma_0 to the end where B began ahead.",
    "e^{F_y(t)} <= e^{F_y(T2)} + c e^{c e^{-F_y(T2)}} (t - T2), c = (eta/k)(k-1) e^tau G; beta max_s B <= (1 - 1/q) "
    "rho + F_y/P_NR; A(T)^{2-q} >= A(T1)^{2-q} - (q-2) rho^{1-q} P_R alpha^q (B(T) - B(T1))/(P_NR beta)",
    late_times, judge_late_times, draw_late_times, "ours", weaker_than="D.11",
)  # fmt: skip
