// What the server engine sends; the rest of it is tested in tests/browser/test_page.py.
import { expect, it, vi } from "vitest";
// @ts-expect-error: the module's text
import text from "../../src/facewise/server/page/static/engine-server.js?raw";

class FakeRequest {
  static urls: URL[] = [];
  readonly upload = { addEventListener() {} };
  readonly status = 200;
  readonly responseText = '{"faces": []}';
  private readonly heard: Record<string, () => void> = {};

  open(_method: string, url: URL): void {
    FakeRequest.urls.push(url);
  }

  addEventListener(name: string, listener: () => void): void {
    this.heard[name] = listener;
  }

  send(): void {
    for (const name of ["load", "loadend"]) this.heard[name]();
  }
}

vi.stubGlobal("document", { baseURI: "https://faces.example/app/" });
vi.stubGlobal("XMLHttpRequest", FakeRequest);
// @ts-expect-error: the page's own modules are plain JavaScript
const engine = await import("../../src/facewise/server/page/static/engine-server.js");
// @ts-expect-error: as above
const onDevice = await import("../../src/facewise/server/page/static/engine-device.js");

it("what is asked for is sent, and nothing else", async () => {
  const options = [{ attributes: ["age", "gender"], years: true, coverage: 0.8 }, { coverage: 0.95 }, {}];
  for (const one of options) expect(await engine.analyze(new Blob(), one)).toEqual({ faces: [] });
  expect(FakeRequest.urls.map(String)).toEqual([
    "https://faces.example/app/v1/analyze?years=true&attributes=age%2Cgender&coverage=0.8",
    "https://faces.example/app/v1/analyze?coverage=0.95",
    "https://faces.example/app/v1/analyze",
  ]);
});

it("the module's head names all that an engine exports", () => {
  const [head] = text.split("\nimport ");
  for (const name of Object.keys({ ...engine, ...onDevice })) expect(head).toContain(name);
});
