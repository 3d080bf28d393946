// Lets the type checker compare the types with what Python writes; nothing runs.
import { expectTypeOf, it } from "vitest";
import type { DeviceSpec } from "../src/spec.ts";
import type { Answer } from "../src/types.ts";

it("the schema's version is a whole number, as in the REST API and in device.json", () => {
  expectTypeOf<Answer["schema_version"]>().toEqualTypeOf<number>();
  expectTypeOf<DeviceSpec["schema_version"]>().toEqualTypeOf<number>();
});
