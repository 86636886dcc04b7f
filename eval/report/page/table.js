// The table, its sorting, and the heat map of losses.

/** The sign of a number that is not from a standard run. */
function nonStandardSign(needed) {
  return needed ? " \u2021" : "";
}

/** The sign of a mean over fewer seeds than the system has elsewhere in the task. */
function fewerSeedsSign(row, column) {
  const seeds = column.group.columns.map((one) => row.cells[one.id]?.seeds ?? 0);
  return row.cells[column.id].seeds < Math.max(...seeds) ? " \u00a7" : "";
}

/** Columns of the table: how each is headed, read, shown and sorted. */
function tableColumns() {
  const shown = shownColumns();
  const task = groups.get(state.task);
  const list = [
    { key: "parameters", head: "size", sub: "M", read: (row) => row.parameters || null, show: millions, up: true },
    { key: "macs", head: "MACs", sub: "G", read: (row) => row.macs, show: (row) => number(row.macs, 1), up: true },
  ];
  if (!task && state.condition === "clean") {
    list.push(
      { key: "superb", head: "superb_s", sub: "\u2191", read: (row) => row.superb, show: (row) => number(row.superb, 0) + nonStandardSign(!row.standard) },
      { key: "overall", head: "overall", sub: "mean \u2191", read: (row) => row.overall, show: (row) => number(row.overall, 1) + nonStandardSign(!row.standard) },
    );
  }
  for (const column of shown) {
    const several = !state.task && !state.condition;
    const head = task ? column.title : column.group.title + (several ? `, ${column.title}` : "");
    list.push({
      key: column.id,
      head,
      sub: column.group.metric,
      read: (row) => (row.cells[column.id] ? row.cells[column.id].v : null),
      show: (row) => number(row.cells[column.id].v, column.group.digits) + nonStandardSign(row.cells[column.id].marked) + fewerSeedsSign(row, column),
      small: (row) => interval(row.cells[column.id], column.group.digits),
      title: (row) => row.cells[column.id].remark,
      up: !column.group.higher,
      ranked: true,
    });
  }
  if (task && !state.condition && task.columns.length > 1) list.push(...summaryColumns(task));
  return list;
}

/** Summaries over the conditions of one task; what is lost is better low, and so are means of error rates. */
function summaryColumns(task) {
  return task.summaries.map((name) => ({
    key: name,
    head: name,
    sub: "",
    read: (row) => row.robust[task.id]?.[name]?.v ?? null,
    show: (row) => number(row.robust[task.id][name].v, task.digits),
    small: (row) => interval(row.robust[task.id][name], task.digits),
    up: !task.higher || !/^(mean|area)/.test(name),
  }));
}

/** Whether the measured runs of a column follow the same rules; others are not ranked. */
function sameRules(column, rows) {
  const rules = rows.filter((row) => !row.published && row.cells[column.key]).map((row) => row.cells[column.key].rules);
  return new Set(rules).size < 2;
}

/** The rows in which the column's best measured and best published values stand. */
function bestRows(column, rows) {
  const best = new Set();
  for (const published of [false, true]) {
    const scored = rows.filter((row) => row.published === published && column.read(row) !== null);
    if (scored.length < 2 || !sameRules(column, scored)) continue;
    const values = scored.map(column.read);
    const value = column.up ? Math.min(...values) : Math.max(...values);
    scored.filter((row) => column.read(row) === value).forEach((row) => best.add(row));
  }
  return best;
}

function sorted(rows, list) {
  const column = list.find((one) => one.key === state.sort);
  const sign = state.descending ? -1 : 1;
  if (state.sort === "name") return [...rows].sort((a, b) => -sign * a.name.localeCompare(b.name));
  if (!column) return rows;
  return [...rows].sort((a, b) => {
    const [one, other] = [column.read(a), column.read(b)];
    if (one === null || other === null) return (one === null) - (other === null); // what is missing comes last
    return sign * (one - other);
  });
}

function headCell(key, head, sub, lowFirst) {
  const button = make("button", { type: "button" }, head);
  const cell = make("th", { scope: "col" }, button, make("small", {}, sub || "\u00a0"));
  if (state.sort === key) {
    const rising = key === "name" ? state.descending : !state.descending;
    cell.setAttribute("aria-sort", rising ? "ascending" : "descending");
  }
  button.addEventListener("click", () => {
    state.descending = state.sort === key ? !state.descending : key === "name" || !lowFirst;
    state.sort = key;
    update();
    byId("table").querySelector(`button[data-key="${CSS.escape(key)}"]`)?.focus();
  });
  button.dataset.key = key;
  return cell;
}

function nameCell(row) {
  const cell = make("th", { scope: "row" }, row.name, " ");
  if (row.published) {
    const links = row.sources.flatMap((n, i) => [...(i ? [", "] : []), make("a", { href: `#source-${n}`, "aria-label": `source ${n}` }, String(n))]);
    cell.append(make("sup", {}, ...links));
  } else {
    cell.append(make("span", { class: "badge measured" }, "measured"));
  }
  if (row.detail) cell.append(make("small", {}, row.detail));
  return cell;
}

function drawTable() {
  const list = tableColumns();
  const cells = list.filter((column) => column.ranked);
  const candidates = passing();
  const telling = [...cells, ...list.filter((column) => column.key === "superb")];
  const rows = sorted(candidates.filter((row) => telling.some((column) => column.read(row) !== null)), list);
  const filled = list.filter((column) => rows.some((row) => column.read(row) !== null));
  const head = make("tr", {}, headCell("name", "system", "", true), ...filled.map((c) => headCell(c.key, c.head, c.sub, c.up)));
  const best = new Map(filled.filter((c) => c.ranked).map((c) => [c, bestRows(c, rows)]));
  const body = rows.map((row) => {
    const line = make("tr", { class: row.published ? "published" : "measured" }, nameCell(row));
    for (const column of filled) {
      const there = column.read(row) !== null;
      const cell = make("td", {}, there ? column.show(row) : "\u2013");
      if (there && best.get(column)?.has(row)) cell.className = "best";
      if (there && column.small?.(row)) cell.append(make("small", {}, column.small(row)));
      if (there && column.title?.(row)) cell.title = column.title(row);
      line.append(cell);
    }
    return line;
  });
  byId("table").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
  const task = groups.get(state.task);
  byId("over").textContent = task && !state.condition && task.over.length ? `Summaries are over what systems share. ${task.over.join("; ")}.` : "";
  const hidden = candidates.length - rows.length;
  const plural = (n) => `${n} system${n === 1 ? "" : "s"}`;
  byId("status").textContent = `${plural(rows.length)} shown` + (hidden ? `, ${plural(hidden)} without a number in these columns` : "") + ".";
}

/** Per cent lost from the clean score; null where there is none. */
function loss(row, group, column) {
  const clean = group.columns.find((one) => one.clean);
  const [before, after] = [clean && row.cells[clean.id], row.cells[column.id]];
  if (!before || !after || before.v <= 0 || !group.percent) return null;
  return (100 * (group.higher ? before.v - after.v : after.v - before.v)) / before.v;
}

/** From white to vermilion for losses up to 100 %, to blue for gains. */
function heatColours(percent) {
  const part = Math.min(1, Math.abs(percent) / 100);
  const to = percent >= 0 ? [196, 78, 0] : [0, 98, 163];
  const mix = to.map((c) => Math.round(255 + (c - 255) * part));
  return { background: `rgb(${mix.join(",")})`, color: part > 0.9 ? "#fff" : "#1d2530" };
}

function drawHeat() {
  const shown = shownGroups().flatMap((group) => group.columns.filter((c) => !c.clean).map((column) => ({ group, column })));
  const rows = passing().filter((row) => shown.some(({ group, column }) => loss(row, group, column) !== null));
  const has = (kind) => ({ group, column }) => rows.some((row) => kind(row) && loss(row, group, column) !== null);
  const ours = shown.filter(has((row) => !row.published));
  const used = [...ours, ...shown.filter(has((row) => row.published)).filter((one) => !ours.includes(one))];
  if (!rows.length) {
    byId("heat").replaceChildren(make("p", { class: "empty" }, "No system here has a clean and a corrupted score of one task."));
    return;
  }
  const head = make("tr", {}, make("th", { scope: "col" }, "system"), ...used.map(({ group, column }) =>
    make("th", { scope: "col" }, column.title, make("small", {}, group.title))));
  const body = rows.map((row) => make("tr", {}, make("th", { scope: "row" }, row.name), ...used.map(({ group, column }) => {
    const percent = loss(row, group, column);
    const cell = make("td", {}, percent === null ? "\u2013" : `${number(percent, 0)} %`);
    if (percent !== null) Object.assign(cell.style, heatColours(percent));
    return cell;
  })));
  byId("heat").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}
