// Draws the dashboards from Prometheus, which serves this page: for where there is no Grafana.
"use strict";

const COLORS = ["#2a6fdb", "#c2571a", "#2d8a4e", "#8b48b5", "#b8890b", "#c23b6a", "#1b8a94", "#70706a"];
const POINTS = 240;      // asked for along the time axis
const REFRESH_MS = 10000;
const FONT = "11px system-ui, sans-serif";
const paint = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name);

const boards = JSON.parse(document.getElementById("boards").textContent);
const rangeChoice = document.getElementById("range");
const runChoice = document.getElementById("run");
const axisChoice = document.getElementById("axis");
const state = document.getElementById("state");

function element(parent, name, properties = {}, text = "") {
  const made = document.createElement(name);
  Object.assign(made, properties);
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

// The step of the run at each of these times; null where curves of several runs share a panel,
// whose steps differ, or where time is wanted.
async function stepsAt(times) {
  if (axisChoice.value !== "step") return null;
  const query = `ray_mgrpo_step{run=~"${chosenRuns()}"}`;
  const { result } = await ask("query_range", { query, ...times });
  if (new Set(result.map((one) => one.metric.run)).size !== 1) return null;
  return new Map(result.flatMap((one) => one.values.map(([t, v]) => [t, Number(v)])));
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

// Ticks need fewer digits than values.
function tick(value, unit) {
  if (unit === "percentunit") return `${+(100 * value).toPrecision(4)} %`;
  if (unit === "s") return `${+value.toPrecision(4)} s`;
  return shown(value, unit);
}

// One column of x, and one of each line, null where it has no value. Of the times at which a step
// was read the last one counts: its metrics are whole then.
function columns(lines, steps) {
  const place = (t) => (steps ? steps.get(t) : t);
  const tables = lines.map((line) => new Map(line.points.map(([t, v]) => [place(t), v])));
  const x = [...new Set(tables.flatMap((table) => [...table.keys()]))];
  const known = x.filter((one) => one !== undefined).sort((a, b) => a - b);
  return [known, ...tables.map((table) => known.map((one) => table.get(one) ?? null))];
}

function scaleOf(panel, values) {
  if (panel.is_logarithmic && values.every((v) => v > 0)) return { distr: 3 };
  const isShare = panel.unit === "percentunit" && values.every((v) => v >= 0 && v <= 1);
  return isShare ? { range: [0, 1] } : {};
}

function draw(box, panel, lines, steps) {
  box.replaceChildren();
  const data = columns(lines, steps);
  if (!data[0].length) {
    element(box, "p", { className: "empty" }, panel.only_when ? `no data unless ${panel.only_when}` : "no data yet");
    return;
  }
  const plot = element(box, "div", { className: "plot" });
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", panel.title);
  const legend = element(box, "ul");
  const slots = lines.map((line, place) => {
    const item = element(legend, "li");
    element(item, "i").style.background = COLORS[place % COLORS.length];
    element(item, "span", {}, `${line.legend} `);
    return element(item, "b");
  });
  const lastOf = (column) => column.findLast((value) => value !== null);
  // The values under the pointer, or the newest.
  function read(u) {
    slots.forEach((slot, place) => {
      const value = u.cursor.idx == null ? lastOf(data[place + 1]) : data[place + 1][u.cursor.idx];
      slot.textContent = value == null ? "–" : shown(value, panel.unit);
    });
  }
  const look = { stroke: paint("--soft"), font: FONT, ticks: { show: false }, gap: 6 };
  const whole = (u, ticks) => ticks.map((one) => (Number.isInteger(one) ? `${one}` : ""));
  new uPlot({
    width: plot.clientWidth,
    height: plot.clientHeight,
    legend: { show: false },
    cursor: { y: false },
    scales: { x: { time: !steps }, y: scaleOf(panel, data.slice(1).flat().filter((v) => v !== null)) },
    axes: [
      { ...look, size: 24, grid: { show: false }, ...(steps ? { values: whole } : {}) },
      {
        ...look, size: 62, space: 34, grid: { stroke: paint("--line"), width: 1 },
        values: (u, ticks) => ticks.map((one) => (one === null ? "" : tick(one, panel.unit))),
      },
    ],
    series: [{}, ...lines.map((_, place) => ({
      stroke: COLORS[place % COLORS.length], width: 1.6, spanGaps: Boolean(steps), points: { size: 4 },
    }))],
    hooks: { ready: [read], setCursor: [read] },
  }, data, plot);
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
    const steps = await stepsAt(shownTimes);
    for (const [panel, box] of boxes) draw(box, panel, await linesOf(panel, shownTimes), steps);
    state.textContent = `as of ${new Date().toLocaleTimeString()}`;
  } catch (error) {
    state.textContent = `Prometheus does not answer: ${error.message}`;
  }
}

async function keepFresh() {
  if (!document.hidden) await refresh();
  setTimeout(keepFresh, REFRESH_MS);
}

for (const choice of [rangeChoice, runChoice, axisChoice]) choice.addEventListener("change", refresh);
keepFresh();
