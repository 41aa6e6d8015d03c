import { describe, expect, test } from "vitest";
import {
  appendForwardedFor,
  appendVia,
  HeaderList,
  stripHopByHop,
} from "../../../src/http/headers.ts";

const list = () =>
  new HeaderList(["Accept", "a", "Set-Cookie", "x=1", "set-cookie", "y=2", "B", "c"]);

describe("HeaderList", () => {
  test("looks fields up without regard to case and keeps their spelling and order", () => {
    const headers = list();
    expect(headers.get("ACCEPT")).toBe("a");
    expect(headers.get("Set-Cookie")).toBe("x=1, y=2");
    expect(headers.getAll("SET-COOKIE")).toEqual(["x=1", "y=2"]);
    expect(headers.get("absent")).toBeUndefined();
    expect([headers.has("b"), headers.has("bb")]).toEqual([true, false]);
    expect([...headers].map(([name]) => name)).toEqual(["Accept", "Set-Cookie", "set-cookie", "B"]);
  });

  test("set replaces the first line and removes the others", () => {
    const headers = list();
    headers.set("SET-COOKIE", "z=3");
    headers.set("New", "n");
    expect(headers.raw).toEqual(["Accept", "a", "Set-Cookie", "z=3", "B", "c", "New", "n"]);
  });

  test("delete removes every line and says whether there was one", () => {
    const headers = list();
    expect([headers.delete("set-cookie"), headers.delete("set-cookie")]).toEqual([true, false]);
    expect(headers.raw).toEqual(["Accept", "a", "B", "c"]);
  });

  test.each([
    ["a\r\nb", "v"],
    ["", "v"],
    ["a b", "v"],
    ["a:", "v"],
    ["a", "v\r\nInjected: 1"],
    ["a", "v\n"],
    ["a", "v\0"],
    ["a", "snow☃"],
  ])("refuses to write %j: %j", (name, value) => {
    const headers = list();
    expect(() => headers.set(name, value)).toThrow(TypeError);
    expect(() => headers.append(name, value)).toThrow(TypeError);
    expect(headers.raw).toEqual(list().raw);
  });

  test("a clone does not share its fields", () => {
    const headers = list();
    headers.clone().set("Accept", "other");
    expect(headers.get("accept")).toBe("a");
  });

  test("toRecord keeps several lines apart, and takes what objects inherit for names like others", () => {
    const headers = list();
    for (const name of ["__proto__", "constructor", "__proto__", "toString", "__Proto__"])
      headers.append(name, name);
    const record = { ...headers.toRecord() };
    expect(record["set-cookie"]).toEqual(["x=1", "y=2"]);
    expect(Object.getPrototypeOf(record)).toBe(Object.prototype);
    expect(
      Object.entries(record)
        .filter(([name]) => name !== "accept")
        .slice(-3),
    ).toEqual([
      ["__proto__", ["__proto__", "__proto__", "__Proto__"]],
      ["constructor", "constructor"],
      ["tostring", "toString"],
    ]);
  });

  test("fromRecord writes one line per item", () => {
    expect(HeaderList.fromRecord({ a: "1", b: ["2", "3"], c: undefined }).raw).toEqual([
      "a",
      "1",
      "b",
      "2",
      "b",
      "3",
    ]);
  });
});

describe("stripHopByHop", () => {
  test("removes the fields of the connection and those that Connection names", () => {
    const raw = [
      ["Host", "a"],
      ["Connection", "keep-alive, X-Hop , ,te"],
      ["x-hop", "1"],
      ["Keep-Alive", "timeout=5"],
      ["Proxy-Authorization", "Basic x"],
      ["Proxy-Authenticate", "Basic"],
      ["Proxy-Connection", "keep-alive"],
      ["TE", "trailers"],
      ["Trailer", "X"],
      ["Transfer-Encoding", "chunked"],
      ["Upgrade", "h2c"],
      ["X-End", "2"],
    ].flat();
    expect(stripHopByHop(raw)).toEqual(["Host", "a", "X-End", "2"]);
  });

  test("finds a Connection field that comes after the field it names", () => {
    expect(stripHopByHop(["X-Hop", "1", "CONNECTION", "close, x-hop"])).toEqual([]);
  });

  test.each(["Host", "Content-Length", "Authorization", "Cookie", "X-Forwarded-For"])(
    "does not let Connection remove %s",
    (name) => {
      expect(stripHopByHop([name, "v", "Connection", `close, ${name}`])).toEqual([name, "v"]);
    },
  );

  test("keeps TE: trailers and nothing else of TE when asked", () => {
    const raw = ["TE", "gzip;q=0.5, Trailers", "Connection", "te"];
    expect(stripHopByHop(raw, { keepTrailersTe: true })).toEqual(["TE", "trailers"]);
    expect(stripHopByHop(["TE", "gzip"], { keepTrailersTe: true })).toEqual([]);
  });
});

describe("forwarding fields", () => {
  test("are appended to what earlier hops wrote", () => {
    const headers = new HeaderList(["via", "1.0 fred", "X-Forwarded-For", "192.0.2.1"]);
    appendVia(headers, "1.1", "authbridge");
    appendForwardedFor(headers, "192.0.2.2");
    expect(headers.raw).toEqual([
      "via",
      "1.0 fred, 1.1 authbridge",
      "X-Forwarded-For",
      "192.0.2.1, 192.0.2.2",
    ]);
  });

  test("are made when absent", () => {
    const headers = new HeaderList();
    appendVia(headers, "2.0", "authbridge");
    expect(headers.raw).toEqual(["Via", "2.0 authbridge"]);
  });
});
