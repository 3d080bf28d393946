import { describe, expect, it } from "vitest";
import type { Network } from "../src/models.ts";
import { MTCNN } from "../src/mtcnn.ts";
import { backFrom, bestPortrait, mayBeIn, mirrorFace, mirrorPhoto, viewOf } from "../src/portrait.ts";
import type { MtcnnSpec } from "../src/spec.ts";
import type { Face, Photo } from "../src/types.ts";

const portrait = {
  thresholds: [0.4, 0.5, 0.5] as [number, number, number],
  share_of_short_side: 0.25,
  off_centre: 0.2,
  border: 0,
};
const tight = { ...portrait, share_of_short_side: 0.7, border: 0.25 };
const spec = {
  cell_px: 12, stride_px: 2, batch_size: 32, pixels_a_cell: 2, detail: 2,
  band_area_px: 60_000, min_band_px: 24, pyramid_factor: 0.709,
  thresholds: [0.6, 0.7, 0.7],
  second_look: [0.7, 0.3],
  portraits: [portrait, tight],
  bordered_px: 192, most_sides: 2, border_value: 127,
  nms: { level: 0.5, photo: 0.7, rnet: 0.7, onet: 0.7 },
  min_face: { px: 20, share_of_short_side: 0.025 },
} as unknown as MtcnnSpec;

function faceAt(left: number, top: number, side: number, detection_score = 0.9): Face {
  const shares = [0.3, 0.4, 0.7, 0.4, 0.5, 0.6, 0.35, 0.8, 0.65, 0.8];
  return {
    bbox: Float32Array.from([left, top, left + side, top + side]),
    landmarks: Float32Array.from(shares, (v, i) => (i % 2 ? top : left) + v * side),
    detection_score,
  };
}

function blank(width: number, height: number): Photo {
  return { rgba: new Uint8ClampedArray(width * height * 4).fill(255), width, height };
}

describe("a portrait", () => {
  const photo = blank(400, 200);

  it("is the likeliest large face near the middle", () => {
    const centred = faceAt(170, 70, 60);
    const likelier = faceAt(150, 60, 60, 0.95);
    expect(bestPortrait(portrait, [centred, likelier], photo)).toEqual([likelier]);
    for (const off of [faceAt(260, 70, 60), faceAt(170, 120, 60), faceAt(180, 80, 40)]) {
      expect(bestPortrait(portrait, [off], photo)).toEqual([]);
      expect(bestPortrait(portrait, [off, centred], photo)).toEqual([centred]);
    }
  });

  it("comes back from the mirror", () => {
    const face = faceAt(11, 5, 20);
    const seen = mirrorFace(face, 100);
    expect(Array.from(seen.bbox)).toEqual([70, 5, 90, 25]);
    expect(Array.from(seen.landmarks.subarray(0, 4))).toEqual([75, 13, 83, 13]);
    expect(mirrorFace(seen, 100)).toEqual(face);
  });

  it("is mirrored pixel by pixel", () => {
    const rgba = Uint8ClampedArray.from({ length: 24 }, (_, i) => i);
    const mirrored = mirrorPhoto({ rgba, width: 3, height: 2 });
    expect(Array.from(mirrored.rgba.subarray(0, 8))).toEqual([8, 9, 10, 11, 4, 5, 6, 7]);
    expect(mirrorPhoto(mirrored).rgba).toEqual(rgba);
    expect(rgba[0]).toBe(0);
  });
});

describe("a tight picture", () => {
  it("gets a border once it is reduced", () => {
    const photo = { ...blank(600, 401), rgba: new Uint8ClampedArray(600 * 401 * 4) };
    photo.rgba.set([8, 0, 0, 255, 0, 0, 0, 255], 0);
    photo.rgba.set([0, 4, 0, 255, 0, 0, 16, 255], 600 * 4);
    const view = viewOf(spec, tight, photo);
    expect([view.block, view.border]).toEqual([2, 50]);
    expect([view.photo.width, view.photo.height]).toEqual([300 + 100, 200 + 100]);
    const at = (x: number, y: number): number[] =>
      Array.from(view.photo.rgba.subarray((y * 400 + x) * 4, (y * 400 + x) * 4 + 3));
    expect(at(50, 50)).toEqual([2, 1, 4]);
    for (const [x, y] of [[49, 50], [50, 49], [350, 50], [50, 250]]) {
      expect(at(x, y)).toEqual([127, 127, 127]);
    }
    // The original's 21st to 40th pixel across, 41st to 60th down.
    const landmarks = Float32Array.from([62, 72, 68, 72, 65, 75, 63, 78, 67, 78]);
    const bbox = Float32Array.from([61, 71, 70, 80]);
    const face = backFrom(view, { bbox, landmarks, detection_score: 0.9 });
    expect(Array.from(face.bbox)).toEqual([21, 41, 40, 60]);
    expect(face.landmarks).toEqual(landmarks.map((v) => (v - 50) * 2));
    expect(viewOf(spec, portrait, photo).photo).toBe(photo);
  });

  it("is not a long one", () => {
    expect(mayBeIn(spec, tight, blank(200, 400))).toBe(true);
    expect(mayBeIn(spec, tight, blank(401, 200))).toBe(false);
    expect(mayBeIn(spec, portrait, blank(401, 200))).toBe(true);
  });
});

describe("the looks", () => {
  // Dark on the left: to the network below a face, and in the mirror image a doubtful one.
  const photo = blank(200, 200);
  for (let i = 0; i < photo.rgba.length; i++) if ((i >> 2) % 200 < 100 && i % 4 < 3) photo.rgba[i] = 0;

  const logit = (p: number): number => Math.log(p / (1 - p));

  /** Networks that see one window in the middle of each level, with the given probabilities. */
  function stubs(pnet: number, rnet: number, onet: [dark: number, bright: number]) {
    let levels = 0;
    const crops = (probability: (left: number) => number): Network => ({
      run: async (data, [count, size]) => {
        const left = Array.from({ length: count }, (_, i) => data[i * size * size * 3]);
        const points = left.flatMap(() => [0.3, 0.7, 0.5, 0.35, 0.65, 0.4, 0.4, 0.6, 0.8, 0.8]);
        return {
          face_logit: { data: Float32Array.from(left, (v) => logit(probability(v))), dims: [count] },
          box_regression: { data: Float32Array.from(left.flatMap(() => [-0.1, -0.1, 0.1, 0.1])), dims: [count, 4] },
          landmarks: { data: Float32Array.from(points), dims: [count, 10] },
        };
      },
    });
    const proposals: Network = {
      run: async (_, [, rows, columns]) => {
        levels++;
        const [h, w] = [rows, columns].map((side) => Math.floor((side - 12) / 2) + 1);
        const data = new Float32Array(h * w).fill(-9);
        data[Math.floor(h / 2) * w + Math.floor(w / 2)] = logit(pnet);
        return {
          face_logit: { data, dims: [1, h, w] },
          box_regression: { data: new Float32Array(4 * h * w), dims: [1, 4, h, w] },
        };
      },
    };
    const networks = {
      pnet: proposals,
      rnet: crops(() => rnet),
      onet: crops((left) => (left < 128 ? onet[0] : onet[1])),
    };
    return { detector: new MTCNN(spec, networks), levels: () => levels };
  }

  it("end with the first that finds something", async () => {
    const sure = stubs(0.9, 0.9, [0.9, 0.9]);
    expect((await sure.detector.detect(photo)).length).toBeGreaterThan(0);
    const second = stubs(0.9, 0.9, [0.4, 0.4]);
    expect((await second.detector.detect(photo)).length).toBeGreaterThan(0);
    expect(second.levels()).toBe(sure.levels());
    const nobody = stubs(0.3, 0.9, [0.9, 0.9]);
    expect(await nobody.detector.detect(photo)).toEqual([]);
    expect(nobody.levels()).toBeGreaterThan(sure.levels());
  });

  it("take the likelier of the photo and its mirror image", async () => {
    const { detector } = stubs(0.5, 0.6, [0.65, 0.55]);
    const [face, ...others] = await detector.detect(photo);
    expect(others).toEqual([]);
    expect(face.detection_score).toBeCloseTo(0.65, 5);
    const [seen] = await detector.detect(mirrorPhoto(photo));
    expect(seen).toEqual(mirrorFace(face, 200));
    expect(face.landmarks[0]).toBeLessThan(face.landmarks[2]);
    expect(seen.landmarks[0]).toBeLessThan(seen.landmarks[2]);
  });
});
