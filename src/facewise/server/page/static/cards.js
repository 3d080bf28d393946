// One card per face, and the boxes over the photo; each highlights the other.
import { ageChart } from "./chart.js";
import { el } from "./dom.js";
import { ageWords, capital, groups, list, percent, summary } from "./words.js";

/** With at least this many faces, each card is folded to one row. */
const MANY = 4;

/** A box lower than this is small. */
const SMALL_PX = 72;

/** The height of a number beside a small box. */
const NUMBER_PX = 20;

/** Draw a face, with some of its surroundings, into a square canvas. */
function crop(image, face, scale, number) {
  if (!image) return null;
  const canvas = el("canvas", { class: "crop", width: 136, height: 136, role: "img", "aria-label": `Face ${number}, cut from the photo` });
  const within = (value, most) => Math.max(0, Math.min(value, most));
  // A box may reach beyond the picture, where there is nothing to show.
  const size = [image.naturalWidth, image.naturalHeight];
  const [left, top, right, bottom] = face.bbox.map((v, i) => within(v * scale, size[i % 2]));
  const side = Math.min(Math.max(right - left, bottom - top) * 1.35, ...size);
  const x = within((left + right - side) / 2, size[0] - side), y = within((top + bottom - side) / 2, size[1] - side);
  canvas.getContext("2d").drawImage(image, x, y, side, side, 0, 0, 136, 136);
  return canvas;
}

function heading(face, number) {
  const age = ageWords(face);
  if (!age) return el("h3", {}, [`Face ${number}`]);
  const between = `between ${age.low} and ${age.high}`;
  const [title, range] = face.abstained.age ? ["Apparent age: can't tell", `the model says ${age.years}, ${between}`] : [`Apparent age ${age.years}`, between];
  return el("h3", {}, [title, el("span", { class: "visually-hidden" }, [", "]), el("span", { class: "range" }, [range])]);
}

/** The labels in one line, for a folded card; a mark where facewise can't tell (the age is in the heading). */
function gist(face) {
  const names = groups(face).map(([name]) => name), unsure = names.filter((name) => face.abstained[name]);
  const sure = names.filter((name) => !face.abstained[name]).map((name) => capital(said(face[name]))).join(", ");
  return el("span", { class: "gist" }, [
    sure, sure && unsure.length ? " " : null,
    unsure.length ? el("span", { class: "unsure-mark" }, [`can't tell the ${list(unsure, "or")}`]) : null,
  ]);
}

/** The likeliest label, or both if it could be either of two. */
function said(group) {
  return group.label_set.length === 2 && isTop(group) ? list(group.label_set, "or") : group.label;
}

/** What facewise abstains from, one sentence per reason. */
function abstentions(face) {
  const byReason = new Map();
  for (const [name, words] of Object.entries(face.abstained)) {
    // The figures in brackets, with each attribute's threshold, appear only in the downloads.
    const reason = words.replace(/ \(.*\)$/, "");
    byReason.set(reason, [...(byReason.get(reason) ?? []), name]);
  }
  return [...byReason].map(([reason, names]) => el("p", { class: "abstain" }, [
    el("strong", {}, [`facewise can't tell the ${list(names, "or")}: `]),
    `${reason}. The model's numbers are still shown; don't rely on them.`,
  ]));
}

function explanation(about) {
  const level = Math.round(about.coverage * 100);
  return el("details", {}, [
    el("summary", {}, ["What does this interval mean?"]),
    el("p", {}, [
      `Intervals like this one are made to hold the labelled age of ${level} in 100 faces, on faces like the ones they were fitted and tested on: pictures${about.data.length ? ` from ${list(about.data)}` : ""} that the model was not trained on. ${about.measured} On other kinds of photos it can be fewer. `,
      el("a", { href: about.cardUrl }, ["The model card"]),
      " shows it for every group of people.",
    ]),
  ]);
}

/** Whether the label set holds the most probable labels; it need not, as each label has its own threshold. */
function isTop({ label_set: set, probabilities }) {
  const least = Math.min(...set.map((label) => probabilities[label]));
  return Object.entries(probabilities).every(([label, p]) => set.includes(label) || p <= least);
}

function bars(name, group, isUnsure) {
  const rows = Object.entries(group.probabilities).map(([label, p]) => {
    const fill = el("span", { class: "fill" });
    fill.style.width = `${(p * 100).toFixed(1)}%`;
    return el("li", { class: label === group.label ? "top" : null }, [
      el("span", {}, [capital(label)]), el("span", { class: "track", "aria-hidden": "true" }, [fill]), el("span", { class: "value" }, [percent(p)]),
    ]);
  });
  // Leave out a sentence that the bars would contradict.
  const set = group.label_set.length > 1 && isTop(group) ? el("p", { class: "set" }, [`Not clear-cut: ${list(group.label_set, "or")}.`]) : null;
  return el("div", { class: `bars${isUnsure ? " unsure" : ""}` }, [
    el("h4", {}, [`Apparent ${name}`]), el("ul", { "aria-label": `Apparent ${name}` }, rows), set,
  ]);
}

function card(photo, face, index, about, link) {
  const number = index + 1, age = ageWords(face), isUnsure = "age" in face.abstained;
  const head = [crop(photo.image, face, photo.scale, number), heading(face, number)];
  const label = `Face ${number}: show it in the photo`;
  const locate = el("button", { class: "locate", "aria-label": label, title: label, onclick: () => link.focusBox(index) }, [String(number)]);
  const body = [
    ...abstentions(face),
    age && face.age.probabilities ? ageChart(face.age, `Age distribution${isUnsure ? " (unsure)" : ""}: ${age.years} on average, between ${age.low} and ${age.high}`, isUnsure) : null,
    age ? explanation(about) : null,
    ...groups(face).map(([name, group]) => bars(name, group, name in face.abstained)),
  ];
  const isClosed = photo.answer.faces.length >= MANY;
  return el("li", { class: `card${isClosed ? " folded" : ""}`, id: `face-${number}`, tabindex: "-1", "aria-label": `Face ${number}` }, isClosed
    ? [el("details", { class: "fold" }, [el("summary", {}, [...head, gist(face)]), el("div", { class: "card-body" }, body)]), locate]
    : [el("div", { class: "card-head" }, [...head, locate]), ...body]);
}

function box(face, index, size, link) {
  const [left, top, right, bottom] = face.bbox;
  const node = el("button", { class: "box", "aria-label": `Face ${index + 1}: ${summary(face)}`, onclick: () => link.focusCard(index) }, [
    el("span", { class: "tag", "aria-hidden": "true" }, [String(index + 1)]),
  ]);
  const at = (value, whole) => `${Math.min(100, Math.max(0, (value / whole) * 100))}%`;
  node.style.left = at(left, size.width_px);
  node.style.top = at(top, size.height_px);
  node.style.width = at(Math.min(right, size.width_px) - Math.max(left, 0), size.width_px);
  node.style.height = at(Math.min(bottom, size.height_px) - Math.max(top, 0), size.height_px);
  return node;
}

/** Move the numbers out of small boxes, where they would cover the face. */
export function placeNumbers(boxes) {
  const shown = boxes.map((node) => ({ node, high: node.offsetHeight, top: node.offsetTop }));
  for (const { node, high, top } of shown) {
    node.classList.toggle("small", high < SMALL_PX);
    // Above the box, or below it where there is no room above.
    node.classList.toggle("low", high < SMALL_PX && top < NUMBER_PX);
  }
}

/** Boxes and cards of an analysed photo, linked. */
export function faces(photo, about) {
  const boxes = [], cards = [];
  const mark = (index, on) => {
    boxes[index].classList.toggle("on", on);
    cards[index].classList.toggle("on", on);
  };
  const link = {
    focusBox: (index) => { boxes[index].scrollIntoView({ block: "nearest" }); boxes[index].focus(); },
    focusCard: (index) => {
      const fold = cards[index].querySelector(".fold");
      if (fold) fold.open = true;
      cards[index].scrollIntoView({ block: "nearest" });
      cards[index].focus();
    },
  };
  photo.answer.faces.forEach((face, index) => {
    boxes.push(box(face, index, photo.answer, link));
    cards.push(card(photo, face, index, about, link));
    for (const node of [boxes[index], cards[index]]) {
      for (const event of ["pointerenter", "focusin"]) node.addEventListener(event, () => mark(index, true));
      for (const event of ["pointerleave", "focusout"]) node.addEventListener(event, () => mark(index, false));
    }
  });
  return { boxes, cards };
}
