// The pipeline: file -> Photo -> Faces -> aligned crops -> probabilities -> answer; see analyzer.py.
import { cropFaces } from "./align.ts";
import { AttributeModel } from "./attributes.ts";
import type { Raw } from "./attributes.ts";
import { Calibration, descending } from "./calibration.ts";
import { loadPhoto } from "./images.ts";
import { ETHNICITY, GENDER, agesToDecades, expectedAge } from "./labels.ts";
import type { Network } from "./models.ts";
import { MTCNN } from "./mtcnn.ts";
import type { Networks } from "./mtcnn.ts";
import { measureQuality } from "./quality.ts";
import type { DeviceSpec } from "./spec.ts";
import { ATTRIBUTES } from "./types.ts";
import type { Answer, Attribute, Crop, DistributionAnswer, Face, FaceAnswer, Photo } from "./types.ts";

export interface Options {
  attributes: readonly string[];
  coverage: number;
  /** Add the distribution over the 120 single years. */
  years: boolean;
}

const round = (value: number, digits: number): number => Number(value.toFixed(digits));

export class Analyzer {
  private readonly detector: MTCNN;
  private readonly model: AttributeModel;
  private readonly calibration: Calibration;

  constructor(
    readonly spec: DeviceSpec,
    networks: Networks & { attributes: Network },
  ) {
    this.detector = new MTCNN(spec.detector, networks);
    this.model = new AttributeModel(spec.model, networks.attributes);
    this.calibration = new Calibration(spec.model.calibration, spec.min_std_years, spec.reasons, spec.unsure);
  }

  /** Analyse one photo or frame. */
  async analyze(source: Blob | ImageBitmap, options: Options): Promise<Answer> {
    const times: Record<string, number> = {};
    const timed = async <T>(stage: string, work: () => T | Promise<T>): Promise<T> => {
      const started = performance.now();
      const value = await work();
      times[stage] = round(performance.now() - started, 2);
      return value;
    };
    const { spec } = this;
    const { size_px: size, template } = spec.model.input;
    const started = performance.now();
    const photo = await timed("decode", () => loadPhoto(source, spec.limits));
    const faces = await timed("detect", () => this.detector.detect(photo));
    const crops = await timed("align", () => cropFaces(photo, faces, template, size, spec.border));
    const raws = await timed("attributes", () => this.model.predict(crops));
    const answers = await timed("calibrate", () =>
      faces.map((face, i) => this.answer(face, crops[i], raws[i], options)),
    );
    times.total = round(performance.now() - started, 2);
    return this.envelope(photo, answers, options, times);
  }

  private envelope(
    photo: Photo,
    faces: FaceAnswer[],
    options: Options,
    times: Record<string, number>,
  ): Answer {
    const { spec } = this;
    return {
      schema_version: spec.schema_version,
      facewise_version: spec.facewise_version,
      model: this.info,
      attributes: [...options.attributes],
      coverage: options.coverage,
      timings_ms: times,
      width_px: photo.width,
      height_px: photo.height,
      more_faces: false,
      faces,
    };
  }

  private get info(): { name: string; version: string; sha256: string } {
    const { name, version, sha256 } = this.spec.model;
    return { name, version, sha256 };
  }

  /** Calibrate the probabilities of one face into its answer. */
  private answer(face: Face, crop: Crop, raw: Raw, options: Options): FaceAnswer {
    const { calibration, spec } = this;
    const { coverage } = options;
    const on = (name: Attribute): boolean => options.attributes.includes(name);
    const quality = measureQuality(crop, spec.model.input.size_px, face.landmarks, spec.quality);
    const points = Array.from(face.landmarks, (v) => round(v, 2));
    const out: FaceAnswer = {
      bbox: Array.from(face.bbox, (v) => round(v, 2)),
      landmarks: [0, 2, 4, 6, 8].map((k) => points.slice(k, k + 2)),
      detection_score: round(face.detection_score, 5),
      quality: {
        eye_distance_px: round(quality.eye_distance_px, 2),
        sharpness: round(quality.sharpness, 3),
        yaw_degrees: round(quality.yaw_degrees, 1),
        brightness: round(quality.brightness, 3),
        contrast: round(quality.contrast, 3),
      },
      coverage,
      abstained: {},
      model: this.info,
    };
    let gate: [number, number] | null = null;
    const top: Record<string, number> = {};
    if (on("age")) {
      const ages = calibration.temper(raw.ages, "age");
      gate = calibration.ageInterval(ages, spec.gate_coverage);
      out.age = this.age(ages, calibration.ageInterval(ages, coverage), options.years);
    }
    for (const name of ATTRIBUTES) {
      if (name === "age" || !on(name)) continue;
      const [first, last] = name === "gender" ? GENDER : ETHNICITY;
      const p = calibration.temper(raw.vector.slice(first, last), name);
      const set = calibration.labelSet(p, name, coverage);
      out[name] = distribution(spec.labels[name], p, set);
      top[name] = Math.max(...p);
    }
    const measures = { ...quality, detection_score: face.detection_score };
    out.abstained = calibration.abstentions(measures, gate, top);
    return out;
  }

  private age(
    ages: Float32Array,
    interval: [number, number],
    years: boolean,
  ): NonNullable<FaceAnswer["age"]> {
    const decades = agesToDecades(ages);
    const [first, last] = interval.map((year) => Math.floor((year - 1) / 10));
    const touched = descending(decades).filter((k) => k >= first && k <= last);
    return {
      years: round(expectedAge(ages), 2),
      interval_years: interval,
      decades: distribution(this.spec.labels.decades, decades, touched),
      ...(years ? { probabilities: Array.from(ages, (p) => round(p, 6)) } : {}),
    };
  }
}

function distribution(
  labels: readonly string[],
  p: Float32Array,
  set: readonly number[],
): DistributionAnswer {
  return {
    label: labels[descending(p)[0]],
    probabilities: Object.fromEntries(labels.map((label, k) => [label, round(p[k], 5)])),
    label_set: set.map((k) => labels[k]),
  };
}
