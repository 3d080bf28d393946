// Boxes as flat float32 arrays, four numbers per box, xyxy; see boxes.py. Single precision where the
// Python code uses it, so that a box close to a threshold falls on the same side.

const f = Math.fround;

/** Decimals of a logit used for ranking boxes: engines differ by about 1e-5. */
const LOGIT_DECIMALS = 3;

/**
 * Greedy non-maximum suppression. Ties go to the first box, which in a cascade is the one that the
 * previous stage preferred.
 *
 * @param logits face logits; probabilities near 1 are too coarse to tell boxes apart.
 * @returns indices of the boxes kept, best first.
 */
export function nonMaximumSuppression(
  boxes: Float32Array,
  logits: Float32Array,
  threshold: number,
  relativeTo: "union" | "smaller" = "union",
): number[] {
  const ranks = Array.from(logits, (z) => Math.round(z * 10 ** LOGIT_DECIMALS));
  const order = Array.from(ranks.keys()).sort((i, j) => ranks[j] - ranks[i]);
  const areas = new Float32Array(logits.length);
  for (let i = 0; i < logits.length; i++) {
    areas[i] = f(boxes[i * 4 + 2] - boxes[i * 4]) * f(boxes[i * 4 + 3] - boxes[i * 4 + 1]);
  }
  const limit = f(threshold);
  const kept: number[] = [];
  let rest = order;
  while (rest.length > 0) {
    const best = rest[0];
    kept.push(best);
    const left = boxes[best * 4];
    const top = boxes[best * 4 + 1];
    const right = boxes[best * 4 + 2];
    const bottom = boxes[best * 4 + 3];
    const area = areas[best];
    let count = 0;
    for (let k = 1; k < rest.length; k++) {
      const i = rest[k];
      const width = Math.min(boxes[i * 4 + 2], right) - Math.max(boxes[i * 4], left);
      const height = Math.min(boxes[i * 4 + 3], bottom) - Math.max(boxes[i * 4 + 1], top);
      const shared = width > 0 && height > 0 ? f(f(width) * f(height)) : 0;
      const whole =
        relativeTo === "smaller" ? Math.min(areas[i], area) : f(f(areas[i] + area) - shared);
      if (f(shared / Math.max(whole, 1e-9)) <= limit) rest[count++] = i;
    }
    rest = rest.slice(0, count);
  }
  return kept;
}

/**
 * Move each edge by a regressed share of the box's size, in place.
 *
 * @param extent added to width and height: R- and O-net count pixels inclusively (1), P-net not (0).
 */
export function refine(boxes: Float32Array, regression: Float32Array, extent: number): void {
  for (let i = 0; i < boxes.length; i += 4) {
    const width = f(f(boxes[i + 2] - boxes[i]) + extent);
    const height = f(f(boxes[i + 3] - boxes[i + 1]) + extent);
    boxes[i] += f(regression[i] * width);
    boxes[i + 1] += f(regression[i + 1] * height);
    boxes[i + 2] += f(regression[i + 2] * width);
    boxes[i + 3] += f(regression[i + 3] * height);
  }
}

/** Replace each box by the square of its longer side about its centre, in place. */
export function toSquares(boxes: Float32Array): void {
  for (let i = 0; i < boxes.length; i += 4) {
    const width = f(boxes[i + 2] - boxes[i]);
    const height = f(boxes[i + 3] - boxes[i + 1]);
    const side = Math.max(width, height);
    boxes[i] += f((width - side) * 0.5);
    boxes[i + 1] += f((height - side) * 0.5);
    boxes[i + 2] = boxes[i] + side;
    boxes[i + 3] = boxes[i + 1] + side;
  }
}

/** The rows of `width` numbers at these indices. */
export function take(
  rows: Float32Array,
  indices: readonly number[],
  width: number,
): Float32Array<ArrayBuffer> {
  const out = new Float32Array(indices.length * width);
  indices.forEach((index, i) => {
    out.set(rows.subarray(index * width, (index + 1) * width), i * width);
  });
  return out;
}
