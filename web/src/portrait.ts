// What the last look takes for a portrait: one large face near the middle; see portrait.py.
import type { PortraitSpec } from "./spec.ts";
import type { Face, Photo } from "./types.ts";

/** A mirror makes the left eye the right one, and the left corner of the mouth the right one. */
const OTHER_SIDE = [1, 0, 2, 4, 3];
const f = Math.fround;

/** The likeliest of the faces that make the photo a portrait; of equals the first. */
export function bestPortrait(spec: PortraitSpec, faces: readonly Face[], photo: Photo): Face[] {
  const least = spec.share_of_short_side * Math.min(photo.width, photo.height);
  const fitting = faces.filter(({ bbox: [left, top, right, bottom] }) => {
    const across = Math.abs(f(f(left + right) / 2) - photo.width / 2);
    const down = Math.abs(f(f(top + bottom) / 2) - photo.height / 2);
    return (
      Math.max(f(right - left), f(bottom - top)) >= least &&
      across <= spec.off_centre * photo.width &&
      down <= spec.off_centre * photo.height
    );
  });
  return fitting.sort((a, b) => b.detection_score - a.detection_score).slice(0, 1);
}

/** Left and right changed over. */
export function mirrorPhoto({ rgba, width, height }: Photo): Photo {
  const pixels = new Uint32Array(rgba.slice().buffer);
  for (let y = 0; y < height; y++) pixels.subarray(y * width, (y + 1) * width).reverse();
  return { rgba: new Uint8ClampedArray(pixels.buffer), width, height };
}

/** A face of a mirrored photo, of that width, as it lies in the photo itself. */
export function mirrorFace({ bbox, landmarks, detection_score }: Face, width: number): Face {
  const [left, top, right, bottom] = bbox;
  // Boxes count pixels from 1, landmarks from 0: see mtcnn.ts.
  return {
    bbox: Float32Array.from([width + 1 - right, top, width + 1 - left, bottom]),
    landmarks: Float32Array.from(
      OTHER_SIDE.flatMap((k) => [width - landmarks[k * 2], landmarks[k * 2 + 1]]),
    ),
    detection_score,
  };
}
