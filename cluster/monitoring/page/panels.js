// Draws the dashboards from Prometheus, which serves this page: for where there is no Grafana.
"use strict";

const COLORS = ["#2a6fdb", "#c2571a", "#2d8a4e", "#8b48b5", "#b8890b", "#c23b6a", "#1b8a94", "#70706a"];
const WIDTH = 560, HEIGHT = 200, LEFT = 56, BOTTOM = 20, TOP = 8, RIGHT = 8;
const POINTS = 240;      // asked for along the time axis
const REFRESH_MS = 10000;
const SVG = "http://www.w3.org/2000/svg";

const boards = JSON.parse(document.getElementById("boards").textContent);
const rangeChoice = document.getElementById("range");
const runChoice = document.getElementById("run");
const state = document.getElementById("state");

function element(parent, name, properties = {}, text = "") {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.textContent = text;
  parent.append(made);
  return made;
}

function shape(parent, name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  parent.append(made);
  return made;
}

async function ask(path, parameters) {
  const answer = await fetch(`../api/v1/${path}?${new URLSearchParams(parameters)}`);
  const body = await answer.json();
  if (body.status !== "success") throw new Error(body.error);
  return body.data;
}

function chosenRuns() {
  const run = runChoice.value;
  return run === "" ? ".*" : run.replace(/[.*+?^${}()|[\]\\]/g, "\\\\$&");
}

function times(seconds) {
  const end = Date.now() / 1000;
  return { start: end - seconds, end, step: Math.max(5, seconds / POINTS) };
}

// The time chosen, or since the first run in it was seen.
async function chosenTimes() {
  const wide = times(Number(rangeChoice.value));
  const data = await ask("query_range", { query: "min(timestamp(ray_mgrpo_step))", ...wide });
  if (!data.result.length) return wide;
  return times(Math.max(60, wide.end - data.result[0].values[0][0]));
}

// {{layer}} in a legend is the value of the tag; without any tag the name says it all.
function legendOf(query, tags) {
  const text = query.legend.replace(/\{\{(\w+)\}\}/g, (_, key) => tags[key] ?? "").trim();
  return runChoice.value === "" ? text : text.replace(runChoice.value, "").trim() || text;
}

async function linesOf(panel, times) {
  const found = [];
  for (const query of panel.queries) {
    const expression = query.expression.replaceAll("$run", chosenRuns());
    const data = await ask("query_range", { query: expression, ...times });
    for (const one of data.result) {
      const points = one.values.map(([t, v]) => [t, Number(v)]).filter(([, v]) => isFinite(v));
      if (points.length) found.push({ legend: legendOf(query, one.metric), points });
    }
  }
  return found;
}

function shown(value, unit) {
  if (unit === "percentunit") return `${(100 * value).toFixed(1)} %`;
  if (unit === "percent") return `${value.toFixed(1)} %`;
  if (unit === "bytes") return `${(value / 2 ** 30).toFixed(2)} GiB`;
  if (unit === "s") return `${value.toPrecision(3)} s`;
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

function scaleOf(lines, isLogarithmic) {
  const values = lines.flatMap((line) => line.points.map(([, v]) => v));
  const positive = isLogarithmic && values.every((v) => v > 0);
  const map = positive ? Math.log10 : (v) => v;
  let low = Math.min(...values.map(map)), high = Math.max(...values.map(map));
  if (high === low) { low -= Math.abs(low) * 0.1; high += Math.abs(high) * 0.1 || 1; }
  const y = (v) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (map(v) - low) / (high - low));
  const valueAt = (share) => {
    const mapped = low + share * (high - low);
    return positive ? 10 ** mapped : mapped;
  };
  return { y, valueAt };
}

function draw(box, panel, lines, times) {
  box.replaceChildren();
  if (!lines.length) {
    element(box, "p", { className: "empty" }, panel.only_when ? `no data unless ${panel.only_when}` : "no data yet");
    return;
  }
  const svg = shape(box, "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": panel.title });
  const { y, valueAt } = scaleOf(lines, panel.is_logarithmic);
  const x = (t) => LEFT + (WIDTH - LEFT - RIGHT) * (t - times.start) / (times.end - times.start);
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const value = valueAt(share);
    shape(svg, "line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "grid" });
    shape(svg, "text", { x: LEFT - 6, y: y(value) + 3, "text-anchor": "end" }, shown(value, panel.unit));
  }
  for (const share of [0, 0.5, 1]) {
    const t = times.start + share * (times.end - times.start);
    const clock = new Date(t * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    shape(svg, "text", { x: x(t), y: HEIGHT - 4, "text-anchor": ["start", "middle", "end"][share * 2] }, clock);
  }
  const legend = element(box, "ul");
  lines.forEach((line, place) => {
    const color = COLORS[place % COLORS.length];
    let path = "", before = -Infinity;
    for (const [t, v] of line.points) {
      path += `${t - before > 3 * times.step ? "M" : "L"}${x(t).toFixed(1)} ${y(v).toFixed(1)}`;
      before = t;
    }
    shape(svg, "path", { d: path, stroke: color });
    const [lastT, lastV] = line.points[line.points.length - 1];
    shape(svg, "circle", { cx: x(lastT), cy: y(lastV), r: 2.5, fill: color });
    const item = element(legend, "li");
    element(item, "i").style.background = color;
    element(item, "span", {}, `${line.legend} `);
    element(item, "b", {}, shown(lastV, panel.unit));
  });
}

const boxes = [];
for (const board of boards) {
  const section = element(document.querySelector("main"), "section", { id: board.uid });
  element(document.querySelector("nav"), "a", { href: `#${board.uid}` }, board.title.replace("MGRPO ", ""));
  element(section, "h2", {}, board.title);
  element(section, "p", {}, board.description);
  const grid = element(section, "div", { className: "grid" });
  for (const panel of board.panels) {
    const figure = element(grid, "figure");
    element(figure, "figcaption", { title: panel.help }, panel.title);
    boxes.push([panel, element(figure, "div")]);
  }
}

async function listRuns() {
  const { start, end } = times(Number(rangeChoice.value));
  const series = await ask("series", { "match[]": "ray_mgrpo_step", start, end });
  const known = new Set([...runChoice.options].map((option) => option.value));
  for (const run of new Set(series.map((one) => one.run))) {
    if (!known.has(run)) element(runChoice, "option", { value: run }, run);
  }
}

async function refresh() {
  try {
    await listRuns();
    const shownTimes = await chosenTimes();
    for (const [panel, box] of boxes) draw(box, panel, await linesOf(panel, shownTimes), shownTimes);
    state.textContent = `as of ${new Date().toLocaleTimeString()}`;
  } catch (error) {
    state.textContent = `Prometheus does not answer: ${error.message}`;
  }
}

async function keepFresh() {
  if (!document.hidden) await refresh();
  setTimeout(keepFresh, REFRESH_MS);
}

rangeChoice.addEventListener("change", refresh);
runChoice.addEventListener("change", refresh);
keepFresh();
