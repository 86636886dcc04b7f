// The controls that tie everything together.

function update() {
  drawTable();
  drawCurves();
  drawHeat();
  drawScatter();
  drawPair();
  drawOne();
}

function fill(select, options) {
  select.replaceChildren(...options.map(([value, words]) => make("option", { value }, words)));
}

const conditions = [...new Set(columns.filter((column) => !column.clean).map((column) => column.title))];
fill(byId("task"), [["", "all tasks"], ...data.groups.map((group) => [group.id, `${group.title}: ${group.metric}`])]);
fill(byId("condition"), [["clean", "clean"], ...conditions.map((title) => [title, title]), ["", "all conditions"]]);
const systems = data.rows.map((row, i) => [i, row.name + (row.published ? " (published)" : "")]);
for (const id of ["first", "second", "one"]) fill(byId(id), systems);
byId("first").value = data.against;
byId("second").value = data.against === 0 ? 1 : 0;
fill(byId("score"), scores().map((score) => [score.key, score.title]));

for (const name of ["task", "condition", "size", "origin", "name"]) {
  byId(name).addEventListener("input", () => {
    state[name] = byId(name).value;
    if (name === "task") state.condition = byId("condition").value = state.task ? "" : "clean";
    if (name === "task") chooseScore();
    update();
  });
}
for (const name of ["score", "cost"]) byId(name).addEventListener("input", drawScatter);
for (const id of ["first", "second"]) byId(id).addEventListener("input", drawPair);
byId("one").addEventListener("input", drawOne);
for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());

/** The plot follows the chosen task. */
function chooseScore() {
  const column = state.task ? groups.get(state.task).columns.find((one) => one.clean) : null;
  byId("score").value = column ? column.id : scores()[0]?.key;
}

byId("notes").append(...data.notes.map((note) => make("li", {}, note)));
byId("sources").append(...data.sources.map((source, i) => make("li", { id: `source-${i + 1}` }, source)));
let drawnWidth = 0;
new ResizeObserver(() => {
  if (drawnWidth === document.body.clientWidth) return;
  drawnWidth = document.body.clientWidth;
  update();
}).observe(document.body);
update();
