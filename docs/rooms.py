"""Draw the rooms of the library and the imports between them: python docs/rooms.py writes docs/rooms.png."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
from house import FLOORS, graph, modules, room  # noqa: E402

COLORS = {"kernels": "#cc79a7", "core": "#999999", "attacks": "#d55e00", "theory": "#e69f00", "patches": "#0072b2",
          "training": "#56b4e9", "robustness": "#009e73"}  # fmt: skip
GROUND = ("kernels", "core")


def main() -> int:
    lines, files = Counter(), Counter()
    for name, path in modules().items():
        lines[room(name)] += len(path.read_text(encoding="utf-8").splitlines())
        files[room(name)] += 1
    between = Counter((room(a), room(b)) for a, others in graph().items() for b in others if room(a) != room(b))
    shown = [[r for r in sorted(floor, key=lambda r: -lines[r]) if lines[r]] for floor in FLOORS]
    figure = Figure(figsize=(10, 10.5), layout="constrained")
    axis, place = figure.subplots(), {}
    for level, rooms in enumerate(shown):
        left = -sum(width(lines[r]) + 0.25 for r in rooms) / 2
        for r in rooms:
            place[r] = left + width(lines[r]) / 2, level
            left += width(lines[r]) + 0.25
    for r, (x, y) in place.items():
        w, color = width(lines[r]), COLORS.get(r, "#f0c000")
        axis.add_patch(FancyBboxPatch((x - w / 2, y - 0.17), w, 0.34, boxstyle="round,pad=0.03", fc=color, alpha=0.3))
        label = "advfeat (public names)" if r == "public" else r
        axis.text(x, y + 0.05, label, ha="center", va="center", fontsize=9, fontweight="bold")
        size = f"{files[r]} file{'s' * (files[r] > 1)}, {lines[r]:,} lines"
        axis.text(x, y - 0.09, size, ha="center", va="center", fontsize=6.5)
    for (a, b), n in between.items():
        (xa, ya), (xb, yb) = place[a], place[b]
        if ya > yb and (a in ("cli", "public") or b in GROUND):
            continue  # these import all rooms, and all rooms those
        bend = 0.25 * np.sign(xb - xa or 1) * (ya - yb > 1)
        look = {"lw": 0.4 + 0.25 * np.sqrt(n), "alpha": 0.55, "color": "#d00000" if ya <= yb else "0.35"}
        look |= {"arrowstyle": "-|>", "mutation_scale": 7, "connectionstyle": f"arc3,rad={bend}"}
        axis.add_patch(FancyArrowPatch((xa, ya - 0.21), (xb, yb + 0.21), **look))
    widest = max(sum(width(lines[r]) + 0.25 for r in rooms) for rooms in shown) / 2
    axis.set(xlim=(-widest - 0.1, widest + 0.1), ylim=(-0.4, len(shown) - 0.6))
    axis.set_axis_off()
    title = "Rooms and imports (width: lines).  All rooms import the two on the ground, the two at the top all rooms."
    axis.set_title(title)
    figure.savefig(HERE / "rooms.png", dpi=130)
    return 0


def width(lines: int) -> float:
    """Of a room with so many lines; wide enough for its name."""
    return max(lines / 1600, 1.15)


if __name__ == "__main__":
    sys.exit(main())
