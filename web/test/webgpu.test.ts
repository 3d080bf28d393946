// Tests that need no graphics processor; the shaders run in tests/browser/test_webgpu.py.
import { expect, it, vi } from "vitest";
import { fallingBack } from "../src/models.ts";
import type { Network } from "../src/models.ts";
import type { GpuLayer, GpuPlan } from "../src/spec.ts";
import { arrange, halfToFloat, openOnGpu, readTensor, softmax } from "../src/webgpu.ts";

it("half floats read as what they are", () => {
  const pairs = [[0x3c00, 1], [0xc000, -2], [0x3555, 0.333251953125], [0x0001, 2 ** -24], [0x7bff, 65504], [0x8000, -0]];
  for (const [bits, value] of pairs) expect(halfToFloat(bits)).toBe(value);
});

it("twelve bits are put together again", () => {
  const whole = [-2048, 2047, 1, -1]; // two rows of two
  const data = new Uint8Array(4 + 2 + 2 + 8);
  whole.forEach((v, i) => { data[i] = (v >> 4) & 255; });
  const low = whole.map((v) => v & 15);
  data[4] = low[0] | (low[2] << 4);
  data[5] = low[1] | (low[3] << 4);
  new DataView(data.buffer).setFloat32(8, 0.5, true);
  new DataView(data.buffer).setFloat32(12, 2, true);
  const tensor = { type: "packed12", high: 0, low: 4, scale: 8 } as const;
  expect(Array.from(readTensor(data, tensor, 4, 2))).toEqual([-1024, 1023.5, 2, -2]);
});

it("weights turn to pixels, inputs, outputs, in fours", () => {
  const layer = { kind: "conv", inputs: 2, outputs: 3, size: 1 } as GpuLayer;
  const turned = arrange(Float32Array.from([1, 2, 3, 4, 5, 6]), layer);
  expect(Array.from(turned)).toEqual([1, 3, 5, 0, 2, 4, 6, 0, ...new Array(8).fill(0)]);
});

it("softmax is sure of nothing too large", () => {
  expect(Array.from(softmax(Float32Array.from([1000, 1000])))).toEqual([0.5, 0.5]);
});

const reject = async () => { throw new DOMException("the driver failed", "OperationError"); };

it.each([
  ["no WebGPU", undefined],
  ["no adapter", { requestAdapter: async () => null }],
  ["an adapter that cannot be asked for", { requestAdapter: reject }],
  ["an adapter without a device", { requestAdapter: async () => ({ info: {}, requestDevice: reject }) }],
  ["an adapter that says nothing of itself", { requestAdapter: async () => ({ requestDevice: reject }) }],
])("%s leaves the network to WebAssembly", async (_, gpu) => {
  vi.stubGlobal("navigator", { gpu });
  expect(await openOnGpu({} as GpuPlan, new Uint8Array(), 192, false)).toBeNull();
  vi.unstubAllGlobals();
});

const answer = (value: number): Network => ({ run: async () => ({ ages: { data: Float32Array.of(value), dims: [1] } }) });

it("a network that fails is replaced for good, and no answer is lost", async () => {
  let [asked, opened] = [0, 0];
  const lost: Network = {
    run: async (...input) => {
      if (++asked > 1) throw new Error("device lost");
      return answer(1).run(...input);
    },
  };
  const network = fallingBack(lost, async () => { opened++; return answer(2); });
  const values = [];
  for (let i = 0; i < 4; i++) values.push((await network.run(new Uint8Array(3), [1])).ages.data[0]);
  expect(values).toEqual([1, 2, 2, 2]);
  expect([asked, opened]).toEqual([2, 1]);
});

it("what cannot be opened in its place is opened anew at the next try", async () => {
  let [asked, opened, online] = [0, 0, false];
  const lost: Network = { run: async () => { asked++; throw new Error("device lost"); } };
  const network = fallingBack(lost, async () => {
    opened++;
    if (!online) throw new Error("offline");
    return answer(2);
  });
  const run = () => network.run(new Uint8Array(3), [1]);
  // Two concurrent calls share one opening.
  expect((await Promise.allSettled([run(), run()])).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  expect([asked, opened]).toEqual([2, 1]);
  await expect(run()).rejects.toThrow("offline");
  online = true;
  for (let i = 0; i < 2; i++) expect((await run()).ages.data[0]).toBe(2);
  expect([asked, opened]).toEqual([2, 3]);
});

it("a network whose answers are not numbers is replaced, too", async () => {
  const network = fallingBack(answer(NaN), async () => answer(2));
  expect((await network.run(new Uint8Array(3), [1])).ages.data[0]).toBe(2);
});
