// MTCNN: three cascaded networks that find faces and five landmarks; see mtcnn.py and cascade.py.
import { nonMaximumSuppression, refine, take, toSquares } from "./boxes.ts";
import type { Network } from "./models.ts";
import { backFrom, bestPortrait, leastPx, mayBeIn, mirrorFace, mirrorPhoto, viewOf } from "./portrait.ts";
import { AreaSource } from "./resample.ts";
import type { MtcnnSpec, PortraitSpec } from "./spec.ts";
import type { Face, Photo } from "./types.ts";

const f = Math.fround;
const RNET_PX = 24;
const ONET_PX = 48;

/** Boxes between two stages. */
interface Candidates {
  boxes: Float32Array; // N * 4
  logits: Float32Array; // N face logits
}

export interface Networks {
  pnet: Network;
  rnet: Network;
  onet: Network;
}

/** Smallest face to look for in a photo of this size. */
export function smallestPx(spec: MtcnnSpec, width: number, height: number): number {
  return Math.max(spec.min_face.px, spec.min_face.share_of_short_side * Math.min(width, height));
}

/** Scales of the pyramid levels of a photo of this size, finest first. */
export function pyramidScales(
  spec: MtcnnSpec,
  width: number,
  height: number,
  smallest = smallestPx(spec, width, height),
): number[] {
  const shortSide = Math.min(width, height);
  const scales: number[] = [];
  for (
    let scale = spec.cell_px / smallest;
    shortSide * scale >= spec.cell_px;
    scale *= spec.pyramid_factor
  ) {
    scales.push(scale);
  }
  return scales;
}

/** Side of the pixel blocks within which P-net needs no detail. */
export function blockSide(spec: MtcnnSpec, width: number, height: number): number {
  const [finest] = pyramidScales(spec, width, height);
  return finest ? Math.max(1, Math.trunc(1 / (spec.pixels_a_cell * finest))) : 1;
}

/** Top row and number of rows of the bands of a level, small enough for the processor's cache. */
export function bands(spec: MtcnnSpec, width: number, height: number): [number, number][] {
  const stride = spec.stride_px;
  const overlap = spec.cell_px - stride;
  const even = Math.floor(Math.floor(spec.band_area_px / width) / stride) * stride;
  const step = Math.max(spec.min_band_px, even);
  const out: [number, number][] = [];
  for (let top = 0; top < Math.max(1, height - overlap); top += step) {
    const isLast = height - top - step < spec.cell_px;
    out.push([top, isLast ? height - top : step + overlap]);
    if (isLast) break;
  }
  return out;
}

function join(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

const logit = (probability: number): number => f(Math.log(probability / (1 - probability)));

/** Indices of the logits above that of a threshold probability. */
function above(logits: Float32Array, threshold: number): number[] {
  const limit = logit(threshold);
  const out: number[] = [];
  logits.forEach((z, i) => {
    if (z > limit) out.push(i);
  });
  return out;
}

export class MTCNN {
  constructor(
    private readonly spec: MtcnnSpec,
    private readonly networks: Networks,
  ) {}

  /** Find faces, the largest first. */
  async detect(photo: Photo): Promise<Face[]> {
    const { spec } = this;
    const image = this.source(photo);
    const proposed = await this.propose(image, spec.thresholds[0]);
    const [, rnet, onet] = spec.thresholds;
    let found = await this.find(image, proposed, rnet, onet);
    if (found.length === 0 && proposed.logits.length > 0) {
      // A less strict second look, for profiles and for turned or covered faces.
      found = await this.find(image, proposed, ...spec.second_look);
    }
    for (const portrait of spec.portraits) {
      if (found.length === 0 && mayBeIn(spec, portrait, photo)) {
        found = await this.findPortrait(photo, image, portrait);
      }
    }
    return found;
  }

  private source(photo: Photo): AreaSource {
    const reduction = blockSide(this.spec, photo.width, photo.height);
    const { detail, border_value: border } = this.spec;
    return new AreaSource(photo, { reduction, detail, border });
  }

  /** A last look at the coarse levels of the photo and of its mirror image. */
  private async findPortrait(
    photo: Photo,
    image: AreaSource,
    portrait: PortraitSpec,
  ): Promise<Face[]> {
    const [pnet, rnet, onet] = portrait.thresholds;
    const view = viewOf(this.spec, portrait, photo);
    const smallest = smallestPx(this.spec, photo.width, photo.height);
    const least = Math.max(smallest, leastPx(portrait, photo)) / view.block;
    const look = async (seen: AreaSource): Promise<Face[]> =>
      this.find(seen, await this.propose(seen, pnet, least), rnet, onet);
    const whole = { ...image.options, reduction: 1 };
    const source = view.photo === photo ? image : new AreaSource(view.photo, whole);
    const faces = await look(source);
    const mirrored = await look(new AreaSource(mirrorPhoto(view.photo), source.options));
    const back = mirrored.map((face) => mirrorFace(face, view.photo.width));
    const seen = [...faces, ...back].map((face) => backFrom(view, face));
    return bestPortrait(portrait, seen, photo);
  }

  /** Stages two and three, with their thresholds. */
  private async find(
    image: AreaSource,
    proposed: Candidates,
    rnet: number,
    onet: number,
  ): Promise<Face[]> {
    return this.output(image, await this.refine(image, proposed, rnet), onet);
  }

  /** Stage one: P-net over the pyramid. */
  private async propose(
    image: AreaSource,
    threshold: number,
    smallest?: number,
  ): Promise<Candidates> {
    const { width, height } = image;
    const boxes: Float32Array[] = [];
    const logits: Float32Array[] = [];
    const offsets: Float32Array[] = [];
    for (const scale of pyramidScales(this.spec, width, height, smallest)) {
      const columns = Math.trunc(width * scale + 1);
      const rows = Math.trunc(height * scale + 1);
      const level = image.level(columns, rows);
      const found = await this.windows(level, columns, rows, scale, threshold);
      const keep = nonMaximumSuppression(found.boxes, found.logits, this.spec.nms.level);
      boxes.push(take(found.boxes, keep, 4));
      logits.push(take(found.logits, keep, 1));
      offsets.push(take(found.offsets, keep, 4));
    }
    const all = { boxes: join(boxes), logits: join(logits) };
    const keep = nonMaximumSuppression(all.boxes, all.logits, this.spec.nms.photo);
    const kept = { boxes: take(all.boxes, keep, 4), logits: take(all.logits, keep, 1) };
    refine(kept.boxes, take(join(offsets), keep, 4), 0);
    toSquares(kept.boxes);
    return kept;
  }

  /** Windows of one level that may hold a face. */
  private async windows(
    level: Float32Array<ArrayBuffer>,
    width: number,
    height: number,
    scale: number,
    threshold: number,
  ): Promise<Candidates & { offsets: Float32Array }> {
    const limit = logit(threshold);
    const single = f(scale);
    const { stride_px: stride, cell_px: cell } = this.spec;
    const boxes: number[] = [];
    const logits: number[] = [];
    const offsets: number[] = [];
    for (const [from, rows] of bands(this.spec, width, height)) {
      const band = level.subarray(from * width * 3, (from + rows) * width * 3);
      const outputs = await this.networks.pnet.run(band, [1, rows, width, 3]);
      const { data: map, dims } = outputs.face_logit;
      const regression = outputs.box_regression.data;
      const [, h, w] = dims;
      for (let i = 0; i < w * h; i++) {
        if (map[i] < limit) continue;
        const x = (i % w) * stride;
        const y = Math.floor(i / w) * stride + from;
        for (const edge of [x + 1, y + 1, x + cell, y + cell]) {
          boxes.push(Math.floor(f(edge / single)));
        }
        logits.push(map[i]);
        for (let k = 0; k < 4; k++) offsets.push(regression[k * w * h + i]);
      }
    }
    return {
      boxes: Float32Array.from(boxes),
      logits: Float32Array.from(logits),
      offsets: Float32Array.from(offsets),
    };
  }

  /** Stage two: R-net over the candidates. */
  private async refine(
    image: AreaSource,
    proposed: Candidates,
    threshold: number,
  ): Promise<Candidates> {
    const outputs = await this.runCrops(this.networks.rnet, image, proposed.boxes, RNET_PX);
    const passed = above(outputs.face_logit, threshold);
    const boxes = take(proposed.boxes, passed, 4);
    const logits = take(outputs.face_logit, passed, 1);
    const keep = nonMaximumSuppression(boxes, logits, this.spec.nms.rnet);
    const kept = { boxes: take(boxes, keep, 4), logits: take(logits, keep, 1) };
    refine(kept.boxes, take(take(outputs.box_regression, passed, 4), keep, 4), 1);
    toSquares(kept.boxes);
    return kept;
  }

  /** Stage three: O-net turns the remaining candidates into faces. */
  private async output(
    image: AreaSource,
    refined: Candidates,
    threshold: number,
  ): Promise<Face[]> {
    const outputs = await this.runCrops(this.networks.onet, image, refined.boxes, ONET_PX);
    const passed = above(outputs.face_logit, threshold);
    const boxes = take(refined.boxes, passed, 4);
    const logits = take(outputs.face_logit, passed, 1);
    const points = take(outputs.landmarks, passed, 10);
    const landmarks = new Float32Array(points.length);
    for (let i = 0; i < passed.length; i++) {
      const width = f(f(boxes[i * 4 + 2] - boxes[i * 4]) + 1); // inclusive pixels
      const height = f(f(boxes[i * 4 + 3] - boxes[i * 4 + 1]) + 1);
      // O-net gives five x, then five y, as shares of the box; the weights' own origin is (1, 1).
      for (let k = 0; k < 5; k++) {
        const x = f(f(points[i * 10 + k] * width) + boxes[i * 4]);
        const y = f(f(points[i * 10 + 5 + k] * height) + boxes[i * 4 + 1]);
        landmarks[i * 10 + k * 2] = x - 1;
        landmarks[i * 10 + k * 2 + 1] = y - 1;
      }
    }
    refine(boxes, take(outputs.box_regression, passed, 4), 1);
    const area = (i: number): number =>
      f(f(boxes[i * 4 + 2] - boxes[i * 4]) * f(boxes[i * 4 + 3] - boxes[i * 4 + 1]));
    // The regression is unbounded: if it moves edges past each other, there is no face.
    const sound = [...passed.keys()].filter(
      (i) => boxes[i * 4 + 2] - boxes[i * 4] >= 1 && boxes[i * 4 + 3] - boxes[i * 4 + 1] >= 1,
    );
    const apart = [take(boxes, sound, 4), take(logits, sound, 1)] as const;
    return nonMaximumSuppression(...apart, this.spec.nms.onet, "smaller")
      .map((i) => sound[i])
      .sort((i, j) => area(j) - area(i))
      .map((i) => ({
        bbox: boxes.slice(i * 4, i * 4 + 4),
        landmarks: landmarks.slice(i * 10, i * 10 + 10),
        detection_score: 1 / (1 + Math.exp(-logits[i])),
      }));
  }

  /** Run R- or O-net on every candidate, in batches; each output as one flat array. */
  private async runCrops(
    network: Network,
    image: AreaSource,
    boxes: Float32Array,
    size: number,
  ): Promise<Record<"face_logit" | "box_regression" | "landmarks", Float32Array>> {
    const parts: Record<string, Float32Array[]> = {
      face_logit: [],
      box_regression: [],
      landmarks: [],
    };
    const most = this.spec.batch_size;
    for (let start = 0; start < boxes.length / 4; start += most) {
      const batch = boxes.subarray(start * 4, (start + most) * 4);
      const crops = cutSquares(image, batch, size);
      const outputs = await network.run(crops, [batch.length / 4, size, size, 3]);
      for (const [name, { data }] of Object.entries(outputs)) parts[name].push(data);
    }
    return {
      face_logit: join(parts.face_logit),
      box_regression: join(parts.box_regression),
      landmarks: join(parts.landmarks),
    };
  }
}

/**
 * Cut boxes out of a picture and average them down to squares, filled with grey where a box extends
 * past the picture. Coordinates count from 1 and include their last pixel.
 */
export function cutSquares(image: AreaSource, boxes: Float32Array, size: number): Float32Array {
  const corners = Int32Array.from(boxes, (v, k) => Math.trunc(v) - (k % 4 < 2 ? 1 : 0));
  return image.crops(corners, size);
}
