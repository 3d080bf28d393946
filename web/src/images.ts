// The only decoder: turns an encoded picture or a frame into an upright photo; see images.py.
import { ImageError } from "./errors.ts";
import type { Limits } from "./spec.ts";
import type { Photo } from "./types.ts";

const number = (value: number): string => value.toLocaleString("en");

export function checkSize(width: number, height: number, limits: Limits): void {
  if (width * height > limits.max_pixels) {
    throw new ImageError(
      "image_too_large",
      "The picture is too large",
      `${number(width)} x ${number(height)} pixels is more than ${number(limits.max_pixels)}: scale the picture down.`,
    );
  }
  if (Math.min(width, height) < limits.min_side_px) {
    throw new ImageError(
      "image_too_small",
      "The picture is too small",
      `${width} x ${height} pixels: a picture needs ${limits.min_side_px} on its shorter side: use a larger one.`,
    );
  }
}

async function decode(source: Blob | ImageBitmap): Promise<ImageBitmap> {
  if (!(source instanceof Blob)) return source;
  if (source.size === 0) {
    throw new ImageError("image_empty", "The file is empty", "It has no bytes: choose another.");
  }
  try {
    return await createImageBitmap(source, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch {
    throw new ImageError(
      "unsupported_format",
      "This cannot be read here",
      "The file is damaged, no picture, or of a kind that this browser does not read: save it as JPEG or PNG and try again.",
    );
  }
}

/**
 * Decode a picture, or the first frame of an animation: EXIF orientation is applied, transparency
 * laid on white, colour profiles ignored.
 *
 * @param source a file, or a frame, which is closed.
 */
export async function loadPhoto(source: Blob | ImageBitmap, limits: Limits): Promise<Photo> {
  if (source instanceof Blob && source.size > limits.max_bytes) {
    throw new ImageError(
      "image_too_large",
      "The picture is too large",
      `More than ${number(limits.max_bytes)} bytes: use a smaller file.`,
    );
  }
  const bitmap = await decode(source);
  try {
    const { width, height } = bitmap;
    checkSize(width, height, limits);
    const canvas = new OffscreenCanvas(width, height);
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    if (!pen) throw new Error("no canvas");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
    pen.drawImage(bitmap, 0, 0);
    const rgba = pen.getImageData(0, 0, width, height).data;
    // Safari silently returns zeros for a canvas above its pixel limit.
    if (rgba[3] === 0) throw new Error("no canvas of this size");
    return { rgba, width, height };
  } catch (error) {
    if (error instanceof ImageError) throw error;
    throw new ImageError(
      "image_too_large",
      "The picture is too large",
      "Too large for this device's memory: scale it down.",
    );
  } finally {
    bitmap.close();
  }
}
