/** Whatever a service of Envoy's API sends is a verdict or none, and never an exception. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { fieldOf, numberField } from "../../src/grpc/protobuf.ts";
import { readCheckResponse } from "../../src/plugins/ext-authz/check-response.ts";

const ok = Buffer.concat([fieldOf(1, Buffer.alloc(0)), fieldOf(3, fieldOf(5, "x-removed"))]);
const denied = Buffer.concat([fieldOf(1, numberField(1, 7)), fieldOf(2, fieldOf(3, "no"))]);

test("any bytes", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const { kind } = readCheckResponse(Buffer.from(bytes));
      expect(["allowed", "denied", "failed"]).toContain(kind);
    }),
  );
});

test("a denial that lost its end is no permission", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: denied.length - 1 }), (length) => {
      expect(readCheckResponse(denied.subarray(0, length)).kind).not.toBe("allowed");
    }),
  );
});

test("a status other than OK denies, whatever stands beside it", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2 ** 31 - 1 }), (code) => {
      const message = Buffer.concat([fieldOf(1, numberField(1, code)), fieldOf(3, "")]);
      expect(readCheckResponse(message).kind).toBe("denied");
    }),
  );
});

test("nothing allows, and an empty status does", () => {
  expect(readCheckResponse(Buffer.alloc(0)).kind).toBe("failed");
  expect(readCheckResponse(ok)).toMatchObject({ kind: "allowed", removed: ["x-removed"] });
  expect(readCheckResponse(fieldOf(1, Buffer.alloc(0))).kind).toBe("allowed");
  expect(readCheckResponse(denied)).toMatchObject({ kind: "denied", status: 403 });
});
