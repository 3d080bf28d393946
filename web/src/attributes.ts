// Turns a batch of aligned crops into uncalibrated probabilities; see attributes.py.
import { AGES } from "./labels.ts";
import type { Network } from "./models.ts";
import type { AttributeSpec } from "./spec.ts";
import type { Crop } from "./types.ts";

const VECTOR = 19;

/** Probabilities of one face. */
export interface Raw {
  readonly ages: Float32Array; // 120
  readonly vector: Float32Array; // 19
}

export class AttributeModel {
  constructor(
    readonly spec: AttributeSpec,
    private readonly network: Network,
  ) {}

  async predict(crops: readonly Crop[]): Promise<Raw[]> {
    const size = this.spec.input.size_px;
    const out: Raw[] = [];
    for (let start = 0; start < crops.length; start += this.spec.batch_size) {
      const batch = crops.slice(start, start + this.spec.batch_size);
      const image = new Uint8Array(batch.length * size * size * 3);
      batch.forEach((crop, i) => image.set(crop, i * size * size * 3));
      const { ages, vector } = await this.network.run(image, [batch.length, size, size, 3]);
      batch.forEach((_, i) => {
        out.push({
          ages: ages.data.slice(i * AGES, (i + 1) * AGES),
          vector: vector.data.slice(i * VECTOR, (i + 1) * VECTOR),
        });
      });
    }
    return out;
  }
}
