// Finds room for the labels of faces in a picture. All boxes are [left, top, right, bottom].

const meet = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

/** Candidates above or below a face, aligned to its left or right edge; at its top if it is as tall as the picture. */
function places(face, [wide, high], [width, height]) {
  const tops = [face[1] - high, face[3]].filter((top) => top >= 0 && top + high <= height);
  if (!tops.length) tops.push(Math.max(0, face[1]));
  return [face[0], face[2] - wide].flatMap((start) => {
    const left = Math.max(0, Math.min(start, width - wide));
    return tops.map((top) => [left, top, left + wide, top + high]);
  });
}

/**
 * A place for each label, off other labels and other people's faces; null if any label has none.
 * @param sizes [width, height] of each face's label.
 */
export function placeApart(faces, sizes, picture) {
  const taken = [];
  for (const [index, face] of faces.entries()) {
    const others = [...taken, ...faces.filter((other) => other !== face)];
    const free = places(face, sizes[index], picture).find((place) => !others.some((other) => meet(place, other)));
    if (!free) return null;
    taken.push(free);
  }
  return taken;
}

/** The first candidate for each label, even if it overlaps something. */
export const placeAnyhow = (faces, sizes, picture) => faces.map((face, index) => places(face, sizes[index], picture)[0]);
