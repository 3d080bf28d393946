// face-api or human under Node.js on their WebAssembly backend, one thread, timed on request.
//
//     node node.mjs face-api|human
//
// Speaks as bench/worker.py does: a line of JSON a call, {job, pixels, width, height}, answered by
// one with milliseconds, the number of faces and, of job "detect", their boxes, xyxy. `pixels` is a
// file of RGB bytes: neither package brings a JPEG decoder for Node.js, so theirs is not counted.
import { createRequire } from "node:module";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const packages = join(dirname(fileURLToPath(import.meta.url)), "node_modules");
const wasm = join(packages, "@tensorflow/tfjs-backend-wasm/dist/");
console.log = console.info = console.warn = console.error; // answers only on stdout

const xyxy = (x, y, width, height) => [x, y, x + width, y + height];

async function faceApi() {
  const tf = require("@tensorflow/tfjs");
  const backend = require("@tensorflow/tfjs-backend-wasm");
  backend.setWasmPaths(wasm);
  backend.setThreadsCount(1);
  if (!(await tf.setBackend("wasm"))) throw new Error("no WebAssembly backend");
  const api = require("@vladmandic/face-api/dist/face-api.node-wasm.js");
  for (const net of ["tinyFaceDetector", "faceLandmark68TinyNet", "ageGenderNet"]) {
    await api.nets[net].loadFromDisk(join(packages, "@vladmandic/face-api/model"));
  }
  const options = new api.TinyFaceDetectorOptions(); // 416 px, its default
  return async (job, pixels, shape) => {
    const image = tf.tensor3d(pixels, shape, "int32");
    const search = api.detectAllFaces(image, options);
    const found = await (job === "detect" ? search : search.withFaceLandmarks(true).withAgeAndGender());
    image.dispose();
    return found.map(({ box, detection }) => detection?.box ?? box).map((b) => xyxy(b.x, b.y, b.width, b.height));
  };
}

async function human() {
  // It reads its models by fetch, which knows no files here.
  globalThis.fetch = async (url) => new Response(await readFile(fileURLToPath(url)));
  const backend = require("@tensorflow/tfjs-backend-wasm");
  backend.setThreadsCount(1);
  const { Human } = require(join(packages, "@vladmandic/human/dist/human.node-wasm.js"));
  const off = { enabled: false };
  const engine = new Human({
    backend: "wasm",
    wasmPath: wasm,
    modelBasePath: `file://${join(packages, "@vladmandic/human/models/")}`,
    cacheSensitivity: 0, // every call anew
    debug: false,
    filter: off,
    body: off,
    hand: off,
    object: off,
    gesture: off,
    segmentation: off,
    face: {
      enabled: true,
      detector: { maxDetected: 50, rotation: false, skipFrames: 0, skipTime: 0 },
      mesh: off,
      iris: off,
      emotion: off,
      attention: off,
      antispoof: off,
      liveness: off,
      description: { enabled: true, skipFrames: 0, skipTime: 0 },
    },
  });
  await engine.load();
  return async (job, pixels, shape) => {
    const image = engine.tf.tensor(pixels, [1, ...shape], "float32");
    engine.config.face.description.enabled = job !== "detect";
    const found = await engine.detect(image);
    engine.tf.dispose(image);
    if (found.error) throw new Error(found.error);
    return found.face.map(({ box }) => xyxy(...box));
  };
}

const run = await { "face-api": faceApi, human }[process.argv[2]]();
const warm = new Set();
for await (const line of createInterface({ input: process.stdin })) {
  const { job, pixels, width, height } = JSON.parse(line);
  const picture = new Uint8Array(await readFile(pixels));
  const call = () => run(job, picture, [height, width, 3]);
  const kind = `${job} ${width} ${height}`;
  if (!warm.has(kind)) for (let i = 0; i < 3; i++) await call();
  warm.add(kind);
  const cpu = process.cpuUsage();
  const wall = performance.now();
  const boxes = await call();
  const wall_ms = performance.now() - wall;
  const { user, system } = process.cpuUsage(cpu);
  const answer = { cpu_ms: (user + system) / 1e3, wall_ms, faces: boxes.length };
  if (job === "detect") answer.boxes = boxes;
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
