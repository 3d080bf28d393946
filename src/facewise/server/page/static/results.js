// Shows the current photo: strip, stage, message, cards.
import { faces, placeNumbers } from "./cards.js";
import { el } from "./dom.js";
import { count } from "./words.js";

const $ = (id) => document.getElementById(id);
// The photo that the strip was last scrolled to.
let inSight = null;

function strip(photos, current, { choose, remove }) {
  const onkeydown = (photo) => (event) => {
    if (event.key !== "Delete" && event.key !== "Backspace") return;
    event.preventDefault();
    remove(photo);
  };
  if (photos.length < 2) return [];
  return photos.map((photo, index) => {
    const state = photo.answer ? count(photo.answer.faces.length) : photo.error ? "problem" : "waiting";
    const label = `Photo ${index + 1}, ${photo.name}: ${state}`;
    const mark = photo.answer ? String(photo.answer.faces.length) : photo.error ? "!" : "…";
    return el("li", {}, [
      el("button", { "aria-label": label, title: label, "aria-current": photo === current ? "true" : null, "aria-keyshortcuts": "Delete", onclick: () => choose(photo), onkeydown: onkeydown(photo) }, [
        photo.image ? el("img", { src: photo.url, alt: "", draggable: "false" }) : null,
        el("span", { class: "mark", "aria-hidden": "true" }, [mark]),
      ]),
    ]);
  });
}

function progress(photo) {
  const uploading = photo.progress !== null && photo.progress < 1;
  const text = photo.waiting ? (photo.pausedBy ? `${photo.pausedBy}: resumes by itself` : "Waiting for its turn") : uploading ? `Uploading, ${Math.round(photo.progress * 100)}\u00a0%` : "Looking for faces";
  return el("div", { class: "progress calm" }, [
    el("label", { for: "bar" }, [text]),
    el("progress", uploading ? { id: "bar", max: 1, value: photo.progress } : { id: "bar" }),
  ]);
}

const failed = (photos) => photos.filter((photo) => photo.error && !photo.error.isFinal);

function problem(photo, photos, retry) {
  const { title, detail } = photo.error;
  // Not an alert: it was already announced, and reappears whenever its photo is shown.
  return el("div", { class: "problem" }, [
    el("h3", {}, [title]), el("p", {}, [detail]),
    photo.error.isFinal ? null : el("div", { class: "row" }, [
      el("button", { onclick: () => retry([photo]) }, ["Try again"]),
      el("button", { id: "retry-all", onclick: () => retry(failed(photos)) }),
    ]),
  ]);
}

const noFace = () => el("div", { class: "calm" }, [
  el("h3", {}, ["No face found"]),
  el("p", {}, ["facewise finds faces that are roughly upright and not too small: in a large photo, at least a fortieth of its shorter side. If the photo lies on its side, turn it; else crop it closer to the face, or try one that is sharper or turned to the camera."]),
]);

function stage(photo, boxes) {
  if (photo.image) return [photo.image, ...boxes];
  if (!photo.answer) return [];
  // A browser that cannot show the format (HEIC, TIFF) still gets the boxes, on a blank of the same shape.
  const kind = photo.name.match(/\.(\w{2,5})$/)?.[1].toUpperCase();
  const text = `This browser can't show this ${kind ? `${kind} ` : ""}picture${boxes.length ? "; the boxes are where the faces are" : ""}.`;
  const blank = el("div", { class: "blank" }, [el("p", {}, [text])]);
  blank.style.setProperty("--shape", photo.answer.width_px / photo.answer.height_px);
  return [blank, ...boxes];
}

function caption(photo) {
  const name = photo.isAnimated ? `${photo.name} · first frame of an animation` : photo.name;
  if (!photo.answer) return name;
  const { width_px: width, height_px: height, timings_ms: times } = photo.answer;
  const found = `${count(photo.answer.faces.length).toLowerCase()} in ${Math.round(times.total)}\u00a0ms`;
  return `${name} · ${width}\u00a0×\u00a0${height} · ${found}${photo.answer.more_faces ? " · smaller faces were left out" : ""}`;
}

/** Scroll the strip, which is a single row on phones, to a newly shown photo. */
function bringIntoSight(photo) {
  const row = $("strip"), chosen = row.querySelector('[aria-current="true"]');
  if (!chosen || photo === inSight) return;
  inSight = photo;
  row.scrollLeft = chosen.parentElement.offsetLeft - row.offsetLeft - (row.clientWidth - chosen.offsetWidth) / 2;
}

/** Redraw the strip and the buttons, which change as photos finish; focus in the strip is kept. */
export function renderBar(state, actions) {
  const focused = [...$("strip").querySelectorAll("button")].indexOf(document.activeElement);
  $("strip").replaceChildren(...strip(state.photos, state.current, actions));
  bringIntoSight(state.current);
  // After the last one is removed, focus the one before it.
  if (focused >= 0) [...$("strip").querySelectorAll("button")].slice(0, focused + 1).at(-1)?.focus();
  // One slow photo does not hold up the others: the buttons say how many are in the file.
  const all = state.photos.length, done = state.photos.filter((item) => item.answer || item.error).length;
  for (const [id, kind] of [["save-json", "JSON"], ["save-csv", "CSV"]]) {
    const text = done && done < all ? `${kind} (${done} of ${all})` : kind;
    Object.assign($(id), { disabled: !done, textContent: text, ariaLabel: `Download as ${text}` });
  }
  $("save-picture").disabled = !(state.current.answer && state.current.image);
  const again = failed(state.photos).length;
  if ($("retry-all")) Object.assign($("retry-all"), { hidden: again < 2, textContent: `Try all ${again} again` });
}

/** Redraw everything for the current photo. */
export function render(state, about, actions) {
  const photo = state.current;
  document.body.classList.toggle("has-photos", Boolean(photo));
  $("results").hidden = !photo;
  if (!photo) {
    // What was removed is not kept out of sight either.
    for (const id of ["strip", "frame", "caption", "message", "cards"]) $(id).replaceChildren();
    inSight = null;
    return;
  }
  const { boxes, cards } = photo.answer ? faces(photo, about) : { boxes: [], cards: [] };
  const shown = stage(photo, boxes);
  $("frame").hidden = !shown.length;
  $("frame").replaceChildren(...shown);
  placeNumbers(boxes);
  $("caption").textContent = caption(photo);
  const message = photo.error ? problem(photo, state.photos, actions.retry) : !photo.answer ? progress(photo) : photo.answer.faces.length === 0 ? noFace() : null;
  $("message").replaceChildren(...(message ? [message] : []));
  $("cards").replaceChildren(...cards);
  renderBar(state, actions);
  renderFolds();
}

const folds = () => [...$("cards").querySelectorAll(".fold")];

/** Update the button that opens all folded cards; hidden if there are none. */
export function renderFolds() {
  $("open-all").hidden = !folds().length;
  $("open-all").textContent = folds().every((fold) => fold.open) ? "Close all" : "Open all";
}

export function toggleFolds() {
  const open = folds().some((fold) => !fold.open);
  for (const fold of folds()) fold.open = open;
}

/** Update only the bar during an upload: a full redraw would lose focus. */
export function renderProgress(photo) {
  $("message").replaceChildren(progress(photo));
}

/** Open all cards while the page is printed, as on paper nobody can, and explain the interval once. */
export function openFoldsInPrint() {
  let closed = [];
  addEventListener("beforeprint", () => {
    const explanations = [...$("cards").querySelectorAll("details:not(.fold)")];
    const first = explanations.some((one) => one.open) ? [] : explanations.slice(0, 1);
    closed = [...folds(), ...first].filter((one) => !one.open);
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => {
    for (const one of closed.splice(0)) one.open = false;
  });
}
