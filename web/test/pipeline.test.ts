import { describe, expect, it } from "vitest";
import { resizeMean, similarityTransform, warp } from "../src/align.ts";
import { nonMaximumSuppression, refine, take, toSquares } from "../src/boxes.ts";
import { agesToDecades, expectedAge } from "../src/labels.ts";
import { bands, blockSide, cutSquares, pyramidScales, smallestPx } from "../src/mtcnn.ts";
import { AreaSource, blockMeans, edges } from "../src/resample.ts";
import type { MtcnnSpec } from "../src/spec.ts";
import type { Photo } from "../src/types.ts";

function photo(width: number, height: number, value: (x: number, y: number, k: number) => number): Photo {
  const rgba = new Uint8ClampedArray(width * height * 4);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let k = 0; k < 4; k++) rgba[(y * width + x) * 4 + k] = k === 3 ? 255 : value(x, y, k);
    }
  }
  return { rgba, width, height };
}

const noise = (x: number, y: number, k: number): number => (x * 73 + y * 151 + k * 31 + x * y) % 256;

/** Means by summing every pixel, which an integral image must agree with. */
function byHand(source: Photo, box: number[], columns: number, rows: number): number[] {
  const [left, top, right, bottom] = box;
  const out: number[] = [];
  for (let j = 0; j < rows; j++) {
    const y0 = top + Math.floor((j * (bottom - top)) / rows);
    const y1 = top + Math.ceil(((j + 1) * (bottom - top)) / rows);
    for (let k = 0; k < columns; k++) {
      const x0 = left + Math.floor((k * (right - left)) / columns);
      const x1 = left + Math.ceil(((k + 1) * (right - left)) / columns);
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let y = y0; y < y1; y++) {
          for (let x = x0; x < x1; x++) sum += source.rgba[(y * source.width + x) * 4 + c];
        }
        out.push(sum / ((y1 - y0) * (x1 - x0)));
      }
    }
  }
  return out;
}

const spec = {
  cell_px: 12,
  stride_px: 2,
  min_face: { px: 20, share_of_short_side: 0.025 },
  pyramid_factor: 0.5,
  pixels_a_cell: 2,
  band_area_px: 600,
  min_band_px: 24,
} as MtcnnSpec;

describe("area means", () => {
  const source = photo(37, 29, noise);

  it("are those of all pixels that a window touches", () => {
    const level = new AreaSource(source).level(11, 7);
    const expected = byHand(source, [0, 0, 37, 29], 11, 7);
    expected.forEach((value, i) => expect(level[i]).toBeCloseTo(value, 3));
  });

  it("of parts are too; an empty part is grey", () => {
    const corners = Int32Array.from([3, 4, 30, 25, 5, 5, 5, 9]);
    const crops = new AreaSource(source).crops(corners, 4);
    const expected = byHand(source, [3, 4, 30, 25], 4, 4);
    expected.forEach((value, i) => expect(crops[i]).toBeCloseTo(value, 3));
    expect(new Set(crops.subarray(48))).toEqual(new Set([127]));
  });

  it.each([1, 2])("past the edge are those of the picture in a border: blocks of %i", (reduction) => {
    const source = photo(120, 100, noise);
    const around = photo(320, 300, (x, y, k) =>
      x >= 100 && x < 220 && y >= 100 && y < 200 ? noise(x - 100, y - 100, k) : 127,
    );
    const corners = Int32Array.from([-30, -20, 50, 60, 60, 50, 140, 130, -40, -30, 160, 170, 130, 5, 170, 45]);
    for (const size of [12, 24, 48]) {
      const options = { reduction, detail: 2, border: 127 };
      const expected = new AreaSource(around, options).crops(corners.map((v) => v + 100), size);
      const actual = new AreaSource(source, options).crops(corners, size);
      expected.forEach((v, i) => expect(actual[i]).toBeCloseTo(v, 2));
    }
  });

  it("of a reduced picture come from its blocks, and of a small part from the picture itself", () => {
    const large = photo(60, 60, (x, y) => (Math.floor(x / 3) + Math.floor(y / 3)) % 256);
    const reduced = new AreaSource(large, { reduction: 3, detail: 2, border: 127 });
    expect(Array.from(reduced.level(20, 20).subarray(0, 6))).toEqual([0, 0, 0, 1, 1, 1]);
    const small = reduced.crops(Int32Array.from([3, 3, 15, 15]), 4);
    byHand(large, [3, 3, 15, 15], 4, 4).forEach((v, i) => expect(small[i]).toBeCloseTo(v, 3));
  });

  it.each([1, 2, 3, 4])("of a crop may reach the edge whatever is left over there: blocks of %i", (reduction) => {
    for (const [width, height] of [[611, 403], [612, 402], [614, 406], [615, 407], [1001, 1001]]) {
      const source = new AreaSource(photo(width, height, () => 90), { reduction, detail: 2, border: 0 });
      const corners = Int32Array.from([0, 0, width, height, width - 200, height - 200, width, height]);
      const crops = source.crops(corners, 24);
      expect(Math.min(...crops)).toBeCloseTo(90, 2);
      expect(Math.max(...crops)).toBeCloseTo(90, 2);
    }
  });

  it("keep right when sums pass 2^31", () => {
    const bright = photo(4000, 2500, () => 255);
    const level = new AreaSource(bright).level(16, 10);
    expect(Math.min(...level)).toBe(255);
  });

  it("windows of fractional size share pixels", () => {
    const [first, last] = edges(10, 5, 3);
    expect(Array.from(first)).toEqual([10, 11, 13]);
    expect(Array.from(last)).toEqual([12, 14, 15]);
  });
});

// As OpenCV does: tests/unit/test_resample.py has the same numbers.
it.each([[2, 2, 1, 2], [3, 2, 0, 2], [4, 4, 0, 2], [6, 6, 0, 2], [8, 8, 0, 2]])(
  "halves of blocks of %i x %i are rounded as in Python",
  (across, down, half, oneAndAHalf) => {
    const count = across * down;
    const data = new Uint8Array(count * 2 * 3);
    // Two blocks side by side, of which the first row holds all that is not black.
    data.fill(count / 2, 0, 3);
    data.fill((count * 3) / 2, across * 3, (across + 1) * 3);
    const source = { data, width: across * 2, height: down, channels: 3 };
    const expected = [half, half, half, oneAndAHalf, oneAndAHalf, oneAndAHalf];
    expect(Array.from(blockMeans(source, across, down).data)).toEqual(expected);
    expect(Array.from(resizeMean(source, 2, 1).data)).toEqual(expected);
  },
);

describe("boxes", () => {
  const boxes = Float32Array.from([0, 0, 10, 10, 1, 1, 11, 11, 20, 20, 30, 30, 2, 2, 8, 8]);
  const logits = Float32Array.from([0.8, 0.9, 0.7, 0.6]);

  it("that overlap a better one fall away", () => {
    expect(nonMaximumSuppression(boxes, logits, 0.5)).toEqual([1, 2, 3]);
    expect(nonMaximumSuppression(boxes, logits, 0.5, "smaller")).toEqual([1, 2]);
  });

  it("that differ by what engines differ by are equally good, and the first wins", () => {
    const pair = boxes.subarray(0, 8);
    for (const off of [0, 1e-5, -1e-5]) {
      expect(nonMaximumSuppression(pair, Float32Array.from([12.8, 12.8 + off]), 0.5)).toEqual([0]);
    }
  });

  it("whose probabilities are one float are told apart by their logits", () => {
    const probability = (z: number): number => Math.fround(1 / (1 + Math.exp(-z)));
    expect(probability(18)).toBe(probability(19));
    expect(nonMaximumSuppression(boxes.subarray(0, 8), Float32Array.from([18, 19]), 0.5)).toEqual([1]);
  });

  it("move by shares of their size and become squares", () => {
    const moved = Float32Array.from([0, 0, 10, 20]);
    refine(moved, Float32Array.from([0.1, 0, 0, -0.1]), 0);
    expect(Array.from(moved)).toEqual([1, 0, 10, 18]);
    toSquares(moved);
    expect(Array.from(moved)).toEqual([-3.5, 0, 14.5, 18]);
  });

  it("are picked by row", () => {
    expect(Array.from(take(boxes, [2], 4))).toEqual([20, 20, 30, 30]);
  });
});

describe("the pyramid", () => {
  it("begins at the smallest face and ends at one window", () => {
    expect(pyramidScales(spec, 100, 80)).toEqual([0.6, 0.3, 0.15]);
    expect(pyramidScales(spec, 16, 16)).toEqual([]);
  });

  it("begins at another smallest face, if one is given", () => {
    expect(pyramidScales(spec, 100, 80, 40)).toEqual([0.3, 0.15]);
    expect(pyramidScales(spec, 100, 80, 81)).toEqual([]);
    expect(smallestPx(spec, 100, 80)).toBe(spec.min_face.px);
    expect(smallestPx(spec, 9000, 8000)).toBe(8000 * spec.min_face.share_of_short_side);
  });

  it("reads large photos from blocks", () => {
    expect(blockSide(spec, 640, 480)).toBe(1);
    expect(blockSide(spec, 4000, 3000)).toBe(3);
  });

  it("is looked at in bands whose windows are those of the whole", () => {
    for (const height of [12, 13, 34, 61, 62, 63, 200]) {
      const tops: number[] = [];
      for (const [top, rows] of bands(spec, 20, height)) {
        for (let y = top; y + 12 <= top + rows; y += 2) tops.push(y);
      }
      const whole = Array.from({ length: Math.floor((height - 12) / 2) + 1 }, (_, i) => i * 2);
      expect(tops).toEqual(whole);
    }
  });

  it("cuts squares out, and fills them up with grey", () => {
    const source = photo(20, 20, noise);
    const around = photo(60, 60, (x, y, k) =>
      x >= 20 && x < 40 && y >= 20 && y < 40 ? noise(x - 20, y - 20, k) : 127,
    );
    const squares = cutSquares(new AreaSource(source), Float32Array.from([-5.5, 1, 10.9, 30]), 5);
    byHand(around, [14, 20, 30, 50], 5, 5).forEach((v, i) => expect(squares[i]).toBeCloseTo(v, 3));
  });
});

describe("alignment", () => {
  it("finds the similarity that moved the template", () => {
    const template: [number, number][] = [[10, 10], [30, 10], [20, 22], [13, 33], [27, 33]];
    const [scale, turn] = [2, 0.3];
    const points = template.flatMap(([x, y]) => [
      scale * (x * Math.cos(turn) - y * Math.sin(turn)) + 7,
      scale * (x * Math.sin(turn) + y * Math.cos(turn)) - 4,
    ]);
    const [a, b, c, d, e, g] = similarityTransform(points, template);
    template.forEach(([u, v], k) => {
      expect(a * points[k * 2] + b * points[k * 2 + 1] + c).toBeCloseTo(u, 6);
      expect(d * points[k * 2] + e * points[k * 2 + 1] + g).toBeCloseTo(v, 6);
    });
  });

  it("cuts out what lies there, and grey where nothing does", () => {
    const source = photo(16, 16, noise);
    const crop = warp(source, [1, 0, 2, 0, 1, 0], 8, 127);
    expect(crop[0]).toBe(127);
    for (let k = 0; k < 3; k++) expect(crop[(3 * 8 + 5) * 3 + k]).toBe(noise(3, 3, k));
  });

  it("averages before it makes small", () => {
    const stripes = photo(80, 80, (x) => (x % 2 ? 255 : 0));
    const crop = warp(stripes, [0.1, 0, 0, 0, 0.1, 0], 8, 127);
    for (const value of crop.subarray(3 * 3 * 8, 3 * 4 * 8 - 3)) expect(Math.abs(value - 128)).toBeLessThan(2);
  });

  it("weighs pixels by the share a window covers", () => {
    const three = { data: Uint8Array.from([0, 0, 0, 90, 90, 90, 30, 30, 30]), width: 3, height: 1, channels: 3 };
    expect(Array.from(resizeMean(three, 2, 1).data)).toEqual([30, 30, 30, 50, 50, 50]);
  });

  it("rounds halves to even, as OpenCV does", () => {
    const side = 128;
    const data = Uint8Array.from({ length: side * side * 3 }, (_, i) => [0, 2, 2, 0][Math.floor(i / 3) % 4]);
    const small = resizeMean({ data, width: side, height: side, channels: 3 }, 96, 96).data;
    // The means are 0.5, 2 and 0.5.
    expect(small.filter((value, i) => value !== [0, 2, 0][Math.floor(i / 3) % 3])).toHaveLength(0);
  });
});

describe("ages", () => {
  it("sum to decades and to their mean", () => {
    const ages = new Float32Array(120);
    ages[9] = 0.25; // ten years old: the first decade
    ages[10] = 0.75;
    expect(expectedAge(ages)).toBeCloseTo(10.75);
    expect(Array.from(agesToDecades(ages).subarray(0, 3))).toEqual([0.25, 0.75, 0]);
  });
});
