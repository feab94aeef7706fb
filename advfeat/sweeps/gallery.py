"""`advfeat plot`: figures of a finished sweep, and index.html with all of them, their numbers and the spec."""

import base64
from html import escape
from pathlib import Path

from ..core import store
from ..core.lock import Lock
from ..reporting.page import PAGE, table
from ..reporting.style import save
from .captions import caption, claims_rows, numbers
from .drawing import short
from .figures import draw
from .results import REQUEST, Results, check_folder, load
from .selection import Selection, check, name_of
from .spec import runs_in_words

MOST_LISTED = 200  # skipped points on the page; sweep.json has all
#: The shape of figures/index.json (`store.conform`); a table is its head and its rows.
FIGURE = {"name": str, "request": REQUEST, "caption": str, "numbers": [str], "table?": [list, [list]]}
INDEX = {"figures": [FIGURE]}


def plot(folder, requests: list[dict] | None = None) -> list[Path]:
    """Draw requests (default: the plots of the sweep's spec) into FOLDER/figures and rewrite FOLDER/index.html.

    A request has the keys of a spec's [[plot]]: `metric`; `x`, `y`, `facet` (a swept field, or strength_ratio,
    robust_share, density_ratio, noise_to_signal, eps_over_beta); `training`, `engine`, `iteration` where there is a
    choice; `at`, {axis: value} of axes that are not drawn.  ``metric = "claims"`` needs no x.  Figures drawn before
    stay on the page; the same request again replaces its own.

    Returns
    -------
    the files written: a PNG and a PDF per request, and index.html

    Raises
    ------
    ValueError
        A request that does not fit the sweep, naming key, value and rule; nothing is drawn then.
    FileNotFoundError, CheckpointError
        See `results.load`; CheckpointError also where another process writes in the folder.
    """
    with Lock(check_folder(folder)):
        return _plot(load(folder), requests)


def _plot(results: Results, requests: list[dict] | None) -> list[Path]:
    wanted = results.spec["plots"] if requests is None else requests
    wanted = [check(request, results.axes, results.spec["design"] == "grid") for request in wanted]
    chosen = [Selection.make(results, request) for request in wanted]
    place = store.make_folder(results.folder / "figures")
    store.remove_temporaries(place)
    shown, files = _drawn_before(place), []
    for request, selection in zip(wanted, chosen):
        name = name_of(request)
        figure = draw(selection)
        said = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        save(figure, place / name)
        files += [place / f"{name}.png", place / f"{name}.pdf"]
        entry = {"name": name, "request": request, "caption": caption(selection, said), "numbers": numbers(selection)}
        if selection.metric == "claims" and "x" not in request:
            entry["table"] = claims_rows(selection)
        n = next((n for n, old in enumerate(shown) if old["name"] == name), len(shown))
        shown[n : n + 1] = [entry]
    store.save_json(place / "index.json", {"figures": shown})
    page = PAGE.format(title=f"advfeat sweep: {escape(results.spec['title'])}", body=_body(results, shown, place))
    store.write(results.folder / "index.html", lambda file: file.write(page), "w")
    return [*files, results.folder / "index.html"]


def _drawn_before(place: Path) -> list[dict]:
    if not (place / "index.json").is_file():
        return []
    held = store.load_json(place / "index.json")
    store.conform(place / "index.json", held, INDEX)
    return [entry for entry in held["figures"] if (place / f"{entry['name']}.png").is_file()]


# ------------------------------------------------------------------ the page
def _figure(entry: dict, place: Path) -> str:
    picture = base64.b64encode((place / f"{entry['name']}.png").read_bytes()).decode()
    request, held = entry["request"], entry.get("table")
    drawn = " over ".join([request["metric"], ", ".join(request[key] for key in ("x", "y") if key in request)])
    drawn = drawn.replace("over every", "over every axis")
    lines = "".join(f"<li>{escape(line)}</li>" for line in entry["numbers"])
    return f"""<h2>{escape(drawn.removesuffix(" over "))}</h2>
<img alt="{escape(entry["caption"])}" src="data:image/png;base64,{picture}">
<p class="note">{escape(entry["caption"])}</p>
{f"<ul>{lines}</ul>" if lines else ""}{table(*held) if held else ""}"""


def _told(axis: dict) -> list[str]:
    """Values and their number of an axis."""
    if "values" not in axis:
        return [f"{short(axis['low'])} to {short(axis['high'])}, {axis['scale']}", ""]
    held = axis["values"]
    if len(held) > 8:
        return [f"{', '.join(map(short, held[:3]))}, ..., {short(held[-1])}", str(len(held))]
    return [", ".join(map(short, held)), str(len(held))]


def _body(results: Results, shown: list[dict], place: Path) -> str:
    spec, left_out = results.spec, len(results.skipped)
    head = (
        f"{spec['design'].capitalize()} design, {results.n_points:,} points"
        + (f", {left_out:,} of them impossible and skipped" if left_out else "")
        + f"; {len(results.seeds)} seeds, {' and '.join(spec['training'])} training, engine: {spec['engine']}; "
        f"{runs_in_words(results.n_runs, spec['engine'])}."
    )
    settings = [[key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)]
                for key, value in spec.items() if key not in ("base", "axes", "plots")]  # fmt: skip
    figures = "".join(_figure(entry, place) for entry in shown)
    empty = '<p class="note">No figure yet: <code>advfeat plot DIR --x FIELD --y FIELD --metric NAME</code>.</p>'
    return f"""
<h1>{escape(spec["title"])}</h1>
<p class="note">{escape(head)} All numbers: results.parquet, one row per point, training, engine, seed, time and
metric.</p>
{figures or empty}
<h2>The sweep</h2>
{table(["axis", "values", "number"], [[name, *_told(axis)] for name, axis in results.axes.items()])}
<details open><summary>Settings</summary>{table(["key", "value"], settings)}</details>
<details><summary>Constant fields</summary>
{table(["field", "value"], [[k, repr(v)] for k, v in spec["base"].items() if k not in results.axes])}</details>
{_skipped(results)}
<details><summary>Versions</summary>
{table(["part", "version"], [[k, v] for k, v in results.environment.items()])}</details>
"""


def _skipped(results: Results) -> str:
    if not results.skipped:
        return ""
    n = len(results.skipped)
    rows = [
        [one["point"], ", ".join(f"{name} = {short(value)}" for name, value in one["fields"].items()), one["reason"]]
        for one in results.skipped[:MOST_LISTED]
    ]
    more = f"; the first {MOST_LISTED} of them, sweep.json has all" if n > MOST_LISTED else ""
    return f"""<details><summary>Skipped points: {n:,}{more}</summary>
{table(["point", "fields", "reason"], rows)}</details>"""
