// Curves of a metric against SNR, one chart for each task and kind of noise.

/** Points of a row on a curve, by rising SNR. */
function curvePoints(row, group, curve) {
  return group.columns
    .filter((column) => column.curve === curve && row.cells[column.id])
    .map((column) => ({ snr: column.snr, ...row.cells[column.id] }))
    .sort((a, b) => a.snr - b.snr);
}

function drawCurves() {
  const holder = byId("curves");
  holder.replaceChildren();
  for (const group of shownGroups()) {
    for (const curve of new Set(group.columns.map((column) => column.curve).filter(Boolean))) {
      const rows = passing().filter((row) => curvePoints(row, group, curve).length > 1);
      if (rows.length) curveChart(holder, group, curve, rows);
    }
  }
  if (!holder.childElementCount) {
    holder.append(make("p", { class: "empty" }, "No system here was scored at two or more SNRs."));
  }
}

function curveChart(parent, group, curve, rows) {
  const holder = make("figure", {}, make("h3", {}, `${group.title}, ${curve}`));
  parent.append(holder); // its width is known now, so that letters keep their size
  const width = Math.min(640, holder.clientWidth);
  const [height, left, right, top, bottom] = [270, 46, 14, 20, 42];
  const clean = group.columns.find((column) => column.clean);
  const snrs = [...new Set(group.columns.filter((c) => c.curve === curve).map((c) => c.snr))].sort((a, b) => a - b);
  const step = Math.min(...snrs.slice(1).map((snr, i) => snr - snrs[i]));
  const last = snrs.at(-1) + step; // where clean speech stands, apart from the scale
  const x = (snr) => left + 18 + ((snr - snrs[0]) / (last - snrs[0])) * (width - left - right - 50);
  const all = rows.flatMap((row) => [...curvePoints(row, group, curve), ...(clean && row.cells[clean.id] ? [row.cells[clean.id]] : [])]);
  const [low, high] = range(all.flatMap((point) => [point.v, point.low ?? point.v, point.high ?? point.v]), group.metric);
  const y = (value) => top + ((high - value) / (high - low)) * (height - top - bottom);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": `${group.title}: ${group.metric} against SNR, ${curve}` });

  const grid = ticks(low, high);
  for (const value of grid.values) {
    svg.append(draw("line", { class: "gridline", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    svg.append(text(left - 6, y(value) + 4, number(value, grid.digits), { "text-anchor": "end", class: "dim" }));
  }
  svg.append(draw("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  for (const snr of snrs) svg.append(text(x(snr), height - bottom + 17, decibels(snr), { "text-anchor": "middle" }));
  if (clean) svg.append(text(x(last), height - bottom + 17, "clean", { "text-anchor": "middle" }));
  svg.append(text((x(snrs[0]) + x(snrs.at(-1))) / 2, height - 8, "SNR (dB)", { "text-anchor": "middle", class: "dim" }));
  svg.append(text(2, 12, group.metric, { class: "dim" }));

  rows.forEach((row, i) => svg.append(curveOf(row, group, curve, clean, { x, y, last, shift: 3 * (i - (rows.length - 1) / 2) })));
  holder.append(svg, legend(rows));
}

/** One system's line, markers and error bars. */
function curveOf(row, group, curve, clean, { x, y, last, shift }) {
  const style = look(row);
  const points = curvePoints(row, group, curve);
  const at = (point) => [x(point.snr) + shift, y(point.v)];
  const line = draw("g", {});
  line.append(draw("polyline", { points: points.map((p) => at(p).join(",")).join(" "), fill: "none", stroke: style.colour, "stroke-width": 2 }));
  const quiet = clean && row.cells[clean.id];
  if (quiet) {
    const end = { snr: last, ...quiet };
    line.append(draw("polyline", { points: [points.at(-1), end].map((p) => at(p).join(",")).join(" "), fill: "none", stroke: style.colour, "stroke-width": 1, "stroke-dasharray": "3 4" }));
    points.push(end);
  }
  for (const point of points) {
    const [px, py] = at(point);
    const where = point.snr === last ? "clean" : `${decibels(point.snr)} dB`;
    const words = `${row.name}, ${where}: ${number(point.v, group.digits)}` + (interval(point, group.digits) ? ` (${interval(point, group.digits)})` : "");
    const dot = draw("g", { tabindex: 0, role: "img", "aria-label": words }, draw("title", {}, words));
    if (interval(point, 2)) dot.append(draw("line", { x1: px, x2: px, y1: y(point.low), y2: y(point.high), stroke: style.colour }));
    dot.append(mark(px, py, style));
    line.append(dot);
  }
  return line;
}

function legend(rows) {
  const items = rows.map((row) => {
    const swatch = draw("svg", { width: 16, height: 14, "aria-hidden": "true" });
    swatch.append(mark(8, 7, look(row)));
    return make("li", {}, swatch, row.name);
  });
  return make("ul", { class: "legend" }, ...items);
}
