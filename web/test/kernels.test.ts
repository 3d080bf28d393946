import { expect, it } from "vitest";
// @ts-expect-error: a script of the build, plain JavaScript
import { compileKernels } from "../build-kernels.mjs";
import { Kernels, openFlat } from "../src/kernels.ts";
import type { FlatLayer, WeighedLayer } from "../src/spec.ts";

type Map = { data: number[]; width: number; height: number; channels: number };

/** Pseudo-random numbers, the same in every run. */
function numbers(count: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (state * 1664525 + 1013904223) % 2 ** 32;
    return state / 2 ** 31 - 1;
  });
}

const weighed = (kind: "conv" | "dense", size: number, inputs: number, outputs: number, at: number): WeighedLayer => ({ kind, size, inputs, outputs, at });
const length = ({ size, inputs, outputs }: WeighedLayer): number => outputs * (2 + size * size * inputs);

/** A list of layers with its offsets filled in, and how many numbers they take. */
function stack(layers: FlatLayer[]): [FlatLayer[], number] {
  let at = 0;
  const placed = layers.map((layer) => {
    if (layer.kind === "pool") return layer;
    at += length(layer);
    return { ...layer, at: at - length(layer) };
  });
  return [placed, at];
}

/** One layer computed from its definition, number by number. */
function byHand(from: Map, layer: FlatLayer, file: Float32Array): Map {
  const { size } = layer;
  const [stride, channels] = layer.kind === "pool" ? [2, from.channels] : [1, layer.outputs];
  const side = (n: number): number => (layer.kind === "pool" ? Math.ceil((n - size) / 2) : n - size) + 1;
  const [width, height] = [side(from.width), side(from.height)];
  const data: number[] = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < channels; c++) {
        let [sum, most] = [0, -Infinity];
        for (let v = 0; v < size; v++) {
          for (let u = 0; u < size; u++) {
            if (y * stride + v >= from.height || x * stride + u >= from.width) continue;
            const place = ((y * stride + v) * from.width + x * stride + u) * from.channels;
            if (layer.kind === "pool") most = Math.max(most, from.data[place + c]);
            else {
              const block = Math.floor(c / 8) * 8;
              const wide = Math.min(8, channels - block);
              const start = layer.at + 2 * channels + block * size * size * layer.inputs;
              for (let i = 0; i < layer.inputs; i++) {
                sum += from.data[place + i] * file[start + ((v * size + u) * layer.inputs + i) * wide + c - block];
              }
            }
          }
        }
        if (layer.kind === "pool") data.push(most);
        else {
          const value = sum + file[layer.at + c];
          data.push(value > 0 ? value : value * file[layer.at + channels + c]);
        }
      }
    }
  }
  return { data, width, height, channels };
}

const compiled: Promise<Uint8Array<ArrayBuffer>> = compileKernels();
const kernels = async () => Kernels.open(await compiled);

it("a map of windows is what the definitions give", async () => {
  const [layers, count] = stack([
    weighed("conv", 3, 3, 12, 0), { kind: "pool", size: 2 }, weighed("conv", 3, 12, 8, 0), weighed("conv", 1, 8, 8, 0),
  ]);
  const file = numbers(count, 1);
  const network = openFlat(await kernels(), layers, new Uint8Array(file.buffer));
  const [height, width] = [13, 18];
  const image = numbers(height * width * 3, 2);
  let map: Map = { data: Array.from(image), width, height, channels: 3 };
  for (const layer of layers) map = byHand(map, layer, file);
  const { face_logit: logit, box_regression: boxes } = await network.run(image, [1, height, width, 3]);
  expect(logit.dims).toEqual([1, map.height, map.width]);
  const places = map.width * map.height;
  for (let i = 0; i < places; i++) {
    expect(logit.data[i]).toBeCloseTo(map.data[i * 8], 3);
    for (let k = 0; k < 4; k++) expect(boxes.data[k * places + i]).toBeCloseTo(map.data[i * 8 + 1 + k], 3);
  }
});

it("a batch is its pictures one by one, of any number", async () => {
  const [layers, count] = stack([
    weighed("conv", 3, 3, 4, 0), { kind: "pool", size: 3 }, weighed("dense", 3, 4, 12, 0), weighed("dense", 1, 12, 16, 0),
  ]);
  const file = numbers(count, 3);
  const module = await kernels();
  const network = openFlat(module, layers, new Uint8Array(file.buffer));
  openFlat(module, layers, new Uint8Array(numbers(count, 9).buffer)); // a second one must not interfere
  const each = 8 * 8 * 3;
  for (const pictures of [1, 3, 6]) {
    const images = numbers(pictures * each, 4);
    const out = await network.run(images, [pictures, 8, 8, 3]);
    for (let n = 0; n < pictures; n++) {
      let map: Map = { data: Array.from(images.subarray(n * each, (n + 1) * each)), width: 8, height: 8, channels: 3 };
      for (const layer of layers) map = byHand(map, layer, file);
      expect(out.face_logit.data[n]).toBeCloseTo(map.data[0], 3);
      for (let k = 0; k < 10; k++) expect(out.landmarks.data[n * 10 + k]).toBeCloseTo(map.data[5 + k], 3);
    }
  }
});
