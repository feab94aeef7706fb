"""Whose bits `compare.py --bits` compares: groups of arrays that one version of the package computes.

``python compare_bits.py FILE GROUP ...`` writes the arrays of the named groups to FILE (.npz), named "group|array",
with whatever ``advfeat`` is imported; a group that fails leaves its error as the array "error".  No group works on what
another one computed (`compare_inputs`), so a change of one part shows in that part's groups and in few others.
``--names`` instead of a file prints the groups.
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
from compare_inputs import Q, Shape, command, scratch, settings

import advfeat as af
from advfeat import theory

ENGINES, DTYPES = ("numba", "numpy"), ("float32", "float64")
NORMS, OBJECTIVES = ("linf", "l2"), ("neg_label_logit", "margin", "cross_entropy")
# Norm, budget and the radii at which some samples fall and others stand: of ATTACKED and of FEW.
BALLS = (
    ("linf", "patch", 0.33, 0.78),
    ("l2", "patch", 0.87, 1.25),
    ("l2", "global", 1.7, 1.9),
    ("l1", "patch", 0.94, 1.35),
    ("l1", "global", 2.5, 2.5),
)

# No size is a multiple of a register, of a tile or of another: every remainder of every loop is met.  With this rho and
# the rates below, features are learned and ascents saturate within 60 iterations.
SMALL = Shape(R=3, k=3, m=7, d=37, P=11, n=19, rho=2.0)
WHOLE_RUNS = Shape(R=16, k=2, m=3, d=9, P=5, n=10, rho=2.0)  # as many as fill the threads, each on its own
PASSES = Shape(R=1, k=3, m=184, d=600, P=5, n=9, rho=2.0)  # more weights and inputs than one pass over the caches takes
LONG = Shape(R=2, k=2, m=5, d=18, P=300, n=12, rho=2.0)  # samples longer than a chunk of lanes
NOISELESS = Shape(R=3, k=3, m=7, d=37, P=50, n=19, noise=0.0, rho=2.0)  # repeated patches are kept once
ATTACKED = Shape(R=2, k=3, m=6, d=21, P=9, n=11)
FEW = Shape(R=2, k=2, m=3, d=7, P=3, n=2)  # for the NumPy engine's certificates: its search is a Python loop
LEARNED = {"robust": 3.0, "noise": 0.4}  # bounds of all methods differ on these networks

ASCENT = {"adversarial": True, "ascent_lr": 40.0, "eps": 1.0}
TRAININGS = {
    "standard": (SMALL, {}),
    "adversarial": (SMALL, ASCENT),
    **{
        f"{objective}-{norm}": (SMALL, ASCENT | {"objective": objective, "norm": norm, "n_ascent": 3})
        for objective in OBJECTIVES
        for norm in NORMS
    },
    "rates-per-run": (SMALL, ASCENT | {"lr": [0.2, 0.5, 0.9], "ascent_lr": [10.0, 40.0, 70.0], "eps": [0.3, 1, 2]}),
    "minibatches": (SMALL, {"batch_size": 5, "seed": [3, 4, 5]}),
    "minibatches-adversarial": (SMALL, ASCENT | {"batch_size": 8, "seed": 6}),
    "whole-runs": (WHOLE_RUNS, ASCENT),
    "passes": (PASSES, ASCENT | {"n_iter": 4, "record_every": 2}),
    "long-samples": (LONG, ASCENT | {"n_iter": 10}),
    "noiseless": (NOISELESS, {}),
    "noiseless-adversarial": (NOISELESS, ASCENT),
}


# ------------------------------------------------------------------ training and the network
def training(shape, options, engine, dtype):
    """Weights and the whole history; a run alone beside the batch."""
    config = af.TrainConfig(**{"lr": 0.5, "n_iter": 60, "record_every": 7} | options)
    data, test, net = shape.data(dtype=dtype), shape.data(1, dtype), shape.fresh(engine, dtype)
    found = af.train(net, data, config, test)
    out = {"W": found.net.W} | {f"history/{name}": values for name, values in found.history.items()}
    if shape is SMALL and all(np.ndim(value) == 0 for value in options.values()):
        found = af.train(net.run(1), (data.X[1], data.y[1]), config)
        out |= {"alone/W": found.net.W, "alone/loss": found.history["loss"]}
    return out


def network(shape, engine, dtype):
    """Answers of a network: logits, losses, gradients, margins, predictions, the paper's ascent, intervals."""
    out, data = {}, shape.data(dtype=dtype)
    for state in ("fresh", "learned"):
        net = getattr(shape, state)(engine, dtype)
        loss, gradient = net.loss_and_grad(data.X, data.y)
        more = [net.with_weights(share * net.W).loss_and_grad(data.X, data.y)[0] for share in np.linspace(0.1, 1.0, 10)]
        out |= {f"{state}/logits": net.logits(data.X), f"{state}/loss": loss, f"{state}/gradient": gradient}
        out[f"{state}/losses"] = np.array(more)  # one number each: several, so that one rounding more or less is seen
        out |= {f"{state}/margin": net.margin(data.X, data.y), f"{state}/predicted": net.predict(data.X)}
        for J in OBJECTIVES:
            out[f"{state}/input_grad/{J}"] = net.input_grad(data.X, data.y, J)
            for norm in NORMS:
                ascent = {"lr": 40.0, "eps": 0.7, "objective": J, "norm": norm, "n_steps": 2}
                out[f"{state}/ascent/{J}/{norm}"] = af.one_step_ascent(net, data.X, data.y, **ascent)
        for norm in ("linf", "l2", "l1"):
            out[f"{state}/interval/{norm}"] = af.interval_margin(net, data.X, data.y, eps=0.3, norm=norm)
        out |= {f"{state}/{name}": value for name, value in af.correlations(net, data.features).items()}
        for feature in ("robust", "non_robust"):
            out[f"{state}/{feature}"] = af.feature_learning_accuracy(net, data, feature)
    return out


# ------------------------------------------------------------------ attacks and certificates
def _fields(name, found, fields):
    return {f"{name}/{field}": getattr(found, field) for field in fields}


def _attacks(k):
    """Every attack with the options that change its path."""
    return [
        af.FeatureSwap(), af.FeatureSwap(all_classes=True), af.FGSM(), af.FGSM("margin"), af.OneStepAscent(40.0),
        af.OneStepAscent(40.0, "margin", n_steps=3), af.Aligned(), af.PGD("cross_entropy", 7), af.PGD("margin", 7, 2),
        af.PGD("neg_label_logit", 5), af.PGD("margin", 6, momentum=0.7, schedule="cosine", name="pgd_momentum"),
        af.APGD("cross_entropy", 8), af.APGD("margin", 8), af.Rescue(), af.Square(15),
        *([af.PGD("dlr", 5), af.APGD("dlr", 8), af.PGD("margin", 5, all_targets=True)] if k > 2 else []),
    ]  # fmt: skip


RESULT = ("X_adv", "margin", "success", "iterations", "gradient_calls", "forward_calls")


def _attacked(threat, engine, skipped=(), shape=ATTACKED):
    net, data, out = shape.learned(engine, **LEARNED), shape.data(), {}
    for attack in _attacks(shape.k):
        if attack.name not in skipped:
            out |= _fields(attack.name, attack(net, data, threat, rng=[7, 8]), RESULT)
    return out


def attack(norm, budget, eps, _, engine):
    return _attacked(af.ThreatModel(norm, eps, budget), engine)


def targeted(engine):
    """Targets, a box and a radius per sample, each in turn: what the fused loops do not know."""
    data, k = ATTACKED.data(), ATTACKED.k
    spread = np.linspace(0.5, 1.5, data.y.size).reshape(data.y.shape)
    threats = {
        "targets": af.ThreatModel(eps=0.4, targets=(data.y + 1) % k),
        "box": af.ThreatModel(eps=0.4, box=(float(data.X.min()), float(data.X.max()))),
        "radii": af.ThreatModel("l2", spread),
    }
    needs_four_classes = [a.name for a in _attacks(k) if "dlr" in a.name]
    others = [a.name for a in _attacks(k) if getattr(a, "all_targets", False)]
    out = {}
    for name, threat in threats.items():
        found = _attacked(threat, engine, needs_four_classes + others if name == "targets" else ())
        out |= {f"{name}/{key}": value for key, value in found.items()}
    return out


def suite(engine):
    """Suites that stop early and that do not, and robust accuracy between attacks and certificates."""
    net, data, out = ATTACKED.learned(engine, **LEARNED), ATTACKED.data(), {}
    for norm, budget, eps, _ in BALLS:
        threat = af.ThreatModel(norm, eps, budget)
        for early in (True, False):
            found = af.AttackSuite([af.FeatureSwap(), af.Aligned(), af.PGD("margin", 5), af.Rescue()], stop_early=early)
            found, name = found(net, data, threat, rng=3), f"{norm}/{budget}/{'early' * early or 'all'}"
            out |= _fields(name, found, ("X_adv", "margin", "success", "clean", "robust"))
            out |= {f"{name}/broken_by/{by}": mask for by, mask in found.broken_by.items()}
        options = {"certificate": "interval", "ascent_lr": 40.0, "n_steps": 5, "seed": [1, 2]}
        found = af.robust_accuracy(net, data, eps=eps, norm=norm, budget=budget, **options)
        out |= _fields(f"{norm}/{budget}", found, ("correct", "certified", "interval_certified", "standing"))
        out |= {f"{norm}/{budget}/broken/{by}": mask for by, mask in found.broken.items()}
    return out


def certificate(norm, budget, eps, eps_few, engine):
    """Every method at radii where some samples are certified, some broken and some in between."""
    shape, eps, shares = (FEW, eps_few, (1.0,)) if engine == "numpy" else (ATTACKED, eps, (0.85, 1.0))
    net, data, out = shape.learned(engine, **LEARNED), shape.data(), {}
    for method in ("interval", "linear", "tangents", "branch_and_bound"):
        for share in shares:
            options = {"norm": norm, "budget": budget, "method": method, "max_nodes": 8}
            found = af.certify(net, data.X, data.y, share * eps, **options)
            out |= _fields(f"{method}/{share}", found, ("lower", "upper", "X_adv", "nodes"))
    return out


def radius(norm, budget, eps, eps_few, engine):
    """Largest certified and smallest broken radii, looked for up to twice `eps`."""
    shape, eps = (FEW, eps_few) if engine == "numpy" else (ATTACKED, eps)
    net, data = shape.learned(engine, **LEARNED), shape.data()
    options = {"norm": norm, "budget": budget, "rtol": 0.05, "max_nodes": 2, "high": 2 * eps}
    found = af.robust_radius(net, data.X[:, :4], data.y[:, :4], **options)
    return _fields("radius", found, ("certified", "broken", "X_adv"))


# ------------------------------------------------------------------ theory
def recursion(training, start, engine):
    """Correlations, norms, gram matrices and flags, by K = 25 neurons (no multiple of a register) and by K = 24.

    With drawn states the flags rest on probabilities, with weights on the axes themselves."""
    out, common = {}, {"q": Q, "n_iter": 240, "record_every": 40, "backend": engine}
    ascent = {"eps": 0.3, "n_ascent": 2, "after_saturation": "continue"}
    ascent |= dict(zip(("objective", "norm"), training.split("-")))
    for k, m in ((5, 5), (3, 8)):
        shape = Shape(R=3, k=k, m=m, d=40, P=16, n=10)
        types = theory.population_types(k, shape.P, 2, 3.0, 1.0)
        for rho, lr, rate in ((100.0, 60.0, 8.0), (2.0, 1.0, 1.0)):  # in the activation's polynomial part, and beyond
            if start == "weights":
                state = theory.State.from_weights(shape.fresh("numpy", "float64").W, shape.law().features)
            else:
                state = theory.State.draw(k, m, shape.d, rng=[0, 1, 2], init_std=0.1)
            options = {} if training == "standard" else ascent | {"ascent_lr": rate}
            found = theory.simulate(state, types, rho=rho, lr=lr, **common, **options)
            fields = ("iteration", "phi", "norm", "gram", "saturated_at", "risk", "diverged_at")
            out |= _fields(f"K{k * m}/rho{rho:g}", found, fields)
    return out


def draws():
    """Random draws: data, initial weights, states, types and the feature swap's classes."""
    data, out = SMALL.data(), {}
    out |= {name: getattr(data, name) for name in ("X", "y", "robust", "strength")}
    out |= {f"representative/{f}": data.representative(f).X for f in ("robust", "non_robust")}
    out["W"] = af.PatchCNN.init(3, 4, 9, rng=[5, 6], init_std=0.1, dtype="float32").W
    for d in (12, 500):
        out |= _fields(f"state/{d}", theory.State.draw(3, 5, d, rng=[0, 1]), ("phi", "gram"))
    types = theory.empirical_types(data.y, data.robust, data.strength, SMALL.k)
    out |= {f"types/{name}": getattr(types, name) for name in ("y", "weight", "feature", "strength", "count")}
    out["swap"] = af.feature_swap(data, eps=0.4, seed=[1, 2, 3])
    return out


def predictions():
    """Leading order, flow and plateau."""
    state = theory.State.draw(5, 20, 100, rng=[0, 1, 2], init_std=0.1)
    A, B = (np.stack([state.phi[:, i, :, j + i] for i in range(5)], axis=1) for j in (0, 5))
    lead = theory.LeadingOrder(5, 3.0, 1.0, 1, 63, Q, 100.0, 12.5, ascent_lr=40.0, eps=1.0)
    return {"phase_two_time": lead.phase_two_time(A, B), "plateau": np.array(theory.plateau(1.0, Q, 100.0, 40.0))}


# ------------------------------------------------------------------ the command line
TINY = {"n_classes": 3, "n_neurons": 4, "patch_dim": 14, "n_patches": 9, "n_train": 9, "n_test": 8, "n_iter": 60,
        "n_records": 2, "lr": 50.0, "eps_test": 0.2}  # fmt: skip


def reproduce(engine, dtype):
    """Histories, checkpoints and the summary of a tiny `advfeat reproduce`."""
    with scratch() as folder:
        command("reproduce", "--out", "run", "--seeds", 2, "--backend", engine, "--dtype", dtype,
                *settings(**TINY), folder=folder)  # fmt: skip
        run, out = af.load(folder / "run"), {}
        for name, net in run.nets.items():
            out[f"{name}/W"] = net.W
            out |= {f"{name}/{key}": _measured(values) for key, values in run.histories[name].items()}
    return out


def _measured(values):
    """The rows in which something was measured: earlier versions write NaN between them."""
    rows = np.asarray(values, float).reshape(len(values), -1)
    return values[~np.isnan(rows).all(axis=1)]


SWEEP = """
[sweep]
engine = "both"
metrics = ["A", "B", "robust_wins", "loss", "certified_accuracy", "take_off_B", "deviation"]
[base]
{base}
[axes]
alpha = [1.5, 3.0]
eps = [0.5, 1.0]
"""


def sweep(engine):
    """The numbers of `results.parquet`, row by row."""
    import pyarrow.parquet

    base = TINY | {"n_seeds": 2, "noise_std": 0.0, "backend": engine}
    with scratch() as folder:
        lines = (f"{key} = {value!r}" for key, value in base.items())
        (folder / "spec.toml").write_text(SWEEP.format(base="\n".join(lines)))
        command("sweep", "spec.toml", "--out", "out", folder=folder)
        table = pyarrow.parquet.read_table(folder / "out" / "results.parquet")
    columns = {name: table[name].to_numpy() for name in sorted(table.column_names)}
    return {name: values.astype(str) if values.dtype == object else values for name, values in columns.items()}


# ------------------------------------------------------------------ the groups
def _groups():
    """Name -> function without arguments; the parts of a name: what, how, engine, dtype."""
    out = {"draws": draws, "predictions": predictions}
    for engine in ENGINES:
        for dtype in DTYPES:
            for name, (shape, options) in TRAININGS.items():
                if engine == "numpy" and shape in (PASSES, LONG):
                    continue  # it has neither passes nor chunks, and takes its time
                out[f"training/{name}/{engine}/{dtype}"] = partial(training, shape, options, engine, dtype)
            for name, shape in {"small": SMALL, "passes": PASSES, "long-samples": LONG}.items():
                if engine != "numpy" or shape is SMALL:
                    out[f"network/{name}/{engine}/{dtype}"] = partial(network, shape, engine, dtype)
            out[f"reproduce/{engine}/{dtype}"] = partial(reproduce, engine, dtype)
        for name in ("standard", *(f"{objective}-{norm}" for objective in OBJECTIVES for norm in NORMS)):
            for start in ("weights", "drawn"):
                out[f"recursion/{name}/{start}/{engine}"] = partial(recursion, name, start, engine)
        for norm, budget, *eps in BALLS:
            for what, function in {"attacks": attack, "certificate": certificate, "radius": radius}.items():
                if engine != "numpy" or function is not radius or budget == "patch":  # minutes, by the NumPy engine
                    out[f"{what}/{norm}/{budget}/{engine}"] = partial(function, norm, budget, *eps, engine)
        out[f"attacks/threats/{engine}"] = partial(targeted, engine)
        out[f"suite/{engine}"] = partial(suite, engine)
        out[f"sweep/{engine}"] = partial(sweep, engine)
    return out


GROUPS = _groups()


def arrays_of(name: str) -> dict[str, np.ndarray]:
    """The arrays of one group, or its error."""
    try:
        return {key: np.asarray(value) for key, value in GROUPS[name]().items()}
    except Exception as error:
        return {"error": np.array(f"{type(error).__name__}: {error}")}


def main(file, *names):
    if file == "--names":
        print(*(f"{name} always" for name in GROUPS), sep="\n")
        return
    np.seterr(all="ignore")  # some runs diverge, and that they do is compared
    np.savez(file, **{f"{name}|{key}": array for name in names for key, array in arrays_of(name).items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
