// Data, state and helpers. The scripts are one program: page, table, charts, scatter, views, controls.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const groups = new Map(data.groups.map((group) => [group.id, group]));
const columns = data.groups.flatMap((group) => group.columns.map((column) => ({ ...column, group })));
const state = { task: "", condition: "clean", size: "", origin: "", name: "", sort: "", descending: true };

// Told apart with the common colour-vision deficiencies (Okabe and Ito); shapes differ as well.
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#AA4499", "#8C6D00", "#3A9BD9", "#555555"];
const measured = data.rows.filter((row) => !row.published);
const lookOf = new Map(measured.map((row, i) => [row, { colour: COLOURS[i % COLOURS.length], shape: i % 5 }]));
const PUBLISHED_LOOK = { colour: "#5a6675", shape: 0, hollow: true };
const look = (row) => lookOf.get(row) || PUBLISHED_LOOK;

/** An HTML element with attributes and children; text never becomes markup. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** An SVG element. */
function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const text = (x, y, words, attributes = {}) => draw("text", { x, y, ...attributes }, words);
const number = (value, digits = 2) => value.toFixed(digits).replace("-", "\u2212");
const decibels = (snr) => String(snr).replace("-", "\u2212"); // 2.5 dB stays 2.5 dB
const millions = (row) => (row.parameters ? number(row.parameters / 1e6) : "");
const interval = (found, digits) =>
  found.low === null || found.low === undefined ? "" : `${number(found.low, digits)} to ${number(found.high, digits)}`;

/** The systems that pass the filters on size, origin and name. */
function passing() {
  const limit = state.size ? Number(state.size) * 1e6 : Infinity;
  const wanted = state.name.trim().toLowerCase();
  return data.rows.filter(
    (row) =>
      (limit === Infinity || (row.parameters !== null && row.parameters <= limit)) &&
      (!state.origin || row.published === (state.origin === "published")) &&
      row.name.toLowerCase().includes(wanted),
  );
}

/** The columns that pass the filters on task and condition. */
function shownColumns() {
  return columns.filter(
    (column) =>
      (!state.task || column.group.id === state.task) &&
      (!state.condition || (state.condition === "clean" ? column.clean : column.title === state.condition)),
  );
}

const shownGroups = () => data.groups.filter((group) => !state.task || group.id === state.task);

/** A marker at (x, y): circle, square, diamond, triangle or cross-shaped star. */
function mark(x, y, { colour, shape, hollow }, r = 5) {
  const paint = { class: "mark", fill: hollow ? "#fff" : colour, stroke: hollow ? colour : "#fff", "stroke-width": 1.5 };
  const path = (d) => draw("path", { d, ...paint });
  if (shape === 1) return draw("rect", { x: x - r, y: y - r, width: 2 * r, height: 2 * r, ...paint });
  if (shape === 2) return path(`M${x},${y - r * 1.3}L${x + r * 1.3},${y}L${x},${y + r * 1.3}L${x - r * 1.3},${y}Z`);
  if (shape === 3) return path(`M${x},${y - r * 1.2}L${x + r * 1.2},${y + r}L${x - r * 1.2},${y + r}Z`);
  if (shape === 4) return path(`M${x},${y + r * 1.2}L${x + r * 1.2},${y - r}L${x - r * 1.2},${y - r}Z`);
  return draw("circle", { cx: x, cy: y, r, ...paint });
}

/** About `count` round numbers from `low` to `high`. */
function ticks(low, high, count = 5) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) found.push(i * step);
  return { values: found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

/** A range a little wider than the values; rates in per cent stay within 0 and 100. */
function range(values, metric) {
  let low = Math.min(...values);
  let high = Math.max(...values);
  const pad = (high - low || Math.abs(high) || 1) * 0.08;
  const inPercent = metric.includes("%");
  low = inPercent && low >= 0 ? Math.max(0, low - pad) : low - pad;
  high = inPercent && high <= 100 ? Math.min(100, high + pad) : high + pad;
  return [low, high];
}
