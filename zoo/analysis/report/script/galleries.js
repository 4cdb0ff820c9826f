// Pictures with what is true, what was said, how surely and where they come from.

// A picture of an answer. `answer` is {uri, small, place, said, sure, truth, right} of texts.
function picture(answer) {
  const said = answer.sure ? `${answer.said} ${answer.sure}` : answer.said;
  const alt = `${answer.right === false ? "Wrong: p" : "P"}redicted ${said}, true: ${answer.truth}`;
  const mark = answer.right === undefined ? "" : answer.right ? " yes" : " no";
  return el("figure", {},
    el("img", { src: answer.uri, alt, class: answer.small ? "small" : null }),
    el("figcaption", {}, el("span", { class: `said${mark}` }, el("b", {}, answer.said),
        el("span", { class: "sure" }, answer.sure)),
      answer.right ? null : el("span", {}, `is ${answer.truth}`),
      el("span", { class: "place", title: answer.place }, answer.place)));
}

// A heading, a sentence and a grid that can be filled again and again.
function gallery(title, text) {
  const grid = el("div", { class: "gallery" });
  const empty = el("p", { class: "empty" });
  const box = el("div", {}, el("h3", {}, title), el("p", { class: "soft" }, text), grid, empty);
  return {
    box,
    fill(answers, otherwise) {
      grid.replaceChildren(...answers.map(picture));
      empty.textContent = answers.length ? "" : otherwise;
    },
  };
}

// The three questions. Items are [picture, truth, said, sure, right]: one for each answer.
function answersOf({ names, items, pictures }) {
  return items.map(([k, truth, said, sure, right]) => ({
    ...pictures[k], t: truth, p: said, s: sure, right: right === 1,
    truth: names[truth], said: names[said], sure: format(sure, "percent"),
  }));
}

function questions(data, answers) {
  const { names, many, affirmative } = data;
  const yes = (a) => !affirmative || affirmative.includes(a.p);
  const kinds = [
    { title: "Sure, and wrong",
      text: "The most instructive ones: a wrong label, a class that means two things, or something that "
        + "the network has never seen.",
      take: (a) => !a.right, by: (a, b) => b.s - a.s, none: "No mistake here." },
    { title: "Least sure",
      text: "Where a few more pictures of the same kind would teach it most.",
      take: () => true, by: (a, b) => a.s - b.s, none: "No picture here." },
    { title: "Sure, and right",
      text: "What it takes for a typical one of its class. Look for what it should not need: a background, "
        + "a caption, a frame.",
      take: (a) => a.right && yes(a), by: (a, b) => b.s - a.s, none: "Nothing right here." },
  ];
  const galleries = kinds.map((kind) => gallery(kind.title, kind.text));
  const fill = (value) => kinds.forEach((kind, i) => {
    const c = Number(value);
    const own = answers.filter((a) => kind.take(a) && (value === "" || a.t === c || a.p === c));
    galleries[i].fill(own.sort(kind.by).slice(0, many), kind.none);
  });
  const there = names.map((name, c) => [c, name]).filter(([c]) =>
    answers.some((a) => a.t === c || a.p === c)).sort((a, b) => collate(a[1], b[1]));
  const filter = chooser("Class, true or predicted", [["", "any"], ...there], fill);
  fill("");
  return [el("div", { class: "controls" }, filter.label), galleries.map((g) => g.box)];
}
