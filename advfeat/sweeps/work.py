"""What a worker does with a batch: train its runs as one array, by networks, recursions or both, and measure."""

import time

import numba
import numpy as np

from ..core.rng import stream
from ..kernels.cpu import engine as cpu_engine
from ..patches.attacks import feature_swap
from ..patches.data import PatchData
from ..patches.features import q_sum
from ..patches.network import PatchCNN
from ..robustness.evaluate import Evaluation, measuring_attacks
from ..theory import Recursion, State, empirical_types, phase_two_started, simulate
from ..theory.events import TAKE_OFF, deviation, first_time, for_good, took_off
from ..theory.timing import log_flow_time, log_growth_rate
from ..training.configuration import TrainConfig
from ..training.loop import train
from .plan import SweepBatch, look_every


def work(batch: SweepBatch, threads: int) -> tuple[dict[str, np.ndarray], float]:
    """The batch's results, on `threads` threads of this process, and the seconds they took.

    "iteration" (T,) are the recorded times; ``engine/metric`` (U, T) recorded metrics and (U,) the others, U in the
    order of `batch.keys`; NaN where there is none.
    """
    begin, before = time.perf_counter(), cpu_engine.get_num_threads()
    cpu_engine.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    try:
        return Work(batch).results(), time.perf_counter() - begin
    finally:
        cpu_engine.set_num_threads(before)


class Work:
    """One batch: per-run numbers as vectors (R,), results by engine."""

    def __init__(self, batch: SweepBatch):
        self.task, self.runs = batch.task, batch.runs
        self.first, self.seeds = batch.runs[0].config, [run.seed for run in batch.runs]
        self.adversarial = batch.task.training == "adversarial"
        self.eps_test = np.array([run.eps_test for run in batch.runs]).T  # (E, R)
        self.every = look_every(self.first, self.task.n_looks)

    def each(self, name: str) -> np.ndarray:
        """A configuration field of every run, (R,)."""
        return np.array([getattr(run.config, name) for run in self.runs])

    def results(self) -> dict[str, np.ndarray]:
        c, engine, found = self.first, self.task.engine, {}
        step = c.n_iter // c.n_records
        if engine != "recursion":
            net = self.network()
            found["network"], history = self.train(net)
        if engine != "network":
            theory = self.simulate(None if engine == "recursion" else net)
            found["recursion"] = self.dynamics({"A": theory.A, "B": theory.B, "iteration": theory.iteration})
            found["recursion"] |= {"diverged_at": theory.diverged_at, "saturated_at": theory.saturated_at}
        if engine == "both":
            found["both"] = self.compared(history, theory)
        out = {"iteration": np.arange(c.n_records + 1) * step}
        for name, metrics in found.items():
            out |= {f"{name}/{metric}": self.by_key(values) for metric, values in metrics.items()}
        return out

    def by_key(self, values):
        """(R, ...) or (R, E, ...) as a `ByRadius` -> (R E, ...): every radius of a run has its own row."""
        if isinstance(values, ByRadius):
            return values.array.reshape(-1, *values.array.shape[2:])
        return np.repeat(values, len(self.eps_test), axis=0)

    # -------------------------------------------------------------- networks
    def network(self) -> PatchCNN:
        nets = [run.config.network(seeds=[run.seed]) for run in self.runs]
        return PatchCNN(np.concatenate([net.W for net in nets]), nets[0].q, nets[0].rho, self.first.backend)

    def data(self, part: str) -> PatchData:
        held = [run.config.data(part, [run.seed]) for run in self.runs]
        arrays = (np.concatenate([getattr(d, name) for d in held]) for name in ("X", "y", "robust", "strength"))
        return PatchData(*arrays, held[0].features)

    def train(self, net: PatchCNN):
        """Metrics of the trained networks, and the training's history."""
        c, ascent = self.first, {}
        if self.adversarial:
            ascent = {"adversarial": True, "ascent_lr": self.each("ascent_lr"), "eps": self.each("eps")}
        names = ("n_iter", "objective", "n_ascent", "norm", "batch_size")
        config = TrainConfig(
            lr=self.each("lr"), seed=self.seeds, record_every=self.every, **{n: getattr(c, n) for n in names}, **ascent
        )
        data = self.data("train")
        probe = Probe(self, data)
        with np.errstate(over="ignore", invalid="ignore"):  # where a run diverges
            result = train(net, data, config, metrics=probe, diverged="drop")
        history, at = result.history, result.history["iteration"] % (c.n_iter // c.n_records) == 0
        found = {name: history[name][at].T for name in ("loss", "train_accuracy")}
        found |= {name: history[name][at].T for name in probe.plain}
        found |= {name: ByRadius(np.moveaxis(history[name][at], 0, -1)) for name in probe.by_radius}
        return found | self.dynamics(history) | {"diverged_at": result.diverged_at}, history

    # -------------------------------------------------------------- recursions
    def simulate(self, net: PatchCNN | None) -> Recursion:
        """The exact recursions of the same runs, from `net`'s weights, or drawn as the task says."""
        c = self.first
        if self.task.start == "drawn":
            states = [
                State.draw(c.n_classes, c.n_neurons, c.patch_dim, rng=[stream(r.seed, "init")],
                           init_std=r.config.init_std) for r in self.runs
            ]  # fmt: skip
            state = State(*(np.concatenate([getattr(s, n) for s in states]) for n in ("phi", "gram")),
                          states[0].n_orthogonal)  # fmt: skip
        else:
            net = self.network() if net is None else net
            state = State.from_weights(net.W, c.distribution().features)
        drawn = [
            r.config.distribution().sample_types(c.n_train, stream(r.seed, "train_data"), balanced=r.config.balanced)
            for r in self.runs
        ]
        types = empirical_types(*(np.stack(arrays) for arrays in zip(*drawn)), c.n_classes)
        ascent = {}
        if self.adversarial:
            ascent = {"ascent_lr": self.each("ascent_lr"), "eps": self.each("eps"), "objective": c.objective}
            ascent |= {"norm": c.norm, "n_ascent": c.n_ascent, "after_saturation": "continue"}
        rates = {"rho": self.each("rho"), "lr": self.each("lr")}
        return simulate(
            state, types, q=c.q, n_iter=c.n_iter, record_every=self.every, backend=c.backend, **rates, **ascent
        )

    def compared(self, history: dict, theory: Recursion) -> dict:
        """How far networks are from their recursions, and whether every class's stronger feature is the same."""
        apart = deviation(history, theory)
        ends = [{"A": history["A"][-1], "B": history["B"][-1]}, {"A": theory.A[-1], "B": theory.B[-1]}]
        ahead = [q_sum(end["A"], self.first.q) > q_sum(end["B"], self.first.q) for end in ends]
        known = np.all([np.isfinite(end["A"]).all(axis=(1, 2)) for end in ends], axis=0)
        with np.errstate(invalid="ignore"):
            largest = np.where(np.isnan(apart).all(axis=0), np.nan, np.nanmax(np.nan_to_num(apart), axis=0))
        return {
            "deviation": largest,
            "same_winners": np.where(known, (ahead[0] == ahead[1]).all(axis=1), np.nan),
        }

    # -------------------------------------------------------------- both
    def dynamics(self, history: dict) -> dict:
        """What A and B (T, R, k, m) at the looks say: strengths at the records, times of events."""
        c, times = self.first, history["iteration"]
        A, B = (q_sum(history[f], c.q) for f in ("A", "B"))
        at = times % (c.n_iter // c.n_records) == 0

        def recorded(values):
            return values[at].mean(axis=-1).T

        found = {"A": recorded(A), "B": recorded(B)}
        found |= {f"{f}_max": recorded(history[f].max(axis=-1)) for f in ("A", "B")}
        found["robust_wins"] = recorded(np.where(np.isnan(A), np.nan, A > B))
        found["crossing"] = middle(for_good(times, A > B))
        for feature, strength, n in (
            ("A", self.each("alpha"), self.each("n_robust")),
            ("B", self.each("beta"), self.each("n_patches") - self.each("n_robust")),
        ):
            found[f"take_off_{feature}"] = middle(first_time(times, took_off(history, feature)))
            start = history[feature][0].max(axis=-1)
            rate = log_growth_rate(strength, n, c.n_classes, c.q, self.each("rho"), self.each("lr"))
            with np.errstate(over="ignore"):
                predicted = np.exp(log_flow_time(start, TAKE_OFF * start, rate[:, None], c.q))
            found[f"take_off_{feature}_predicted"] = middle(predicted)
        if self.adversarial:
            rates = [self.each(n)[:, None] for n in ("beta", "rho", "ascent_lr")]
            started = phase_two_started(history["B"], rates[0], c.q, *rates[1:])
            found["phase_two"] = middle(first_time(times, started))
            plateaus = [run.config.plateau() for run in self.runs]
            found["B_over_plateau"] = found["B"] / np.array(plateaus)[:, None]
        return found


class ByRadius:
    """Values (R, E, ...) that depend on the test radius."""

    def __init__(self, array: np.ndarray):
        self.array = array


def middle(times: np.ndarray) -> np.ndarray:
    """Median over classes of times (R, k), never (NaN or infinite) counted as the latest; NaN where it is never."""
    found = np.median(np.where(np.isfinite(times), times, np.inf), axis=1)
    return np.where(np.isfinite(found), found, np.nan)


class Probe:
    """What is measured beside correlations, at the recorded times only (NaN in between)."""

    def __init__(self, work: Work, train_data: PatchData):
        self.work, self.costly = work, set(work.task.costly)
        self.train_data, self.test = train_data, work.data("test")
        self.kept = {name: self.test.representative(name) for name in ("robust", "non_robust")}  # Def. 4.1
        R, radii = len(work.runs), len(work.eps_test)
        self.plain = ["test_accuracy", "robust_feature_accuracy", "non_robust_feature_accuracy"]
        self.plain += sorted(self.costly & {"swap_accuracy"})
        self.by_radius = sorted(self.costly - {"swap_accuracy"})
        self.blank = {name: np.full(R, np.nan) for name in self.plain}
        self.blank |= {name: np.full((R, radii), np.nan) for name in self.by_radius}

    def __call__(self, net: PatchCNN, iteration: int) -> dict:
        work = self.work
        if iteration % (work.first.n_iter // work.first.n_records):
            return self.blank
        found = {"test_accuracy": net.accuracy(self.test.X, self.test.y)}
        found |= {f"{name}_feature_accuracy": net.accuracy(d.X, d.y) for name, d in self.kept.items()}
        if self.costly:
            found |= self.attacked(net.astype(np.float64))
        return found

    def attacked(self, net):
        work, found = self.work, {}
        if "swap_accuracy" in self.costly:
            swapped = feature_swap(self.test, eps=work.each("eps"), norm=work.first.norm, seed=work.seeds)
            found["swap_accuracy"] = net.accuracy(swapped, self.test.y)
        if self.costly & {"robust_accuracy", "certified_accuracy"}:
            both = self.between(net, self.test, "robust_accuracy" in self.costly)
            found |= {name: both[name] for name in both if name in self.costly}
        if "train_robust_accuracy" in self.costly:
            found["train_robust_accuracy"] = self.between(net, self.train_data, True)["robust_accuracy"]
        return found

    def between(self, net, data, attacks):
        """Certified and, with `attacks`, robust accuracy at every radius, (R, E).

        Certificates from the largest radius down, attacks from the smallest up, each on what is open there.
        """
        work, c, task = self.work, self.work.first, self.work.task
        known = Evaluation(net, data, norm=c.norm, seed=work.seeds)
        for eps in work.eps_test[::-1]:
            known.prove(eps, "interval")
            if task.certificate != "interval":
                known.prove(eps, task.certificate, task.max_nodes)
        for eps in work.eps_test if attacks else ():
            for attack in measuring_attacks(work.each("ascent_lr"), c.pgd_steps, c.pgd_restarts):
                known.attack(eps, attack)
        found = [known.at(eps) for eps in work.eps_test]
        shares = {"certified_accuracy": [one.certified_accuracy for one in found]}
        if attacks:
            shares["robust_accuracy"] = [one.robust_accuracy for one in found]
        return {name: np.array(values).T for name, values in shares.items()}
