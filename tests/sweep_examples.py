"""Made-up sweeps of every kind that the pictures know."""

import numpy as np
from sweep_folders import folder

from advfeat.sweeps.catalogue import CLAIMS
from advfeat.theory import density_ratio, plateau, robust_window


def log_density(f):
    return np.log(max(density_ratio(f["alpha"], f["beta"], f["n_patches"], f["n_robust"], f["q"]), 1e-9))


def winner(path, n=12, **extra):
    """Who wins over (alpha, P_R): the robust feature where c > 1, with a random band around it."""

    def rule(f, seed):
        noise = np.random.default_rng([seed, int(1e6 * f["alpha"]), f["n_robust"]]).normal()
        return {("robust_wins", "standard", "recursion", None): log_density(f) > 0.12 * noise}

    axes = {"alpha": np.geomspace(1, 8, n).tolist(), "n_robust": sorted({int(v) for v in np.linspace(1, 32, n)})}
    return folder(path, axes, rule, training=["standard"], n_seeds=8, **extra)


def certified(path, n=13):
    """Certified accuracy over (eps, eps_test): high in the window where eps >= beta."""

    def rule(f, seed):
        low, high = robust_window(f["alpha"], f["beta"], f["n_patches"], f["n_robust"], f["q"])
        share = float(f["eps_test"] < high) if f["eps"] >= f["beta"] else float(f["eps_test"] < low)
        return {("certified_accuracy", "adversarial", "network", None): share * (1 - 0.02 * seed),
                ("certified_accuracy", "standard", "network", None): float(f["eps_test"] < low)}  # fmt: skip

    axes = {"eps": np.linspace(0.4, 1.6, n).tolist(), "eps_test": np.linspace(0.3, 0.8, n).tolist()}
    return folder(path, axes, rule, engine="network", training=["standard", "adversarial"])


def take_off(path, n=9, facets=None, skipped=()):
    """Take-off over (init_std, q): never where it would come after the last iteration."""

    def rule(f, seed):
        q, start = f["q"], f["init_std"] * (1 + 0.1 * seed) * np.sqrt(2 * np.log(20))
        time = 40 * start ** (2 - q) * f["rho"] ** (q - 3) if q > 2 else 90 * np.log(10 / start)
        found = {("take_off_B_predicted", "standard", "recursion", None): 1.1 * time}
        return found | {("take_off_B", "standard", "recursion", None): time if time < 4000 else np.nan}

    axes = {"init_std": np.geomspace(0.01, 1, n).tolist(), "q": [2, 3, 4]}
    if facets:
        axes["rho"] = facets
    return folder(path, axes, rule, training=["standard"], base={"rho": 10.0}, skipped=skipped)


def plateaus(path, facets=(1.0, 0.5)):
    """B over the ascent rate at two training radii; the plateau holds at eps >= beta."""

    def rule(f, seed):
        level = plateau(f["beta"], f["q"], f["rho"], f["ascent_lr"]) if f["eps"] >= f["beta"] else 9.0
        return {
            (name, "adversarial", "recursion", when): value * (0.97 - 0.01 * seed) * (1 if when is None else 0.5)
            for name, value in (("B", level), ("B_over_plateau", level / plateau(1.0, 3, 100.0, f["ascent_lr"])))
            for when in (2000, None)
        }

    return folder(path, {"ascent_lr": np.geomspace(5, 100, 9).tolist(), "eps": list(facets)}, rule)


def sobol(path, n=128, skipped=()):
    """Claims and certified accuracy over a box of four fields; every claim holds where c < 0.8."""
    draws = np.random.default_rng(3).random((n, 4)).tolist()
    columns = zip(*((2 + 3 * a, 10 ** (-2 + b), 5 + int(25 * c), [2, 3, 4][int(3 * e)]) for a, b, c, e in draws))
    points = dict(zip(("alpha", "noise_std", "n_neurons", "q"), map(list, columns)))

    def rule(f, seed):
        good = log_density(f) + 3 * f["noise_std"] < np.log(0.8) + 0.02 * seed
        names = {(name, claim.training, "network", None): float(good or name < "claim_4.3.3")
                 for name, claim in CLAIMS.items()}  # fmt: skip
        return names | {("certified_accuracy", "adversarial", "network", None): 0.9 * good,
                        ("B", "adversarial", "network", None): 1 + f["alpha"] ** 2 + 0.1 * seed}  # fmt: skip

    axes = {
        "alpha": {"low": 2.0, "high": 5.0, "scale": "linear"}, "noise_std": {"low": 0.01, "high": 0.1, "scale": "log"},
        "n_neurons": {"low": 5, "high": 30, "scale": "linear"}, "q": {"values": [2, 3, 4]},
    }  # fmt: skip
    return folder(path, axes, rule, points=points, design="sobol", engine="network", skipped=skipped,
                  training=["standard", "adversarial"])  # fmt: skip
