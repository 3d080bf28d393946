// JSON, CSV and the annotated picture, made in the browser from the page's data.
import { save } from "./dom.js";
import { placeAnyhow, placeApart } from "./labels.js";
import { ageWords, groups } from "./words.js";

const base = (name) => name.replace(/\.[^.]*$/, "") || "photo";

/** Photos that have an answer or an error, with their numbers on the page: names may repeat. */
const finished = (photos) => photos.map((photo, index) => ({ ...photo, number: index + 1 })).filter((photo) => photo.answer || photo.error);

const named = ({ number, name }) => ({ photo_number: number, photo: name });

export function saveJson(photos) {
  const out = finished(photos).map((photo) => {
    if (photo.answer) return { ...named(photo), ...photo.answer };
    const { code, title, detail } = photo.error;
    return { ...named(photo), error: { code, title, detail } };
  });
  save(new Blob([JSON.stringify(out, null, 1)], { type: "application/json" }), "facewise.json");
}

/** One CSV cell; text that a spreadsheet would run as a formula is made harmless. */
function cell(value) {
  let text = value === null || value === undefined ? "" : String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function rowOf(photo, face, index) {
  const [left, top, right, bottom] = face.bbox;
  const row = { ...named(photo), faces: photo.answer.faces.length, error: "", face: index + 1, left, top, right, bottom, detection_score: face.detection_score };
  if (face.age) {
    row.age_years = face.age.years;
    [row.age_low_years, row.age_high_years] = face.age.interval_years;
    row.age_abstained = face.abstained.age ?? "";
  }
  for (const [name, group] of groups(face)) {
    row[name] = group.label;
    for (const [label, p] of Object.entries(group.probabilities)) row[`${name}_${label}`] = p;
    row[`${name}_abstained`] = face.abstained[name] ?? "";
  }
  row.coverage = face.coverage;
  row.model = `${face.model.name}@${face.model.version}`;
  row.model_sha256 = face.model.sha256;
  return row;
}

/** One row per face or photo without faces, with the columns of all rows: engines can differ in attributes. */
export function csvOf(photos) {
  const rows = finished(photos).flatMap((photo) => {
    if (photo.error) return [{ ...named(photo), faces: "", error: photo.error.title, face: "" }];
    const { faces } = photo.answer;
    if (!faces.length) return [{ ...named(photo), faces: 0, error: "", face: "" }];
    return faces.map((face, index) => rowOf(photo, face, index));
  });
  const columns = [...new Set(rows.flatMap(Object.keys))];
  return [columns, ...rows.map((row) => columns.map((name) => row[name]))].map((cells) => cells.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** Starts with a byte order mark, by which Excel recognises UTF-8. */
export const saveCsv = (photos) => save(new Blob(["\ufeff", csvOf(photos)], { type: "text/csv;charset=utf-8" }), "facewise.csv");

/** The text of a face's label in the picture. */
function words(face, index) {
  const age = ageWords(face), unsure = (name) => (face.abstained[name] ? "?" : "");
  const parts = [age && `${age.years}${unsure("age")} (${age.low}-${age.high})`, ...groups(face).map(([name, group]) => group.label + unsure(name))];
  return `${index + 1}: ${parts.filter(Boolean).join(", ")}`;
}

/** Returns whether it could be made: browsers limit a canvas's pixels, some more than others. */
export async function savePicture(photo) {
  const { width_px: width, height_px: height, faces } = photo.answer;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const pen = canvas.getContext("2d");
  pen.drawImage(photo.image, 0, 0, width, height);
  const line = Math.max(2, Math.min(width, height) / 250);
  const size = Math.max(13, Math.min(width, height) / 34);
  pen.font = `600 ${size}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  for (const { bbox: [left, top, right, bottom] } of faces) {
    pen.lineWidth = line * 2;
    pen.strokeStyle = "rgb(0 0 0 / 65%)";
    pen.strokeRect(left, top, right - left, bottom - top);
    pen.lineWidth = line;
    pen.strokeStyle = "#fff";
    pen.strokeRect(left, top, right - left, bottom - top);
  }
  // Drawn after all boxes, so that none cuts through a label. If there is no room, as in a crowd, the faces' numbers
  // are drawn instead: the page and the CSV have them too.
  const boxes = faces.map((face) => face.bbox);
  const sizes = (texts) => texts.map((text) => [pen.measureText(text).width + size * 0.8, size * 1.5]);
  let texts = faces.map(words), places = placeApart(boxes, sizes(texts), [width, height]);
  if (!places) {
    texts = faces.map((face, index) => String(index + 1));
    places = placeApart(boxes, sizes(texts), [width, height]) ?? placeAnyhow(boxes, sizes(texts), [width, height]);
  }
  for (const [index, [left, top, right, bottom]] of places.entries()) {
    pen.fillStyle = "#101214";
    pen.fillRect(left, top, right - left, bottom - top);
    pen.fillStyle = "#fff";
    pen.fillText(texts[index], left + size * 0.4, (top + bottom) / 2);
  }
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  if (blob) save(blob, `${base(photo.name)}.faces.png`);
  return Boolean(blob);
}
