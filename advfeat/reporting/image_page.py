"""Pages of trainings on images and of their evaluations: curves, numbers, adversarial images with their margins."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

import numpy as np

from ..core import store
from ..experiments.images import NETWORK, RESULT, TRANSCRIPT, ImageRun
from ..images import exchange
from ..robustness.transcript import CLEAN, STANDS, Transcript
from .page import PAGE, table
from .style import ACCURACY, NON_ROBUST, ROBUST, legend_below, save, styled, subplots

TITLES = {"standard": "Standard", "pgd": "PGD", "fgsm": "FGSM", "trades": "TRADES"}
COLUMNS = 10  # of the grid of adversarial images


def percent(value) -> str:
    return f"{100 * value:.1f} %"


# ------------------------------------------------------------------ trainings
def curves(run: ImageRun):
    """Loss, and accuracies on training and validation images, along a training."""
    history, best = run.history, run.iterations["best"]
    with styled():
        figure, (left, right) = subplots(1, 2, figsize=(9, 3.4))
        left.plot(history["iteration"], history["loss"], color=ACCURACY)
        left.set(xlabel="iteration", ylabel="cross-entropy on training images", ylim=(0, None))
        series = (("train_accuracy", "training images", ACCURACY, ":"),
                  ("validation_accuracy", "validation images", ACCURACY, "-"),
                  ("validation_robust", f"under PGD-{run.config.pgd_steps}, eps = {run.config.eps:g}", ROBUST, "-"),
                  ("validation_fgsm", "under FGSM", NON_ROBUST, "--"))  # fmt: skip
        for name, label, colour, line in series:
            clock, values = history.at(name)
            right.plot(clock, values, line, color=colour, label=label)
        right.axvline(best, color="0.75", lw=1, zorder=0, label="the best network")
        right.set(xlabel="iteration", ylabel="accuracy", ylim=(0, 1.02))
        legend_below(figure)
        return figure


def outcome_rows(results: dict) -> tuple[list[str], list[list[str]]]:
    """Of result.json by run."""
    rows = []
    for run, held in results.items():
        for name, one in held["networks"].items():
            rows.append([run, f"{name} ({one['iteration']})", percent(one["accuracy"]), percent(one["pgd"]),
                         f"{one['eps']:g} ({one['norm']})", one["n_test"]])  # fmt: skip
    return ["run", "network (iteration)", "test accuracy", "under PGD-20", "eps", "test images"], rows


def write_report(run: ImageRun) -> Path:
    """training.png and report.html of a training."""
    save(curves(run), run.path / "training", ("png",))
    held = store.load_json(run.path / "result.json")
    about = store.load_json(run.path / "config.json")["environment"]
    warned = "".join(f"<p><b>Warning:</b> {escape(line)}</p>" for line in run.warnings)
    body = [f"<h1>{escape(TITLES[run.config.training])} training on {escape(run.config.dataset)}</h1>", warned,
            f"<p class=note>The best network is chosen on {percent(run.config.validation)} of the training images that "
            "no step has seen; the test images were read once, at the end.</p>",
            table(*outcome_rows({run.path.name: held})), picture_of(run.path / "training.png"),
            "<h2>Configuration</h2>", table(["key", "value", "default", "unit", "meaning"],
                                            [list(row) for row in run.config.rows()]),
            "<h2>Environment</h2>", table(["", ""], [[k, v] for k, v in about.items()])]  # fmt: skip
    return write_page(run.path / "report.html", f"{TITLES[run.config.training]} training on {run.config.dataset}", body)


# ------------------------------------------------------------------ evaluations
def evaluation_rows(found: dict) -> tuple[list[str], list[list[str]]]:
    """Of `experiments.images.evaluate`."""
    rows = [["test images", found["n"]], ["eps", f"{found['eps']:g} ({found['norm']})"],
            ["network", f"{found['checkpoint']} (iteration {found['iteration']})"],
            ["accuracy", percent(found["accuracy"])],
            ["robust accuracy, worst of all attacks", percent(found["robust_accuracy"])]]  # fmt: skip
    rows += [[f"broken first by {name}", found["broken_by"][name]] for name in found["attacks"]]
    rows += [[f"images whose {name} gradient is exactly 0", percent(share)]
             for name, share in found["zero_gradients"].items()]  # fmt: skip
    if "certified_accuracy" in found:
        rows += [["certified by intervals", percent(found["interval_accuracy"])],
                 ["certified", percent(found["certified_accuracy"])],
                 ["undecided: neither broken nor certified", percent(found["undecided"])]]  # fmt: skip
    return ["", "value"], rows


def grid(transcript: Transcript, guesses, classes):
    """Images, what an attack adds (magnified) and where it leads, with what the network says and by which margin."""
    broken = np.flatnonzero((transcript.broken_by != STANDS) & (transcript.broken_by != CLEAN))
    stands = np.flatnonzero(transcript.broken_by == STANDS)
    several = max(COLUMNS - 3, COLUMNS - len(stands))
    chosen = np.concatenate([broken[:several], stands[: COLUMNS - len(broken[:several])]])
    chosen = chosen if len(chosen) else np.arange(min(COLUMNS, len(transcript.y)))
    eps = transcript.head["eps"]

    def picture(ax, x, low, high):
        x = np.clip((x - low) / (high - low), 0, 1)
        ax.imshow(x[0] if len(x) == 1 else np.moveaxis(x, 0, -1), cmap="gray", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[])
        ax.grid(False)

    with styled(**{"axes.spines.left": False, "axes.spines.bottom": False}):
        figure, axes = subplots(3, len(chosen), figsize=(1.15 * len(chosen) + 0.6, 4.1), squeeze=False)
        for column, i in zip(axes.T, chosen):
            move = transcript.X_adv[i] - transcript.X[i]
            scale = eps if transcript.head["norm"] == "linf" else max(np.abs(move).max(), 1e-12)
            picture(column[0], transcript.X[i], 0, 1)
            picture(column[1], move, -scale, scale)
            picture(column[2], transcript.X_adv[i], 0, 1)
            column[0].set_title(classes[transcript.y[i]], fontsize=8)
            colour = ROBUST if transcript.broken_by[i] == STANDS else NON_ROBUST
            column[2].set_xlabel(f"{classes[guesses[i]]}\nmargin {transcript.margin[i]:.2g}", fontsize=7, color=colour)
        for ax, label in zip(axes[:, 0], ("image", "perturbation", "adversarial")):
            ax.set_ylabel(label, fontsize=8)
        return figure


def write_evaluation(folder) -> Path:
    """examples.png and report.html of an evaluation."""
    folder = Path(folder)
    transcript, found = Transcript.load(folder / TRANSCRIPT), store.load_json(folder / RESULT)["found"]
    net = exchange.load(folder / NETWORK)
    guesses = net.logits(transcript.X_adv).argmax(axis=1)
    save(grid(transcript, guesses, found["classes"]), folder / "examples", ("png",))
    note = ("Every attack ran on what the earlier ones left; an image counts as robust where all of them failed. The "
            "worst point of every image is kept in transcript.npz, and <code>advfeat images verify</code> checks each "
            "with NumPy alone.")  # fmt: skip
    body = [f"<h1>Robust evaluation on {escape(found['dataset'])}</h1>", f"<p class=note>{note}</p>",
            table(*evaluation_rows(found)), "<h2>Adversarial images</h2>",
            picture_of(folder / "examples.png")]  # fmt: skip
    return write_page(folder / "report.html", f"Robust evaluation on {found['dataset']}", body)


def picture_of(path) -> str:
    return f'<img src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'


def write_page(path: Path, title: str, body) -> Path:
    page = PAGE.format(title=escape(title), body="\n".join(body))
    store.write(path, lambda file: file.write(page), "w")
    return path
