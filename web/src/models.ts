// Fetches weight files, checks their hashes and opens them in ONNX Runtime Web.
import * as ort from "onnxruntime-web/wasm";
import { ModelError } from "./errors.ts";
import type { NetworkFile } from "./spec.ts";

export interface Output {
  readonly data: Float32Array;
  readonly dims: readonly number[];
}

/** One network: a picture or batch of pictures in, named float outputs out. */
export interface Network {
  run(
    data: Float32Array | Uint8Array,
    dims: readonly number[],
  ): Promise<Record<string, Output>>;
}

/** Where ONNX Runtime's script is, and how many threads it may use. */
export function setUp(base: URL): number {
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = { mjs: new URL("ort-wasm-simd-threaded.mjs", base).href };
  // Shared memory, and hence threads, only if the host sends the isolation headers.
  const cores = globalThis.crossOriginIsolated ? (navigator.hardwareConcurrency ?? 1) : 1;
  ort.env.wasm.numThreads = Math.min(4, Math.max(1, cores));
  return ort.env.wasm.numThreads;
}

/** Fetch a file of the page, counting its bytes as they arrive. */
export async function fetchBytes(
  url: URL,
  onBytes: (count: number) => void,
  cache: RequestCache = "default",
): Promise<Uint8Array<ArrayBuffer>> {
  let answer: Response;
  try {
    answer = await fetch(url, { cache });
  } catch {
    throw new ModelError("Check that you are online, then try again.");
  }
  if (!answer.ok || !answer.body) {
    throw new ModelError(`${url.pathname.split("/").pop()} answered ${answer.status}: the page is incomplete; build and copy it again.`);
  }
  const parts: Uint8Array[] = [];
  let length = 0;
  const reader = answer.body.getReader();
  for (;;) {
    const { done, value } = await reader.read().catch(() => {
      throw new ModelError("The connection broke: check that you are online, then try again.");
    });
    if (done) break;
    parts.push(value);
    length += value.length;
    onBytes(value.length);
  }
  const out = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

async function sha256(data: Uint8Array<ArrayBuffer>): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Fetch a file of the build and check its hash. */
export async function fetchFile(
  base: URL,
  network: NetworkFile,
  onBytes: (count: number) => void,
): Promise<Uint8Array<ArrayBuffer>> {
  const url = new URL(network.file, base);
  // Browsers hash only in secure contexts; over plain HTTP this check could be replaced anyway.
  const isOther = async (bytes: Uint8Array<ArrayBuffer>): Promise<boolean> =>
    Boolean(globalThis.crypto?.subtle) && (await sha256(bytes)) !== network.sha256;
  let data = await fetchBytes(url, onBytes);
  // A cached copy may be damaged or from an older build: bypass the cache once.
  if (await isOther(data)) data = await fetchBytes(url, () => {}, "reload");
  if (await isOther(data)) {
    throw new ModelError(`${network.file} is damaged or from another build: reload the page; if it stays, build it again.`);
  }
  return data;
}

/** Give ONNX Runtime its WebAssembly, which it would otherwise fetch uncounted and unchecked. */
export function setRuntime(data: Uint8Array<ArrayBuffer>): void {
  ort.env.wasm.wasmBinary = data;
}

/** Open a network in ONNX Runtime Web, on WebAssembly; call `setRuntime` first. */
export async function openNetwork(data: Uint8Array): Promise<Network> {
  const session = await ort.InferenceSession.create(data, {
    executionProviders: ["wasm"],
    graphOptimizationLevel: "all",
    enableMemPattern: false,
  });
  return {
    async run(input, dims) {
      const tensor = new ort.Tensor(input instanceof Uint8Array ? "uint8" : "float32", input, dims);
      const outputs = await session.run({ image: tensor });
      return Object.fromEntries(
        Object.entries(outputs).map(([name, { data, dims }]) => [name, { data: data as Float32Array, dims }]),
      );
    },
  };
}

/**
 * Use a network until it fails, as a graphics processor may at any time, or its answers are not numbers;
 * use another from then on.
 */
export function fallingBack(first: Network, open: () => Promise<Network>): Network {
  let broken = false;
  let other: Promise<Network> | null = null;
  return {
    async run(input, dims) {
      if (!broken) {
        const outputs = await first.run(input, dims).catch(() => null);
        if (outputs && Object.values(outputs).every(({ data }) => data.every(Number.isFinite))) return outputs;
        broken = true;
      }
      // Opening fetches a large file: a failure, say offline, is not kept, so that it can be retried.
      other ??= open().catch((error: unknown) => {
        other = null;
        throw error;
      });
      return (await other).run(input, dims);
    },
  };
}
