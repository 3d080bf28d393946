// Runs face-api or human under Node.js on WebAssembly, one thread, and times them on request.
//
//     node node.mjs face-api|human [way]
//
// Same protocol as bench/worker.py: one line of JSON per call, {job, pixels, width, height}, answered
// by one with milliseconds, the number of faces and, for job "detect", their boxes, xyxy; for job
// "people", each face's box, age and gender, or the error. `pixels` is a file of RGB bytes: neither
// package includes a JPEG decoder for Node.js, so decoding is not counted.
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

/** The first, with its detector's defaults, is the one timed; "ssd" is set up like its WASM demo. */
const FACE_API = {
  quick: { detector: "tinyFaceDetector", tinyLandmarks: true },
  tiny: { detector: "tinyFaceDetector" },
  "tiny, 320 px": { detector: "tinyFaceDetector", options: { inputSize: 320 } },
  "tiny, 224 px": { detector: "tinyFaceDetector", options: { inputSize: 224 } },
  "tiny, 160 px": { detector: "tinyFaceDetector", options: { inputSize: 160 } },
  ssd: { detector: "ssdMobilenetv1", options: { minConfidence: 0.1 } },
};

async function faceApi(way = "quick") {
  const tf = require("@tensorflow/tfjs");
  const backend = require("@tensorflow/tfjs-backend-wasm");
  backend.setWasmPaths(wasm);
  backend.setThreadsCount(1);
  if (!(await tf.setBackend("wasm"))) throw new Error("no WebAssembly backend");
  const api = require("@vladmandic/face-api/dist/face-api.node-wasm.js");
  const { detector, tinyLandmarks = false, options: set } = FACE_API[way];
  const landmarks = tinyLandmarks ? "faceLandmark68TinyNet" : "faceLandmark68Net";
  for (const net of [detector, landmarks, "ageGenderNet"]) {
    await api.nets[net].loadFromDisk(join(packages, "@vladmandic/face-api/model"));
  }
  const Options = way === "ssd" ? api.SsdMobilenetv1Options : api.TinyFaceDetectorOptions;
  const options = new Options(set); // 416 px by default
  return async (job, pixels, shape) => {
    const image = tf.tensor3d(pixels, shape, "int32");
    const search = api.detectAllFaces(image, options);
    const found = await (job === "detect" ? search : search.withFaceLandmarks(tinyLandmarks).withAgeAndGender());
    image.dispose();
    return found.map(({ box, detection, age, gender }) => {
      const { x, y, width, height } = detection?.box ?? box;
      return { box: xyxy(x, y, width, height), age, gender };
    });
  };
}

/** With the mesh, its default, a face must pass that too; "plain" is the one timed. */
const HUMAN = {
  plain: { mesh: false, rotation: false },
  mesh: { mesh: true, rotation: false },
  "mesh, turned upright": { mesh: true, rotation: true },
};

async function human(way = "plain") {
  // It loads its models with fetch, which cannot read files here.
  globalThis.fetch = async (url) => new Response(await readFile(fileURLToPath(url)));
  const backend = require("@tensorflow/tfjs-backend-wasm");
  backend.setThreadsCount(1);
  const { Human } = require(join(packages, "@vladmandic/human/dist/human.node-wasm.js"));
  const off = { enabled: false };
  const { mesh, rotation } = HUMAN[way];
  const engine = new Human({
    backend: "wasm",
    wasmPath: wasm,
    modelBasePath: `file://${join(packages, "@vladmandic/human/models/")}`,
    cacheSensitivity: 0, // no caching between calls
    debug: false,
    filter: off,
    body: off,
    hand: off,
    object: off,
    gesture: off,
    segmentation: off,
    face: {
      enabled: true,
      detector: { maxDetected: 50, rotation, skipFrames: 0, skipTime: 0 },
      mesh: { enabled: mesh },
      iris: off,
      emotion: off,
      attention: off,
      antispoof: off,
      liveness: off,
      description: { enabled: true, skipFrames: 0, skipTime: 0, minConfidence: 0 }, // a gender for everyone
    },
  });
  await engine.load();
  return async (job, pixels, shape) => {
    const image = engine.tf.tensor(pixels, [1, ...shape], "float32");
    engine.config.face.description.enabled = job !== "detect";
    const found = await engine.detect(image);
    engine.tf.dispose(image);
    if (found.error) throw new Error(found.error);
    // It omits an age of 0, which it gives to babies.
    return found.face.map(({ box, age = 0, gender }) => ({ box: xyxy(...box), age, gender }));
  };
}

const [peer, way] = process.argv.slice(2);
const run = await { "face-api": faceApi, human }[peer](way);
const warm = new Set();
for await (const line of createInterface({ input: process.stdin })) {
  const { job, pixels, width, height } = JSON.parse(line);
  const picture = new Uint8Array(await readFile(pixels));
  const call = () => run(job, picture, [height, width, 3]);
  if (job === "people") {
    const answer = await call().then(
      (people) => ({ faces: people.length, people }),
      (error) => ({ faces: 0, error: String(error) }),
    );
    process.stdout.write(`${JSON.stringify(answer)}\n`);
    continue;
  }
  const kind = `${job} ${width} ${height}`;
  if (!warm.has(kind)) for (let i = 0; i < 3; i++) await call();
  warm.add(kind);
  const cpu = process.cpuUsage();
  const wall = performance.now();
  const found = await call();
  const wall_ms = performance.now() - wall;
  const { user, system } = process.cpuUsage(cpu);
  const answer = { cpu_ms: (user + system) / 1e3, wall_ms, faces: found.length };
  if (job === "detect") answer.boxes = found.map(({ box }) => box);
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
