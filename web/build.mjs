// Bundle the worker and copy ONNX Runtime's WebAssembly beside it: node build.mjs OUTPUT-FOLDER
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { compileKernels } from "./build-kernels.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const out = process.argv[2];
if (!out) throw new Error("name the folder to write to");
const runtime = `${here}node_modules/onnxruntime-web/`;

await mkdir(out, { recursive: true });
await build({
  absWorkingDir: here,
  entryPoints: ["src/worker.ts"],
  outfile: `${out}/worker.js`,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
  banner: { js: "/*! facewise: MIT. Holds ONNX Runtime Web: MIT, see NOTICES.txt. */" },
});
await writeFile(`${out}/kernels.wasm`, await compileKernels());
for (const name of ["ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"]) {
  await copyFile(`${runtime}dist/${name}`, `${out}/${name}`);
}
const { version } = JSON.parse(await readFile(`${runtime}package.json`, "utf8"));
await writeFile(`${out}/runtime.json`, `${JSON.stringify({ name: "onnxruntime-web", version })}\n`);
