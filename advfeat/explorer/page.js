// The browser's half of advfeat explore.  One state is on its way at most: while the server has not answered, later moves
// only change what is asked for next.
"use strict";
window.advfeat = (() => {
  const $ = (id) => document.getElementById(id);
  let link = null, number = 0, waiting = 0, dirty = false, since = 0, pressed = 0, drawn = 0, timer = null;
  const boxes = () => [...document.querySelectorAll("[id^=box-]")];
  const slide = (name) => $("slide-" + name);

  function toText(slider) { // what a slider's position means
    const at = Number(slider.value), { low, high, log, whole } = slider.dataset;
    let value = at;
    if (log === "1") value = low * Math.pow(high / low, at / 1000);
    if (whole === "1") return String(Math.round(value));
    return String(Number(value.toPrecision(log === "1" ? 3 : 12)));
  }
  function toSlider(name, text) { // the other way; the slider stays where the text is no number
    const slider = slide(name), value = Number(text);
    if (!slider || text.trim() === "" || !Number.isFinite(value)) return;
    const { low, high, log } = slider.dataset;
    slider.value = log === "1" ? 1000 * Math.log(Math.max(value, low / 1e3) / low) / Math.log(high / low) : value;
    slider.setAttribute("aria-valuetext", text);
  }
  function values() {
    return Object.fromEntries(boxes().map((box) => [box.dataset.name, box.value]));
  }
  function ask() {
    if (!link) return;
    if (waiting) { dirty = true; return; }
    waiting = ++number;
    dirty = false;
    link.asked = JSON.stringify({ number, values: values() });
  }
  function moved(start) {
    if (!since) since = start;
    ask();
  }
  function refused(error) {
    for (const place of document.querySelectorAll(".wrong")) place.textContent = "";
    for (const box of boxes()) box.removeAttribute("aria-invalid");
    if (!error) return;
    const box = $("box-" + error.control);
    ($("wrong-" + error.control) || $("wrong-")).textContent = error.message;
    if (box) box.setAttribute("aria-invalid", "true");
  }
  function fill(tag, words, kind) {
    const cell = document.createElement(tag);
    cell.textContent = words;
    if (kind) cell.className = kind;
    return cell;
  }
  function answered() {
    const answer = JSON.parse(link.answer);
    refused(answer.error);
    if (!answer.error) {
      $("numbers").tBodies[0].replaceChildren(...answer.rows.map(([label, ...cells]) => {
        const row = document.createElement("tr"), head = fill("th", label);
        head.scope = "row";
        const wide = cells[0].length > 9; // as "0.499 to 0.6", which has the row for itself
        row.append(head, ...(wide ? cells.slice(0, 1) : cells).map((words) => fill("td", words, wide && "alone")));
        if (wide) row.cells[1].colSpan = 3;
        return row;
      }));
      $("premises").replaceChildren(...answer.premises.map(([words, holds, why]) => {
        const item = fill("li", words + " ", holds ? "holds" : "fails");
        item.append(fill("span", holds ? "holds: " : "fails: ", "spoken"), fill("small", why));
        item.title = why;
        return item;
      }));
      $("note").textContent = answer.number ? "" : $("note").textContent;
      clearTimeout(timer); // browsers refuse addresses that change too often
      timer = setTimeout(() => history.replaceState(null, "", location.pathname + (answer.query && "?" + answer.query)), 250);
    }
    if (answer.number < waiting) return;
    const started = since;
    since = 0;
    waiting = 0;
    if (dirty) { since = performance.now(); ask(); }
    // Bokeh paints in the next frame; the one after it is behind that
    requestAnimationFrame(() => requestAnimationFrame(() => {
      drawn = answer.number;
      if (started && !answer.error) performance.measure("explorer", { start: started, end: performance.now() });
    }));
  }
  function diagram() {
    const about = JSON.parse(link.diagram), legend = $("diagram-legend");
    const scale = fill("span", ""), ramp = fill("i", "", "ramp " + about.kind);
    scale.append(about.ends[0], ramp, about.ends[1]);
    legend.replaceChildren(scale, ...about.lines.map((line) => {
      const item = fill("span", ""), edge = fill("i", "", "edge");
      edge.style.borderTopStyle = line.dash;
      item.append(edge, line.label);
      return item;
    }));
    const state = about.done < 1 ? (about.done ? " Refining …" : " Computing …") : "";
    $("diagram-note").textContent = `Median of ${about.seeds} seeds and all classes at iteration ${about.iteration.toLocaleString("en")}; `
      + `grey: no such data, or diverged. A click goes there.${state}`;
    $("diagram-note").dataset.done = about.done;
  }
  function network() {
    const about = JSON.parse(link.network), button = $("train");
    const words = { none: "", running: `Training, ${Math.round(100 * about.done)} % …`, failed: about.message,
      done: "Trained: its curves are the rings, medians over seeds." };
    $("network").textContent = words[about.state];
    $("network").dataset.state = about.state;
    button.textContent = about.state === "running" ? "Stop the training" : "Train the network";
    button.dataset.button = about.state === "running" ? "stop" : "train";
  }
  function file() {
    const about = JSON.parse(link.file);
    $("command").textContent = about.command;
    $("toml").value = about.text;
    $("save").href = "data:application/toml;charset=utf-8," + encodeURIComponent(about.text);
    $("written").hidden = false;
  }
  function press(button) {
    link.pressed = JSON.stringify({ number: ++pressed, button });
  }
  function take(texts) { // as if they had been typed
    for (const [name, text] of Object.entries(texts)) {
      $("box-" + name).value = text;
      toSlider(name, text);
    }
    moved(performance.now());
  }
  function untabbed() { // figures are pictures: what they do, the sliders do too
    const layers = (root) => [...root.querySelectorAll("*")].flatMap((e) => [e, ...(e.shadowRoot ? layers(e.shadowRoot) : [])]);
    for (const plot of document.querySelectorAll(".plot")) for (const layer of layers(plot)) {
      if (layer.tabIndex >= 0) layer.tabIndex = -1;
    }
  }
  function begin(model) {
    link = model;
    const told = { answer: answered, diagram, network, file, moved: () => take(JSON.parse(link.moved).values) };
    for (const [name, react] of Object.entries(told)) {
      link.properties[name].change.connect(react);
      if (link[name]) react();
    }
    for (const box of boxes()) {
      toSlider(box.dataset.name, box.value);
      box.addEventListener(box.tagName === "SELECT" ? "change" : "input", () => {
        toSlider(box.dataset.name, box.value);
        moved(performance.now());
      });
      const slider = slide(box.dataset.name);
      if (slider) slider.addEventListener("input", () => {
        box.value = toText(slider);
        slider.setAttribute("aria-valuetext", box.value);
        moved(performance.now());
      });
    }
    $("train").addEventListener("click", (event) => press(event.currentTarget.dataset.button || "train"));
    $("file").addEventListener("click", () => press("file"));
    untabbed();
    const lost = () => { $("lost").hidden = false; };
    link.document.on_event?.("connection_lost", lost);
    document.body.dataset.ready = "1";
  }
  return { begin, ask, values, state: () => ({ number, waiting, dirty, drawn }) };
})();
