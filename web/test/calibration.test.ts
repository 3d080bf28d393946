import { describe, expect, it } from "vitest";
import { Calibration, ageBand, applyTemperature, centralInterval, threeDigits } from "../src/calibration.ts";
import type { Measures, StoredCalibration } from "../src/calibration.ts";

const reasons: Record<string, [string, string]> = {
  sharpness: ["the face is too blurred", "the picture is too noisy"],
  yaw_degrees: ["", "the face is turned too far to the side"],
};

const stored: StoredCalibration = {
  temperatures: { gender: 2 },
  age_intervals: {
    band_starts_years: [1, 20],
    age_starts_years: [1, 30],
    thresholds: { "0.9": { band: [1, 2], age: [0, -1] } },
  },
  label_sets: { gender: { "0.9": [0.5, 0.8] } },
  gates: {
    quality: { age: { sharpness: { min: 0.25 }, yaw_degrees: { max: 40 } } },
    certainty: { age: { max_interval_years: 30 }, gender: { min_probability: 0.6 } },
  },
};

const calibration = new Calibration(stored, 0.5, reasons, "unsure");

const measures = (changes: Partial<Measures>): Measures => ({
  eye_distance_px: 50,
  sharpness: 1,
  yaw_degrees: 0,
  brightness: 0.5,
  contrast: 0.2,
  detection_score: 1,
  ...changes,
});

function even(first: number, last: number): Float32Array {
  const out = new Float32Array(120);
  for (let year = first; year <= last; year++) out[year - 1] = 1 / (last - first + 1);
  return out;
}

describe("calibration", () => {
  it("a temperature above one flattens", () => {
    const [p, q] = applyTemperature(Float32Array.from([0.9, 0.1]), 2);
    expect(p).toBeCloseTo(0.75, 5); // sqrt(9) to 1
    expect(q).toBeCloseTo(0.25, 5);
  });

  it("bands begin at their first year, ages rounded", () => {
    expect([19.4, 19.5, 0, 200].map((age) => ageBand(age, [1, 20]))).toEqual([0, 1, 0, 1]);
  });

  it("an interval adds the threshold of the expected age's band and of the year's own", () => {
    // 10 to 16: mean 13, standard deviation 2, band 0, threshold 1: half a year more than two.
    expect(calibration.ageInterval(even(10, 16), 0.9)).toEqual([11, 15]);
    // 25 to 31: mean 28, standard deviation 2: threshold 2 below thirty, 1 from there on.
    expect(calibration.ageInterval(even(25, 31), 0.9)).toEqual([24, 30]);
  });

  it("a level that was not fitted is refused", () => {
    expect(() => calibration.ageInterval(even(1, 9), 0.85)).toThrow("one of 0.9");
  });

  it("a label set holds what passes its own threshold, and the best always", () => {
    expect(calibration.labelSet(Float32Array.from([0.3, 0.7]), "gender", 0.9)).toEqual([1]);
    expect(calibration.labelSet(Float32Array.from([0.7, 0.3]), "gender", 0.9)).toEqual([0, 1]);
    const one = new Calibration({ label_sets: { gender: { "0.9": 0.1 } } }, 0.5, reasons, "unsure");
    expect(one.labelSet(Float32Array.from([0.6, 0.4]), "gender", 0.9)).toEqual([0]);
  });

  it("without a fit there is the central interval and the smallest set", () => {
    expect(centralInterval(even(1, 70), 0.9)).toEqual([4, 67]);
    const none = new Calibration({}, 0.5, reasons, "unsure");
    expect(none.labelSet(Float32Array.from([0.6, 0.4]), "gender", 0.9)).toEqual([0, 1]);
    expect(none.abstentions(measures({ sharpness: 0 }), [1, 120], { gender: 0.5 })).toEqual({});
  });

  it("quality comes before certainty, and says so as the Python code does", () => {
    expect(calibration.abstentions(measures({ sharpness: 0.1234 }), [1, 90], { gender: 0.55 })).toEqual({
      age: "the face is too blurred (sharpness 0.123, at least 0.25 is needed)",
      gender: "unsure (no answer is above 55%)",
    });
    expect(calibration.abstentions(measures({ yaw_degrees: -50 }), [1, 9], {})).toEqual({
      age: "the face is turned too far to the side (yaw_degrees 50, at most 40 is accepted)",
    });
    expect(calibration.abstentions(measures({}), [10, 41], { gender: 0.6 })).toEqual({
      age: "unsure (its 90% interval spans 31 years)",
    });
  });

  it("numbers have three digits, as in Python", () => {
    expect([0, 9, 0.0493, 123.6, 1234, 0.00001234, 40].map(threeDigits)).toEqual(
      ["0", "9", "0.0493", "124", "1.23e+03", "1.23e-05", "40"],
    );
  });
});
