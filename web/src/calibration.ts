// Applies the stored calibration: temperatures, conformal intervals and label sets, abstention. Its
// format, and the reasons for it, are in calibration.py.
import { AGES, expectedAge } from "./labels.ts";
import type { Quality } from "./types.ts";

type Thresholds = number | number[];
interface Limits {
  min?: number;
  max?: number;
}

export interface StoredCalibration {
  temperatures?: Record<string, number>;
  age_intervals?: {
    band_starts_years?: number[];
    age_starts_years?: number[];
    thresholds?: Record<string, { band: Thresholds; age: Thresholds }>;
  };
  label_sets?: Record<string, Record<string, Thresholds>>;
  gates?: {
    quality?: Record<string, Record<string, Limits>>;
    certainty?: Record<string, { max_interval_years?: number; min_probability?: number }>;
  };
}

/** The measures that a gate can name. */
export type Measures = Quality & { detection_score: number };

/** A single stored number applies to all. */
const at = (values: Thresholds, i: number): number =>
  typeof values === "number" ? values : values[i];

/** The entry stored for a level; 0.9 is stored as "0.9". */
function level<T>(levels: Record<string, T> | undefined, coverage: number): T | undefined {
  if (!levels) return undefined;
  const key = Object.keys(levels).find((name) => Number(name) === coverage);
  if (key === undefined) {
    throw new Error(`coverage must be one of ${Object.keys(levels).join(", ")}, not ${coverage}`);
  }
  return levels[key];
}

/** Indices of probabilities, the largest first. */
export const descending = (p: ArrayLike<number>): number[] =>
  Array.from({ length: p.length }, (_, i) => i).sort((i, j) => p[j] - p[i]);

/** softmax(log p / T). */
export function applyTemperature(p: Float32Array, temperature: number): Float32Array {
  if (temperature === 1) return p;
  const logits = Array.from(p, (v) => Math.log(Math.max(v, 1e-30)) / temperature);
  const most = Math.max(...logits);
  const exp = logits.map((v) => Math.exp(v - most));
  const sum = exp.reduce((total, v) => total + v, 0);
  return Float32Array.from(exp, (v) => v / sum);
}

/** Index of the band that an age falls in, rounded to whole years. */
export function ageBand(age: number, starts: readonly number[]): number {
  const rounded = Math.floor(age + 0.5);
  let band = 0;
  while (band + 1 < starts.length && starts[band + 1] <= rounded) band++;
  return band;
}

/** Python's format(value, ".3g"). */
export function threeDigits(value: number): string {
  if (value === 0) return "0";
  const [digits, exponent] = value.toExponential(2).split("e");
  const power = Number(exponent);
  if (power < -4 || power >= 3) {
    const short = digits.includes(".") ? digits.replace(/\.?0+$/, "") : digits;
    return `${short}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
  }
  const fixed = value.toFixed(2 - power);
  return fixed.includes(".") ? fixed.replace(/\.?0+$/, "") : fixed;
}

export class Calibration {
  constructor(
    private readonly stored: StoredCalibration,
    private readonly minStdYears: number,
    private readonly reasons: Record<string, [string, string]>,
    private readonly unsure: string,
  ) {}

  temper(p: Float32Array, attribute: string): Float32Array {
    return applyTemperature(p, this.stored.temperatures?.[attribute] ?? 1);
  }

  /** Conformal interval of a tempered distribution: first and last year, inclusive. */
  ageInterval(ages: Float32Array, coverage: number): [number, number] {
    const intervals = this.stored.age_intervals;
    if (!level(intervals?.thresholds, coverage)) return centralInterval(ages, coverage);
    const upTo = Object.entries(intervals?.thresholds ?? {}).filter(([stored]) => Number(stored) <= coverage);
    const mean = expectedAge(ages);
    let variance = -mean * mean;
    for (let i = 0; i < AGES; i++) variance += ages[i] * (i + 1) ** 2;
    const std = Math.max(Math.sqrt(Math.max(variance, 0)), this.minStdYears);
    const band = ageBand(mean, intervals?.band_starts_years ?? [1]);
    let first = 0;
    let last = 0;
    for (let year = 1; year <= AGES; year++) {
      const age = ageBand(year, intervals?.age_starts_years ?? [1]);
      // Levels are fitted separately and may cross where faces are few: the larger threshold counts.
      const t = Math.max(...upTo.map(([, by]) => at(by.band, band) + at(by.age, age)));
      if (Math.max(Math.abs(year - mean) - 0.5, 0) / std <= Math.max(t, 0)) {
        if (!first) first = year;
        last = year;
      }
    }
    return [first, last];
  }

  /** Conformal label set: indices, most probable first, never empty. */
  labelSet(p: Float32Array, attribute: string, coverage: number): number[] {
    const order = descending(p);
    const thresholds = level(this.stored.label_sets?.[attribute], coverage);
    if (thresholds === undefined) {
      let sum = 0;
      let size = 0;
      while (size < order.length) {
        sum += p[order[size++]];
        if (sum >= coverage - 1e-6) break;
      }
      return order.slice(0, size);
    }
    return order.filter((k, i) => i === 0 || p[k] >= 1 - at(thresholds, k));
  }

  /**
   * The attributes to abstain from, with reasons.
   *
   * @param interval the 90 % age interval; null if age is off.
   * @param top largest probability by attribute, for those that are on.
   */
  abstentions(
    measures: Measures,
    interval: readonly [number, number] | null,
    top: Record<string, number>,
  ): Record<string, string> {
    const out: Record<string, string> = {};
    for (const name of [...(interval ? ["age"] : []), ...Object.keys(top)]) {
      let reason = this.qualityReason(name, measures);
      const gate = this.stored.gates?.certainty?.[name] ?? {};
      if (reason === null && name === "age" && interval) {
        const width = interval[1] - interval[0];
        if (width > (gate.max_interval_years ?? Infinity)) {
          reason = `${this.unsure} (its 90% interval spans ${width} years)`;
        }
      } else if (reason === null && top[name] < (gate.min_probability ?? 0)) {
        const percent = (top[name] * 100).toFixed(0);
        reason = `${this.unsure} (no answer is above ${percent}%)`;
      }
      if (reason !== null) out[name] = reason;
    }
    return out;
  }

  private qualityReason(attribute: string, measures: Measures): string | null {
    const gates = this.stored.gates?.quality?.[attribute] ?? {};
    for (const [name, { min = -Infinity, max = Infinity }] of Object.entries(gates)) {
      const value = Math.abs(measures[name as keyof Measures]);
      const [low, high] = this.reasons[name];
      if (value < min) {
        return `${low} (${name} ${threeDigits(value)}, at least ${threeDigits(min)} is needed)`;
      }
      if (value > max) {
        return `${high} (${name} ${threeDigits(value)}, at most ${threeDigits(max)} is accepted)`;
      }
    }
    return null;
  }
}

/** Years between the two tails of (1 - coverage) / 2 each, both ends inclusive. */
export function centralInterval(ages: Float32Array, coverage: number): [number, number] {
  const total = ages.reduce((sum, p) => sum + p, 0);
  const tail = (1 - coverage) / 2;
  let below = 0;
  let first = 0;
  for (let year = 1; year <= AGES; year++) {
    below += ages[year - 1] / total;
    if (!first && below > tail) first = year;
    if (below >= 1 - tail) return [first, year];
  }
  return [first, AGES];
}
