"use strict";

// Charts, drawn by uPlot. The legend shows the values of the step under the pointer or chosen by
// arrow keys; it reads them from the chart's table, where they are written as people read them.
const MISSING = "–";
const FONT = "11px system-ui, sans-serif";
const KEYS = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
const paint = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name);

// The mean of up to `window` values around each; gaps stay gaps.
function runningMean(values, window) {
  const half = Math.floor(window / 2);
  return values.map((value, index) => {
    const near = values.slice(Math.max(0, index - half), index + half + 1).filter((v) => v !== null);
    return value === null ? null : near.reduce((sum, v) => sum + v, 0) / near.length;
  });
}

// Points without a neighbour, which no line shows.
function lonePoints(u, series) {
  const values = u.data[series];
  const isAlone = (i) => values[i] != null && values[i - 1] == null && values[i + 1] == null;
  return values.map((_, index) => index).filter(isAlone);
}

function diamonds(u, series) {
  const fill = new Path2D();
  const radius = 5 * devicePixelRatio;
  u.data[series].forEach((value, index) => {
    if (value === null) return;
    const x = u.valToPos(u.data[0][index], "x", true), y = u.valToPos(value, "y", true);
    fill.moveTo(x, y - radius);
    for (const [dx, dy] of [[radius, 0], [0, radius], [-radius, 0]]) fill.lineTo(x + dx, y + dy);
    fill.closePath();
  });
  return { fill, stroke: fill, clip: null, flags: 0 };
}

// The columns, their looks, and which bar stands on which, from a chart's specification.
function layers(spec) {
  const data = [spec.steps], series = [{}], bands = [];
  const add = (values, look) => { data.push(values); series.push(look); };
  const gap = spec.steps.length < 40 ? 1 : 0;
  const bars = uPlot.paths.bars({ size: [1, 60], gap });
  let below = spec.steps.map(() => 0);
  for (const { kind, color, values } of spec.series) {
    const stroke = paint(`--c${color}`);
    const points = { show: false, filter: lonePoints, size: 5, fill: stroke };
    if (kind === "bar") {
      below = below.map((sum, index) => sum + values[index]);
      if (data.length > 1) bands.push({ series: [data.length, data.length - 1] });
      add(below, { fill: stroke, width: 0, paths: bars, points: { show: false } });
    } else if (kind === "mark") {
      const shape = { show: true, paths: diamonds, size: 10, width: 1.5, fill: stroke, stroke: paint("--card") };
      add(values, { stroke, width: 1, dash: [1, 4], spanGaps: true, points: shape });
    } else {
      if (spec.window > 1) add(values, { stroke, width: 1, alpha: 0.3, points: { show: false } });
      const dash = kind === "dash" ? [5, 4] : undefined;
      add(runningMean(values, spec.window), { stroke, width: 2, dash, points });
    }
  }
  return { data, series, bands };
}

function scales(spec) {
  const { steps } = spec;
  const width = (steps.at(-1) - steps[0]) / (steps.length - 1) || 1;
  const pad = spec.series[0].kind === "bar" ? width / 2 : 0;
  const x = (u, low, high) => (steps.length === 1 ? [steps[0] - 1, steps[0] + 1] : [low - pad, high + pad]);
  // The axis starts at 0 unless that would flatten the curve.
  const y = (u, low, high) => {
    const fromZero = low > 0 && (low < 0.6 * high || low === high);
    const [bottom, top] = uPlot.rangeNum(fromZero ? 0 : low, high, 0.05, true);
    return [bottom, spec.percent && high <= 1 ? Math.min(top, 1) : top];
  };
  const look = spec.fullShare ? { range: [0, 1] } : spec.log ? { distr: 3 } : { range: y };
  return { x: { time: false, range: x }, y: look };
}

function axes(spec) {
  const look = { stroke: paint("--soft"), font: FONT, ticks: { show: false }, gap: 6 };
  const text = (value) => {
    if (value === null) return null;
    const size = Math.abs(value), round = (number) => String(+number.toPrecision(6));
    if (spec.percent) return round(100 * value);
    if (size > 0 && size < 1e-3) return (+value.toPrecision(3)).toExponential();
    return size < 1e4 ? round(value) : `${round(value / 1000)}k`;
  };
  const values = (u, ticks) => ticks.map(text);
  const { steps } = spec;
  const isStep = (tick) => Number.isInteger(tick) && tick >= steps[0] && tick <= steps.at(-1);
  const whole = (u, ticks) => ticks.map((tick) => (isStep(tick) ? String(tick) : ""));
  return [
    { ...look, size: 24, grid: { show: false }, values: whole },
    { ...look, size: 46, space: 34, grid: { stroke: paint("--faint"), width: 1 }, values },
  ];
}

function draw(figure) {
  const spec = JSON.parse(figure.dataset.chart);
  const plot = figure.querySelector(".plot");
  const legend = figure.querySelector(".legend");
  const { rows } = figure.querySelector("tbody");
  const slots = [...legend.querySelectorAll("b")];
  const atRest = slots.map((slot) => slot.textContent);
  let shown = spec.last;

  // A measurement counts until the next one.
  function cell(row, column) {
    const text = rows[row].cells[column].textContent;
    const isMark = column > 0 && spec.series[column - 1].kind === "mark";
    return isMark && text === MISSING && row > 0 ? cell(row - 1, column) : text;
  }

  function read(u) {
    const index = u.cursor.idx;
    slots.forEach((slot, column) => { slot.textContent = index == null ? atRest[column] : cell(index, column); });
    shown = index ?? spec.last;
  }

  const { data, series, bands } = layers(spec);
  const u = new uPlot({
    width: plot.clientWidth,
    height: plot.clientHeight,
    padding: [18, 14, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { show: spec.series[0].kind !== "bar" } },
    scales: scales(spec), axes: axes(spec), series, bands,
    hooks: { setCursor: [read] },
  }, data, plot);
  new ResizeObserver(() => u.setSize({ width: plot.clientWidth, height: plot.clientHeight })).observe(plot);

  plot.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse") u.setCursor({ left: event.clientX - u.over.getBoundingClientRect().left, top: 0 });
  });
  plot.addEventListener("keydown", (event) => {
    if (!(event.key in KEYS)) return;
    event.preventDefault();
    legend.setAttribute("aria-live", "polite");
    const index = Math.min(Math.max(shown + KEYS[event.key], 0), spec.steps.length - 1);
    u.setCursor({ left: u.valToPos(spec.steps[index], "x"), top: 0 });
  });
  plot.addEventListener("blur", () => {
    legend.setAttribute("aria-live", "off");
    u.setCursor({ left: -10, top: -10 });
  });
  return u;
}

const drawn = [...document.querySelectorAll("figure.chart")].map(draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((u) => u.redraw()));
