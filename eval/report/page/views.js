// Two systems against each other, and one system over its conditions.

/** The system that a select holds the place of. */
const rowIn = (id) => data.rows[Number(byId(id).value)];

/** The paired difference of two systems in a column, turned round where the pair is kept the other way; or null. */
function pairedLine(first, second, column) {
  for (const pair of data.pairs) {
    const line = pair.lines[column.id];
    if (!line) continue;
    const [difference, low, high, p, better] = line;
    if (pair.first === first && pair.second === second) return { difference, low, high, p, better };
    if (pair.first === second && pair.second === first) {
      return { difference: -difference, low: low === null ? null : -high, high: low === null ? null : -low, p, better };
    }
  }
  return null;
}

const signed = (value, digits) => (value > 0 ? "+" : "") + number(value, digits);
const pInWords = (p) => (p < 0.001 ? "<0.001" : number(p, 3));

/** A table of plain cells; a cell may be an element. */
function plainTable(heads, lines) {
  const head = make("tr", {}, ...heads.map((words) => make("th", { scope: "col" }, words)));
  const body = lines.map(([first, ...rest]) => make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((cell) => make("td", {}, cell))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

function drawPair() {
  const [first, second] = ["first", "second"].map(rowIn);
  const shared = shownGroups().flatMap((group) => group.columns.map((column) => ({ group, column })))
    .filter(({ column }) => first && second && first !== second && first.cells[column.id] && second.cells[column.id]);
  if (!shared.length) {
    byId("pair").replaceChildren(make("p", { class: "empty" }, "These two have no number in common."));
    return;
  }
  const lines = shared.map(({ group, column }) => {
    const [a, b] = [first, second].map((row) => row.cells[column.id]);
    const line = pairedLine(data.rows.indexOf(first), data.rows.indexOf(second), column);
    const apart = make("span", {}, signed(line ? line.difference : a.v - b.v, group.digits));
    if (line && line.low !== null) apart.append(make("small", {}, `${signed(line.low, group.digits)} to ${signed(line.high, group.digits)}`));
    const verdict = line?.better ? `${line.better} is better` : line ? "no difference shown" : "no interval";
    return [`${group.title}, ${column.title}`, group.metric,
      ...[a, b].map((cell) => number(cell.v, group.digits) + nonStandardSign(cell.marked)), apart, line ? pInWords(line.p) : "\u2013", verdict];
  });
  byId("pair").replaceChildren(plainTable(["task, condition", "metric", first.name, second.name, "difference", "p", ""], lines));
}

/** A bar from 0 to 100 with the interval on it. */
function bar(cell) {
  const width = 120;
  const x = (value) => (Math.max(0, Math.min(100, value)) / 100) * width;
  const svg = draw("svg", { width, height: 14, "aria-hidden": "true" });
  svg.append(draw("rect", { x: 0, y: 3, width: x(cell.v), height: 8, fill: COLOURS[0] }));
  if (cell.low !== null) svg.append(draw("line", { x1: x(cell.low), x2: x(cell.high), y1: 7, y2: 7, stroke: "#1d2530", "stroke-width": 2 }));
  return svg;
}

function drawOne() {
  const row = rowIn("one");
  const shown = shownGroups().filter((group) => row && group.columns.some((column) => row.cells[column.id]));
  const lines = shown.flatMap((group) => group.columns.filter((column) => row.cells[column.id]).map((column) => {
    const cell = row.cells[column.id];
    const clean = group.columns.find((one) => one.clean);
    const before = clean && row.cells[clean.id];
    const lost = before && !column.clean ? (group.higher ? before.v - cell.v : cell.v - before.v) : null;
    const value = make("span", {}, number(cell.v, group.digits) + nonStandardSign(cell.marked));
    if (interval(cell, group.digits)) value.append(make("small", {}, interval(cell, group.digits)));
    const percent = loss(row, group, column);
    return [`${group.title}, ${column.title}`, group.metric, value, group.metric.includes("%") ? bar(cell) : "",
      lost === null ? "\u2013" : number(lost, group.digits), percent === null || column.clean ? "\u2013" : `${number(percent, 0)} %`, String(cell.seeds || "\u2013")];
  }));
  if (!lines.length) {
    byId("over-conditions").replaceChildren(make("p", { class: "empty" }, "This system has no number in the chosen task."));
    return;
  }
  byId("over-conditions").replaceChildren(plainTable(["task, condition", "metric", row.name, "", "lost from clean", "of clean", "seeds"], lines));
}
