// Follows the faces of a live view from frame to frame and smooths their answers.
import { ageWords, groups } from "./words.js";

/** Weight of a new frame in the smoothed numbers; at ten frames a second most is two thirds of a second old. */
const NEW = 0.3;
/** Least overlap (IoU) of a face with itself one frame earlier. */
const SAME = 0.3;
/** Frames that a face may be missing before it is forgotten. */
const PATIENCE = 3;

function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return (width * height) / (area(a) + area(b) - width * height);
}

const mix = (old, now) => old + NEW * (now - old);

/** The numbers to smooth, without those that facewise abstains from in this frame. */
function numbers(face) {
  const out = {};
  const age = face.age && !face.abstained.age ? face.age : null;
  if (age) out.age = { years: age.years, low: age.interval_years[0], high: age.interval_years[1] };
  for (const [name, group] of groups(face)) if (!face.abstained[name]) out[name] = { ...group.probabilities };
  return out;
}

function blend(old, now) {
  const out = { ...old };
  for (const [name, values] of Object.entries(now)) {
    out[name] = old[name] ? Object.fromEntries(Object.entries(values).map(([key, value]) => [key, mix(old[name][key], value)])) : values;
  }
  return out;
}

/** Tracks faces: given each frame's faces, update() returns {bbox, text} to show. */
export class Tracks {
  tracks = [];

  update(faces) {
    const free = new Set(this.tracks);
    const seen = faces.map((face) => {
      const best = [...free].map((track) => [overlap(track.bbox, face.bbox), track]).sort((a, b) => b[0] - a[0])[0];
      if (best && best[0] >= SAME) {
        const track = best[1];
        free.delete(track);
        return { bbox: face.bbox, missed: 0, numbers: blend(track.numbers, numbers(face)), sure: sureness(track, face) };
      }
      return { bbox: face.bbox, missed: 0, numbers: numbers(face), sure: sureness(null, face) };
    });
    const missing = [...free].map((track) => ({ ...track, missed: track.missed + 1 })).filter((track) => track.missed <= PATIENCE);
    this.tracks = [...seen, ...missing];
    return seen.map((track) => ({ bbox: track.bbox, text: text(track) }));
  }
}

/** The recent share of frames in which facewise did not abstain, for each attribute of a face. */
function sureness(track, face) {
  const names = [...(ageWords(face) ? ["age"] : []), ...groups(face).map(([name]) => name)];
  return Object.fromEntries(names.map((name) => {
    const now = name in face.abstained ? 0 : 1;
    return [name, track && name in track.sure ? mix(track.sure[name], now) : now];
  }));
}

function text(track) {
  const parts = [];
  for (const [name, share] of Object.entries(track.sure)) {
    const values = track.numbers[name];
    if (share < 0.5 || !values) continue;
    if (name === "age") parts.push(`${Math.round(values.low)}-${Math.round(values.high)} years`);
    else parts.push(Object.entries(values).sort((a, b) => b[1] - a[1])[0][0]);
  }
  return parts.join(", ") || "can't tell";
}

/** The widest gap that refusals alone make. */
const WIDEST_MS = 2000;

/** The gap between the starts of two frames: doubled after a refusal, then slowly reduced. */
export class Pace {
  constructor(leastMs) {
    this.leastMs = this.gapMs = leastMs;
  }

  refused() {
    this.gapMs = Math.max(this.leastMs, Math.min(2 * this.gapMs, WIDEST_MS));
  }

  answered() {
    this.gapMs = Math.max(this.leastMs, 0.95 * this.gapMs);
  }
}

/** Frames per second over the last two seconds. */
export class Rate {
  times = [];

  tick(now) {
    this.times = [...this.times.filter((time) => now - time < 2000), now];
    if (this.times.length < 2) return null;
    return ((this.times.length - 1) * 1000) / (now - this.times[0]);
  }
}
