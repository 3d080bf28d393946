// Five-point alignment; see align.py.
import { blockMeans, pixelsOf } from "./resample.ts";
import type { Pixels } from "./resample.ts";
import type { Crop, Face, Photo } from "./types.ts";

/** Two rows of three: crop = M[:, :2] @ photo + M[:, 2]. */
export type Transform = readonly [number, number, number, number, number, number];

/**
 * The similarity transform that best maps landmarks onto a template, in the least-squares sense.
 *
 * @param landmarks x, y pairs in pixels of the photo.
 * @param template where they should fall, pixels of the crop.
 */
export function similarityTransform(
  landmarks: ArrayLike<number>,
  template: readonly (readonly [number, number])[],
): Transform {
  const count = template.length;
  let [sx, sy, tx, ty] = [0, 0, 0, 0];
  for (let k = 0; k < count; k++) {
    sx += landmarks[k * 2] / count;
    sy += landmarks[k * 2 + 1] / count;
    tx += Math.fround(template[k][0]) / count;
    ty += Math.fround(template[k][1]) / count;
  }
  let [spread, real, imaginary] = [0, 0, 0];
  for (let k = 0; k < count; k++) {
    const x = landmarks[k * 2] - sx;
    const y = landmarks[k * 2 + 1] - sy;
    const u = Math.fround(template[k][0]) - tx;
    const v = Math.fround(template[k][1]) - ty;
    spread += x * x + y * y;
    real += x * u + y * v; // conj(source) * target
    imaginary += x * v - y * u;
  }
  if (spread < 1e-12) throw new Error("landmarks fall on one point: there is nothing to align");
  real /= spread;
  imaginary /= spread;
  return [
    real,
    -imaginary,
    tx - (real * sx - imaginary * sy),
    imaginary,
    real,
    ty - (imaginary * sx + real * sy),
  ];
}

function invert([a, b, c, d, e, g]: Transform): Transform {
  const det = a * e - b * d;
  const [ia, ib, id, ie] = [e / det, -b / det, -d / det, a / det];
  return [ia, ib, -(ia * c + ib * g), id, ie, -(id * c + ie * g)];
}

/** Area-averaged resize, each pixel weighted by the share of it that a window covers, as OpenCV does it. */
export function resizeMean(source: Pixels, columns: number, rows: number): Pixels {
  if (source.width % columns === 0 && source.height % rows === 0) {
    return blockMeans(source, source.width / columns, source.height / rows);
  }
  const across = weights(source.width, columns);
  const down = weights(source.height, rows);
  const { data, width, channels } = source;
  const out = new Uint8ClampedArray(columns * rows * 3); // rounds
  // Sums are float32, in OpenCV's order: else halves round to another side.
  const line = new Float32Array(columns * 3);
  const sums = new Float32Array(columns * 3);
  for (let j = 0; j < rows; j++) {
    sums.fill(0);
    for (let y = down.first[j]; y < down.last[j]; y++) {
      line.fill(0);
      for (let k = 0; k < columns; k++) {
        for (let x = across.first[k]; x < across.last[k]; x++) {
          const share = across.share(k, x);
          const from = (y * width + x) * channels;
          for (let c = 0; c < 3; c++) line[k * 3 + c] += Math.fround(data[from + c] * share);
        }
      }
      const share = down.share(j, y);
      for (let i = 0; i < sums.length; i++) sums[i] += Math.fround(line[i] * share);
    }
    out.set(sums, j * columns * 3);
  }
  return { data: out, width: columns, height: rows, channels: 3 };
}

/** Windows of `length / count` pixels each, and each pixel's weight in its window's mean. */
function weights(length: number, count: number) {
  const size = length / count;
  const first = new Int32Array(count);
  const last = new Int32Array(count);
  for (let k = 0; k < count; k++) {
    first[k] = Math.floor(k * size + 1e-9);
    last[k] = Math.min(length, Math.ceil((k + 1) * size - 1e-9));
  }
  const share = (k: number, i: number): number =>
    Math.fround((Math.min(i + 1, (k + 1) * size) - Math.max(i, k * size)) / size);
  return { first, last, share };
}

/** Bilinear sampling of the crop's pixels from the photo, grey outside of it. */
function sample(source: Pixels, transform: Transform, size: number, border: number): Crop {
  const { data, width, height, channels } = source;
  const [a, b, c, d, e, g] = invert(transform).map(Math.fround);
  const out = new Uint8Array(size * size * 3);
  for (let y = 0, at = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const px = Math.fround(a * x + b * y + c);
      const py = Math.fround(d * x + e * y + g);
      const left = Math.floor(px);
      const top = Math.floor(py);
      const alpha = px - left;
      const beta = py - top;
      const inLeft = left >= 0 && left < width;
      const inRight = left + 1 >= 0 && left + 1 < width;
      const inTop = top >= 0 && top < height;
      const inBottom = top + 1 >= 0 && top + 1 < height;
      const from = (top * width + left) * channels;
      const below = from + width * channels;
      for (let k = 0; k < 3; k++, at++) {
        const p = inTop && inLeft ? data[from + k] : border;
        const q = inTop && inRight ? data[from + channels + k] : border;
        const r = inBottom && inLeft ? data[below + k] : border;
        const s = inBottom && inRight ? data[below + channels + k] : border;
        const upper = p + alpha * (q - p);
        const lower = r + alpha * (s - r);
        out[at] = Math.floor(upper + beta * (lower - upper) + 0.5);
      }
    }
  }
  return out;
}

/** Shrink the part of the picture that the crop covers by a whole factor, averaging. */
function shrink(
  source: Pixels,
  transform: Transform,
  size: number,
  scale: number,
): [Pixels, Transform] {
  const factor = Math.trunc(1 / scale);
  const [a, b, c, d, e, g] = invert(transform);
  const corners = [[0, 0], [size, 0], [0, size], [size, size]];
  const xs = corners.map(([x, y]) => a * x + b * y + c);
  const ys = corners.map(([x, y]) => d * x + e * y + g);
  const clip = (v: number, low: number, high: number): number => Math.min(high, Math.max(low, v));
  const left = clip(Math.floor(Math.min(...xs)) - factor, 0, source.width - 1);
  const top = clip(Math.floor(Math.min(...ys)) - factor, 0, source.height - 1);
  const right = clip(Math.ceil(Math.max(...xs)) + factor, left + 1, source.width);
  const bottom = clip(Math.ceil(Math.max(...ys)) + factor, top + 1, source.height);
  const columns = Math.max(1, Math.floor((right - left) / factor));
  const rows = Math.max(1, Math.floor((bottom - top) / factor));
  // Whole blocks only, as in Python; the remainder is margin.
  const width = Math.min(right - left, columns * factor);
  const height = Math.min(bottom - top, rows * factor);
  const { channels } = source;
  const part = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * source.width + left) * channels;
    part.set(source.data.subarray(from, from + width * channels), y * width * channels);
  }
  const small = resizeMean({ data: part, width, height, channels }, columns, rows);
  const [across, down] = [width / columns, height / rows];
  // Pixel centres correspond, not corners: small x is at photo left + (x + 0.5) * across - 0.5.
  const [x0, y0] = [left + 0.5 * across - 0.5, top + 0.5 * down - 0.5];
  const [p, q, r, s, t, u] = transform;
  return [
    small,
    [p * across, q * down, p * x0 + q * y0 + r, s * across, t * down, s * x0 + t * y0 + u],
  ];
}

/** Cut a square crop out of a photo; if it is much smaller than the face, average first. */
export function warp(photo: Photo, transform: Transform, size: number, border: number): Crop {
  let source = pixelsOf(photo);
  const scale = Math.hypot(transform[0], transform[3]);
  if (scale < 0.5) [source, transform] = shrink(source, transform, size, scale);
  return sample(source, transform, size, border);
}

/** Aligned crops of all faces of a photo. */
export function cropFaces(
  photo: Photo,
  faces: readonly Face[],
  template: readonly [number, number][],
  size: number,
  border: number,
): Crop[] {
  return faces.map((face) =>
    warp(photo, similarityTransform(face.landmarks, template), size, border),
  );
}
