// Exact area means of any part of a picture, from one integral image; see resample.py.
import type { Photo } from "./types.ts";

export interface Options {
  /** Side of the pixel blocks that are averaged first; 1 is exact. */
  reduction: number;
  /** Least number of pixels of the reduced picture per pixel of a crop, along each side. */
  detail: number;
  /** Value outside the picture, 0 to 255. */
  border: number;
}

/** A picture in a flat array, `channels` bytes per pixel, the first three of them RGB. */
export interface Pixels {
  data: Uint8ClampedArray | Uint8Array;
  width: number;
  height: number;
  channels: number;
}

/** Sums of all pixels above and to the left: `(height + 1) * (width + 1) * 3`. */
interface Integral {
  sums: Int32Array;
  width: number;
  height: number;
}

/** First and one-past-last pixel of each window. */
type Edges = readonly [Int32Array, Int32Array];

/** A picture ready to be read at any scale. */
export class AreaSource {
  private readonly integral: Integral;

  constructor(
    private readonly photo: Photo,
    readonly options: Options = { reduction: 1, detail: 2, border: 127 },
  ) {
    this.integral = integralImage(blockMeans(pixelsOf(photo), options.reduction));
  }

  get width(): number {
    return this.photo.width;
  }

  get height(): number {
    return this.photo.height;
  }

  /** The whole picture at another size: `height * width * 3` floats, 0 to 255. */
  level(width: number, height: number): Float32Array<ArrayBuffer> {
    const out = new Float32Array(width * height * 3);
    const { integral, options } = this;
    const [x, y] = [edges(0, integral.width, width), edges(0, integral.height, height)];
    means(integral, x, y, options.border, out, 0);
    return out;
  }

  /**
   * Parts of the picture, and of the grey around it, as squares: `N * size * size * 3` floats, grey
   * where a part is empty.
   *
   * @param corners left, top, right, bottom of each part, in whole pixels.
   */
  crops(corners: Int32Array, size: number): Float32Array<ArrayBuffer> {
    const { reduction, detail, border } = this.options;
    const count = corners.length / 4;
    const [columns, rows] = [this.integral.width, this.integral.height];
    const out = new Float32Array(count * size * size * 3);
    for (let i = 0; i < count; i++) {
      const part = Array.from(corners.subarray(i * 4, i * 4 + 4));
      const at = i * size * size * 3;
      const side = Math.min(part[2] - part[0], part[3] - part[1]);
      if (reduction === 1) square(this.integral, part, size, border, out, at);
      else if (side >= detail * size * reduction) {
        // The remainder after the last whole block may round up to a block that does not exist.
        const coarse = part.map((v, k) => {
          const [length, most] = k % 2 ? [this.height, rows] : [this.width, columns];
          const block = roundHalfEven(v / reduction);
          return v <= length ? Math.min(block, most) : block;
        });
        square(this.integral, coarse, size, border, out, at);
      } else {
        const { data, left, top } = cut(this.photo, part);
        const apart = part.map((v, k) => v - (k % 2 ? top : left));
        square(integralImage(data), apart, size, border, out, at);
      }
    }
    return out;
  }
}

const clamp = (value: number, most: number): number => Math.min(Math.max(value, 0), most);

export function roundHalfEven(value: number): number {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/** The portion of a part that lies inside the photo, and where it begins. */
function cut({ rgba, ...photo }: Photo, part: number[]): { data: Pixels; left: number; top: number } {
  const [left, top, right, bottom] = part.map((v, k) => clamp(v, k % 2 ? photo.height : photo.width));
  const [width, height] = [Math.max(0, right - left), Math.max(0, bottom - top)];
  const data = new Uint8Array(width * height * 4);
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * photo.width + left) * 4;
    data.set(rgba.subarray(from, from + width * 4), y * width * 4);
  }
  return { data: { data, width, height, channels: 4 }, left, top };
}

/**
 * Means of blocks of pixels, dropping the remainder at the right and at the bottom; the picture itself
 * if blocks are single pixels.
 */
export function blockMeans(source: Pixels, across: number, down = across): Pixels {
  if (across === 1 && down === 1) return source;
  const width = Math.floor(source.width / across);
  const height = Math.floor(source.height / down);
  // It rounds halves to even. So does OpenCV, but in blocks of two by two, where it rounds them up.
  const data = new Uint8ClampedArray(width * height * 3);
  const line = new Uint32Array(width * 3);
  const share = Math.fround(1 / (across * down));
  const isHalfUp = across === 2 && down === 2;
  for (let y = 0; y < height; y++) {
    line.fill(0);
    for (let dy = 0; dy < down; dy++) {
      let from = (y * down + dy) * source.width * source.channels;
      for (let x = 0; x < line.length; x += 3) {
        for (let dx = 0; dx < across; dx++, from += source.channels) {
          line[x] += source.data[from];
          line[x + 1] += source.data[from + 1];
          line[x + 2] += source.data[from + 2];
        }
      }
    }
    const to = y * width * 3;
    for (let x = 0; x < line.length; x++) {
      data[to + x] = isHalfUp ? (line[x] + 2) >> 2 : Math.fround(line[x] * share);
    }
  }
  return { data, width, height, channels: 3 };
}

export const pixelsOf = ({ rgba, width, height }: Photo): Pixels => ({ data: rgba, width, height, channels: 4 });

/** The integral image. Sums of a large photo wrap at 2^31; differences wrap back. */
function integralImage({ data, width, height, channels }: Pixels): Integral {
  const stride = (width + 1) * 3;
  const sums = new Int32Array((height + 1) * stride);
  for (let y = 0, from = 0, to = stride; y < height; y++) {
    let r = 0;
    let g = 0;
    let b = 0;
    to += 3;
    for (let x = 0; x < width; x++, from += channels, to += 3) {
      r += data[from];
      g += data[from + 1];
      b += data[from + 2];
      sums[to] = sums[to - stride] + r;
      sums[to + 1] = sums[to + 1 - stride] + g;
      sums[to + 2] = sums[to + 2 - stride] + b;
    }
  }
  return { sums, width, height };
}

/**
 * `count` windows over `length` pixels from `start`. Windows of fractional size extend outwards to
 * whole pixels, so neighbours may share a pixel.
 */
export function edges(start: number, length: number, count: number): Edges {
  const first = new Int32Array(count);
  const last = new Int32Array(count);
  for (let k = 0; k < count; k++) {
    first[k] = start + Math.floor((k * length) / count);
    last[k] = start + Math.ceil(((k + 1) * length) / count);
  }
  return [first, last];
}

function square(
  integral: Integral,
  [left, top, right, bottom]: number[],
  size: number,
  border: number,
  out: Float32Array,
  at: number,
): void {
  if (right <= left || bottom <= top) out.fill(border, at, at + size * size * 3);
  else {
    const [x, y] = [edges(left, right - left, size), edges(top, bottom - top, size)];
    means(integral, x, y, border, out, at);
  }
}

/**
 * Area means of the windows between two sets of edges, written to `out` from `at` on; `border`
 * outside the picture.
 */
function means(
  { sums, width, height }: Integral,
  [left, right]: Edges,
  [top, bottom]: Edges,
  border: number,
  out: Float32Array,
  at: number,
): void {
  const stride = (width + 1) * 3;
  const columns = left.length;
  const [inLeft, inRight] = [left, right].map((x) => x.map((v) => clamp(v, width)));
  for (let j = 0; j < top.length; j++) {
    const [inTop, inBottom] = [clamp(top[j], height), clamp(bottom[j], height)];
    const above = inTop * stride;
    const below = inBottom * stride;
    const rows = bottom[j] - top[j];
    for (let k = 0; k < columns; k++, at += 3) {
      const x0 = inLeft[k] * 3;
      const x1 = inRight[k] * 3;
      const a = above + x0;
      const b = above + x1;
      const c = below + x0;
      const d = below + x1;
      const area = rows * (right[k] - left[k]);
      const outside = border * (area - (inBottom - inTop) * (inRight[k] - inLeft[k]));
      const share = 1 / area;
      out[at] = (((sums[d] - sums[b] - sums[c] + sums[a]) | 0) + outside) * share;
      out[at + 1] = (((sums[d + 1] - sums[b + 1] - sums[c + 1] + sums[a + 1]) | 0) + outside) * share;
      out[at + 2] = (((sums[d + 2] - sums[b + 2] - sums[c + 2] + sums[a + 2]) | 0) + outside) * share;
    }
  }
}
