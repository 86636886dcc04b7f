// Score against cost.

function scores() {
  const whole = [
    { key: "superb", title: "superb_s", metric: "superb_s \u2191", higher: true, digits: 0, read: (row) => row.superb },
    { key: "overall", title: "overall mean", metric: "overall mean \u2191", higher: true, digits: 1, read: (row) => row.overall },
  ];
  const single = columns.map((column) => ({
    key: column.id,
    title: `${column.group.title}, ${column.title}: ${column.group.metric}`,
    metric: `${column.group.title}, ${column.title}: ${column.group.metric}`,
    higher: column.group.higher,
    digits: column.group.digits,
    read: (row) => (row.cells[column.id] ? row.cells[column.id].v : null),
  }));
  return [...whole, ...single].filter((score) => data.rows.some((row) => score.read(row) !== null));
}

function drawScatter() {
  const score = scores().find((one) => one.key === byId("score").value);
  const inMacs = byId("cost").value === "macs";
  const cost = (row) => (inMacs ? row.macs : row.parameters && row.parameters / 1e6);
  const rows = score ? passing().filter((row) => cost(row) && score.read(row) !== null) : [];
  const holder = byId("scatter");
  if (!rows.length) {
    holder.replaceChildren(make("p", { class: "empty" }, "No system here has this score and a known cost."));
    return;
  }
  const width = Math.min(1000, holder.clientWidth);
  const [height, left, right, top, bottom] = [width < 500 ? 340 : 420, 52, 20, 12, 44];
  const costs = rows.map(cost);
  const [small, large] = [Math.min(...costs) / 1.35, Math.max(...costs) * 1.35];
  const x = (value) => left + (Math.log(value / small) / Math.log(large / small)) * (width - left - right);
  const [low, high] = range(rows.map(score.read), score.metric);
  const y = (value) => top + ((high - value) / (high - low)) * (height - top - bottom);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": `${score.title} against ${inMacs ? "MACs" : "parameters"}` });

  const grid = ticks(low, high, 6);
  for (const value of grid.values) {
    svg.append(draw("line", { class: "gridline", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    svg.append(text(left - 6, y(value) + 4, number(value, grid.digits), { "text-anchor": "end", class: "dim" }));
  }
  svg.append(draw("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  for (const value of logTicks(small, large, width)) {
    svg.append(draw("line", { class: "axis", x1: x(value), x2: x(value), y1: height - bottom, y2: height - bottom + 4 }));
    svg.append(text(x(value), height - bottom + 18, String(value), { "text-anchor": "middle", class: "dim" }));
  }
  svg.append(text((left + width - right) / 2, height - 6, inMacs ? "MACs on 32 utterances (G, logarithmic)" : "parameters (M, logarithmic)", { "text-anchor": "middle", class: "dim" }));

  const readout = make("p", { id: "readout", role: "status" }, "Point at, touch or tab to a mark to read it.");
  const taken = [];
  const inOrder = [...rows].sort((a, b) => a.published - b.published || (score.higher ? score.read(b) - score.read(a) : score.read(a) - score.read(b)));
  const marks = inOrder.map((row) => {
    const [px, py] = [x(cost(row)), y(score.read(row))];
    const words = `${row.name} (${row.published ? "published" : "measured"}): ${number(score.read(row), score.digits)} at ${number(cost(row), 1)} ${inMacs ? "G" : "M"}`;
    const dot = draw("g", { tabindex: 0, role: "img", "aria-label": words }, draw("title", {}, words), mark(px, py, look(row), row.published ? 5 : 7));
    for (const event of ["focus", "pointerenter", "click"]) dot.addEventListener(event, () => { readout.textContent = words; });
    const label = place(row.name, px, py, width, taken, rows, x, y, cost, score);
    if (label) svg.append(label);
    return dot;
  });
  svg.append(...marks); // over the labels
  holder.replaceChildren(make("p", { class: "hint" }, score.metric), svg, readout); // a paragraph wraps on a phone
}

/** A label beside its mark where there is room, else none: the mark itself can be read. */
function place(name, px, py, width, taken, rows, x, y, cost, score) {
  const [w, h] = [name.length * 6.6 + 4, 13];
  const spots = [
    { x: px + 10, y: py + 4, anchor: "start", box: [px + 9, py - 7, px + 9 + w, py - 7 + h] },
    { x: px - 10, y: py + 4, anchor: "end", box: [px - 9 - w, py - 7, px - 9, py - 7 + h] },
    { x: px, y: py - 10, anchor: "middle", box: [px - w / 2, py - 21, px + w / 2, py - 21 + h] },
    { x: px, y: py + 19, anchor: "middle", box: [px - w / 2, py + 8, px + w / 2, py + 8 + h] },
  ];
  const meets = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];
  const dots = rows.map((row) => [x(cost(row)), y(score.read(row))]).map(([dx, dy]) => [dx - 5, dy - 5, dx + 5, dy + 5]);
  const spot = spots.find(({ box }) => box[0] > 46 && box[2] < width && ![...taken, ...dots].some((other) => meets(box, other)));
  if (!spot) return null;
  taken.push(spot.box);
  return text(spot.x, spot.y, name, { "text-anchor": spot.anchor });
}

function logTicks(low, high, width) {
  const found = [];
  for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10) {
    for (const factor of [1, 2, 3, 5]) {
      const value = Number((factor * power).toPrecision(3));
      if (value >= low && value <= high) found.push(value);
    }
  }
  return found.length > width / 60 ? found.filter((value) => String(value).replace(/[.0]/g, "") === "1") : found;
}
