import { expect, test } from "vitest";
import { parseListenAddress, toLoopback } from "../../../src/config/listen-address.ts";

test.each([
  [":8080", undefined, 8080],
  [":0", undefined, 0],
  ["127.0.0.1:0", "127.0.0.1", 0],
  ["[::1]:0", "::1", 0],
  ["[::]:9094", "::", 9094],
  ["localhost:9090", "localhost", 9090],
])("splits %s", (text, host, port) => {
  expect(parseListenAddress(text)).toEqual({ host, port });
});

test.each([
  "",
  "8080",
  ":",
  ":65536",
  ":-1",
  "::1:80",
  "[::1]",
  "[::1]80",
  "[nope]:80",
  "1.2.3:80",
  "999.1.1.1:80",
  "a b:80",
  ":80 ",
])("takes %j for no address", (text) => {
  expect(parseListenAddress(text)).toBeUndefined();
});

test.each([
  [":9094", "127.0.0.1:9094"],
  ["0.0.0.0:9094", "127.0.0.1:9094"],
  ["[::]:9094", "127.0.0.1:9094"],
  ["10.0.0.1:9094", "127.0.0.1:9094"],
  ["agent.example:9094", "127.0.0.1:9094"],
  ["127.0.0.1:9094", "127.0.0.1:9094"],
  ["127.0.0.2:9094", "127.0.0.2:9094"],
  ["[::1]:9094", "[::1]:9094"],
  ["localhost:9094", "localhost:9094"],
  ["not an address", "not an address"],
])("A21 confines %s to %s", (text, confined) => {
  expect(toLoopback(text)).toBe(confined);
});
