// Convolution and pooling of MTCNN's networks in WebAssembly SIMD: AssemblyScript, compiled by
// build-kernels.mjs. Pictures are stored pixel by pixel, float32, with channels padded to a multiple
// of four.
//
// ONNX Runtime's convolution first copies each window and is slow with few channels; these kernels
// read windows in place. Measured: two to three times as fast (docs/device.md).

/** Bytes of a vector: four float32. */
const VECTOR = 16;
/** Output pixels computed with one block of weights before the next: both stay in the cache. */
const CHUNK = 128;

// @ts-ignore: decorator
@inline
function add(sum: v128, x: v128, y: v128): v128 {
  return f32x4.add(f32x4.mul(x, y), sum);
}

/** PReLU; a slope of 1 is the identity. */
// @ts-ignore: decorator
@inline
function bend(x: v128, slope: v128): v128 {
  const zero = f32x4.splat(0);
  return f32x4.add(f32x4.max(x, zero), f32x4.mul(slope, f32x4.min(x, zero)));
}

/** Four output pixels, eight channels. `p0` to `p3` point to the first inputs of their windows. */
// @ts-ignore: decorator
@inline
function fourByEight(p0: usize, p1: usize, p2: usize, p3: usize, stride: i32, rows: i32, run: i32, weights: usize, bias: usize, slope: usize, out: usize, step: usize): void {
  let a0 = v128.load(bias), b0 = v128.load(bias, VECTOR);
  let a1 = a0, b1 = b0, a2 = a0, b2 = b0, a3 = a0, b3 = b0;
  for (let row = 0; row < rows; row++) {
    let q0 = p0, q1 = p1, q2 = p2, q3 = p3;
    const end = p0 + run;
    while (q0 < end) {
      const u = v128.load(weights), v = v128.load(weights, VECTOR);
      let x = v128.load32_splat(q0);
      a0 = add(a0, x, u);
      b0 = add(b0, x, v);
      x = v128.load32_splat(q1);
      a1 = add(a1, x, u);
      b1 = add(b1, x, v);
      x = v128.load32_splat(q2);
      a2 = add(a2, x, u);
      b2 = add(b2, x, v);
      x = v128.load32_splat(q3);
      a3 = add(a3, x, u);
      b3 = add(b3, x, v);
      q0 += 4, q1 += 4, q2 += 4, q3 += 4;
      weights += 2 * VECTOR;
    }
    p0 += stride, p1 += stride, p2 += stride, p3 += stride;
  }
  const s = v128.load(slope), t = v128.load(slope, VECTOR);
  v128.store(out, bend(a0, s));
  v128.store(out, bend(b0, t), VECTOR);
  out += step;
  v128.store(out, bend(a1, s));
  v128.store(out, bend(b1, t), VECTOR);
  out += step;
  v128.store(out, bend(a2, s));
  v128.store(out, bend(b2, t), VECTOR);
  out += step;
  v128.store(out, bend(a3, s));
  v128.store(out, bend(b3, t), VECTOR);
}

/** The same for a last block of four channels. */
// @ts-ignore: decorator
@inline
function fourByFour(p0: usize, p1: usize, p2: usize, p3: usize, stride: i32, rows: i32, run: i32, weights: usize, bias: usize, slope: usize, out: usize, step: usize): void {
  let a0 = v128.load(bias);
  let a1 = a0, a2 = a0, a3 = a0;
  for (let row = 0; row < rows; row++) {
    let q0 = p0, q1 = p1, q2 = p2, q3 = p3;
    const end = p0 + run;
    while (q0 < end) {
      const u = v128.load(weights);
      a0 = add(a0, v128.load32_splat(q0), u);
      a1 = add(a1, v128.load32_splat(q1), u);
      a2 = add(a2, v128.load32_splat(q2), u);
      a3 = add(a3, v128.load32_splat(q3), u);
      q0 += 4, q1 += 4, q2 += 4, q3 += 4;
      weights += VECTOR;
    }
    p0 += stride, p1 += stride, p2 += stride, p3 += stride;
  }
  const s = v128.load(slope);
  v128.store(out, bend(a0, s));
  v128.store(out + step, bend(a1, s));
  v128.store(out + 2 * step, bend(a2, s));
  v128.store(out + 3 * step, bend(a3, s));
}

/**
 * Convolution and PReLU. Strides and runs are in bytes.
 *
 * A window is `rows` runs of `run` bytes, `stride` apart; the next output pixel's begins `pixel`
 * later. Dense layers are one row of adjacent windows. Four output pixels are written even if there
 * are fewer in all, so the input must be long enough.
 */
export function convolve(input: usize, stride: i32, pixel: i32, rows: i32, run: i32, layer: usize, out: usize, width: i32, height: i32, channels: i32): void {
  const step = channels * 4;
  const total = width * height;
  const slopes = layer + step;
  for (let chunk = 0; chunk < total; chunk += CHUNK) {
    const limit = min(chunk + CHUNK, total);
    let weights = slopes + step;
    for (let channel = 0; channel < channels; ) {
      const isEight = channel + 8 <= channels;
      for (let at = chunk; at < limit; at += 4) {
        const first = max(0, min(at, total - 4)); // the last four overlap the previous ones
        let y = first / width, x = first % width;
        const p0 = input + y * stride + x * pixel;
        if (++x == width) x = 0, y++;
        const p1 = input + y * stride + x * pixel;
        if (++x == width) x = 0, y++;
        const p2 = input + y * stride + x * pixel;
        if (++x == width) x = 0, y++;
        const p3 = input + y * stride + x * pixel;
        const to = out + first * step + channel * 4;
        if (isEight) fourByEight(p0, p1, p2, p3, stride, rows, run, weights, layer + channel * 4, slopes + channel * 4, to, step);
        else fourByFour(p0, p1, p2, p3, stride, rows, run, weights, layer + channel * 4, slopes + channel * 4, to, step);
      }
      weights += rows * run * (isEight ? 8 : 4);
      channel += isEight ? 8 : 4;
    }
  }
}

/** Max pooling over windows of `size` pixels a side, stride 2; windows end at the picture's edge. */
export function pool(input: usize, width: i32, height: i32, channels: i32, size: i32, out: usize, columns: i32, rows: i32): void {
  const step = channels * 4;
  const stride = width * step;
  for (let j = 0; j < rows; j++) {
    const high = min(size, height - 2 * j);
    for (let k = 0; k < columns; k++) {
      const wide = min(size, width - 2 * k);
      const from = input + 2 * j * stride + 2 * k * step;
      for (let c = 0; c < step; c += VECTOR, out += VECTOR) {
        let most = v128.load(from + c);
        for (let y = 0; y < high; y++) {
          for (let x = 0; x < wide; x++) most = f32x4.max(most, v128.load(from + y * stride + x * step + c));
        }
        v128.store(out, most);
      }
    }
  }
}
