// The 19-output contract; see labels.py. Index i of an age distribution is the age i + 1.

export const AGES = 120;
export const DECADES = 12;

/** Slices of the 19 outputs. */
export const GENDER = [12, 14] as const;
export const ETHNICITY = [14, 19] as const;

/** Mean of a distribution over single years, in years. */
export function expectedAge(ages: ArrayLike<number>): number {
  let mean = 0;
  for (let i = 0; i < AGES; i++) mean += ages[i] * (i + 1);
  return mean;
}

/** Sum single years to the twelve decades. */
export function agesToDecades(ages: ArrayLike<number>): Float32Array {
  const out = new Float32Array(DECADES);
  for (let i = 0; i < AGES; i++) out[Math.floor(i / 10)] += ages[i];
  return out;
}
