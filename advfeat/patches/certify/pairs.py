"""The bounds of every (sample, rival) pair, patch by patch, and the perturbations met on the way."""

import numpy as np

from ...core import ball
from ...core.progress import Stopwatch
from ...kernels import L1, formulas
from ...kernels.branch_and_bound import GOLDEN, ROOT, UNIT_ROUNDOFF, most_nodes
from .scaling import LARGEST, Scale

OUTSIDE = 64 * UNIT_ROUNDOFF  # of the radius: perturbations of the search that are longer by more are shrunk to it
FEW_NODES = 8  # with more, rivals have parabolas, and a sample may be given up: where a pair's bound would have to rise
HOPE, SHRINK = 3.0, 2.0  # by more than so many times what the last stage raised it, and so many times its upper bound
NEAR = 2.0**-36  # bounds from above and below that are so near, of all preactivations, meet but for rounding
AT_ONCE = 2**15  # nodes between two looks at the clock where there is a time limit, and at least
FEW_PROBLEMS = 64
SHARE = 0.9  # of a pair's upper bound that the gaps of its patches may add up to
DUAL_STEPS = 30  # at least, for a first multiplier: the bounds must be smooth in it
SMALLEST = 2.0**-40  # multiplier, of the largest that can be needed
WINDOW = 4.0  # factor around the last multiplier in which branch and bound looks for a better one
LABEL = 30, 0, 1  # steps, rounds and nodes of the search for the label's least sum
FIRST_TRIES, LATER_TRIES = 16, 4  # of golden section for a multiplier, after the first two

#: Why the work on a sample ended: certified or broken; `max_nodes` were spent; the time was over; its bounds were too
#: far from deciding; boxes are as small as numbers allow; a shared budget's duality gap; the method is a weaker one.
REASONS = (DECIDED, BUDGET, TIME, GIVEN_UP, FLOOR, DUALITY, METHOD) = (
    "decided", "budget", "time limit", "given up", "numerical floor", "duality gap", "method",
)  # fmt: skip


class Pairs:
    """S samples, each with its k - 1 rivals; every refinement works on pairs that do not yet decide their sample.

    X (S, P, d), y, run, eps (S,).  margin (S,), X_adv: the least margin met on the network and its point.  All bounds
    and perturbations, and W, rho, inputs, radius and reach (the radius that is searched) are at scale one.
    """

    def __init__(self, net, X, y, run, eps, norm, budget, scale: Scale, give_up, clock: Stopwatch):
        self.net, self.X, self.y, self.run, self.norm = net, X, y, run, ball.NORMS.index(norm)
        self.scale = scale
        self.W, self.rho, self.inputs, self.radius, self.reach = scale.problem(net.weights, net.rho, X, eps)
        k, _, d = net.shape
        self.S, self.P = X.shape[:2]
        self.shared = budget == "global" and norm != "linf" and self.P > 1
        self.rivals = (y[:, None] + 1 + np.arange(k - 1)) % k
        shape = (self.S, k - 1)
        self.below, self.above = np.full((*shape, self.P), -np.inf), np.full((*shape, self.P), np.inf)
        self.bound = np.full(shape, -np.inf)  # of the pair's margin
        self.delta, self.used = np.zeros((*shape, self.P, d)), np.zeros((*shape, self.P), int)
        self.penalty, self.rise = np.zeros(shape), np.full(shape, np.inf)
        self.give_up, self.clock = give_up, clock
        self.spent = np.zeros((*shape, self.P), bool)  # patches whose last search used all of its nodes
        self.given_up, self.late = np.zeros(self.S, bool), np.zeros(self.S, bool)
        self.margin, self.X_adv = np.full(self.S, np.inf), X.copy()
        self.attempt(np.arange(self.S), X)

    # -------------------------------------------------------------- what is known
    def lower(self):
        """Least bound over the rivals, never above a margin that was met; -inf where the network's margins overflow."""
        bound = np.where(np.isnan(self.bound), -np.inf, self.bound).min(axis=1)
        return np.where(self.margin < np.inf, np.minimum(self.scale.bound(bound), self.margin), -np.inf)

    def nodes(self):
        return self.used.sum(axis=(1, 2))

    def open(self):
        """Pairs that are not certified, of samples that are not broken: (Q,) samples and (Q,) rival places."""
        return np.nonzero(~(self.bound > 0) & (self.margin > 0)[:, None])

    def reason(self, method):
        """Why the work on every sample ended, one of `REASONS`."""
        s, j = self.open()
        above, below = self.above[s, j], self.below[s, j]
        goal = above.sum(axis=1) - self._price(s, j)
        lengths = np.linalg.norm(self.W, axis=-1).sum(axis=-1)
        size = lengths[self.run[s], self.y[s]] + lengths[self.run[s], self.rivals[s, j]]
        size *= np.linalg.norm(self.inputs[s], axis=-1).sum(axis=1) + self.P * self.reach[s]
        met = (above - below).sum(axis=1) <= NEAR * size
        spent, lost, why = np.zeros(self.S, bool), np.zeros(self.S, bool), np.full(self.S, DECIDED, "<U16")
        np.logical_or.at(spent, s, self.spent[s, j].any(axis=1) & ~met)
        np.logical_or.at(lost, s, (goal <= 0) & self.shared)  # the dual function is not positive at this multiplier
        for i in np.unique(s):
            if self.late[i]:
                why[i] = TIME
            elif method != "branch_and_bound":
                why[i] = METHOD
            elif lost[i]:
                why[i] = DUALITY
            elif self.given_up[i]:
                why[i] = GIVEN_UP
            else:
                why[i] = BUDGET if spent[i] else FLOOR
        return why

    def duality_gap(self):
        """The least margin met minus sum_p above_p - price, `above` the least values met at the multiplier in use: the
        rest of upper - lower is the searches'.  NaN where patches do not share their budget, or none was searched."""
        gap = np.full(self.S, np.nan)
        s, j = np.arange(self.S), np.where(np.isnan(self.bound), -np.inf, self.bound).argmin(axis=1)
        dual = self.above[s, j].sum(axis=1) - self._price(s, j)
        known = np.isfinite(dual) & (self.margin < np.inf) & self.shared
        gap[known] = np.maximum(self.margin[known] - self.scale.bound(dual[known]), 0)
        return gap

    def attempt(self, s, X):
        """Try the points X of samples s on the network; several points of one sample may be given."""
        for points in (range(i, min(i + 256, len(s))) for i in range(0, len(s), 256)):
            here, x = s[points], X[points]
            F = self._logits(here, x)
            margin = formulas.margin(F[None], self.y[here][None])[0]
            for q in np.flatnonzero((margin < self.margin[here]) & (margin > -np.inf)):
                if margin[q] < self.margin[here[q]]:  # several points of one sample
                    self.margin[here[q]], self.X_adv[here[q]] = margin[q], x[q]

    def _logits(self, s, X):
        """F (len(s), k), by the engine: samples of every run side by side."""
        runs, place = self.run[s], np.zeros(len(s), int)
        count = np.bincount(runs, minlength=self.net.n_runs)
        for r in np.flatnonzero(count):
            place[runs == r] = np.arange(count[r])
        batch = np.zeros((self.net.n_runs, count.max(), *X.shape[1:]))
        active = np.arange(count.max()) < count[:, None]
        batch[runs, place] = X
        packed = self.net.prepare(batch, np.zeros((self.net.n_runs, count.max()), np.int64), active)
        return self.net.engine.logits(self.net.weights, packed, self.net.q, self.net.rho)[runs, place]

    # -------------------------------------------------------------- work
    def refine(self, n_steps, n_rounds, n_nodes):
        """One stage of search on the open pairs."""
        n_nodes = min(n_nodes, most_nodes(*self.W.shape[2:]))
        s, j = self._hopeful(n_nodes)
        if not len(s) or self._ends(s):
            return
        before = self.bound.copy()
        if self.shared and n_steps:
            new = (self.reach[s] > 0) & ((self.penalty[s, j] == 0) | (n_rounds > 0))
            self._choose_penalty(s[new], j[new], (max(n_steps, DUAL_STEPS * (n_rounds == 0)), n_rounds, n_nodes))
            s, j = self._hopeful(n_nodes)
        goal = np.where(np.isfinite(self.above[s, j]), self.above[s, j], 0.0).sum(axis=1) - self._price(s, j)
        tolerance = SHARE * np.maximum(goal, 0) / self.P if n_nodes > 1 else np.zeros(len(s))
        self._search(s, j, tolerance, n_steps, n_rounds, n_nodes)
        if n_nodes > 1:
            self.rise[s, j] = self.bound[s, j] - before[s, j]

    def _hopeful(self, n_nodes):
        """Open pairs; with many nodes only those of samples whose bounds are within reach."""
        s, j = self.open()
        if self.give_up and n_nodes > FEW_NODES:
            goal = self.above.sum(axis=2) - self._price(np.arange(self.S)[:, None], np.arange(self.bound.shape[1]))
            far = ((-self.bound > HOPE * self.rise) & ~(-self.bound <= SHRINK * goal)).any(axis=1)
            self.given_up[s[far[s]]] = True
        go_on = ~self.given_up[s] & ~self.late[s]
        return s[go_on], j[go_on]

    def _ends(self, s):
        """Whether the time is over, with work left on samples s."""
        if not (self.clock.limited and self.clock.is_up()):
            return False
        self.late[s] = True
        return True

    def _search(self, s, j, tolerance, n_steps, n_rounds, n_nodes):
        gap = self.above[s, j] - self.below[s, j]
        q, p = np.nonzero((self.below[s, j] == -np.inf) | ~(gap <= tolerance[:, None]))
        at = s[q], j[q], p
        rows = np.stack([s[q] * self.P + p, self.run[s[q]], self.y[s[q]], self.rivals[at[:2]]], axis=1)
        numbers = np.stack([self.reach[s[q]], self.penalty[at[:2]], tolerance[q]], axis=1)
        X = self.inputs.reshape(-1, self.inputs.shape[-1])
        options = self.norm, self.net.q, self.rho, n_steps, n_rounds, n_nodes
        size = max(len(q), 1) if not self.clock.limited else max(AT_ONCE // n_nodes, FEW_PROBLEMS)
        for part in (slice(i, i + size) for i in range(0, len(q), size)):
            if part.start and self._ends(s[q[part.start :]]):
                break
            here = tuple(a[part] for a in at)
            found = self.net.engine.search(self.W, X, rows[part], numbers[part], *options, n_nodes > FEW_NODES)
            lower, upper, delta, nodes = found
            self.below[here] = np.fmax(self.below[here], lower)
            better = upper < self.above[here]
            self.above[here] = np.where(better, upper, self.above[here])
            self.delta[tuple(a[better] for a in here)] = delta[better]
            self.used[here] += nodes
            self.spent[here] = (nodes + 2 > n_nodes) & ~(upper - lower <= numbers[part, 2])
        self._conclude(s, j, n_steps > 0)

    def cap(self):
        """Open pairs' bounds by the label's least sum and the cap of the rival's (kernels/caps.py)."""
        s, j = self._hopeful(1)
        if self.shared or not len(s) or self._ends(s):
            return
        q, p = np.nonzero(~(self.above[s, j] <= self.below[s, j]))
        patches, run = s[q] * self.P + p, self.run[s[q]]
        alone, back = np.unique(patches, return_inverse=True)
        W, X = self.W, self.inputs.reshape(-1, self.inputs.shape[-1])
        with_none = np.concatenate([W, np.zeros_like(W[:, :1])], axis=1)  # a rival whose activations are all 0
        owner = alone // self.P
        rows = np.stack([alone, self.run[owner], self.y[owner], np.full(len(alone), W.shape[1])], axis=1)
        numbers = np.stack([self.reach[owner], np.zeros(len(alone)), np.zeros(len(alone))], axis=1)
        options = self.norm, self.net.q, self.rho
        label = self.net.engine.search(with_none, X, rows, numbers, *options, *LABEL)[0][back]
        rows = np.stack([patches, run, self.rivals[s[q], j[q]]], axis=1)
        rival = self.net.engine.caps(W, X, rows, self.reach[s[q]], *options)
        lower = label - rival
        lower -= 4 * UNIT_ROUNDOFF * (np.abs(label) + rival)
        at = s[q], j[q], p
        self.below[at] = np.fmax(self.below[at], lower)
        self._conclude(s, j, False)

    def _price(self, s, j):
        """lambda eps^2 (l_2) or lambda eps (l_1) of a shared budget."""
        reach = self.reach[s]
        return self.penalty[s, j] * reach * (1 if self.norm == L1 else reach)  # reach^2 alone may underflow

    def _conclude(self, s, j, moved):
        """Bounds of the pairs from those of their patches, rounded down, and their perturbations tried out."""
        below, price = self.below[s, j], self._price(s, j)
        total = below.sum(axis=1) - price
        rounding = 2 * (self.P + 4) * UNIT_ROUNDOFF * (np.abs(below).sum(axis=1) + price) + ROOT * self.shared
        self.bound[s, j] = np.fmax(self.bound[s, j], total - rounding)
        if not moved:
            return
        norm, budget = ball.NORMS[self.norm], "global" if self.shared else "patch"
        delta = ball.shrink(self.delta[s, j], self.radius[s], norm, budget, 0 if self.shared else OUTSIDE)
        X = self.X[s] + self.scale.delta(delta)
        self.attempt(s, np.clip(X, -LARGEST, LARGEST) if self.scale.inputs > 0 else X)

    def _choose_penalty(self, s, j, effort):
        """The multiplier that maximises the dual function sum_p min (h_p + lambda psi) - lambda eps^2, as bounded below
        by a search of this effort, by golden section in its logarithm: the dual function is concave in lambda.

        The first time in the whole range that can matter, later within `WINDOW` of the last choice.  Every lambda >= 0
        is sound.  lambda is a unit, which scales with the problem, times exp(x), so that bounds scale with it.
        """
        W, run = self.W, self.run[s]
        size = (np.abs(W).max(axis=-1) if self.norm == L1 else np.linalg.norm(W, axis=-1)).sum(axis=-1)  # (R, k)
        most = size[run, self.y[s]] + size[run, self.rivals[s, j]]
        if self.norm != L1:
            most = most * np.sqrt(self.P) / (2 * self.reach[s])
        s, j, most = s[most > 0], j[most > 0], most[most > 0]
        last = self.penalty[s, j]
        unit = np.where(last > 0, last, most)
        low, high = (np.log(np.where(last > 0, *ends)) for ends in ((1 / WINDOW, SMALLEST), (WINDOW, 1)))
        best, chosen = np.full(len(s), -np.inf), most

        def dual(where):
            nonlocal best, chosen
            self.penalty[s, j], self.below[s, j], self.above[s, j] = unit * np.exp(where), -np.inf, np.inf
            self._search(s, j, np.zeros(len(s)), *effort)
            found = self.below[s, j].sum(axis=1) - self._price(s, j)
            better = found > best
            best, chosen = np.where(better, found, best), np.where(better, self.penalty[s, j], chosen)
            return found

        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        at_left, at_right = dual(left), dual(right)
        for _ in range(FIRST_TRIES if not last.any() else LATER_TRIES):
            to_left = at_left > at_right
            low, high = np.where(to_left, low, left), np.where(to_left, right, high)
            new = np.where(to_left, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
            at_new = dual(new)
            left, right = np.where(to_left, new, right), np.where(to_left, left, new)
            at_left, at_right = np.where(to_left, at_new, at_right), np.where(to_left, at_left, at_new)
        self.penalty[s, j], self.below[s, j], self.above[s, j] = chosen, -np.inf, np.inf
