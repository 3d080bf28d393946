// face-api on its WebAssembly backend, one thread: tiny detector, landmarks, age and gender.
import * as api from "./node_modules/@vladmandic/face-api/dist/face-api.esm.js";

const options = new api.TinyFaceDetectorOptions(); // 416 px by default, as in node.mjs

/** @param tiny use the smaller of its two landmark networks. */
export async function load(tiny) {
  api.tf.setWasmPaths(new URL("node_modules/@tensorflow/tfjs-backend-wasm/dist/", import.meta.url).href);
  // Its plain JavaScript backend is many times slower and would not be a fair comparison.
  if (!(await api.tf.setBackend("wasm"))) throw new Error("no WebAssembly backend");
  await api.tf.ready();
  const landmarks = tiny ? "faceLandmark68TinyNet" : "faceLandmark68Net";
  const models = new URL("node_modules/@vladmandic/face-api/model", import.meta.url).href;
  for (const net of ["tinyFaceDetector", landmarks, "ageGenderNet"]) await api.nets[net].loadFromUri(models);
  return { backend: api.tf.getBackend(), simd: api.tf.env().get("WASM_HAS_SIMD_SUPPORT"), threads: api.tf.env().get("WASM_HAS_MULTITHREAD_SUPPORT") };
}

/** Process one file, from bytes to faces: the number of faces and the milliseconds taken. */
export async function analyze(bytes, tiny) {
  const started = performance.now();
  const bitmap = await createImageBitmap(new Blob([bytes]));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  const found = await api.detectAllFaces(canvas, options).withFaceLandmarks(tiny).withAgeAndGender();
  return { faces: found.length, total: performance.now() - started };
}
