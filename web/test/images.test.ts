// Stand-ins for what Node.js lacks: a canvas, and a bitmap to draw on it.
import { afterEach, expect, it, vi } from "vitest";
import { loadPhoto } from "../src/images.ts";

const limits = { max_bytes: 1000, max_pixels: 50_000_000, min_side_px: 16 };
const bitmap = (): ImageBitmap => ({ width: 20, height: 20, close: vi.fn() });

/** A canvas on which every pixel has this alpha. */
function canvasOf(alpha: number): void {
  const data = new Uint8ClampedArray(20 * 20 * 4).fill(alpha);
  const pen = { fillRect: vi.fn(), drawImage: vi.fn(), getImageData: () => ({ data }) };
  vi.stubGlobal("OffscreenCanvas", class { getContext = () => pen; });
  vi.stubGlobal("Blob", class {});
}

afterEach(() => vi.unstubAllGlobals());

it("a canvas that takes no paint is no photo without a face", async () => {
  canvasOf(0);
  const frame = bitmap();
  await expect(loadPhoto(frame, limits)).rejects.toMatchObject({
    code: "image_too_large",
    detail: expect.stringMatching(/^Too large for this device/),
  });
  expect(frame.close).toHaveBeenCalled();
});

it("a painted one is a photo", async () => {
  canvasOf(255);
  expect(await loadPhoto(bitmap(), limits)).toMatchObject({ width: 20, height: 20 });
});
