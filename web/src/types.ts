// The values that flow through the pipeline: those of types.py, in the shape of the REST API.
//
// Coordinates are always in pixels of the upright photo, x to the right, y down, with the origin at
// the top-left corner of the top-left pixel; boxes are xyxy. "Left" is the viewer's left.

/** An upright picture: four bytes per pixel, the fourth always 255. */
export interface Photo {
  readonly rgba: Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

/** A square crop, RGB, `size * size * 3` bytes. */
export type Crop = Uint8Array;

export interface Quality {
  readonly eye_distance_px: number;
  readonly sharpness: number;
  readonly yaw_degrees: number;
  readonly brightness: number;
  readonly contrast: number;
}

export interface Face {
  /** left, top, right, bottom; may reach past the photo's edges. */
  readonly bbox: Float32Array;
  /** Five x, y pairs: left eye, right eye, nose, left and right mouth corner. */
  readonly landmarks: Float32Array;
  readonly detection_score: number;
}

export interface DistributionAnswer {
  label: string;
  probabilities: Record<string, number>;
  label_set: string[];
}

export interface FaceAnswer {
  bbox: number[];
  landmarks: number[][];
  detection_score: number;
  quality: Quality;
  age?: {
    years: number;
    interval_years: [number, number];
    decades: DistributionAnswer;
    probabilities?: number[];
  };
  gender?: DistributionAnswer;
  ethnicity?: DistributionAnswer;
  coverage: number;
  abstained: Record<string, string>;
  model: ModelInfo;
}

export interface ModelInfo {
  name: string;
  version: string;
  sha256: string;
}

/** The answer of POST /v1/analyze, without what only a server has. */
export interface Answer {
  schema_version: number;
  facewise_version: string;
  model: ModelInfo;
  attributes: string[];
  coverage: number;
  timings_ms: Record<string, number>;
  width_px: number;
  height_px: number;
  /** Never true: only a server limits their number. */
  more_faces: false;
  faces: FaceAnswer[];
}

export const ATTRIBUTES = ["age", "gender", "ethnicity"] as const;
export type Attribute = (typeof ATTRIBUTES)[number];
