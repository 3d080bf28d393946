// The pipeline in its own worker, so that the page stays responsive.
//
// In: {id, kind: "load", webgpu} or {id, kind: "analyze", source, options}. `webgpu` is "auto", "off"
// or "any", which also accepts a software adapter: slower than WebAssembly, but useful for tests.
// Out: {id, value}, {id, error}, and while loading {id, progress} from 0 to 1.
import { Analyzer } from "./analyzer.ts";
import type { Options } from "./analyzer.ts";
import { ModelError } from "./errors.ts";
import { Kernels, openFlat } from "./kernels.ts";
import { fallingBack, fetchBytes, fetchFile, openNetwork, setRuntime, setUp } from "./models.ts";
import type { DeviceSpec, FlatFile } from "./spec.ts";
import { openOnGpu } from "./webgpu.ts";

type Choice = "auto" | "any" | "off";
type Request =
  | { id: number; kind: "load"; webgpu: Choice }
  | { id: number; kind: "analyze"; source: Blob | ImageBitmap; options: Options };

const scope = self as unknown as DedicatedWorkerGlobalScope;
const base = new URL("./", import.meta.url);
let analyzer: Analyzer | null = null;

async function load(webgpu: Choice, onProgress: (part: number) => void): Promise<object> {
  const threads = setUp(base);
  const text = new TextDecoder().decode(await fetchBytes(new URL("device.json", base), () => {}));
  const spec = JSON.parse(text) as DeviceSpec;
  const { pnet, rnet, onet } = spec.detector.networks;
  const files = [spec.kernels, pnet, rnet, onet, spec.model, spec.runtime];
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  let come = 0;
  const onBytes = (count: number): void => {
    come += count;
    onProgress(Math.min(1, come / total));
  };
  // In sequence, so that the first failure is the one reported.
  const kernels = await Kernels.open(await fetchFile(base, spec.kernels, onBytes));
  const open = async (file: FlatFile) => openFlat(kernels, file.layers, await fetchFile(base, file, onBytes));
  const networks = { pnet: await open(pnet), rnet: await open(rnet), onet: await open(onet) };
  const model = await fetchFile(base, spec.model, onBytes);
  const { gpu: plan, input } = spec.model;
  const gpu = plan && webgpu !== "off" ? await openOnGpu(plan, model, input.size_px, webgpu === "any") : null;
  // By far the largest file: with a graphics processor, it is fetched only if that fails.
  const openOnCpu = async () => {
    setRuntime(await fetchFile(base, spec.runtime, onBytes));
    return openNetwork(model);
  };
  const attributes = gpu ? fallingBack(gpu, openOnCpu) : await openOnCpu();
  analyzer = new Analyzer(spec, { ...networks, attributes });
  return { spec, threads, engine: gpu ? "webgpu" : "wasm" };
}

scope.onmessage = async ({ data }: MessageEvent<Request>) => {
  const { id } = data;
  try {
    if (data.kind === "load") {
      const value = await load(data.webgpu, (progress) => scope.postMessage({ id, progress }));
      scope.postMessage({ id, value });
    } else {
      if (!analyzer) throw new ModelError("Load the models first.");
      scope.postMessage({ id, value: await analyzer.analyze(data.source, data.options) });
    }
  } catch (error) {
    const known = error as { code?: string; title?: string; detail?: string; message?: string };
    scope.postMessage({
      id,
      error: {
        code: known.code ?? "internal_error",
        title: known.title ?? "The analysis failed",
        detail: known.detail ?? `Reload the page and try again. (${known.message ?? "unknown"})`,
      },
    });
  }
};
