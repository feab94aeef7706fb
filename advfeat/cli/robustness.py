"""Robust accuracy against the radius, certificates below and attacks above, for a run's networks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core import checks, store
from ..core.lock import Lock
from ..core.progress import Stopwatch
from . import common


def add_arguments(parser):
    parser.add_argument("run", metavar="RUN", help="run folder of advfeat reproduce")
    grid = {"metavar": "EPS", "nargs": "+", "help": "START:STOP:N or radii (default 0.05:1.2:24)"}
    parser.add_argument("--eps-grid", **grid)
    parser.add_argument("--samples", type=int, default=100, metavar="N", help="per seed (default 100)")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="S", help="these seeds of the run (default all)")
    nodes = "branch and bound's budget per patch and rival (default 512, less for hopeless samples)"
    parser.add_argument("--max-nodes", type=int, metavar="N", help=nodes)
    narrow = "both radii are narrowed to a quarter of this share of themselves (default 0.001)"
    parser.add_argument("--rtol", type=float, default=1e-3, metavar="SHARE", help=narrow)
    parser.add_argument("--out", metavar="DIR", help="folder (default RUN/robustness)")
    common.add_output(parser, force="remove what the folder holds of other networks or options, or a finished answer")


@dataclass(frozen=True)
class CurvesFile:
    """The file in which one network's curves stand after each step, and what they are the curves of."""

    path: Path
    identity: dict

    def load(self):
        """The step and the arrays of `save`, or None; CheckpointError where they are another network's."""
        if not self.path.exists():
            return None
        head, arrays = store.load_state(self.path)
        if head["identity"] != self.identity:
            raise _foreign(self.path)
        return head["step"], arrays

    def save(self, step: int, arrays: dict) -> None:
        store.save_state(self.path, {"identity": self.identity, "step": step}, arrays)


def run(args) -> int:
    from ..experiments.figure3 import samples_of
    from ..reporting.robustness_page import FILES, radii_rows, write
    from ..robustness.curves import EPS_GRID, MOST_RADII, grid, memory_of, sandwich, summary

    held, config = common.open_run(args.run)
    options = {"max_nodes": None if args.max_nodes is None else checks.integer("max_nodes", args.max_nodes, 1)}
    options |= {"rtol": checks.number("rtol", args.rtol, above=0)}
    n_radii, radii = (len(EPS_GRID), lambda: EPS_GRID) if args.eps_grid is None else _radii(args.eps_grid, MOST_RADII)
    shape = config.n_seeds, checks.integer("samples", args.samples, 1), config.n_patches, config.patch_dim
    needed = memory_of(shape, n_radii, len(held.nets))
    common.reserve(args, needed, "give fewer --samples or radii")
    eps = grid(radii())
    seeds, data = samples_of(config, args.samples, args.seeds)
    rows = [config.seeds.index(seed) for seed in seeds]
    nets = {name: net.with_weights(net.W[rows]) for name, net in held.nets.items()}
    options |= {"norm": config.norm, "ascent_lr": config.ascent_lr, "n_steps": config.pgd_steps}
    options |= {"n_restarts": config.pgd_restarts, "rng": seeds}
    shared = {"data": store.digest(data.X, data.y), "eps": eps.tolist(), **options}
    identity = {name: {"weights": net.fingerprint(), **shared} for name, net in nets.items()}
    out = store.make_folder(args.out or Path(args.run) / "robustness")
    with common.continued(out), Lock(out):
        states = {name: CurvesFile(out / f"{name}.state.npz", identity[name]) for name in nets}
        if args.force:
            common.remove([*(out / name for name in reversed(FILES)), *out.glob("*.state.npz")])
        numbers = _finished(out / FILES[-2], out / FILES[-1], identity)
        for state in states.values():
            state.load()  # refuses another's before any work
        if numbers is None:
            found = {}
            with common.Bar(args) as bar:
                for number, (name, net) in enumerate(nets.items()):
                    part = Stopwatch(bar).part(number / len(nets), (number + 1) / len(nets))
                    found[name] = sandwich(net, data, eps, progress=part, state=states[name], **options)
            write(found, nets, data, seeds, config, out, store.environment(), identity)
            numbers = {name: summary(s, seeds) for name, s in found.items()}
        common.remove(state.path for state in states.values())
    figures = out / "robustness.png", out / "worst_example.png"
    document = {"folder": out, "eps": eps, "norm": config.norm, "seeds": seeds, "networks": numbers}
    where = f"Figures: {figures[0]}, {figures[1]}\nReport: {out / FILES[-1]}"
    common.show(args, document | {"figures": figures, "report": out / FILES[-1]}, radii_rows(numbers), where)
    return 0


def _finished(path, page, identity) -> dict | None:
    """The numbers of a finished answer, per network; CheckpointError where they are those of other networks."""
    if not path.exists():
        return None
    held = store.load_json(path)
    if held.get("identity") != identity:
        raise _foreign(path)
    return {name: held["networks"][name]["seeds"] for name in identity} if page.exists() else None


def _foreign(path):
    what = "of other networks, samples or options, nothing was changed; --force begins anew"
    return store.CheckpointError(f"{path}: {what}")


def _radii(values: list[str], most: int):
    """How many radii START:STOP:N or the radii themselves are, at most `most`, and a function that makes them."""
    try:
        if len(values) == 1 and ":" in values[0]:
            start, stop, n = values[0].split(":")
            start, stop, n = float(start), float(stop), checks.integer("eps_grid", int(n), 1, most)
            return n, lambda: np.linspace(start, stop, n)
        held = [float(value) for value in values]
        return len(held), lambda: held
    except ValueError:
        raise ValueError(f"--eps-grid {' '.join(values)}: must be START:STOP:N or radii, at most {most:,}") from None
