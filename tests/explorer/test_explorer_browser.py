"""The page in headless Chromium, driven by Playwright: drags, clicks, typing, links, Tab, tabs and foreign origins."""

import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from advfeat.explorer.controls import POINT

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: .ci/run page installs it")
pytest.importorskip("bokeh")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a chromium on the path")
SMALL = "n_iter=200&n_seeds=2&n_classes=3&n_neurons=2&patch_dim=10"
WAIT = 120_000  # milliseconds


@pytest.fixture(scope="module")
def address():
    """Of a server that is told to let in any origin, and does not."""
    command = [sys.executable, "-m", "advfeat", "explore", "--port", "0", "--no-browser"]
    environment = os.environ | {"BOKEH_ALLOW_WS_ORIGIN": "*"}
    one = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    yield re.search(r"http://\S+", one.stdout.readline())[0]
    one.send_signal(signal.SIGINT)
    assert one.wait(120) == 0


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture
def tab(browser, address):
    """open(query) -> a page that has drawn its first state; nothing may go wrong in it, nor leave this machine."""
    context, wrong = browser.new_context(viewport={"width": 1280, "height": 800}), []

    def open(query=SMALL, base=address):
        one = context.new_page()
        one.on("pageerror", lambda error: wrong.append(str(error)))
        one.on("console", lambda line: line.type == "error" and wrong.append(line.text))
        one.on("request", lambda sent: sent.url.startswith((base, "data:")) or wrong.append(sent.url))
        one.goto(f"{base}?{query}", timeout=WAIT)
        one.wait_for_function("document.body.dataset.ready && document.querySelector('#premises li')", timeout=WAIT)
        return one

    yield open
    context.close()
    assert wrong == []


def settled(one):
    """Everything that was asked for is answered and drawn."""
    one.wait_for_function("(s => !s.waiting && !s.dirty && s.drawn === s.number)(advfeat.state())", timeout=WAIT)


def picture(one):
    return one.locator("#curves .plots").screenshot()


def test_a_drag_changes_curves_numbers_and_address(tab):
    one = tab()
    before = picture(one), one.locator("#numbers").inner_text()
    slider = one.locator("#slide-alpha").bounding_box()
    y = slider["y"] + slider["height"] / 2
    one.mouse.move(slider["x"] + slider["width"] * 0.55, y)
    one.mouse.down()
    for share in np.linspace(0.55, 0.9, 8):
        one.mouse.move(slider["x"] + slider["width"] * share, y)
    one.mouse.up()
    settled(one)
    alpha = float(one.locator("#box-alpha").input_value())
    assert 5 < alpha < 10
    assert picture(one) != before[0]
    assert one.locator("#numbers").inner_text() != before[1]
    one.wait_for_function(f"location.search.includes('alpha={alpha:g}')", timeout=WAIT)


def test_a_link_restores_the_state_under_both_names(tab, address):
    query = f"{SMALL}&alpha=2.5&norm=l2&up=q"
    for base in (address, address.replace("localhost", "127.0.0.1")):
        one = tab(query, base)
        assert one.locator("#box-alpha").input_value() == "2.5"
        assert one.locator("#box-norm").input_value() == "l2"
        assert one.locator("#box-up").input_value() == "q"
        assert float(one.locator("#slide-alpha").input_value()) == pytest.approx(1000 * np.log(5) / np.log(20), abs=1)


def test_a_click_on_the_diagram_moves_the_sliders(tab):
    one = tab()
    place = one.locator(".diagram").bounding_box()
    one.mouse.click(place["x"] + place["width"] * 0.8, place["y"] + place["height"] * 0.3)
    one.wait_for_function("document.getElementById('box-alpha').value !== '3'", timeout=WAIT)
    settled(one)
    alpha, n_robust = (float(one.locator(f"#box-{name}").input_value()) for name in ("alpha", "n_robust"))
    assert alpha > 4
    assert n_robust > 10
    assert one.locator("#slide-n_robust").input_value() == f"{n_robust:g}"


def test_a_refused_value_is_told_beside_its_control(tab):
    one = tab()
    box, wrong = one.locator("#box-n_robust"), one.locator("#wrong-n_robust")
    box.fill("65")
    settled(one)
    assert wrong.inner_text() == "n_robust = 65: must be <= n_patches = 64"
    assert box.get_attribute("aria-invalid") == "true"
    box.fill("2")
    settled(one)
    assert wrong.inner_text() == ""
    assert box.get_attribute("aria-invalid") is None


def test_tab_reaches_every_control_and_each_has_a_name(tab):
    one = tab()
    one.evaluate("document.activeElement.blur()")
    reached = {}
    for _ in range(100):
        one.keyboard.press("Tab")
        found = one.evaluate(
            "(() => { let e = document.activeElement;"
            " while (e.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;"
            " return [e.id || e.className || e.tagName, e.getAttribute('aria-label') || e.innerText || '']; })()"
        )
        if found[0] in ("BODY", "box-n_classes") and len(reached) > 3:
            break
        reached[found[0]] = found[1].strip()
    else:
        pytest.fail("Tab does not come round")
    if "box-n_classes" in str(found[0]):
        reached.setdefault(*found)
    wanted = {f"box-{name}" for name in (*POINT, "across", "up", "training", "shown")} | {"train", "file"}
    wanted |= {f"slide-{name}" for name in POINT if name != "norm"}
    assert wanted - set(reached) <= {"slide-n_classes", "box-n_classes"}
    assert all(reached.values()), reached
    names = one.evaluate("[...document.querySelectorAll('input, select')].map(e => e.getAttribute('aria-label'))")
    assert all(names)
    assert len(set(names)) == len(names)


def test_sliders_move_by_keyboard_and_say_their_value(tab):
    one = tab()
    one.locator("#slide-n_classes").focus()
    one.keyboard.press("ArrowRight")
    settled(one)
    assert one.locator("#box-n_classes").input_value() == "4"
    assert one.locator("#slide-n_classes").get_attribute("aria-valuetext") == "4"


def test_random_values_break_nothing(tab):
    rng, one = np.random.default_rng(2), tab()
    strange = ["", "nan", "-1", "1e400", "0", "abc", "<b>x</b>", "1e-300", "99999999999", "'", "2", "0.5", "20"]
    for _ in range(40):
        name = str(rng.choice([name for name in POINT if name != "norm"]))
        before = one.locator(f"#box-{name}").input_value()
        one.locator(f"#box-{name}").fill(str(rng.choice(strange)))
        settled(one)
        if one.locator(f"#box-{name}").get_attribute("aria-invalid"):
            one.locator(f"#box-{name}").fill(before)
    settled(one)
    one.locator("#box-alpha").fill("2.5")
    settled(one)
    assert one.locator("#numbers tbody tr").count() == 6


def test_a_thousand_fast_events_leave_no_queue(tab):
    one = tab()
    one.evaluate(
        "(() => { const slider = document.getElementById('slide-alpha'); for (let i = 1; i <= 1000; i++) {"
        " slider.value = i; slider.dispatchEvent(new Event('input')); } })()"
    )
    settled(one)
    assert one.evaluate("advfeat.state().number") <= 3
    assert one.locator("#box-alpha").input_value() == "10"
    one.wait_for_function("location.search.includes('alpha=10')", timeout=WAIT)


def test_two_tabs_do_not_see_each_other(tab):
    one, other = tab(), tab()
    before = picture(other)
    one.locator("#box-alpha").fill("8")
    settled(one)
    settled(other)
    assert other.locator("#box-alpha").input_value() == "3"
    assert picture(other) == before


def test_a_foreign_page_gets_no_websocket(browser, address, tab):
    one = browser.new_page()
    one.goto("data:text/html,<p>foreign")
    code = (
        "url => new Promise(done => { const socket = new WebSocket(url, ['bokeh']);"
        " socket.onopen = () => done('open'); socket.onerror = () => done('refused'); })"
    )
    assert one.evaluate(code, address.replace("http", "ws") + "ws") == "refused"
    one.close()


def test_the_buttons_write_the_file_and_train_the_network(tab):
    one = tab()
    one.locator("#file").click()
    one.wait_for_selector("#written:not([hidden])", timeout=WAIT)
    assert one.locator("#command").inner_text() == "advfeat reproduce --config point.toml"
    assert "n_iter = 200" in one.locator("#toml").input_value()
    with one.expect_download() as download:
        one.locator("#save").click()
    assert download.value.suggested_filename == "point.toml"
    before = picture(one)
    one.locator("#train").click()
    one.wait_for_selector("#network[data-state=done]", timeout=WAIT)
    one.wait_for_timeout(300)
    assert picture(one) != before


def test_the_diagram_is_completed(tab):
    one = tab()
    one.wait_for_selector("#diagram-note[data-done='1']", timeout=WAIT)
    assert "robust" in one.locator("#diagram-legend").inner_text()
