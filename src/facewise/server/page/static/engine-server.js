// The engine that asks the server. Engines export:
//
//   describe({onProgress})         -> {attributes, liveAttributes, coverage, limits, frameGapMs,
//                                      model, cardUrl, formats, privacy, curl, onDevice}
//   analyze(blob, {attributes, coverage, onProgress, signal, years}) -> the answer of POST /v1/analyze
//   setKey(text)   stores the API key for requests; only this engine has it
//   takesBitmaps   true if analyze() also takes an ImageBitmap; only engine-device.js has it
//
// describe() and analyze() throw EngineError, whose sentences can be shown unchanged.

import { EngineError } from "./engine-error.js";
import { stored } from "./storage.js";

const root = new URL("./", document.baseURI);
const KEY = "facewise-api-key";

// If storage is blocked, the key lasts as long as the page.
let key = stored("sessionStorage", (tab) => tab.getItem(KEY));

/** Headers hold bytes: characters beyond ASCII are sent as UTF-8, as curl does. */
export function setKey(text) {
  key = String.fromCharCode(...new TextEncoder().encode(text.trim()));
  stored("sessionStorage", (tab) => tab.setItem(KEY, key));
}

const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});

const unreachable = () => new EngineError(
  "network", "The server cannot be reached",
  "Check that facewise is still running and that you are online, then try again.",
);

const foreign = () => new EngineError(
  "foreign_answer", "Something else answered",
  "The answer is not from facewise, but from a proxy or a network's sign-in page: reload this page, then try again.",
);

/** The parsed JSON of an answer, or null if it is not JSON. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function fromProblem(status, text, retryAfter) {
  const problem = parsed(text);
  if (problem?.code) return new EngineError(problem.code, problem.title, problem.detail, Number(retryAfter) || null);
  // Not our server's error: a proxy answered.
  if (status === 413) return new EngineError("image_too_large", "The picture is too large", "The server takes smaller files: scale the picture down and try again.");
  if (status === 429 || status === 503 || status === 502 || status === 504) {
    return new EngineError("busy", "The server is busy", "Wait a moment, then try again.", Number(retryAfter) || null);
  }
  return new EngineError("internal_error", "The server failed", `It answered ${status}. Try again; if it keeps failing, tell the operator.`);
}

/** Least time between two live frames, so that other visitors' photos get their turn. */
const LEAST_GAP_MS = 250;

export async function describe() {
  let answer, text;
  try {
    answer = await fetch(new URL("v1/models", root), { headers: headers(), signal: AbortSignal.timeout(30_000) });
    text = await answer.text();
  } catch {
    throw unreachable();
  }
  if (!answer.ok) throw fromProblem(answer.status, text, answer.headers.get("Retry-After"));
  const about = parsed(text);
  const model = about?.models?.find((entry) => entry.serving);
  if (!model) throw foreign();
  return {
    attributes: about.attributes,
    liveAttributes: about.live_attributes,
    coverage: about.coverage,
    limits: about.limits,
    frameGapMs: Math.max(LEAST_GAP_MS, 60_000 / (about.limits.photos_per_minute ?? Infinity)),
    model,
    cardUrl: new URL(model.card, root).href,
    formats: about.formats,
    privacy: "Photos are analysed in memory and forgotten.",
    onDevice: about.on_device,
    curl: (name, address = null) => curl(name, address, about.needs_key),
  };
}

const LONGEST_STANDSTILL_MS = 180_000;

export function analyze(blob, { attributes = null, onProgress = () => {}, signal = null, years = false, coverage = null } = {}) {
  const url = new URL("v1/analyze", root);
  if (years) url.searchParams.set("years", "true");
  if (attributes) url.searchParams.set("attributes", attributes.join(","));
  if (coverage !== null) url.searchParams.set("coverage", coverage);
  // XMLHttpRequest, because fetch still does not report upload progress.
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    // A slow connection may take as long as it needs; a stalled one is aborted.
    let waiting;
    let still = false;
    const moved = () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        still = true;
        request.abort();
      }, LONGEST_STANDSTILL_MS);
    };
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => {
      moved();
      onProgress(event.lengthComputable ? event.loaded / event.total : null);
    });
    request.upload.addEventListener("load", () => onProgress(1));
    request.addEventListener("load", () => {
      const answer = request.status === 200 ? parsed(request.responseText) : null;
      if (answer?.faces) resolve(answer);
      else if (request.status === 200) reject(foreign());
      else reject(fromProblem(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    });
    request.addEventListener("error", () => reject(unreachable()));
    request.addEventListener("abort", () =>
      reject(
        still
          ? new EngineError("timeout", "The server takes too long", "Try again, or send a smaller picture.")
          : new EngineError("aborted", "Stopped", "The photo was removed."),
      ),
    );
    request.addEventListener("loadend", () => clearTimeout(waiting));
    signal?.addEventListener("abort", () => request.abort());
    const form = new FormData();
    form.append("file", blob, "photo");
    moved();
    request.send(form);
  });
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The command that repeats a request; of an example, which is on the server, it fetches the picture first. */
function curl(name, address, needsKey) {
  const key = needsKey ? " -H 'Authorization: Bearer YOUR-KEY'" : "";
  const field = address ? `file=@-;filename=${name}` : `file=@"${name.replaceAll(/["\\]/g, "\\$&")}"`;
  const fetched = address ? `curl -s ${quoted(address)} | ` : "";
  return `${fetched}curl${key} -F ${quoted(field)} ${quoted(new URL("v1/analyze?years=true", root).href)}`;
}
