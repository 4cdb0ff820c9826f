// Charts, drawn at the width that there is and drawn again when it changes.

const DASHES = ["", "7 3", "2 3", "9 3 2 3"];

// A chart's frame: `paint(width)` returns an <svg> for a width in CSS pixels.
function chart(paint, ...around) {
  const holder = el("div");
  const figure = el("figure", { class: "chart" }, ...around, holder);
  let drawn = 0;
  const draw = () => {
    const width = Math.round(holder.clientWidth);
    if (!width || width === drawn) return;
    drawn = width;
    holder.replaceChildren(paint(width));
  };
  new ResizeObserver(draw).observe(holder);
  return figure;
}

// Round numbers from `low` to `high`, about `count` of them.
function ticks(low, high, count) {
  if (!(high > low)) return [low];
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 2.5, 5, 10].find((m) => m * power >= raw);
  const first = Math.ceil(low / step - 1e-9);
  const out = [];
  for (let i = first; i * step <= high + step * 1e-9; i++) out.push(i * step);
  return out;
}

// Decades, with 2 and 5 between them where these are few.
function decades(low, high) {
  const out = [];
  const few = Math.log10(high / low) < 2.5;
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    for (const m of few ? [1, 2, 5] : [1]) out.push(m * 10 ** e);
  }
  const inside = out.filter((v) => v >= low * 0.999 && v <= high * 1.001);
  return inside.length > 1 ? inside : ticks(low, high, 4);
}

// A scale from values to pixels.
function scale(low, high, from, to, log) {
  const f = log ? Math.log10 : (v) => v;
  const [a, b] = [f(low), f(high)];
  return (v) => from + ((f(v) - a) / (b - a || 1)) * (to - from);
}

const around = (values, pad) => {
  const low = Math.min(...values), high = Math.max(...values);
  const room = (high - low || Math.abs(high) || 1) * pad;
  return [low - room, high + room];
};

// Axes of a plot; returns their group. `x` and `y` are {at, ticks, form, title}.
function axes(box, x, y) {
  const g = svg("g", { "aria-hidden": "true" });
  for (const v of y.ticks) {
    g.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y.at(v), y2: y.at(v) }),
      svg("text", { x: box.left - 8, y: y.at(v) + 4, "text-anchor": "end" }, format(v, y.form)));
  }
  for (const v of x.ticks) {
    g.append(svg("text", { x: x.at(v), y: box.bottom + 18, "text-anchor": "middle" }, format(v, x.form)));
  }
  g.append(svg("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  if (x.title) {
    g.append(svg("text", { x: box.right, y: box.bottom + 34, "text-anchor": "end" }, x.title));
  }
  return g;
}

const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

// Lines over epochs with a legend that says the values where the pointer is.
function lines({ title, form, log, series, best }) {
  const legend = el("div", { class: "legend" });
  const values = series.map((s) => el("b"));
  const where = el("span", { class: "soft" });
  legend.append(...series.map((s, i) => el("span", { class: `c${s.colour}` },
    svg("svg", { viewBox: "0 0 22 8", "aria-hidden": "true" },
      svg("line", { x1: 0, x2: 22, y1: 4, y2: 4, class: "line", "stroke-dasharray": DASHES[s.colour] })),
    el("span", {}, s.label), values[i])), where);
  const all = series.flatMap((s) => s.x);
  const last = Math.max(...all);
  const nearest = (s, epoch) =>
    s.x.reduce((b, v, i) => (Math.abs(v - epoch) < Math.abs(s.x[b] - epoch) ? i : b), 0);
  const say = (epoch) => {
    series.forEach((s, i) => { values[i].textContent = format(s.y[nearest(s, epoch)], form); });
    where.textContent = `epoch ${format(epoch)}`;
  };
  say(last);

  const paint = (width) => {
    const box = { left: 56, right: width - 14, top: 10, bottom: 214 };
    const ys = series.flatMap((s) => s.y.flatMap((v, i) => s.sd ? [v - s.sd[i], v + s.sd[i]] : [v]));
    const usable = log ? ys.filter((v) => v > 0) : ys;
    let [low, high] = log
      ? [Math.min(...usable) / 1.15, Math.max(...usable) * 1.15] : around(usable, 0.06);
    if (form === "percent") high = Math.min(high, 1);
    if (form === "percent" || Math.min(...usable) >= 0 && !log) low = Math.max(low, 0);
    const x = scale(Math.min(0, ...all), last, box.left, box.right);
    const y = scale(low, high, box.bottom, box.top, log);
    const of = (s, f) => s.x.map((v, i) => [x(v), y(Math.max(f(i), low))]);
    const out = svg("svg", { viewBox: `0 0 ${width} 252`, role: "img", tabindex: 0,
      "aria-label": `${title} over epochs. ` + series.map((s) =>
        `${s.label}: ${format(s.y[0], form)} at first, ${format(s.y.at(-1), form)} at last`).join("; ")
        + ". Arrow keys move along the curves." },
      axes(box, { at: x, ticks: ticks(0, last, width < 500 ? 4 : 8), title: "epoch" },
        { at: y, ticks: log ? decades(low, high) : ticks(low, high, 5),
          form: form === "percent" ? "share" : null }));
    if (best) {
      const right = x(best.x) > (box.left + box.right) / 2;
      out.append(svg("line", { class: "guide", x1: x(best.x), x2: x(best.x), y1: box.top, y2: box.bottom }),
        svg("text", { x: x(best.x) + (right ? -6 : 6), y: box.bottom - 8,
          "text-anchor": right ? "end" : "start" }, best.text));
    }
    for (const s of series) {
      const g = svg("g", { class: `c${s.colour}` });
      if (s.sd) {
        const edge = of(s, (i) => s.y[i] + s.sd[i]).concat(of(s, (i) => s.y[i] - s.sd[i]).reverse());
        g.append(svg("path", { class: "band", d: `${path(edge)}Z` }));
      }
      g.append(svg("path", { class: "line", d: path(of(s, (i) => s.y[i])),
        "stroke-dasharray": DASHES[s.colour] }));
      if (s.x.length === 1) g.append(svg("circle", { class: "dot", cx: x(s.x[0]), cy: y(s.y[0]), r: 4 }));
      out.append(g);
    }
    const cursor = svg("line", { class: "axis", y1: box.top, y2: box.bottom, visibility: "hidden" });
    const dots = series.map((s) => svg("circle", { class: `dot c${s.colour}`, r: 4, visibility: "hidden" }));
    out.append(cursor, ...dots);
    const steps = [...new Set(all)].sort((a, b) => a - b);
    let at = steps.length - 1;
    const show = (visible) => [cursor, ...dots].forEach((d) =>
      d.setAttribute("visibility", visible ? "visible" : "hidden"));
    const move = (epoch) => {
      add(cursor, { x1: x(epoch), x2: x(epoch) }, []);
      series.forEach((s, i) => {
        const k = nearest(s, epoch);
        add(dots[i], { cx: x(s.x[k]), cy: y(Math.max(s.y[k], low)) }, []);
      });
      say(epoch);
      show(true);
    };
    const leave = () => { show(false); say(last); };
    out.addEventListener("pointermove", (event) => {
      const px = (event.clientX - out.getBoundingClientRect().left) * width / out.clientWidth;
      at = steps.reduce((b, v, i) => (Math.abs(x(v) - px) < Math.abs(x(steps[b]) - px) ? i : b), 0);
      move(steps[at]);
    });
    out.addEventListener("pointerleave", leave);
    out.addEventListener("blur", leave);
    out.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      at = Math.min(Math.max(at + by, 0), steps.length - 1);
      move(steps[at]);
    });
    return out;
  };
  return chart(paint, el("figcaption", {}, el("b", {}, title)), legend);
}

// How often it was right, over how sure it was, above how many examples there are.
function reliabilityDiagram({ bars, of }, readout) {
  const most = Math.max(...bars.map((b) => b.count));
  const paint = (width) => {
    const box = { left: 56, right: Math.min(width - 14, 560), top: 10, bottom: 270 };
    const x = scale(0, 1, box.left, box.right), y = scale(0, 1, box.bottom, box.top);
    const fifths = [0, 0.2, 0.4, 0.6, 0.8, 1];
    const out = svg("svg", { viewBox: `0 0 ${width} 380`, role: "img", "aria-label":
      "Reliability diagram; the table below has the same figures." },
      axes(box, { at: x, ticks: fifths, form: "share" }, { at: y, ticks: fifths, form: "share" }));
    for (const bar of bars.filter((b) => b.count)) {
      const wide = x(bar.high) - x(bar.low) - 2;
      const g = svg("g", { class: "c0" },
        svg("rect", { class: "column", x: x(bar.low) + 1, width: wide, y: y(bar.accuracy),
          height: box.bottom - y(bar.accuracy) }),
        svg("rect", { class: "column faint", x: x(bar.low) + 1, width: wide,
          y: 370 - 60 * bar.count / most, height: 60 * bar.count / most }),
        svg("line", { class: "mean", x1: x(bar.low) + 1,
          x2: x(bar.low) + 1 + wide, y1: y(bar.confidence), y2: y(bar.confidence) }),
        svg("rect", { x: x(bar.low), width: wide + 2, y: box.top, height: 370 - box.top, opacity: 0 }));
      g.addEventListener("pointerenter", () => { readout.textContent = saidOf(bar, of); });
      out.append(g);
    }
    out.append(svg("line", { class: "guide", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
      svg("line", { class: "axis", x1: box.left, x2: box.right, y1: 370, y2: 370 }),
      svg("text", { x: box.left, y: 304, "aria-hidden": "true" }, `examples (at most ${format(most, "count")})`));
    return out;
  };
  return chart(paint, el("figcaption", {}, el("b", {}, `How often ${of}`), "over the probability it gave"));
}

const saidOf = (bar, of) =>
  `${plural(bar.count, "answer")} with a probability of ${format(bar.low, "share")} to `
  + `${format(bar.high, "share")}: ${format(bar.confidence, "percent")} on average, and `
  + `${format(bar.accuracy, "percent")} ${of}.`;

// Points [true, predicted] with the line where both are equal.
function scatter({ name, points }) {
  const paint = (width) => {
    const side = Math.min(width, 520);
    const box = { left: 56, right: side - 14, top: 10, bottom: side - 56 };
    const [low, high] = around(points.flat(), 0.04);
    const x = scale(low, high, box.left, box.right), y = scale(low, high, box.bottom, box.top);
    const marks = ticks(low, high, 5);
    const out = svg("svg", { viewBox: `0 0 ${width} ${side - 12}`, role: "img",
      "aria-label": `${name}: predicted over true value of ${plural(points.length, "example")}` },
      axes(box, { at: x, ticks: marks, title: "true value" }, { at: y, ticks: marks }),
      svg("line", { class: "guide", x1: x(low), y1: y(low), x2: x(high), y2: y(high) }));
    const r = points.length > 800 ? 1.8 : 3;
    out.append(svg("g", { class: "c0" }, points.map(([a, b]) =>
      svg("circle", { class: "point", cx: x(a).toFixed(1), cy: y(b).toFixed(1), r }))));
    return out;
  };
  return chart(paint, el("figcaption", {}, el("b", {}, "Predicted"),
    "over true value; on the dotted line both are equal"));
}

// Columns of equal width: `edges` are one more than `counts`.
function histogram({ name, edges, counts }) {
  const paint = (width) => {
    const box = { left: 56, right: Math.min(width - 14, 560), top: 10, bottom: 170 };
    const x = scale(edges[0], edges.at(-1), box.left, box.right);
    const y = scale(0, Math.max(...counts), box.bottom, box.top);
    return svg("svg", { viewBox: `0 0 ${width} 208`, role: "img",
      "aria-label": `${name}: how many examples have which error` },
      axes(box, { at: x, ticks: ticks(edges[0], edges.at(-1), width < 500 ? 4 : 7), title: "predicted − true" },
        { at: y, ticks: ticks(0, Math.max(...counts), 4).filter(Number.isInteger) }),
      svg("g", { class: "c0" }, counts.map((count, i) => svg("rect", { class: "column", x: x(edges[i]) + 0.5,
        width: Math.max(x(edges[i + 1]) - x(edges[i]) - 1, 0.5), y: y(count), height: box.bottom - y(count) },
        svg("title", {}, `${format(edges[i])} to ${format(edges[i + 1])}: ${plural(count, "example")}`)))),
      svg("line", { class: "guide", x1: x(0), x2: x(0), y1: box.top, y2: box.bottom }));
  };
  return chart(paint, el("figcaption", {}, el("b", {}, "Errors"), "how many examples have which"));
}
