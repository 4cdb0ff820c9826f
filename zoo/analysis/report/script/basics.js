// What all parts of the page use: elements, numbers, tables.
// Text gets in as text nodes only, so that no name of a class or file can be markup.

const byId = (id) => document.getElementById(id);

function add(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

const el = (tag, attributes, ...children) =>
  add(document.createElement(tag), attributes, children);

const svg = (tag, attributes, ...children) =>
  add(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// Shows a section and returns it.
function open(id) {
  byId(id).hidden = false;
  return byId(id);
}

const thin = "\u202f"; // a narrow space: between a number and its percent sign

const SUPERSCRIPTS = Object.fromEntries([..."-0123456789"].map((c, i) => [c, "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"[i]]));

function format(value, form) {
  if (value === null || value === undefined) return "–";
  if (form === "percent") return (100 * value).toFixed(2).replace("-", "−") + thin + "%";
  if (form === "share") {
    const digits = value > 0 && value < 0.0995 ? 1 : 0;
    return (100 * value).toFixed(digits) + thin + "%";
  }
  if (form === "count") return value.toLocaleString("en");
  if (form === "fixed" && Math.abs(value) < 10) return value.toFixed(4).replace("-", "−");
  if (value !== 0 && (Math.abs(value) < 1e-4 || Math.abs(value) >= 1e6)) {
    const [digits, power] = value.toExponential(2).split("e");
    const raised = [...power.replace("+", "")].map((c) => SUPERSCRIPTS[c]).join("");
    return `${Number(digits)}`.replace("-", "−") + `${thin}×${thin}10${raised}`;
  }
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

const interval = (pair, form) =>
  pair && pair[0] !== null ? `${format(pair[0], form)} to ${format(pair[1], form)}` : "";

const plural = (count, one, many) => `${format(count, "count")} ${count === 1 ? one : many || one + "s"}`;

function collate(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1; // what is not defined comes last, either way
  if (b === null || b === undefined) return -1;
  return typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
}

// A select with a label. `options` are [value, text].
function chooser(label, options, change) {
  const select = el("select", {}, options.map(([value, text]) => el("option", { value }, text)));
  select.addEventListener("change", () => change(select.value));
  return { select, label: el("label", {}, label, select) };
}

// A box that scrolls sideways, by the keyboard as well.
const scrolling = (table) =>
  el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": table.ariaLabel }, table);

// A table: `heads` are texts, or [text, "text"] of a column that is not of numbers.
function plainTable(label, heads, rows) {
  return scrolling(el("table", { class: "table", "aria-label": label },
    el("thead", {}, el("tr", {}, heads.map((head) =>
      el("th", { scope: "col", class: Array.isArray(head) ? "text" : null }, [head].flat()[0])))),
    el("tbody", {}, rows)));
}

// A table that can be sorted by any column, in a box that scrolls sideways.
//
// A column is {title, text, value(row), cell(row)}: `text` if it is not a number, `value` what is
// sorted by, `cell` what is shown, by default the value.
function sortable({ caption, columns, rows, by, descending, limit }) {
  const body = el("tbody");
  const heads = columns.map((column, i) =>
    el("th", { scope: "col", class: column.text ? "text" : null, "aria-sort": "none" },
      el("button", { type: "button", onclick: () => sort(i) }, column.title)));
  const table = el("table", { class: "table", "aria-label": caption },
    el("thead", {}, el("tr", {}, heads)), body);
  const more = el("button", { type: "button", class: "plain", onclick: () => { shown = Infinity; fill(); } });
  let state = { by, descending }, shown = limit || Infinity, kept = () => true;

  function sort(column) {
    const same = state.by === column;
    state = { by: column, descending: same ? !state.descending : !columns[column].text };
    fill();
  }

  function fill() {
    const { value } = columns[state.by];
    const sign = state.descending ? -1 : 1;
    const defined = (row) => value(row) !== null && value(row) !== undefined;
    const sorted = rows.filter(kept).sort((a, b) =>
      defined(a) && defined(b) ? sign * collate(value(a), value(b)) : collate(value(a), value(b)));
    heads.forEach((head, i) => head.setAttribute("aria-sort",
      i !== state.by ? "none" : state.descending ? "descending" : "ascending"));
    body.replaceChildren(...sorted.slice(0, shown).map((row) => el("tr", {}, columns.map((column, i) => {
      const content = (column.cell || column.value)(row);
      const attributes = { class: column.text ? "text" : null, scope: i ? null : "row" };
      return el(i ? "td" : "th", attributes, content);
    }))));
    more.textContent = `Show all ${format(sorted.length, "count")}`;
    more.hidden = sorted.length <= shown;
  }

  fill();
  return {
    box: el("div", {}, el("p", { class: "note" }, caption), scrolling(table), more),
    keep(test) { kept = test; fill(); },
  };
}
