// Compile web/kernels to WebAssembly: compileKernels() returns its bytes.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";

const here = fileURLToPath(new URL("kernels/", import.meta.url));

export async function compileKernels() {
  let binary = null;
  const { error, stderr } = await asc.main(
    ["kernels.ts", "--outFile", "kernels.wasm", "-O3", "--noAssert", "--runtime", "stub", "--importMemory", "--enable", "simd"],
    {
      readFile: (name) => readFile(here + name, "utf8").catch(() => null),
      writeFile: (name, contents) => { if (name === "kernels.wasm") binary = contents; },
      listFiles: () => [],
    },
  );
  if (error || !binary) throw error ?? new Error(String(stderr));
  return binary;
}
