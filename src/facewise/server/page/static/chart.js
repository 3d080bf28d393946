// The age distribution as a small area, the interval shaded, the expected age as a line.
import { svg } from "./dom.js";

const WIDTH = 320, HEIGHT = 84, BASE = 66;

/** @param age a face's `age` with `probabilities` over the years 1 to 120. */
export function ageChart(age, label, isUnsure) {
  const p = age.probabilities;
  const last = p.slice(100).some((value) => value > 0.002) ? 120 : 100;
  const x = (years) => (years / last) * WIDTH;
  const peak = Math.max(...p);
  const points = p.slice(0, last).map((value, i) => `${x(i + 1).toFixed(1)},${(BASE - (value / peak) * (BASE - 8)).toFixed(1)}`);
  const [low, high] = age.interval_years;
  const ticks = Array.from({ length: last / 20 + 1 }, (_, i) => i * 20);
  return svg("svg", { class: `chart${isUnsure ? " unsure" : ""}`, viewBox: `-8 0 ${WIDTH + 16} ${HEIGHT}`, role: "img", "aria-label": label }, [
    svg("rect", { class: "interval", x: x(low - 0.5), y: 4, width: x(high - low + 1), height: BASE - 4, rx: 4 }),
    svg("line", { class: "edge", x1: x(low - 0.5), x2: x(low - 0.5), y1: 4, y2: BASE }),
    svg("line", { class: "edge", x1: x(high + 0.5), x2: x(high + 0.5), y1: 4, y2: BASE }),
    svg("polygon", { class: "area", points: `${x(1)},${BASE} ${points.join(" ")} ${x(last)},${BASE}` }),
    svg("line", { class: "axis", x1: 0, x2: WIDTH, y1: BASE, y2: BASE }),
    svg("line", { class: "mean", x1: x(age.years), x2: x(age.years), y1: 2, y2: BASE }),
    ...ticks.map((years) => svg("text", { x: x(years), y: HEIGHT - 3 }, [String(years)])),
  ]);
}
