// Portraits, as the last looks define them: one large face near the middle; see portrait.py.
import { blockMeans, pixelsOf, roundHalfEven } from "./resample.ts";
import type { MtcnnSpec, PortraitSpec } from "./spec.ts";
import type { Face, Photo } from "./types.ts";

/** Mirroring swaps the eyes and the corners of the mouth. */
const OTHER_SIDE = [1, 0, 2, 4, 3];
const f = Math.fround;

/** A photo, or a copy of it, reduced by blocks of pixels and with a border. */
export interface View {
  photo: Photo;
  block: number;
  border: number;
}

/** Least width or height of the face. */
export function leastPx(portrait: PortraitSpec, { width, height }: Photo): number {
  return portrait.share_of_short_side * Math.min(width, height);
}

/** Whether the photo's shape fits: a tight portrait was cut out around a face. */
export function mayBeIn(spec: MtcnnSpec, { border }: PortraitSpec, { width, height }: Photo): boolean {
  return border === 0 || Math.max(width, height) <= spec.most_sides * Math.min(width, height);
}

/** The photo as this look sees it. */
export function viewOf(spec: MtcnnSpec, portrait: PortraitSpec, photo: Photo): View {
  if (portrait.border === 0) return { photo, block: 1, border: 0 };
  const shortSide = Math.min(photo.width, photo.height);
  const block = Math.max(1, Math.floor(shortSide / spec.bordered_px));
  const border = roundHalfEven(Math.floor(shortSide / block) * portrait.border);
  const { data, width, height, channels } = blockMeans(pixelsOf(photo), block);
  const across = width + 2 * border;
  const rgba = new Uint8ClampedArray(across * (height + 2 * border) * 4).fill(spec.border_value);
  for (let y = 0; y < height; y++) {
    let to = ((y + border) * across + border) * 4;
    let from = y * width * channels;
    for (let x = 0; x < width; x++, to += 4, from += channels) {
      for (let k = 0; k < 3; k++) rgba[to + k] = data[from + k];
    }
  }
  return { photo: { rgba, width: across, height: height + 2 * border }, block, border };
}

/** Map a face from a view to the photo. */
export function backFrom({ block, border }: View, { bbox, landmarks, detection_score }: Face): Face {
  // Boxes count pixels from 1 and include the last: left and top edges are one less.
  const edge = (k: number): number => (k < 2 ? 1 : 0);
  return {
    bbox: bbox.map((v, k) => f(f(f(v - border) - edge(k)) * block) + edge(k)),
    landmarks: landmarks.map((v) => f(v - border) * block),
    detection_score,
  };
}

/** The likeliest of the faces that make the photo a portrait; ties go to the first. */
export function bestPortrait(spec: PortraitSpec, faces: readonly Face[], photo: Photo): Face[] {
  const least = leastPx(spec, photo);
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

/** The photo with left and right swapped. */
export function mirrorPhoto({ rgba, width, height }: Photo): Photo {
  const pixels = new Uint32Array(rgba.slice().buffer);
  for (let y = 0; y < height; y++) pixels.subarray(y * width, (y + 1) * width).reverse();
  return { rgba: new Uint8ClampedArray(pixels.buffer), width, height };
}

/** Map a face from a mirrored photo of this width to the photo itself. */
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
