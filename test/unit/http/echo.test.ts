import { array, assert, constantFrom, nat, property } from "fast-check";
import { describe, expect, test } from "vitest";
import { Echo } from "../../../src/http/echo.ts";
import { WebSocketEcho } from "../../../src/http/web-socket-echo.ts";
import { MessageCounts } from "../../../src/http/web-socket-frame.ts";

function echoOf(credential: string, standIn = "p", onFound?: () => void): Echo {
  const echo = new Echo();
  echo.add(credential, standIn, onFound);
  return echo;
}

const percent = (text: string): string =>
  text.replace(/[^]/g, (one) => `%${one.charCodeAt(0).toString(16).padStart(2, "0")}`);

describe("a credential that is repeated", () => {
  test.each(["a&b<c>", 'a"b', "a/b:c", "a b", "a%25b", "50%", "sk-live_\\u", "'q'"])(
    "%s is found in every spelling",
    (value) => {
      const html = value.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
      const spelled = [
        value,
        html,
        html.replace(/"/g, "&#34;").replace(/'/g, "&#x27;"),
        JSON.stringify(value).slice(1, -1),
        JSON.stringify(value).slice(1, -1).replace(/\//g, "\\/"),
        value.replace(/[&<>]/g, (one) => `\\u00${one.charCodeAt(0).toString(16)}`),
      ];
      spelled.push(
        encodeURIComponent(value),
        new URLSearchParams({ q: value }).toString().slice(2),
      );
      spelled.push(percent(value), percent(value).toUpperCase());
      spelled.push(encodeURIComponent(encodeURIComponent(value)));
      for (const text of spelled) expect(echoOf(value).clean(text), text).toBe("p");
    },
  );

  test("is found however the bytes are cut, and everything else goes by as it came", () => {
    const piece = constantFrom("SECRET", "SEC", "RET", "%53ECRET", "S", "\\u0053", "x\n", "&#83;");
    assert(
      property(array(piece, { maxLength: 12 }), array(nat(20)), (pieces, cuts) => {
        const text = pieces.join("");
        const whole = echoOf("SECRET", "stand-in").clean(text);
        const stream = echoOf("SECRET", "stand-in").stream(true);
        let at = 0;
        let out = "";
        for (const cut of cuts) {
          out += stream.push(Buffer.from(text.slice(at, at + cut), "latin1")).toString("latin1");
          at = Math.min(text.length, at + cut);
        }
        out += stream.end(Buffer.from(text.slice(at), "latin1")).toString("latin1");
        expect(out).toBe(whole);
        expect(out).not.toContain("SECRET");
      }),
    );
  });

  test("holds nothing back that cannot become one", () => {
    const stream = echoOf("SECRET").stream(true);
    expect(stream.push(Buffer.from("data: x\n\n")).toString()).toBe("data: x\n\n");
    expect(stream.push(Buffer.from("xSEC")).toString()).toBe("x");
    expect(stream.push(Buffer.from("ONDS")).toString()).toBe("SECOND");
    expect(stream.end().toString()).toBe("S");
  });

  test("is told once, and the longest one first", () => {
    let told = 0;
    const echo = echoOf("REAL", "p", () => (told += 1));
    echo.add("REALLY-LONG", "q");
    expect(echo.clean("REALLY-LONG REAL REAL")).toBe("q p p");
    expect(told).toBe(1);
    expect(echo.cleanFields(["REAL", "REAL"])).toEqual(["REAL", "p"]);
  });
});

describe("frames of a WebSocket", () => {
  const frame = (text: string): Buffer =>
    Buffer.concat([Buffer.of(0x81, text.length), Buffer.from(text)]);

  test("keep their length, wherever the bytes are cut", () => {
    const bytes = Buffer.concat([
      frame("no SECRET here"),
      frame("SEC"),
      frame("RET"),
      frame("SECRET"),
    ]);
    const wanted = Buffer.concat([
      frame("no p***** here"),
      frame("SEC"),
      frame("RET"),
      frame("p*****"),
    ]);
    for (let size = 1; size <= bytes.length; size += 1) {
      const echo = new WebSocketEcho(() => echoOf("SECRET"));
      const out: Buffer[] = [];
      for (let at = 0; at < bytes.length; at += size)
        out.push(echo.pass(bytes.subarray(at, at + size)));
      expect(Buffer.concat(out)).toEqual(wanted);
    }
  });

  test("go by untouched until there is something to conceal", () => {
    let echo: Echo | undefined;
    const frames = new WebSocketEcho(() => echo);
    const counts = new MessageCounts();
    const first = frame("SECRET");
    expect(frames.pass(first)).toBe(first);
    counts.down(first);
    echo = echoOf("SECRET", "stand-in");
    expect(frames.pass(frame("SECRET")).subarray(2).toString()).toBe("stand-");
  });
});
