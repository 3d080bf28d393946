// MTCNN's networks on our own WebAssembly kernels (web/kernels), which replace the ONNX Runtime of
// cascade.py; scripts/flat_network.py lays out their weights.
import type { Network, Output } from "./models.ts";
import type { FlatLayer, WeighedLayer } from "./spec.ts";

const PAGE_BYTES = 65_536;
/** Least number of pictures that go through the dense layers together: the kernel computes four. */
const LEAST = 4;
const NAMES = ["face_logit", "box_regression", "landmarks"];
/** Numbers in each output. */
const SIZES = [1, 4, 10];

interface Exports {
  convolve(
    input: number, stride: number, pixel: number, rows: number, run: number,
    layer: number, out: number, width: number, height: number, channels: number,
  ): void;
  pool(
    input: number, width: number, height: number, channels: number, size: number,
    out: number, columns: number, rows: number,
  ): void;
}

/** A picture, or a row of vectors, in the kernels' memory. */
interface Picture {
  at: number;
  width: number;
  height: number;
  channels: number;
}

/** The module and its memory: weights first, then the scratch space of a run. */
export class Kernels {
  private weights = 1024;

  private constructor(
    readonly run: Exports,
    private readonly memory: WebAssembly.Memory,
  ) {}

  static async open(binary: BufferSource): Promise<Kernels> {
    const memory = new WebAssembly.Memory({ initial: 256 });
    const module = await WebAssembly.compile(binary);
    const { exports } = await WebAssembly.instantiate(module, { env: { memory } });
    return new Kernels(exports as unknown as Exports, memory);
  }

  /** Store a network's weights; returns their byte offset. */
  keep(weights: Uint8Array): number {
    const at = this.weights;
    this.weights = align(at + weights.length);
    this.reserve(this.weights);
    new Uint8Array(this.memory.buffer, at, weights.length).set(weights);
    return at;
  }

  /** First byte above all weights. */
  get scratch(): number {
    return this.weights;
  }

  reserve(end: number): void {
    const missing = end - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / PAGE_BYTES));
  }

  floats(at: number, count: number): Float32Array<ArrayBuffer> {
    return new Float32Array(this.memory.buffer, at, count);
  }
}

const align = (at: number): number => Math.ceil(at / 64) * 64;
const isDense = (layer: FlatLayer): layer is WeighedLayer => layer.kind === "dense";

/** Open one of MTCNN's networks from its flat file. */
export function openFlat(kernels: Kernels, layers: readonly FlatLayer[], data: Uint8Array): Network {
  const base = kernels.keep(data);
  const trunk = layers.filter((layer) => !isDense(layer));
  const dense = layers.filter(isDense);

  function output(picture: Picture, layer: FlatLayer): Picture {
    const { width, height, channels } = picture;
    const { size } = layer;
    if (layer.kind === "pool") {
      // Rounded up: the last window may extend past the edge, but must begin inside the picture.
      const [columns, rows] = [width, height].map((side) => Math.ceil((side - size) / 2) + 1);
      return { at: 0, width: columns, height: rows, channels };
    }
    return { at: 0, width: width - size + 1, height: height - size + 1, channels: layer.outputs };
  }

  const bytes = ({ width, height, channels }: Picture): number =>
    align(Math.max(LEAST, width * height) * channels * 4);

  function apply(from: Picture, layer: FlatLayer, to: Picture): void {
    const { size } = layer;
    const step = from.channels * 4;
    if (layer.kind === "pool") {
      kernels.run.pool(from.at, from.width, from.height, from.channels, size, to.at, to.width, to.height);
    } else {
      kernels.run.convolve(
        from.at, from.width * step, step, size, size * step,
        base + layer.at * 4, to.at, to.width, to.height, to.channels,
      );
    }
  }

  /** Run pictures through the convolutions one by one, then through the dense layers together. */
  function forward(input: Float32Array | Uint8Array, [count, height, width]: readonly number[]): Picture {
    const pictures: Picture[] = [{ at: kernels.scratch, width, height, channels: 3 }];
    for (const layer of trunk) {
      const last = pictures[pictures.length - 1];
      pictures.push({ ...output(last, layer), at: last.at + bytes(last) });
    }
    const last = pictures[pictures.length - 1];
    const featureBytes = last.width * last.height * last.channels * 4;
    const features = last.at + bytes(last);
    // The kernel writes four pixels at a time, which may be more than there are.
    const row = (channels: number): number => align(Math.max(LEAST, count) * channels * 4);
    const ends = dense.map((layer) => row(layer.outputs));
    const all = row(featureBytes / 4) + bytes(last);
    kernels.reserve(features + all + ends.reduce((sum, size) => sum + size, 0));
    const each = height * width * 3;
    for (let i = 0; i < count; i++) {
      kernels.floats(pictures[0].at, each).set(input.subarray(i * each, (i + 1) * each));
      trunk.forEach((layer, k) => apply(pictures[k], layer, pictures[k + 1]));
      if (dense.length === 0) return last;
      const values = kernels.floats(last.at, featureBytes / 4);
      kernels.floats(features + i * featureBytes, values.length).set(values);
    }
    let from: Picture = { at: features, width: count, height: 1, channels: featureBytes / 4 };
    let next = features + all;
    dense.forEach((layer, k) => {
      const to: Picture = { at: next, width: count, height: 1, channels: layer.outputs };
      const run = from.channels * 4;
      kernels.run.convolve(from.at, 0, run, 1, run, base + layer.at * 4, to.at, count, 1, to.channels);
      next += ends[k];
      from = to;
    });
    return from;
  }

  return {
    run: async (input, dims) => {
      const heads = forward(input, dims);
      return split(kernels.floats(heads.at, heads.width * heads.height * heads.channels), heads, dense.length === 0);
    },
  };
}

/** Split the logit and regressions of each position into the outputs of the ONNX file. */
function split(values: Float32Array, { width, height, channels }: Picture, isMap: boolean): Record<string, Output> {
  const places = width * height;
  const out: Record<string, Output> = {};
  let from = 0;
  for (let k = 0; k < NAMES.length && from + SIZES[k] <= channels; k++) {
    const size = SIZES[k];
    const data = new Float32Array(places * size);
    for (let i = 0; i < places; i++) {
      for (let j = 0; j < size; j++) {
        data[isMap ? j * places + i : i * size + j] = values[i * channels + from + j];
      }
    }
    const dims = isMap ? [1, ...(k === 0 ? [] : [size]), height, width] : [places, ...(k === 0 ? [] : [size])];
    out[NAMES[k]] = { data, dims };
    from += size;
  }
  return out;
}
