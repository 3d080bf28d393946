// device.json: the models' specs and the Python pipeline's constants, written by
// scripts/make_page.py. None of its values is repeated here.
import type { StoredCalibration } from "./calibration.ts";

export interface NetworkFile {
  file: string;
  sha256: string;
  bytes: number;
}

/** A network layer for the kernels; `at` is its offset in the file, in float32 numbers. */
export type FlatLayer = PoolLayer | WeighedLayer;

export interface PoolLayer {
  kind: "pool";
  size: number;
}

export interface WeighedLayer {
  kind: "conv" | "dense";
  size: number;
  inputs: number;
  outputs: number;
  at: number;
}

export interface FlatFile extends NetworkFile {
  layers: FlatLayer[];
}

export interface PortraitSpec {
  thresholds: [number, number, number];
  share_of_short_side: number;
  off_centre: number;
  border: number;
}

export interface MtcnnSpec {
  networks: { pnet: FlatFile; rnet: FlatFile; onet: FlatFile };
  thresholds: [number, number, number];
  second_look: [number, number];
  portraits: PortraitSpec[];
  bordered_px: number;
  most_sides: number;
  border_value: number;
  pyramid_factor: number;
  nms: { level: number; photo: number; rnet: number; onet: number };
  min_face: { px: number; share_of_short_side: number };
  cell_px: number;
  stride_px: number;
  batch_size: number;
  band_area_px: number;
  min_band_px: number;
  pixels_a_cell: number;
  detail: number;
}

/** A tensor's position in the attribute model's file, in bytes. */
export type GpuTensor =
  | { type: "float32" | "float16"; at: number }
  | { type: "packed12"; high: number; low: number; scale: number };

export interface GpuLayer {
  kind: "conv" | "depthwise" | "pointwise";
  inputs: number;
  outputs: number;
  size: number;
  stride: number;
  pad: number;
  pad_end: number;
  weights: GpuTensor;
  bias: GpuTensor;
  low: number | null;
  high: number | null;
}

/** The attribute network for the shaders of webgpu.ts, with a reference answer to check them. */
export interface GpuPlan {
  shift: number[];
  scale: number;
  layers: (GpuLayer | { kind: "mean" })[];
  check: { ages: number[]; vector: number[] };
}

export interface AttributeSpec extends NetworkFile {
  /** Missing if the network has layers that the shaders don't support. */
  gpu?: GpuPlan;
  name: string;
  version: string;
  description: string;
  input: { size_px: number; template: [number, number][] };
  calibration: StoredCalibration;
  figures: Record<string, unknown>;
  batch_size: number;
}

export interface QualityConstants {
  sharpness_size_px: number;
  inner_px: [number, number];
  nose_depth: number;
  face_height: number;
  fine_sigma_px: number;
  coarse_sigmas_px: [number, number];
  min_deviation: number;
}

export interface Labels {
  decades: string[];
  gender: string[];
  ethnicity: string[];
}

export interface Limits {
  max_bytes: number;
  max_pixels: number;
  min_side_px: number;
}

export interface DeviceSpec {
  kernels: NetworkFile;
  /** ONNX Runtime's WebAssembly. */
  runtime: NetworkFile;
  schema_version: number;
  facewise_version: string;
  attributes: string[];
  coverage: number;
  gate_coverage: number;
  border: number;
  min_std_years: number;
  reasons: Record<string, [string, string]>;
  unsure: string;
  labels: Labels;
  limits: Limits;
  quality: QualityConstants;
  detector: MtcnnSpec;
  model: AttributeSpec;
}
