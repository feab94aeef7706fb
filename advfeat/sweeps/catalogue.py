"""What a sweep measures, by name: numbers at the recorded times, times of events, and claims decided at the end."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

OneEngine = Literal["network", "recursion"]
Engine = Literal[OneEngine, "both"]
Training = Literal["standard", "adversarial"]
Design = Literal["grid", "random", "sobol"]
ENGINES: tuple[OneEngine, ...] = get_args(OneEngine)
TRAININGS: tuple[Training, ...] = get_args(Training)
DESIGNS: tuple[Design, ...] = get_args(Design)
TABLE = "results.parquet"
DIGEST = "results_sha256"  # of the table, in sweep.json; None until there is one, and not there in version 0.1.0
CLAIM_LEVEL = 0.95  # "1 - o(1)" at a finite size, and 1 - CLAIM_LEVEL for "o(1)"; as in `advfeat.validation.figure3`


@dataclass(frozen=True)
class Metric:
    """One number per run.

    Attributes
    ----------
    label : what figures call it
    engines : which of "network", "recursion", and "both" (the two side by side) give it
    kind : "share" (in [0, 1]), "number", or "time" (an iteration; no row where the event did not happen)
    recorded : one value per recorded time; else one value per run, in the row of the last iteration
    trainings : the trainings that it makes sense for
    costly : attacks or certificates; measured only where a spec asks for it by name
    """

    label: str
    engines: tuple[str, ...] = ENGINES
    kind: str = "number"
    recorded: bool = True
    trainings: tuple[str, ...] = TRAININGS
    costly: bool = False


def _shares(**labels):
    return {name: Metric(label, ("network",), "share") for name, label in labels.items()}


def _attacked(**labels):
    return {name: Metric(label, ("network",), "share", costly=True) for name, label in labels.items()}


def _times(trainings=TRAININGS, engines=ENGINES, **labels):
    return {name: Metric(label, engines, "time", False, trainings) for name, label in labels.items()}


#: Strengths are (sum_s (A_s)_+^q)^(1/q) of a class, A_s = <w_{i,s}, u_i>, B_s = <w_{i,s}, v_i>; means over classes.
#: A class's feature has taken off at the first time looked at with max_s A_s >= 5 max_s A_s(0); times are medians over
#: classes.
METRICS: dict[str, Metric] = {
    "A": Metric("strength of the robust feature"),
    "B": Metric("strength of the non-robust feature"),
    "A_max": Metric("largest correlation with the robust feature"),
    "B_max": Metric("largest correlation with the non-robust feature"),
    "robust_wins": Metric("share of classes whose robust feature is stronger", kind="share"),
    "B_over_plateau": Metric("strength of the non-robust feature / B*", trainings=("adversarial",)),
    "loss": Metric("training loss", ("network",)),
    **_shares(
        train_accuracy="training accuracy",
        test_accuracy="test accuracy",
        robust_feature_accuracy="accuracy on the robust feature alone",
        non_robust_feature_accuracy="accuracy on the non-robust feature alone",
    ),
    **_attacked(
        robust_accuracy="robust accuracy at eps_test, worst of all attacks",
        certified_accuracy="certified accuracy at eps_test",
        swap_accuracy="accuracy under the feature swap of radius eps",
        train_robust_accuracy="robust accuracy at eps_test on the training samples",
    ),
    **_times(
        take_off_A="take-off of the robust feature, iteration",
        take_off_B="take-off of the non-robust feature, iteration",
        take_off_A_predicted="predicted take-off of the robust feature, iteration",
        take_off_B_predicted="predicted take-off of the non-robust feature, iteration",
        crossing="robust feature ahead for good, iteration",
        diverged_at="diverged at iteration",
    ),
    **_times(("adversarial",), phase_two="start of Phase II, iteration"),
    **_times(("adversarial",), ("recursion",), saturated_at="recursion exact until iteration"),
    "deviation": Metric("largest |network - recursion| of correlations, relative", ("both",), recorded=False),
    "same_winners": Metric("network and recursion agree on every class's winner", ("both",), "share", False),
}


@dataclass(frozen=True)
class Claim:
    """A claim of Theorem 4.3 or 4.4: `metric` at the last iteration of `training` is >= CLAIM_LEVEL, or with `low`
    <= 1 - CLAIM_LEVEL.  In results it is the metric ``claim_<label>``, 0 or 1."""

    statement: str
    training: str
    metric: str
    low: bool = False

    def holds(self, value):
        return value <= 1 - CLAIM_LEVEL if self.low else value >= CLAIM_LEVEL


CLAIMS: dict[str, Claim] = {
    "claim_4.3.1": Claim("standard training: training samples are right", "standard", "train_accuracy"),
    "claim_4.3.2": Claim(
        "standard training: right on the non-robust feature alone", "standard", "non_robust_feature_accuracy"
    ),
    "claim_4.3.3": Claim("standard training: fresh samples are right", "standard", "test_accuracy"),
    "claim_4.3.4": Claim("standard training: the feature swap breaks it", "standard", "swap_accuracy", low=True),
    "claim_4.4.1": Claim("adversarial training: training samples robust at eps_test", "adversarial",
                         "train_robust_accuracy"),
    "claim_4.4.2": Claim("adversarial training: right on the robust feature alone", "adversarial",
                         "robust_feature_accuracy"),
    "claim_4.4.3": Claim("adversarial training: fresh samples robust at eps_test", "adversarial", "robust_accuracy"),
}  # fmt: skip

METRICS |= {
    name: Metric(claim.statement, ("network",), "share", False, (claim.training,)) for name, claim in CLAIMS.items()
}


def count_runs(points: Iterable[tuple], axes: Iterable[str], n_seeds: int, n_trainings: int, engine: str) -> int:
    """The runs of a sweep's possible points (their values of `axes`).

    A run is one training of one seed that is done, by a network or by a recursion: points that differ in `eps_test`
    alone, or not at all, share theirs, and engine "both" does two.
    """
    kept = [i for i, name in enumerate(axes) if name != "eps_test"]
    return len({tuple(point[i] for i in kept) for point in points}) * n_seeds * n_trainings * engines_of(engine)


def engines_of(engine: str) -> int:
    """How many engines train every run of a sweep's `engine`."""
    return len(ENGINES) if engine == "both" else 1
