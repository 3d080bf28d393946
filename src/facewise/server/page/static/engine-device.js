// The engine that runs on this device: the pipeline in a worker (web/src), the models beside it.
// Exports what the top of engine-server.js lists; describe() also loads the models and reports progress.
import { EngineError } from "./engine-error.js";
import { upright } from "./upright.js";

const waiting = new Map();
let worker = null, loaded = null, count = 0;
// The default options of a call.
let usual = null;

/** A camera frame goes to the worker unchanged: no encoding, no decoding. */
export const takesBitmaps = true;

function dead() {
  const error = new EngineError("model_unavailable", "The models could not be run", "Try again; if that does not help, reload the page, or use another or a newer browser.");
  for (const { reject } of waiting.values()) reject(error);
  waiting.clear();
  worker?.terminate();
  worker = loaded = null;
}

function receive({ data }) {
  const { resolve, reject, onProgress } = waiting.get(data.id) ?? {};
  if (data.progress !== undefined) {
    onProgress?.(data.progress);
    return;
  }
  waiting.delete(data.id);
  if (data.error) reject?.(new EngineError(data.error.code, data.error.title, data.error.detail));
  else resolve?.(data.value);
}

function ask(message, { onProgress = null, transfer = [] } = {}) {
  if (!worker) {
    worker = new Worker(new URL("./device/worker.js", import.meta.url), { type: "module" });
    worker.addEventListener("message", receive);
    worker.addEventListener("error", dead);
  }
  const id = ++count;
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject, onProgress });
    worker.postMessage({ id, ...message }, transfer);
  });
}

/** The page's address may say ?webgpu=off, or ?webgpu=any to allow a software adapter, which is slow. */
function wantedGpu() {
  const wanted = new URLSearchParams(location.search).get("webgpu");
  return wanted === "off" || wanted === "any" ? wanted : "auto";
}

/** Load the models: once, but again if that failed or the worker has died since. */
function load(onProgress = null) {
  loaded ??= ask({ kind: "load", webgpu: wantedGpu() }, { onProgress }).catch((error) => {
    loaded = null;
    throw error;
  });
  return loaded;
}

/** Load the models; `within` holds the server's settings when on a server's page. */
export async function describe({ onProgress = null, within = null } = {}) {
  const { spec, threads, engine } = await load(onProgress);
  const attributes = within?.attributes ?? spec.attributes;
  const { thresholds } = spec.model.calibration.age_intervals ?? {};
  // Without a fit, any level goes.
  usual = { attributes, coverage: within?.coverage ?? spec.coverage, levels: thresholds && Object.keys(thresholds).map(Number) };
  return {
    attributes,
    // This page never sorts people by ethnicity as they walk past a camera.
    liveAttributes: attributes.filter((name) => name !== "ethnicity"),
    coverage: usual.coverage,
    limits: spec.limits,
    frameGapMs: 0,
    model: spec.model,
    // The card of these weights, whichever model the server runs, and whosever page imports this module.
    cardUrl: new URL(within ? `../v1/models/${spec.model.name}/card` : "../card.html", import.meta.url).href,
    formats: ["JPEG", "PNG", "WebP", "AVIF", "GIF", "BMP"],
    privacy: "Photos are analysed on this device: they are not sent anywhere.",
    threads,
    engine,
    curl: null,
  };
}

/** Refuse an option that has no value, or one that is not possible here. */
function check(name, values, possible) {
  const wrong = values.length ? values.filter((value) => !possible.includes(value)) : ["none"];
  if (wrong.length) throw new EngineError("invalid_option", "That cannot be used here", `${name} can be ${possible.join(", ")}, not ${wrong.join(", ")}.`);
}

/** Analyse a file or an ImageBitmap, which is used up; describe() must have come first. */
export async function analyze(source, { attributes = null, signal = null, years = false, coverage = null } = {}) {
  // As the server does: whoever built the folder, or runs the server, decides what is shown.
  const wanted = attributes ?? usual.attributes;
  check("attributes", wanted, usual.attributes);
  if (coverage !== null && usual.levels) check("coverage", [coverage], usual.levels);
  const options = { attributes: usual.attributes.filter((name) => wanted.includes(name)), coverage: coverage ?? usual.coverage, years };
  // Without colour profiles, as in the worker's decoder.
  const canvas = source instanceof Blob && (await upright(source, { colorSpaceConversion: "none", premultiplyAlpha: "none" }));
  if (canvas) source = await createImageBitmap(canvas);
  await load();
  const transfer = source instanceof ImageBitmap ? [source] : [];
  const work = ask({ kind: "analyze", source, options }, { transfer });
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(new EngineError("aborted", "Stopped", "The photo was removed.")));
    work.then(resolve, reject);
  });
}

