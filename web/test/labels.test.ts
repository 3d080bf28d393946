import { expect, it } from "vitest";
// @ts-expect-error: the page's own modules are plain JavaScript
import { placeAnyhow, placeApart } from "../../src/facewise/server/page/static/labels.js";

const picture = [400, 300];
const sizes = (count: number) => Array.from({ length: count }, () => [150, 20]);

it("labels stand above their faces, below where another has that place", () => {
  const faces = [
    [100, 100, 150, 150],
    [200, 100, 250, 150],
  ];
  expect(placeApart(faces, sizes(2), picture)).toEqual([
    [100, 80, 250, 100],
    [200, 150, 350, 170],
  ]);
});

it("they end where their face does where another is in the way", () => {
  const faces = [
    [200, 100, 250, 150],
    [280, 70, 320, 180],
  ];
  expect(placeApart(faces, sizes(2), picture)[0]).toEqual([100, 80, 250, 100]);
});

it("they stay in the picture, and below a face at its top", () => {
  expect(placeApart([[350, 10, 390, 60]], sizes(1), picture)).toEqual([[250, 60, 400, 80]]);
});

it("on a face as tall as the picture there is its top", () => {
  expect(placeApart([[50, -5, 300, 310]], sizes(1), picture)).toEqual([[50, 0, 200, 20]]);
});

it("none lies on another's face, or there is no place", () => {
  const beside = [200, 60, 250, 110];
  const faces = [[100, 100, 150, 150], beside];
  expect(placeApart(faces, sizes(2), picture)).toEqual([
    [100, 150, 250, 170],
    [200, 40, 350, 60],
  ]);
  const around = [20, 200].flatMap((left) => [60, 160].map((top) => [left, top, left + 40, top + 50]));
  const crowd = [[100, 100, 150, 150], ...around];
  expect(placeApart(crowd, sizes(5), picture)).toBeNull();
  expect(placeAnyhow(crowd, sizes(5), picture)).toHaveLength(5);
});
