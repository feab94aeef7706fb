"""Adversarial training without noise, stage by stage: B stops, A reaches the linear part and goes on (D.23-D.26);
predicted against measured times of the stages over many configurations."""

from operator import itemgetter

import numpy as np

from ..kernels.recursion import Types
from ..reporting.pictures import ACCURACY, NON_ROBUST, PAPER, ROBUST, SWEPT, Picture, diagonal, line, mark, points
from ..theory import State, phase_two_started, plateau, population_types, simulate
from ..theory.events import at, first_record, first_time, late_slope
from ..theory.leading_order import LeadingOrder
from ..theory.outputs import own_output
from ..theory.tensor_power import flow_bound
from ..theory.timing import growth_rate
from .adversarial import GROUP, levels, one_leader, premises
from .lab import SMALL_RHO, shared
from .ledger import Check, Entry, Judgement, exponent, sure
from .statistics import OF_ORDER, fit_paired, order_of, spread

HEAD_START = 0.1  # our reading of the tensor power lemma's 1/polylog(k)
KEPT = 1.1  # B at most this often B*
SURE = 0.9  # lower limit of a share's interval where the paper says "with high probability"


# ------------------------------------------------------------------ the stages of every class
def timeline(scaling) -> dict:
    """When each class (R, k) passes D.23's, D.24's and D.25's mark (NaN: not yet), and what A, B and F_y are there.

    F_y is taken with H as it is at the end; H enters it as eta~ |w_orth|^2, 0.02 in SMALL_RHO.
    """
    c, found = scaling.setting, scaling.recursion
    t, A, B = found.iteration, found.A, found.B
    top, level = A.max(axis=-1), levels(B, c)
    F = np.array([own_output(phi, c, found.gram) for phi in found.phi])
    marks = {
        "half": phase_two_started(B, c.beta, c.q, c.rho, c.ascent_lr),
        "linear": top >= c.rho / c.alpha,
        "log_k": np.log(c.n_classes) <= F,
    }
    first = {name: first_record(reached) for name, reached in marks.items()}
    kappa = growth_rate(c.alpha, c.n_robust, c.n_classes, c.q, c.rho, c.lr)
    p, a0, b0, every = c.q - 2, top[0], B[0].max(axis=-1), slice(None, None, max(len(t) // 100, 1))
    start = np.maximum(a0, 1e-300)
    m = {"name": scaling.name, "value": scaling.value, "setting": c, "horizon": int(t[-1])}
    m |= {f"t_{name}": first_time(t, reached) for name, reached in marks.items()}
    m |= {f"B_{name}": at(level, i) for name, i in first.items()}
    return m | {
        "a0": a0, "A_half": at(top, first["half"]), "delta": b0 / (start * c.density ** (1 / p)) - 1,
        "predicted": np.where(a0 > 0, start**-p / (p * kappa), np.inf),
        "both": one_leader(A[0], B[0]), "B_max": level.max(axis=0), "A_max": top.max(axis=0),
        "slope": late_slope(t, top, m["t_log_k"]) * c.n_robust * (c.alpha - c.eps),
        "slope_F": late_slope(t, F, m["t_log_k"]), "iteration": t[every], "F": F[every], "A": top[every],
    }  # fmt: skip


@shared
def timelines(lab) -> dict:
    return {name: timeline(s) for name, s in lab.settings(True).items()}


def parts(*names):
    """What an entry measures: `names` of the `timeline` of every setting."""
    names = ("name", "setting", "horizon", "a0", *names)
    return lambda lab: {key: {name: row[name] for name in names} for key, row in timelines(lab).items()}


def pooled(m, *names):
    """Arrays of all settings, end to end."""
    return [np.concatenate([row[name].ravel() for row in m.values()]) for name in names]


def per_class(m, number):
    """`number(row)` of every setting, once for each of its classes: in the order of `pooled`."""
    return np.concatenate([np.full(row["a0"].size, number(row)) for row in m.values()])


def over_init_std(m, name, kept):
    """Exponent in sigma_0 of `name` over the classes with `kept(row)` in every row; the same draws in every row."""
    rows = [row for row in m.values() if row["name"] in ("", "init_std")]
    ok = np.all([kept(row) for row in rows], axis=0)
    return fit_paired([r["setting"].init_std for r in rows], [np.where(ok, r[name], np.nan) for r in rows])


def settings_of(m):
    return premises([row["setting"] for row in m.values()])


def kept_below(B, when: str) -> Check:
    return Check(f"(sum_s (B_s)_+^q)^(1/q) / B* {when}", B, "<=", KEPT)


# ------------------------------------------------------------------ D.23
RATIO, NEAR_ONE = 1.5, 0.1
DELTA = np.geomspace(0.02, 100, 200)


def ahead(row):
    """The premise of Lemma B.2, and Phase II has begun."""
    return (row["delta"] >= HEAD_START) & (row["a0"] > 0) & np.isfinite(row["t_half"])


def judge_first_of_all(m):
    """NaN, which is never there, is wrong."""
    right = {key: (row["A_half"] <= order_of(row["setting"])).ravel() for key, row in m.items()}
    what = f"classes, whatever their start, that begin Phase II with max_s A <= {OF_ORDER:g} sigma_0 sqrt(2 log m)"
    told = "; ".join(f"{key} {values.mean():.2f}" for key, values in right.items())
    return Judgement([sure(what, np.concatenate([*right.values()]), SURE)], told, settings_of(m))


def judge_first(m):
    kept = np.concatenate([ahead(row).ravel() for row in m.values()])
    a0, A, delta = pooled(m, "a0", "A_half", "delta")
    ratio = A[kept] / (a0[kept] * flow_bound(delta[kept], SMALL_RHO.q))
    order = [np.median(r["A_half"][ahead(r)]) / r["setting"].init_std for r in m.values() if ahead(r).any()]
    return Judgement(
        [Check(f"max_s A over its bound, less 1, where delta >= {HEAD_START:g}", ratio - 1, "<=", RATIO - 1, "share",
               f"ratio {spread(ratio)}"),
         exponent("max_s A, exponent in sigma_0", over_init_std(m, "A_half", ahead), 1, NEAR_ONE)],
        f"{kept.sum()} classes of {len(m)} settings ({kept.mean():.0%} of all have the head start); median of max A "
        f"/ sigma_0 {spread(order)} over settings",
        settings_of(m),
    )  # fmt: skip


# ------------------------------------------------------------------ D.24
def judge_linear(m):
    t, predicted, both, B = pooled(m, "t_linear", "predicted", "both", "B_linear")
    arrived, ratio = np.isfinite(t), t / predicted
    fit = over_init_std(m, "t_linear", lambda row: np.isfinite(row["t_linear"]))
    return Judgement(
        [sure("classes that arrive within the run, of all", arrived, SURE),
         kept_below(B[arrived], "at T in all of them")],
        f"T / predicted {spread(ratio[~both])}, where one neuron leads in A and B {spread(ratio[both])}; exponent of T "
        f"in sigma_0 {fit}",
        settings_of(m),
    )  # fmt: skip


# ------------------------------------------------------------------ D.25
SLOWER = 1.5


def speed(c):
    """Growth of F_y = P_R (alpha - eps) A per iteration in the linear part, at 1 - logit = 1."""
    return c.lr / c.n_classes * (c.n_robust * (c.alpha - c.eps)) ** 2


def linear_time(row):
    """Iterations that F_y takes from 0 to log k at the rate of the linear part."""
    return (np.log(row["setting"].n_classes) + 1) / speed(row["setting"])


def judge_output(m):
    t, later, B, predicted = pooled(m, "t_linear", "t_log_k", "B_log_k", "predicted")
    expected, seen = per_class(m, linear_time), np.isfinite(later)
    most = SLOWER * (predicted + expected)
    asked = most <= per_class(m, itemgetter("horizon"))
    what = f"classes with T' <= {SLOWER:g} times the time predicted from their start, of all predicted so for the run"
    return Judgement(
        [sure(what, (later <= most)[asked], SURE), kept_below(B[seen], "at T'")],
        f"{asked.sum()} of {asked.size} classes of {len(m)} settings; (T' - T) / predicted "
        f"{spread((later - t) / expected)}; T' / T {spread(later / t)}",
        settings_of(m),
    )  # fmt: skip


# ------------------------------------------------------------------ D.26
STEEPEST = 1.2


def judge_bounded(m):
    slope, of_F, A, B = pooled(m, "slope", "slope_F", "A_max", "B_max")
    kept = np.isfinite(slope)
    rule = "P_R (alpha - eps) times the slope of max_s A over log(t - T'), classes with T' <= a third of the horizon"
    return Judgement(
        [Check(rule, slope[kept], "<=", STEEPEST), kept_below(B, "at every record")],
        f"slope of F_y {spread(of_F)} in {kept.sum()} classes of {len(m)} settings; largest max A / log t at the "
        f"end {np.max(A / np.log(per_class(m, itemgetter('horizon')))):.3f}",
        [*settings_of(m), Check("classes followed to 3 T'", kept.sum(), ">=", 16)],
    )


def draw_bounded(m):
    row, layers = m["small rho"], []
    for r, i in np.argwhere(np.isfinite(row["slope"])):
        later = row["iteration"] > row["t_log_k"][r, i]
        t = (row["iteration"] - row["t_log_k"][r, i])[later]
        layers += [line(t, row["F"][later, r, i], "$F_y$ at the adversarial example", NON_ROBUST, lw=0.8, alpha=0.35),
                   line(t, row["A"][later, r, i], r"$\max_s A$", ROBUST, lw=0.8, alpha=0.35)]  # fmt: skip
    c, t = row["setting"], np.geomspace(30, row["horizon"], 100)
    F = np.log(c.n_classes)
    grid = np.linspace(F, 9, 2000)
    passed = grid - F + (np.exp(grid) - np.exp(F)) / (c.n_classes - 1)
    layers.append(line(t, np.interp(t * speed(c), passed, grid), "predicted, one active neuron", ACCURACY, "--"))
    return Picture("iterations after F_y = log k", "F_y, A; a line per class", layers, "x", xlim=(50, row["horizon"]))


D23 = Entry(
    "D.23", GROUP, "B arrives while A is still of its first order",
    "When the total non-robust learning of a class reaches order 1/ascent_lr (our reading: half of (B*)^q), the "
    "largest A is still of order sigma_0 (ten times), for each class with high probability over the initialisation.",
    "(sum_s (B_s)_+^q) >= (B*)^q / 2 at T: max_s A^(T) = O~(sigma_0)",
    parts("t_half", "A_half", "delta"), judge_first_of_all,
    lambda m: Picture("head start of B", "max_s A / (sigma_0 sqrt(2 log m))", [
        *(points(1 + row["delta"], row["A_half"] / order_of(row["setting"]) * OF_ORDER, row["name"] or key,
                 SWEPT[row["name"]], alpha=0.5) for key, row in m.items()),
        mark(y=OF_ORDER, label="of the order")], "xy", xlim=(0.05, 60)),
)  # fmt: skip
D23_AHEAD = Entry(
    "D.23 (head start)", GROUP, "B arrives while A is still of its first order, where it began ahead",
    "When the total non-robust learning of a class reaches order 1/ascent_lr (our reading: half of (B*)^q), the "
    "largest A is still of order sigma_0, if B has the head start that the tensor power lemma asks for (10%): at most "
    "1.5 times the bound of small steps.",
    "max_s A <= max_s A^(0) (1 - (1 + delta)^(2-q))^(-1/(q-2)), delta = max B^(0) / (max A^(0) c^(1/(q-2))) - 1, c "
    "= P_R alpha^q / (P_NR beta^q); exponent of max_s A in sigma_0: 1",
    parts("t_half", "A_half", "delta"), judge_first,
    lambda m: Picture(
        r"head start $\delta$ of B (grey: outside the premise)", r"$\max A$ / its start, when B is there", [
        *(points(row["delta"], np.where(row["a0"] > 0, row["A_half"] / np.maximum(row["a0"], 1e-300), np.nan),
                 row["name"] or key, SWEPT[row["name"]], alpha=0.4) for key, row in m.items()),
        line(DELTA, flow_bound(DELTA, SMALL_RHO.q), "bound (Lemma B.2)", "k"),
        mark(x=(-1, HEAD_START)),
    ], "y", symlog={"x": 0.1}, xlim=(-1, 100)), "ours", weaker_than="D.23",
)  # fmt: skip
D24 = Entry(
    "D.24", GROUP, "A reaches the linear part",
    "In every class the largest A reaches the linear part, alpha A = rho, in polynomial time, and B is then still "
    "at most of order ascent_lr^(-1/q) (our reading: a constant times B*).",
    "T = min{t: max_s A >= rho / alpha}, predicted by the flow A' = kappa A^(q-1): A_0^(2-q) / ((q-2) kappa); "
    f"(sum_s (B_s)_+^q)^(1/q) <= {KEPT:g} B* at T",
    parts("t_linear", "predicted", "both", "B_linear"), judge_linear,
    lambda m: Picture("predicted iteration, flow of A alone", r"iteration of $\max_s A = \varrho/\alpha$", [
        *(points(row["predicted"], np.where(row["both"] == both, row["t_linear"], np.nan), label, SWEPT[row["name"]],
                 marker) for row in m.values() for both, marker, label in (
              (False, "o", "two neurons lead in A and B"), (True, "^", "one neuron leads in both"))),
        *diagonal(300, 3e4, "predicted"),
    ], "xy"),
)  # fmt: skip
D25 = Entry(
    "D.25", GROUP, "The class's output reaches order log k",
    "From there the output F_y grows to order log k in polynomial time, and B stays of order ascent_lr^(-1/q); our "
    "reading: F_y >= log k at the adversarial example, where the loss begins to saturate.",
    "T' = min{t: F_y(x~) >= log k}; T' - T ~ k (log k + 1) / (eta P_R^2 (alpha - eps)^2), from F' = (eta/k) (1 - "
    f"logit) P_R^2 (alpha - eps)^2; (sum_s (B_s)_+^q)^(1/q) <= {KEPT:g} B* at T'",
    parts("t_linear", "t_log_k", "B_log_k", "predicted"), judge_output,
    lambda m: Picture("time from alpha A = rho to F_y = log k, of the predicted time; a dot per class", "", [
        *(points((row["t_log_k"] - row["t_linear"]) / linear_time(row), np.full(row["t_log_k"].shape, float(j)), None,
                 SWEPT[row["name"]], alpha=0.3) for j, row in enumerate(m.values())),
        mark(x=1, label="predicted, one active neuron", style="-"), mark(x=SLOWER, label="bound", color=PAPER),
    ], ticks={"y": (range(len(m)), list(m))}, xlim=(0, 1.6), ylim=(len(m), -1)),
)  # fmt: skip
D26 = Entry(
    "D.26", GROUP, "From then on everything stays bounded",
    "For all later times A stays O~(1) and B of order ascent_lr^(-1/q); our reading: A grows no faster than "
    "logarithmically, since F_y = P_R (alpha - eps) times the sum of the active A does.",
    "max_s A <= O(log t), of slope at most 1 / (P_R (alpha - eps)) in log(t - T'), from F' ~ (eta/k) (k-1) e^(-F) "
    f"P_R^2 (alpha - eps)^2; (sum_s (B_s)_+^q)^(1/q) <= {KEPT:g} B* for all t",
    parts("t_log_k", "slope", "slope_F", "A_max", "B_max", "iteration", "F", "A"), judge_bounded, draw_bounded,
)  # fmt: skip


N_CONFIGURATIONS, RECORD_EVERY, N_ITER = 64, 10, 5000
TYPICAL, MOST = 0.05, 0.15  # relative errors: median, and the largest of nine in ten


def configurations(n: int, seed: int) -> dict[str, np.ndarray]:
    """`n` drawn settings around SMALL_RHO: strengths, threshold, init, rates; eps = beta.

    lr is set so that B of typical start takes off at iteration 250 to 600; lr~ so that lr~ rho, which decides how far
    B* lies below rho, is 3 to 8 (6 in SMALL_RHO).
    """
    rng, s = np.random.default_rng(seed), SMALL_RHO
    c = {
        "alpha": rng.uniform(1.7, 2.4, n),
        "beta": rng.uniform(0.85, 1.15, n),
        "rho": s.rho * rng.uniform(0.7, 1.4, n),
        "init_std": s.init_std * np.exp(rng.uniform(-0.7, 0.7, n)),
    }
    kappa = (1 - 1 / s.n_classes) / s.n_classes * c["rho"] ** (1 - s.q) * s.n_nonrobust * c["beta"] ** s.q
    c["lr"] = 1 / (kappa * 1.5 * c["init_std"] * rng.uniform(250, 600, n))
    c["ascent_lr"] = rng.uniform(3, 8, n) / c["rho"]
    return c


@shared
def measured_times(lab) -> dict:
    """Times of every class of every configuration, measured on the exact recursion and predicted; (n, k) each."""
    c, s = configurations(N_CONFIGURATIONS, lab.seed(0)), SMALL_RHO
    k, P_R, P_NR = s.n_classes, s.n_robust, s.n_nonrobust
    drawn = [State.draw(k, s.n_neurons, s.patch_dim, rng=lab.seed(i), init_std=x) for i, x in enumerate(c["init_std"])]
    phi, gram = (np.concatenate([getattr(one, name) for one in drawn]) for name in ("phi", "gram"))
    laws = [population_types(k, s.n_patches, P_R, a, b) for a, b in zip(c["alpha"], c["beta"])]
    types = Types(*(np.concatenate(parts) for parts in zip(*laws)))
    rates = {"rho": c["rho"], "lr": c["lr"], "ascent_lr": c["ascent_lr"], "eps": c["beta"]}
    state = State(phi, gram, drawn[0].n_orthogonal)
    found = simulate(state, types, q=s.q, n_iter=N_ITER, record_every=RECORD_EVERY, **rates)
    A, B = found.A, found.B
    alpha, beta, rho, lr, ascent = (c[name][:, None] for name in ("alpha", "beta", "rho", "lr", "ascent_lr"))
    lead = LeadingOrder(k, alpha, beta, P_R, P_NR, s.q, rho, lr, ascent, beta)
    level, linear = plateau(beta, s.q, rho, ascent) / 2, rho / alpha
    top_A, top_B = A.max(axis=-1), B.max(axis=-1)
    B_time, A_time = lead.take_off_time("B", top_B[0], level), lead.take_off_time("A", top_A[0], linear)
    left_out = lead.neglected(phi, gram)
    # the premise of Lemma B.2 (elsewhere the robust feature is learned first), and that of the leading order
    leads = (B_time < A_time) & left_out.small
    reached = {
        "take-off": (top_B >= level, B_time),
        "phase two": (phase_two_started(B, beta, s.q, rho, ascent), lead.phase_two_estimate(B[0])),
        "linear part": (top_A >= linear, A_time),
    }
    start = A[0, :, :1], B[0, :, :1]  # the flow of one class per configuration: a solution takes 10 ms
    return {
        **{name: {"measured": first_time(found.iteration, there) - RECORD_EVERY / 2, "closed form": t, "leads": leads}
           for name, (there, t) in reached.items()},
        "flow": {
            "take-off": lead.passage_time(*start, "B", level, rtol=1e-6),
            "phase two": lead.phase_two_time(*start, rtol=1e-6),
            "linear part": lead.passage_time(*start, "A", linear, rtol=1e-6),
        },
        "saturated": float(np.isfinite(found.saturated_at).sum()),
        "small": left_out.small,
    }  # fmt: skip


def errors(m: dict, of: str) -> np.ndarray:
    """predicted / measured - 1 where B leads, little is neglected and the event came within the run; 1 where it
    should never come."""
    predicted = m[of]
    measured, leads = (m[name][:, : predicted.shape[1]] for name in ("measured", "leads"))
    error = np.where(np.isfinite(predicted), predicted / measured - 1, 1.0)
    return error[np.isfinite(measured) & leads]


def judge_times(m: dict) -> Judgement:
    """Flow against measured, the closed form beside it."""
    (typical, most), closed = (np.quantile(np.abs(errors(m, of)), (0.5, 0.9)) for of in ("flow", "closed form"))
    seen = np.isfinite(m["measured"])[m["leads"]].mean()
    what = f"relative error of the flow's time, {N_CONFIGURATIONS} drawn configurations, classes whose B leads"
    return Judgement(
        [Check(f"{what}: median", typical, "<=", TYPICAL, "share"),
         Check(f"{what}: nine in ten", most, "<=", MOST, "share")],
        f"measured at {spread(m['measured'])} iterations, the flow's times {spread(m['flow'])}; error of the closed "
        f"form {closed[0]:.3f} in the median, {closed[1]:.3f} for nine in ten",
        [Check("runs that saturate an orthogonal axis", m["saturated"], "<=", 0),
         Check("share of classes with little neglected, Neglected.small", m["small"].mean(), ">=", 0.5),
         Check("share of all of these whose B leads, t_B < t_A", m["leads"].mean(), ">=", 0.5),
         Check("share of these where it happens within the run", seen, ">=", 0.9)],
    )  # fmt: skip


def times_entry(name, title, statement, formula, color):
    def measure(lab):
        m = measured_times(lab)
        return {**m[name], "flow": m["flow"][name], "saturated": m["saturated"], "small": m["small"]}

    def draw(m):
        measured = np.where(m["leads"], m["measured"], np.nan)
        return Picture("measured, iterations", "predicted, iterations", [
            *diagonal(np.nanmin(m["measured"]), np.nanmax(m["measured"]), None, MOST),
            points(measured, m["closed form"], "closed form, all classes", "0.4", "."),
            points(measured[:, : m["flow"].shape[1]], m["flow"], "flow, one class per configuration", color),
        ], "xy")  # fmt: skip

    return Entry(f"times ({name})", "times", title, statement, formula, measure, judge_times, draw, "ours")


TAKE_OFF = times_entry(
    "take-off", "Take-off of the non-robust feature",
    "Adversarial training: the non-robust feature takes off, max_r B_{i,r} reaches B*/2, when the flow says.",
    "x' = kappa_B x^(q-1), kappa_B = (eta/k)(1 - 1/k) rho^(1-q) P_NR beta^q; closed form: t = (x_0^(2-q) - L^(2-q)) "
    "/ ((q-2) kappa_B)",
    NON_ROBUST,
)  # fmt: skip
PHASE_TWO = times_entry(
    "phase two", "Phase I to Phase II",
    "Phase II starts, an ascent step takes half of a non-robust patch away, when the leading-order flow says.",
    "first t with eta~ sum_r sigma'(beta B_r) B_r >= beta/2; closed form: one neuron, to (1/2)^(1/q) B*",
    NON_ROBUST,
)  # fmt: skip
LINEAR_PART = times_entry(
    "linear part", "Entry into the linear part",
    "The robust feature enters the linear part of the activation (max_r A_{i,r} reaches rho/alpha) when the flow "
    "says.",
    "first t with alpha max_r A_{i,r} >= rho; closed form with kappa_A = (eta/k)(1 - 1/k) rho^(1-q) P_R alpha^q",
    ROBUST,
)  # fmt: skip
