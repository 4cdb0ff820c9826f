// The confusion matrix: a table of the classes that are confused most, or of all if they are few.

const MOST_SHOWN = 30; // classes
const MOST_NUMBERED = 14; // classes whose cells have room for numbers

function matrix({ names, cells, support, block }, pick) {
  const counts = new Map(cells.map(([t, p, n]) => [t * names.length + p, n]));
  const count = (t, p) => counts.get(t * names.length + p) || 0;
  const errors = names.map((_, c) => support[c] - count(c, c));
  const orders = {
    data: () => 0,
    name: (a, b) => collate(names[a], names[b]),
    error: (a, b) => errors[b] / (support[b] || 1) - errors[a] / (support[a] || 1),
    support: (a, b) => support[b] - support[a],
  };
  let shown = block, order = orders.data, current = null;
  const holder = el("div", { class: "scroll" });
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  const idle = "Point at a cell, or move with the arrow keys, to read it; click it, or press Enter, "
    + "to see its pictures.";

  function say(t, p) {
    const n = count(t, p), part = support[t] ? format(n / support[t], "share") : "–";
    readout.textContent = t === p
      ? `${format(n, "count")} of ${format(support[t], "count")} ${names[t]} (${part}) were recognised.`
      : `${format(n, "count")} of ${format(support[t], "count")} ${names[t]} (${part}) were taken for ${names[p]}.`;
  }

  function fill() {
    const list = [...shown].sort((a, b) => order(a, b) || a - b);
    const numbered = list.length <= MOST_NUMBERED;
    const longest = Math.max(...list.map((c) => names[c].length));
    const head = el("tr", {}, el("td", { "aria-hidden": "true" }),
      list.map((p) => el("th", { scope: "col", title: names[p] }, el("span", {}, names[p]))));
    const body = list.map((t) => el("tr", {}, el("th", { scope: "row", title: names[t] }, names[t]),
      list.map((p) => cell(t, p, numbered))));
    const table = el("table", { class: "matrix", role: "grid",
      "aria-label": "Confusion matrix: rows are true classes, columns predicted ones" },
      el("colgroup", {}, el("col"), list.map(() => el("col"))),
      el("thead", {}, head), el("tbody", {}, body));
    const room = holder.clientWidth || 700;
    const label = Math.min(8.5 * longest + 14, room < 500 ? 76 : 150);
    const side = Math.max(Math.min((room - label) / list.length - 1, 46), numbered ? 25 : 13);
    table.style.width = `${label + (side + 1) * list.length + 2}px`;
    table.querySelector("col").style.width = `${label}px`;
    table.style.setProperty("--cell", `${Math.min(side, 40)}px`);
    table.style.setProperty("--head", `${Math.min(8 * longest + 10, 120)}px`);
    table.addEventListener("keydown", (event) => walk(event, table, list.length));
    table.addEventListener("pointerleave", () => { light(null); });
    holder.replaceChildren(table);
    const first = table.querySelector("tbody td");
    if (first) first.tabIndex = 0;
    readout.textContent = idle;
  }

  function cell(t, p, numbered) {
    const n = count(t, p);
    const td = el("td", { role: "gridcell", tabindex: -1, class: t === p ? "diagonal" : null,
      "aria-label": `${names[t]} taken for ${names[p]}: ${n}` },
      numbered && n ? el("span", {}, format(n, "count")) : null);
    if (n) td.style.setProperty("--part", Math.sqrt(n / (support[t] || 1)).toFixed(3));
    td.addEventListener("pointerenter", () => { say(t, p); light(td); });
    td.addEventListener("focus", () => { say(t, p); light(td); });
    td.addEventListener("click", () => choose(td, t, p));
    return td;
  }

  function light(td) {
    holder.querySelectorAll(".lit").forEach((h) => h.classList.remove("lit"));
    if (!td) return;
    td.parentNode.firstChild.classList.add("lit");
    holder.querySelectorAll("thead th")[td.cellIndex - 1].classList.add("lit");
  }

  function choose(td, t, p) {
    if (current) current.removeAttribute("aria-selected");
    td.setAttribute("aria-selected", "true");
    current = td;
    say(t, p);
    pick(t, p, count(t, p));
  }

  function walk(event, table, size) {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const td = event.target.closest("tbody td");
    if (!td) return;
    if (event.key === "Enter" || event.key === " ") td.click();
    else if (moves[event.key]) {
      const [down, right] = moves[event.key];
      const row = td.parentNode.sectionRowIndex + down, column = td.cellIndex + right;
      if (row < 0 || row >= size || column < 1 || column > size) return;
      const next = table.tBodies[0].rows[row].cells[column];
      td.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    } else return;
    event.preventDefault();
  }

  // The classes most often confused with one, itself first.
  function near(c) {
    const others = new Map();
    for (const [t, p, n] of cells) {
      if (t === p || (t !== c && p !== c)) continue;
      const other = t === c ? p : t;
      others.set(other, (others.get(other) || 0) + n);
    }
    const sorted = [...others].sort((a, b) => b[1] - a[1]).map(([other]) => other);
    return [c, ...sorted.slice(0, MOST_SHOWN - 1)];
  }

  const sorting = chooser("Order", [["data", "as in the data"], ["name", "by name"],
    ["error", "worst first"], ["support", "most examples first"]],
    (value) => { order = orders[value]; fill(); });
  const controls = el("div", { class: "controls" }, sorting.label);
  if (block.length < names.length) {
    const around = chooser("Show", [["", `the ${block.length} most confused`],
      ...names.map((name, c) => [c, `${name} and what it is confused with`])],
      (value) => { shown = value === "" ? block : near(Number(value)); fill(); });
    controls.append(around.label);
  }
  let width = 0;
  new ResizeObserver(() => {
    if (holder.clientWidth !== width) { width = holder.clientWidth; fill(); }
  }).observe(holder);
  return el("div", {}, controls, holder, readout);
}
