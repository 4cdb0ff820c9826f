// The page, section by section. A section whose data are not there stays hidden.

const data = JSON.parse(byId("data").textContent);

function summary({ kicker, lede, headline, splits, further, facts }) {
  byId("kicker").textContent = kicker;
  byId("lede").textContent = lede;
  byId("headline").append(...headline.map((h) => el("div", {}, el("span", {}, h.title),
    el("b", {}, format(h.value, h.form)),
    el("span", {}, h.interval ? `95${thin}% interval ${interval(h.interval, h.form)}` : ""))));
  const { columns, rows } = splits;
  byId("splits").append(el("p", { class: "note" }, splits.caption),
    plainTable("Figures of each split", ["", ...columns.map((c) => c.title), "examples"],
      rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.split),
        row.values.map(({ value, interval: pair }, i) => el("td", {}, format(value, columns[i].form),
          el("span", { class: "interval" }, interval(pair, columns[i].form)))),
        el("td", {}, format(row.examples, "count"))))));
  byId("further").append(el("details", {}, el("summary", {}, "All figures"),
    plainTable("All figures", ["", "", `95${thin}% interval`], further.map((f) => el("tr", {},
      el("th", { scope: "row" }, f.title), el("td", {}, format(f.value, f.form)),
      el("td", { class: "soft" }, interval(f.interval, f.form)))))));
  byId("facts").append(el("dl", { class: "pairs" }, facts.map(([name, value, code]) =>
    [el("dt", {}, name), el("dd", { class: code ? "mono" : null }, value)])));
}

function course({ text, charts }) {
  open("course").append(el("p", {}, text), ...charts.map(lines));
}

function gaps({ text, form, rungs, gaps: list, advice, notes }) {
  const most = Math.max(...rungs.map((r) => r.error), 1e-9);
  const box = open("gaps");
  box.append(el("p", {}, text), el("div", { class: "ladder", role: "img", "aria-label":
    rungs.map((r) => `${r.title}: ${format(r.error, form)}`).join("; ") },
    rungs.map((rung) => {
      const below = el("div", { class: "below" });
      const gap = el("div", { class: `gap${rung.largest ? " largest" : ""}` });
      below.style.width = `${(100 * Math.min(rung.error, rung.before)) / most}%`;
      gap.style.width = `${(100 * Math.max(rung.error - rung.before, 0)) / most}%`;
      return [el("div", {}, rung.title), el("div", { class: "track" }, below, gap),
        el("div", { class: "value" }, format(rung.error, form))];
    })));
  box.append(plainTable("Gaps", [["gap", "text"], ["between", "text"], "size", `95${thin}% interval`],
    list.map((g) => el("tr", { class: g.largest ? "marked" : null },
      el("th", { scope: "row" }, g.title), el("td", { class: "text" }, g.between),
      el("td", {}, format(g.size, form)),
      el("td", { class: "soft" }, interval(g.interval, form))))));
  if (advice) {
    box.append(el("div", { class: "advice" }, el("h3", {}, advice.title), el("p", {}, advice.text),
      el("ul", {}, advice.steps.map((step) => el("li", {}, step)))));
  }
  box.append(...notes.map((note) => el("p", { class: "note" }, note)));
}

function confusions(part, answers) {
  const cell = gallery("", "");
  cell.box.hidden = true;
  const pick = (t, p, n) => {
    const own = answers.filter((a) => a.t === t && a.p === p).sort((a, b) => b.s - a.s);
    const [heading, text] = cell.box.children;
    heading.textContent = t === p
      ? `${part.names[t]}, recognised` : `${part.names[t]}, taken for ${part.names[p]}`;
    text.textContent = own.length
      ? `${plural(own.length, "picture")} of ${format(n, "count")}, the surest first.` : "";
    cell.fill(own, n ? `None of the ${format(n, "count")} was kept in this page.` : "There is none.");
    cell.box.hidden = false;
  };
  const pairs = sortable({
    caption: part.pairs.length < part.kinds
      ? `The ${part.pairs.length} most frequent of ${format(part.kinds, "count")} kinds of mistake`
      : "All kinds of mistake",
    limit: 10, by: 2, descending: true, rows: part.pairs,
    columns: [
      { title: "true class", text: true, value: ([t]) => part.names[t] },
      { title: "is taken for", text: true, value: ([, p]) => part.names[p] },
      { title: "times", value: ([, , n]) => n, cell: ([, , n]) => format(n, "count") },
      { title: "of class", value: ([t, , n]) => n / part.support[t],
        cell: ([t, , n]) => format(n / part.support[t], "share") },
    ],
  });
  open("confusions").append(el("p", {}, part.text), matrix(part, pick), cell.box);
  if (part.pairs.length) byId("confusions").append(el("h3", {}, "The most frequent mistakes"), pairs.box);
}

function classes({ text, rows, taken }) {
  const bar = (value) => {
    const fill = el("i");
    fill.style.width = `${100 * (value || 0)}%`;
    return [el("span", { class: "bar", "aria-hidden": "true" }, fill), format(value, "percent")];
  };
  const part = (title, key) =>
    ({ title, value: (r) => r[key], cell: (r) => format(r[key], "percent") });
  const columns = [
    { title: "class", text: true, value: (r) => r.name },
    { title: "F1", value: (r) => r.f1, cell: (r) => bar(r.f1) },
    part("precision", "precision"), part("recall", "recall"),
    { title: "examples", value: (r) => r.support, cell: (r) => format(r.support, "count") },
  ];
  if (taken) {
    columns.push({ title: "most often taken for", text: true, value: (r) => r.taken_for || null,
      cell: (r) => r.taken_for ? `${r.taken_for} (${format(r.taken, "count")})` : "–" });
  }
  const table = sortable({ caption: "Click a heading to sort by it", rows, columns, by: 1,
    descending: false, limit: 20 });
  const box = open("classes");
  box.append(el("p", {}, text));
  if (rows.length > 20) {
    const search = el("input", { type: "search", oninput: () => {
      const wanted = search.value.toLowerCase();
      table.keep((r) => r.name.toLowerCase().includes(wanted));
    } });
    box.append(el("div", { class: "controls" }, el("label", {}, "Find a class", search)));
  }
  box.append(table.box);
}

function numbers({ text, targets }) {
  const holder = el("div");
  const show = (i) => holder.replaceChildren(
    el("p", { class: "note" }, targets[i].text), scatter(targets[i]), histogram(targets[i]));
  const box = open("numbers");
  box.append(el("p", {}, text));
  if (targets.length > 1) {
    box.append(el("div", { class: "controls" }, chooser("Target",
      targets.map((t, i) => [i, t.name]), (value) => show(Number(value))).label));
  }
  box.append(holder);
  show(0);
}

// Of a regression: the largest and the smallest errors of a target.
function numbered({ targets, items, pictures, many }) {
  const worst = gallery("Largest errors", "Look at the label first: the largest errors are often its.");
  const best = gallery("Smallest errors", "What it finds easy.");
  const show = (i) => {
    const all = items.map(([k, truth, said]) => ({ ...pictures[k], error: Math.abs(said[i] - truth[i]),
      truth: format(truth[i]), said: format(said[i]) }));
    worst.fill(all.sort((a, b) => b.error - a.error).slice(0, many), "");
    best.fill(all.sort((a, b) => a.error - b.error).slice(0, many), "");
  };
  const filter = targets.length > 1
    ? el("div", { class: "controls" }, chooser("Target", targets.map((name, i) => [i, name]),
      (value) => show(Number(value))).label) : null;
  show(0);
  return [filter, worst.box, best.box];
}

function gallerySection(part, answers) {
  open("pictures").append(el("p", {}, part.text),
    ...(part.targets ? numbered(part) : questions(part, answers)).flat().filter(Boolean));
}

function calibration({ text, bars, of, note }) {
  const readout = el("p", { class: "readout", "aria-live": "polite" }, note);
  open("calibration").append(el("p", {}, text), reliabilityDiagram({ bars, of }, readout), readout,
    el("details", {}, el("summary", {}, "The same as a table"),
      plainTable("Reliability", [["probability", "text"], "answers", "on average", of],
        bars.filter((b) => b.count).map((b) => el("tr", {},
          el("th", { scope: "row" }, `${format(b.low, "share")} to ${format(b.high, "share")}`),
          el("td", {}, format(b.count, "count")), el("td", {}, format(b.confidence, "percent")),
          el("td", {}, format(b.accuracy, "percent")))))));
}

const answers = data.pictures && data.pictures.names ? answersOf(data.pictures) : [];
summary(data.summary);
if (data.gaps) gaps(data.gaps);
if (data.course) course(data.course);
if (data.confusions) confusions(data.confusions, answers);
if (data.classes) classes(data.classes);
if (data.numbers) numbers(data.numbers);
if (data.pictures) gallerySection(data.pictures, answers);
if (data.calibration) calibration(data.calibration);
byId("footer").textContent = data.footer;
byId("contents").append(...[...document.querySelectorAll("section:not([hidden])")].map((section) =>
  el("li", {}, el("a", { href: `#${section.id}` }, section.querySelector("h2").textContent))));
