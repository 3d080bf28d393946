// Words and numbers, the same wherever they are shown; a number's unit stays on its line (\u00a0).

export const percent = (p) => `${p >= 0.995 && p < 1 ? ">99" : p > 0 && p < 0.005 ? "<1" : Math.round(p * 100)}\u00a0%`;

export const list = (words, last = "and") =>
  words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} ${last} ${words.at(-1)}`;

export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)}\u00a0MB`;

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Attributes of a face that are distributions over a few labels. */
export const groups = (face) => Object.entries(face).filter(([, value]) => value?.probabilities && value.label_set && !value.years);

/** "31, between 24 and 39", or null if age is off. */
export function ageWords(face) {
  if (!face.age) return null;
  const [low, high] = face.age.interval_years;
  return { years: Math.round(face.age.years), low, high };
}

/** A one-line summary of a face, for labels and screen readers. */
export function summary(face) {
  const parts = [];
  const age = ageWords(face);
  if (age) parts.push(`apparent age ${age.years}, between ${age.low} and ${age.high}${face.abstained.age ? " (unsure)" : ""}`);
  for (const [name, group] of groups(face)) parts.push(`${group.label}${face.abstained[name] ? " (unsure)" : ""}`);
  return parts.join(", ");
}

/** "3 faces". */
export const count = (n) => (n === 0 ? "No face" : n === 1 ? "1 face" : `${n} faces`);
