"""The page of advfeat explore in headless Chromium: from a slider's event to drawn curves, and times of diagrams.

``python benchmarks/explorer.py [--quick] [--chromium PATH]`` (extra ``explore``, and Playwright), the server in a
process of its own on the same cores:

- events: a slider is moved again as soon as the last state is drawn, both trainings, 8 seeds, k = m = 5, 4,000
  iterations; from the event to the second frame after the answer came, by which Bokeh has painted it;
- a drag: events at 60 a second, of which the page answers the newest; the same time, of those that were answered;
- diagrams: from a change that asks for a new one to its first pass and its last, 24 x 24 cells of 2 seeds and 2,000
  iterations, standard and adversarial; the pause before a diagram begins counts.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
from playwright.sync_api import sync_playwright

STATE = "n_seeds=8&n_classes=5&n_neurons=5&n_iter=4000"
WAIT = 120_000  # milliseconds

SETTLED = "(s => !s.waiting && !s.dirty && s.drawn === s.number)(advfeat.state())"
MOVE = """at => { const slider = document.getElementById('slide-beta'); slider.value = at;
  slider.dispatchEvent(new Event('input')); }"""
DRAG = """n => new Promise(done => { let i = 0; const move = () => {
  const slider = document.getElementById('slide-beta');
  slider.value = 400 + 400 * i / n;
  slider.dispatchEvent(new Event('input'));
  if (++i < n) setTimeout(move, 1000 / 60); else done(); }; move(); })"""
#: Milliseconds until the diagram's note says that a pass is done, the first and the last.
DIAGRAM = """([control, value]) => new Promise(done => {
  const start = performance.now(), note = document.getElementById('diagram-note');
  let coarse = null, begun = false;
  new MutationObserver(() => {
    const share = Number(note.dataset.done), now = performance.now() - start;
    if (share === 0) begun = true;
    if (begun && share > 0 && coarse === null) coarse = now;
    if (begun && share === 1) done([coarse, now]);
  }).observe(note, {attributes: true});
  const box = document.getElementById('box-' + control);
  box.value = value;
  box.dispatchEvent(new Event('input')); })"""


def settled(page):
    page.wait_for_function(SETTLED, timeout=WAIT)


def latencies(page, act) -> np.ndarray:
    """Milliseconds from event to drawn curves, of the events that `act` makes."""
    page.evaluate("performance.clearMeasures('explorer')")
    act()
    settled(page)
    return np.array(page.evaluate("performance.getEntriesByName('explorer').map(entry => entry.duration)"))


def say(what: str, times) -> None:
    median, late = np.median(times), np.percentile(times, 95)
    print(f"{what:<44} median {median:7.0f} ms, 95th percentile {late:7.0f} ms, {len(times)} times", flush=True)


def measure(page, address: str, n: int) -> None:
    page.goto(f"{address}?{STATE}", timeout=WAIT)
    page.wait_for_function("document.body.dataset.ready && document.querySelector('#premises li')", timeout=WAIT)
    page.wait_for_selector("#diagram-note[data-done='1']", timeout=WAIT)

    def one_by_one():
        for at in np.linspace(400, 800, n):
            page.evaluate(MOVE, float(at))
            settled(page)

    one_by_one()  # warm
    say("slider to drawn curves, one by one", latencies(page, one_by_one))
    say("slider to drawn curves, dragged", latencies(page, lambda: page.evaluate(DRAG, 4 * n)))
    settled(page)
    page.wait_for_selector("#diagram-note[data-done='1']", timeout=WAIT)
    for training in ("standard", "adversarial"):
        page.locator("#box-training").select_option(training)
        settled(page)
        page.wait_for_selector("#diagram-note[data-done='1']", timeout=WAIT)
        times = []
        for i in range(max(n // 10, 3)):
            times.append(page.evaluate(DIAGRAM, ["beta", f"{0.8 + 0.02 * i:g}"]))
            settled(page)
        for what, one in zip(("first pass", "all cells"), np.transpose(times)):
            say(f"{training} diagram, {what}", one)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="a tenth of the events")
    options.add_argument("--chromium", default=shutil.which("chromium"), help="the browser (default: on the path)")
    args = options.parse_args()
    command = [sys.executable, "-m", "advfeat", "explore", "--port", "0", "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://\S+", server.stdout.readline())[0]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            print(f"Chromium {browser.version}, {os.cpu_count()} cores")
            measure(page, address, 10 if args.quick else 100)
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
