import { expect, it } from "vitest";
// @ts-expect-error: the page's own modules are plain JavaScript
import { Pace, Rate, Tracks } from "../../src/facewise/server/page/static/live.js";

const face = (left: number, years: number, male: number, abstained = {}) => ({
  bbox: [left, 0, left + 100, 100],
  age: { years, interval_years: [years - 5, years + 5] },
  gender: { label: "", probabilities: { male, female: 1 - male }, label_set: ["male"] },
  abstained,
});

it("answers follow slowly, and one odd frame changes none", () => {
  const tracks = new Tracks();
  for (let i = 0; i < 5; i++) tracks.update([face(i, 30, 0.9)]);
  const [shown] = tracks.update([face(5, 60, 0.2)]);
  expect(shown).toEqual({ bbox: [5, 0, 105, 100], text: "34-44 years, male" });
});

it("faces are told apart by where they are", () => {
  const tracks = new Tracks();
  tracks.update([face(0, 20, 1), face(500, 70, 0)]);
  const shown = tracks.update([face(503, 70, 0), face(2, 20, 1)]);
  expect(shown.map((one: { text: string }) => one.text)).toEqual([
    "65-75 years, female",
    "15-25 years, male",
  ]);
});

it("what facewise does not stand by is not shown, nor smoothed in", () => {
  const tracks = new Tracks();
  const [unsure] = tracks.update([face(0, 30, 0.9, { age: "blurred", gender: "blurred" })]);
  expect(unsure.text).toBe("can't tell");
  for (let i = 0; i < 4; i++) tracks.update([face(0, 50, 0.9)]);
  expect(tracks.update([face(0, 90, 0.9, { age: "blurred" })])[0].text).toBe("45-55 years, male");
});

it("a face that is gone for long begins anew", () => {
  const tracks = new Tracks();
  tracks.update([face(0, 30, 0.9)]);
  for (let i = 0; i < 4; i++) tracks.update([]);
  expect(tracks.update([face(0, 60, 0.1)])[0].text).toBe("55-65 years, female");
});

it("the rate counts the last two seconds", () => {
  const rate = new Rate();
  expect(rate.tick(0)).toBe(null);
  for (let time = 100; time <= 5000; time += 100) rate.tick(time);
  expect(rate.tick(5100)).toBeCloseTo(10);
});

it("the pace halves at each refusal, to a limit, and comes back with answers", () => {
  const pace = new Pace(250);
  const gaps = Array.from({ length: 5 }, () => (pace.refused(), pace.gapMs));
  expect(gaps).toEqual([500, 1000, 2000, 2000, 2000]);
  pace.answered();
  expect(pace.gapMs).toBeCloseTo(1900);
  for (let i = 0; i < 50; i++) pace.answered();
  expect(pace.gapMs).toBe(250);
});

it("no refusal makes frames come faster than the least gap", () => {
  const pace = new Pace(6000);
  pace.refused();
  expect(pace.gapMs).toBe(6000);
});
