// How much a face lets anyone see, from its aligned crop and landmarks; see quality.py.
import { resizeMean } from "./align.ts";
import type { QualityConstants } from "./spec.ts";
import type { Crop, Quality } from "./types.ts";

/** OpenCV's shares of red, green and blue in the luma, in 2^-15. */
const LUMA = [9798, 19235, 3735] as const;

/** Rough turn of the head in degrees; 0 is frontal, positive with the nose to the right. */
export function yawFromLandmarks(points: ArrayLike<number>, constants: QualityConstants): number {
  const eyes = [(points[0] + points[2]) / 2, (points[1] + points[3]) / 2];
  const mouth = [(points[6] + points[8]) / 2, (points[7] + points[9]) / 2];
  const axis = [mouth[0] - eyes[0], mouth[1] - eyes[1]];
  const length = Math.max(Math.hypot(axis[0], axis[1]), 1e-6);
  // A turn brings the eyes together, a nod shortens the face: the larger is nearer to frontal.
  const eyeDistance = Math.max(
    Math.hypot(points[2] - points[0], points[3] - points[1]),
    length / constants.face_height,
  );
  const nose = [points[4] - eyes[0], points[5] - eyes[1]];
  const across = (axis[1] * nose[0] - axis[0] * nose[1]) / length;
  const sine = Math.min(1, Math.max(-1, across / (constants.nose_depth * eyeDistance)));
  return (Math.asin(sine) * 180) / Math.PI;
}

function meanAndDeviation(values: ArrayLike<number>): [number, number] {
  let sum = 0;
  let squares = 0;
  for (let i = 0; i < values.length; i++) {
    sum += values[i];
    squares += values[i] * values[i];
  }
  const mean = sum / values.length;
  return [mean, Math.sqrt(Math.max(0, squares / values.length - mean * mean))];
}

/** The luma of the crop's middle at a fixed size, whole numbers: `side * side`. */
function innerLuma(crop: Crop, size: number, constants: QualityConstants): Uint8Array {
  const whole = constants.sharpness_size_px;
  const { data } = resizeMean({ data: crop, width: size, height: size, channels: 3 }, whole, whole);
  const [first, last] = constants.inner_px;
  const side = last - first;
  const [r, g, b] = LUMA;
  const out = new Uint8Array(side * side);
  for (let y = 0, at = 0; y < side; y++) {
    for (let x = 0; x < side; x++, at++) {
      const from = ((first + y) * whole + first + x) * 3;
      out[at] = (data[from] * r + data[from + 1] * g + data[from + 2] * b + 16384) >> 15;
    }
  }
  return out;
}

/** Laplacian with mirrored edges (the edge itself not repeated). */
function laplacian(values: Uint8Array, side: number): Float32Array {
  const out = new Float32Array(values.length);
  const mirror = (i: number): number => (i < 0 ? 1 : i >= side ? side - 2 : i);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      out[y * side + x] =
        values[mirror(y - 1) * side + x] +
        values[mirror(y + 1) * side + x] +
        values[y * side + mirror(x - 1)] +
        values[y * side + mirror(x + 1)] -
        4 * values[y * side + x];
    }
  }
  return out;
}

/** Measure one face. */
export function measureQuality(
  crop: Crop,
  size: number,
  points: ArrayLike<number>,
  constants: QualityConstants,
): Quality {
  const luma = innerLuma(crop, size, constants);
  const [mean, deviation] = meanAndDeviation(luma);
  const side = constants.inner_px[1] - constants.inner_px[0];
  const [, spread] = meanAndDeviation(laplacian(luma, side));
  return {
    eye_distance_px: Math.hypot(points[2] - points[0], points[3] - points[1]),
    sharpness: spread / Math.max(deviation, constants.min_deviation),
    yaw_degrees: yawFromLandmarks(points, constants),
    brightness: mean / 255,
    contrast: deviation / 255,
  };
}
