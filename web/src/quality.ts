// How much of a face can be seen, measured on its aligned crop and landmarks; see quality.py.
import { resizeMean } from "./align.ts";
import type { QualityConstants } from "./spec.ts";
import type { Crop, Quality } from "./types.ts";

/** OpenCV's weights of red, green and blue in the luma, in units of 2^-15. */
const LUMA = [9798, 19235, 3735] as const;

/** Approximate yaw of the head in degrees; 0 is frontal, positive with the nose to the right. */
export function yawFromLandmarks(points: ArrayLike<number>, constants: QualityConstants): number {
  const eyes = [(points[0] + points[2]) / 2, (points[1] + points[3]) / 2];
  const mouth = [(points[6] + points[8]) / 2, (points[7] + points[9]) / 2];
  const axis = [mouth[0] - eyes[0], mouth[1] - eyes[1]];
  const length = Math.max(Math.hypot(axis[0], axis[1]), 1e-6);
  // A turn brings the eyes together, a nod shortens the face: the larger measure is closer to frontal.
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

/** The luma of the crop at a fixed size, rounded to integers: `side * side`. */
function wholeLuma(crop: Crop, size: number, side: number): Float32Array {
  const { data } = resizeMean({ data: crop, width: size, height: size, channels: 3 }, side, side);
  const [r, g, b] = LUMA;
  const out = new Float32Array(side * side);
  for (let i = 0, from = 0; i < out.length; i++, from += 3) {
    out[i] = (data[from] * r + data[from + 1] * g + data[from + 2] * b + 16384) >> 15;
  }
  return out;
}

/** Half of a Gaussian kernel, from its middle, with the length that OpenCV uses for floats. */
function gaussian(sigma: number): Float64Array {
  const reach = (Math.round(sigma * 8 + 1) | 1) >> 1;
  const half = Float64Array.from({ length: reach + 1 }, (_, i) =>
    Math.exp((-i * i) / (2 * sigma * sigma)),
  );
  const sum = half[0] + 2 * half.subarray(1).reduce((a, b) => a + b, 0);
  return half.map((v) => v / sum);
}

/**
 * The middle of a picture after a Gaussian blur, rows and columns `first` to `last`. The kernels in
 * use end inside the picture, so edge handling does not matter.
 */
function blurredMiddle(
  luma: Float32Array,
  whole: number,
  [first, last]: readonly [number, number],
  sigma: number,
): Float32Array {
  const kernel = gaussian(sigma);
  const side = last - first;
  const across = new Float32Array(whole * side);
  for (let y = 0, at = 0; y < whole; y++) {
    for (let x = first; x < last; x++, at++) {
      const from = y * whole + x;
      let sum = kernel[0] * luma[from];
      for (let k = 1; k < kernel.length; k++) sum += kernel[k] * (luma[from - k] + luma[from + k]);
      across[at] = sum;
    }
  }
  const out = new Float32Array(side * side);
  for (let i = 0, from = first * side; i < out.length; i++, from++) {
    let sum = kernel[0] * across[from];
    for (let k = 1; k < kernel.length; k++) {
      sum += kernel[k] * (across[from - k * side] + across[from + k * side]);
    }
    out[i] = sum;
  }
  return out;
}

const difference = (a: Float32Array, b: Float32Array): Float32Array => a.map((v, i) => v - b[i]);

/** Measure one face. */
export function measureQuality(
  crop: Crop,
  size: number,
  points: ArrayLike<number>,
  constants: QualityConstants,
): Quality {
  const whole = constants.sharpness_size_px;
  const [first, last] = constants.inner_px;
  const luma = wholeLuma(crop, size, whole);
  const inner = new Float32Array((last - first) ** 2);
  for (let y = first, at = 0; y < last; y++, at += last - first) {
    inner.set(luma.subarray(y * whole + first, y * whole + last), at);
  }
  const [mean, deviation] = meanAndDeviation(inner);
  const blurred = (sigma: number): Float32Array =>
    blurredMiddle(luma, whole, constants.inner_px, sigma);
  const [, detail] = meanAndDeviation(difference(inner, blurred(constants.fine_sigma_px)));
  const [coarse, coarser] = constants.coarse_sigmas_px.map(blurred);
  const [, features] = meanAndDeviation(difference(coarse, coarser));
  return {
    eye_distance_px: Math.hypot(points[2] - points[0], points[3] - points[1]),
    sharpness: detail / Math.max(features, constants.min_deviation),
    yaw_degrees: yawFromLandmarks(points, constants),
    brightness: mean / 255,
    contrast: deviation / 255,
  };
}
