// Exact area means of any part of a picture, from one integral image; see resample.py.
import type { Photo } from "./types.ts";

/** Sums of all pixels above and to the left, three channels: `(height + 1) * (width + 1) * 3`. */
export interface Integral {
  readonly sums: Int32Array;
  readonly width: number;
  readonly height: number;
}

/** Sums of a large photo wrap at 2^31; differences wrap back. */
export function integralImage(photo: Photo): Integral {
  const { rgba, width, height } = photo;
  const stride = (width + 1) * 3;
  const sums = new Int32Array((height + 1) * stride);
  for (let y = 0, from = 0, to = stride; y < height; y++) {
    let r = 0;
    let g = 0;
    let b = 0;
    to += 3;
    for (let x = 0; x < width; x++, from += 4, to += 3) {
      r += rgba[from];
      g += rgba[from + 1];
      b += rgba[from + 2];
      sums[to] = sums[to - stride] + r;
      sums[to + 1] = sums[to + 1 - stride] + g;
      sums[to + 2] = sums[to + 2 - stride] + b;
    }
  }
  return { sums, width, height };
}

/**
 * First and one-past-last pixel of each of `count` windows over `length` pixels from `start`.
 * Windows of fractional size reach outwards to whole pixels, so neighbours may share one.
 */
export function edges(start: number, length: number, count: number): [Int32Array, Int32Array] {
  const first = new Int32Array(count);
  const last = new Int32Array(count);
  for (let k = 0; k < count; k++) {
    first[k] = start + Math.floor((k * length) / count);
    last[k] = start + Math.ceil(((k + 1) * length) / count);
  }
  return [first, last];
}

/**
 * Area means of the windows between two sets of edges, written to `out` from `at` on, row by row,
 * three floats a pixel, 0 to 255.
 */
function means(
  integral: Integral,
  [left, right]: [Int32Array, Int32Array],
  [top, bottom]: [Int32Array, Int32Array],
  out: Float32Array,
  at: number,
): void {
  const { sums } = integral;
  const stride = (integral.width + 1) * 3;
  const columns = left.length;
  for (let j = 0; j < top.length; j++) {
    const above = top[j] * stride;
    const below = bottom[j] * stride;
    const rows = bottom[j] - top[j];
    for (let k = 0; k < columns; k++, at += 3) {
      const a = above + left[k] * 3;
      const b = above + right[k] * 3;
      const c = below + left[k] * 3;
      const d = below + right[k] * 3;
      const pixels = rows * (right[k] - left[k]);
      out[at] = ((sums[d] - sums[b] - sums[c] + sums[a]) | 0) / pixels;
      out[at + 1] = ((sums[d + 1] - sums[b + 1] - sums[c + 1] + sums[a + 1]) | 0) / pixels;
      out[at + 2] = ((sums[d + 2] - sums[b + 2] - sums[c + 2] + sums[a + 2]) | 0) / pixels;
    }
  }
}

/** The whole picture at another size: `height * width * 3` floats. */
export function resizeArea(integral: Integral, width: number, height: number): Float32Array {
  const out = new Float32Array(width * height * 3);
  means(integral, edges(0, integral.width, width), edges(0, integral.height, height), out, 0);
  return out;
}

/**
 * Parts of the picture as squares, black where a part is empty.
 *
 * @param corners left, top, right, bottom a part, whole pixels inside the picture.
 */
export function cropArea(integral: Integral, corners: Int32Array, size: number): Float32Array {
  const count = corners.length / 4;
  const out = new Float32Array(count * size * size * 3);
  for (let i = 0; i < count; i++) {
    const [left, top, right, bottom] = corners.subarray(i * 4, i * 4 + 4);
    if (right <= left || bottom <= top) continue;
    const columns = edges(left, right - left, size);
    means(integral, columns, edges(top, bottom - top, size), out, i * size * size * 3);
  }
  return out;
}
