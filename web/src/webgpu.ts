// The attribute network on the graphics processor, if the browser offers one: shaders for the layers
// of MobileNet v1. The weights are read from the same file that ONNX Runtime opens;
// scripts/gpu_plan.py lists their positions.
//
// ONNX Runtime's own WebGPU would add three megabytes to every visit; these shaders add ten kilobytes.
import { AGES, agesToDecades } from "./labels.ts";
import type { Network } from "./models.ts";
import type { GpuLayer, GpuPlan, GpuTensor } from "./spec.ts";

// TypeScript's library has WebGPU's interfaces, but not these flags.
declare const GPUBufferUsage: Record<"STORAGE" | "UNIFORM" | "COPY_DST" | "COPY_SRC" | "MAP_READ", number>;
declare const GPUShaderStage: { readonly COMPUTE: number };
declare const GPUMapMode: { readonly READ: number };

/** Faces per run: the largest layer takes 2.4 MB per face. */
const MOST_IMAGES = 8;
/** Largest error allowed in a probability of the check. */
const TOLERANCE = 0.005;
const GROUP = 8;

/** Pictures are stored pixel by pixel, four channels per vector. `c` counts vectors of output channels. */
const SHADER = /* wgsl */ `
override WIDTH: u32; override HEIGHT: u32; override INPUTS: u32;
override COLUMNS: u32; override ROWS: u32; override OUTPUTS: u32;
override SIZE: u32; override STRIDE: u32; override PAD: i32;
override LOW: f32; override HIGH: f32;
@group(0) @binding(0) var<storage, read> input: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> output: array<vec4f>;
@group(0) @binding(2) var<storage, read> weights: array<vec4f>;
@group(0) @binding(3) var<storage, read> bias: array<vec4f>;
@group(0) @binding(4) var<uniform> images: vec4u;

fn bounded(x: vec4f) -> vec4f { return clamp(x, vec4f(LOW), vec4f(HIGH)); }
fn product(x: vec4f, row: u32, c: u32) -> vec4f {
  let at = row * OUTPUTS + c;
  return x.x * weights[at] + x.y * weights[at + OUTPUTS] + x.z * weights[at + 2u * OUTPUTS] + x.w * weights[at + 3u * OUTPUTS];
}

// The input pixel under place (u, v) of an output pixel's window; negative past the edge.
fn tap(pixel: u32, u: u32, v: u32) -> i32 {
  let x = i32(pixel % COLUMNS * STRIDE + u) - PAD;
  let y = i32(pixel / COLUMNS % ROWS * STRIDE + v) - PAD;
  if (x < 0 || y < 0 || x >= i32(WIDTH) || y >= i32(HEIGHT)) { return -1; }
  let image = i32(pixel / (COLUMNS * ROWS));
  return (image * i32(HEIGHT) + y) * i32(WIDTH) + x;
}

// Four pixels by four channels.
@compute @workgroup_size(${GROUP}, ${GROUP})
fn pointwise(@builtin(global_invocation_id) id: vec3u) {
  let c = id.x;
  let first = id.y * 4u;
  let total = images.x * COLUMNS * ROWS;
  if (c >= OUTPUTS || first >= total) { return; }
  let p = min(vec4u(first, first + 1u, first + 2u, first + 3u), vec4u(total - 1u)) * INPUTS;
  var a = bias[c]; var b = a; var d = a; var e = a;
  for (var i = 0u; i < INPUTS; i++) {
    a += product(input[p.x + i], i * 4u, c);
    b += product(input[p.y + i], i * 4u, c);
    d += product(input[p.z + i], i * 4u, c);
    e += product(input[p.w + i], i * 4u, c);
  }
  let to = first * OUTPUTS + c;
  output[to] = bounded(a);
  if (first + 1u < total) { output[to + OUTPUTS] = bounded(b); }
  if (first + 2u < total) { output[to + 2u * OUTPUTS] = bounded(d); }
  if (first + 3u < total) { output[to + 3u * OUTPUTS] = bounded(e); }
}

@compute @workgroup_size(${GROUP}, ${GROUP})
fn conv(@builtin(global_invocation_id) id: vec3u) {
  let c = id.x;
  if (c >= OUTPUTS || id.y >= images.x * COLUMNS * ROWS) { return; }
  var sum = bias[c];
  for (var v = 0u; v < SIZE; v++) {
    for (var u = 0u; u < SIZE; u++) {
      let at = tap(id.y, u, v);
      if (at < 0) { continue; }
      for (var i = 0u; i < INPUTS; i++) { sum += product(input[u32(at) * INPUTS + i], ((v * SIZE + u) * INPUTS + i) * 4u, c); }
    }
  }
  output[id.y * OUTPUTS + c] = bounded(sum);
}

@compute @workgroup_size(${GROUP}, ${GROUP})
fn depthwise(@builtin(global_invocation_id) id: vec3u) {
  let c = id.x;
  if (c >= OUTPUTS || id.y >= images.x * COLUMNS * ROWS) { return; }
  var sum = bias[c];
  for (var v = 0u; v < SIZE; v++) {
    for (var u = 0u; u < SIZE; u++) {
      let at = tap(id.y, u, v);
      if (at < 0) { continue; }
      sum += input[u32(at) * OUTPUTS + c] * weights[(v * SIZE + u) * OUTPUTS + c];
    }
  }
  output[id.y * OUTPUTS + c] = bounded(sum);
}

@compute @workgroup_size(${GROUP}, ${GROUP})
fn mean(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= OUTPUTS || id.y >= images.x) { return; }
  var sum = vec4f(0);
  for (var i = 0u; i < WIDTH * HEIGHT; i++) { sum += input[(id.y * WIDTH * HEIGHT + i) * OUTPUTS + id.x]; }
  output[id.y * OUTPUTS + id.x] = sum / f32(WIDTH * HEIGHT);
}
`;

export function halfToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** A tensor of the file as floats; `rows` is its first dimension. */
export function readTensor(data: Uint8Array, tensor: GpuTensor, count: number, rows: number): Float32Array {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const out = new Float32Array(count);
  if ("at" in tensor) {
    const isHalf = tensor.type === "float16";
    for (let i = 0; i < count; i++) {
      out[i] = isHalf
        ? halfToFloat(view.getUint16(tensor.at + i * 2, true))
        : view.getFloat32(tensor.at + i * 4, true);
    }
  } else {
    const half = count / 2; // first half in the lower four bits, second in the upper
    const row = count / rows;
    for (let i = 0; i < count; i++) {
      const pair = data[tensor.low + (i % half)];
      const whole = view.getInt8(tensor.high + i) * 16 + (i < half ? pair & 15 : pair >> 4);
      out[i] = whole * view.getFloat32(tensor.scale + Math.floor(i / row) * 4, true);
    }
  }
  return out;
}

const fours = (channels: number): number => Math.ceil(channels / 4);

/** Weights `(outputs, inputs, size, size)` as `[kernel pixel][input][output]`, padded to fours. */
export function arrange(weights: Float32Array, layer: GpuLayer): Float32Array<ArrayBuffer> {
  const { outputs, size } = layer;
  const inputs = layer.kind === "depthwise" ? 1 : layer.inputs;
  const [wide, high] = [fours(outputs) * 4, layer.kind === "depthwise" ? 1 : fours(inputs) * 4];
  const taps = size * size;
  const out = new Float32Array(taps * high * wide);
  for (let o = 0, from = 0; o < outputs; o++) {
    for (let i = 0; i < inputs; i++) {
      for (let tap = 0; tap < taps; tap++) out[(tap * high + i) * wide + o] = weights[from++];
    }
  }
  return out;
}

export function softmax(logits: Float32Array): Float32Array {
  const most = Math.max(...logits);
  const powers = logits.map((v) => Math.exp(v - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((v) => v / sum);
}

/** The rings of check_image in gpu_plan.py. */
function checkImage(size: number): Uint8Array {
  const out = new Uint8Array(size * size * 3);
  for (let y = 0, at = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      for (let k = 0; k < 3; k++, at++) out[at] = Math.floor(((x - 96) ** 2 + (y - 110) ** 2) / (30 + k)) % 256;
    }
  }
  return out;
}

interface Step {
  pipeline: GPUComputePipeline;
  group: GPUBindGroup;
  columns: number;
  /** Rows of invocations per image; the dispatch counts those of all images. */
  pixels: number;
  pixelsEach: number;
}

/** A device, or null if there is none; software adapters count only if `any` is set. */
async function findDevice(any: boolean): Promise<GPUDevice | null> {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter || (adapter.info.isFallbackAdapter && !any)) return null;
  return adapter.requestDevice();
}

/**
 * Open the network on the graphics processor.
 *
 * @param any accept a software adapter too.
 * @returns null if there is no adapter, if it fails, or if the shaders answer a known picture wrongly.
 */
export async function openOnGpu(
  plan: GpuPlan,
  data: Uint8Array,
  size: number,
  any: boolean,
): Promise<Network | null> {
  let device: GPUDevice | null = null;
  try {
    device = await findDevice(any);
    if (!device) return null;
    const network = await build(device, plan, data, size);
    const { ages, vector } = await network.run(checkImage(size), [1, size, size, 3]);
    const isNear = (found: Float32Array, expected: number[]): boolean =>
      expected.every((p, i) => Math.abs(p - found[i]) < TOLERANCE);
    if (isNear(ages.data, plan.check.ages) && isNear(vector.data, plan.check.vector)) return network;
  } catch {
    // Whatever the browser or the driver refused, WebAssembly can do it.
  }
  device?.destroy();
  return null;
}

async function build(device: GPUDevice, plan: GpuPlan, data: Uint8Array, size: number): Promise<Network> {
  device.pushErrorScope("validation");
  const storage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
  const filled = (values: Float32Array<ArrayBuffer>): GPUBuffer => {
    const buffer = device.createBuffer({ size: Math.max(16, values.byteLength), usage: storage });
    device.queue.writeBuffer(buffer, 0, values);
    return buffer;
  };
  const module = device.createShaderModule({ code: SHADER });
  const layout = device.createBindGroupLayout({
    entries: (["read-only-storage", "storage", "read-only-storage", "read-only-storage", "uniform"] as const).map(
      (type, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } }),
    ),
  });
  const images = device.createBuffer({ size: 16, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
  const nothing = filled(new Float32Array(4));
  let [width, height, inputs] = [size, size, 1];
  const input = device.createBuffer({ size: MOST_IMAGES * width * height * 16, usage: storage });
  let from = input;
  const steps: Promise<Step>[] = [];
  for (const layer of plan.layers) {
    const isMean = layer.kind === "mean";
    const side = (length: number): number =>
      isMean ? 1 : Math.floor((length + layer.pad + layer.pad_end - layer.size) / layer.stride) + 1;
    const [columns, rows] = [side(width), side(height)];
    const outputs = isMean ? inputs : fours(layer.outputs);
    const to = device.createBuffer({
      size: MOST_IMAGES * columns * rows * outputs * 16,
      usage: storage | GPUBufferUsage.COPY_SRC,
    });
    let [weights, bias] = [nothing, nothing];
    if (!isMean) {
      const count = layer.outputs * (layer.kind === "depthwise" ? 1 : layer.inputs) * layer.size ** 2;
      weights = filled(arrange(readTensor(data, layer.weights, count, layer.outputs), layer));
      const biases = new Float32Array(outputs * 4);
      biases.set(readTensor(data, layer.bias, layer.outputs, 1));
      bias = filled(biases);
    }
    const constants: Record<string, number> = {
      WIDTH: width, HEIGHT: height, INPUTS: inputs, COLUMNS: columns, ROWS: rows, OUTPUTS: outputs,
      SIZE: isMean ? 1 : layer.size, STRIDE: isMean ? 1 : layer.stride, PAD: isMean ? 0 : layer.pad,
      LOW: isMean ? -3e38 : (layer.low ?? -3e38), HIGH: isMean ? 3e38 : (layer.high ?? 3e38),
    };
    const group = device.createBindGroup({
      layout,
      entries: [from, to, weights, bias, images].map((buffer, binding) => ({ binding, resource: { buffer } })),
    });
    const shape = { group, columns: outputs, pixels: columns * rows, pixelsEach: layer.kind === "pointwise" ? 4 : 1 };
    steps.push(
      device
        .createComputePipelineAsync({
          layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
          compute: { module, entryPoint: layer.kind, constants },
        })
        .then((pipeline) => ({ ...shape, pipeline })),
    );
    [width, height, inputs, from] = [columns, rows, outputs, to];
  }
  const ready = await Promise.all(steps);
  const error = await device.popErrorScope();
  if (error) throw new Error(error.message);
  const answerBytes = inputs * 16;
  const answer = device.createBuffer({
    size: MOST_IMAGES * answerBytes,
    usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
  });

  /** Logits of up to MOST_IMAGES pictures. */
  async function forward(pixels: Float32Array<ArrayBuffer>, count: number): Promise<Float32Array> {
    device.queue.writeBuffer(input, 0, pixels);
    device.queue.writeBuffer(images, 0, Uint32Array.from([count, 0, 0, 0]));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const step of ready) {
      pass.setPipeline(step.pipeline);
      pass.setBindGroup(0, step.group);
      const rows = Math.ceil((count * step.pixels) / step.pixelsEach);
      pass.dispatchWorkgroups(Math.ceil(step.columns / GROUP), Math.ceil(rows / GROUP));
    }
    pass.end();
    encoder.copyBufferToBuffer(from, 0, answer, 0, count * answerBytes);
    device.queue.submit([encoder.finish()]);
    await answer.mapAsync(GPUMapMode.READ, 0, count * answerBytes);
    const logits = new Float32Array(answer.getMappedRange(0, count * answerBytes).slice(0));
    answer.unmap();
    return logits;
  }

  let last: Promise<unknown> = Promise.resolve();
  return {
    async run(image, [count]) {
      const ages = new Float32Array(count * AGES);
      const vector = new Float32Array(count * 19);
      for (let first = 0; first < count; first += MOST_IMAGES) {
        const some = Math.min(MOST_IMAGES, count - first);
        const each = size * size * 3;
        const pixels = scaled(image.subarray(first * each, (first + some) * each), plan);
        // One run at a time: there is only one set of buffers.
        const turn = last.catch(() => {}).then(() => forward(pixels, some));
        last = turn;
        const logits = await turn;
        for (let i = 0; i < some; i++) {
          const row = logits.subarray((i * answerBytes) / 4);
          const years = softmax(row.slice(0, AGES));
          ages.set(years, (first + i) * AGES);
          const rest = [agesToDecades(years), softmax(row.slice(AGES, AGES + 2)), softmax(row.slice(AGES + 2, AGES + 7))];
          vector.set(rest.flatMap((part) => Array.from(part)), (first + i) * 19);
        }
      }
      return { ages: { data: ages, dims: [count, AGES] }, vector: { data: vector, dims: [count, 19] } };
    },
  };
}

/** RGB bytes as four floats per pixel, scaled as at the start of the network. */
function scaled(image: Uint8Array | Float32Array, { shift, scale }: GpuPlan): Float32Array<ArrayBuffer> {
  const out = new Float32Array((image.length / 3) * 4);
  for (let from = 0, to = 0; from < image.length; from += 3, to += 4) {
    for (let k = 0; k < 3; k++) out[to + k] = (image[from + k] - shift[k]) * scale;
  }
  return out;
}
