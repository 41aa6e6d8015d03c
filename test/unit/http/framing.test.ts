import { describe, expect, test } from "vitest";
import { framingProblem } from "../../../src/http/framing.ts";

const ask = (rawHeaders: string[], httpVersion = "1.1", method: string | undefined = "POST") =>
  framingProblem({ rawHeaders, httpVersion, method })?.message;

describe("framingProblem", () => {
  test.each([
    [["Host", "a"], "1.1"],
    [[], "1.0"],
    [["Host", "a", "Content-Length", "12"], "1.1"],
    [["Host", "a", "Content-Length", "12", "content-length", "12"], "1.1"],
    [["Host", "a", "Transfer-Encoding", "Chunked"], "1.1"],
    [["Host", "a", "X", "tab\tand \xe9"], "1.1"],
    [[], "2.0"],
  ])("finds nothing wrong with %j in HTTP/%s", (raw, version) => {
    expect(ask(raw, version)).toBeUndefined();
  });

  test.each([
    [["Host", "a", "host", "a"], /more than one Host/],
    [[], /no Host/],
    [["Host", "a", "Content-Length", "1", "Transfer-Encoding", "chunked"], /both/],
    [["Host", "a", "Content-Length", "1", "Content-Length", "2"], /twice/],
    [["Host", "a", "Content-Length", "1, 1"], /decimal/],
    [["Host", "a", "Content-Length", "+1"], /decimal/],
    [["Host", "a", "Content-Length", "0x1"], /decimal/],
    [["Host", "a", "Content-Length", ""], /decimal/],
    [["Host", "a", "Transfer-Encoding", "chunked", "Transfer-Encoding", "chunked"], /twice/],
    [["Host", "a", "Transfer-Encoding", "chunked, chunked"], /not chunked/],
    [["Host", "a", "Transfer-Encoding", "gzip, chunked"], /not chunked/],
    [["Host", "a", "Transfer-Encoding", "xchunked"], /not chunked/],
    [["Host", "a", "Transfer-Encoding", "chunked "], /not chunked/],
    [["Host", "a", "Transfer-Encoding", ""], /not chunked/],
    [["Host", "a", "X", "a\r\n folded"], /folded/],
    [["Host", "a", "X", "a\0"], /control/],
    [["Host", "a", "X y", "a"], /token/],
  ])("refuses %j", (raw, reason) => {
    expect(ask(raw)).toMatch(reason);
  });

  test("refuses Transfer-Encoding outside HTTP/1.1", () => {
    const raw = ["Host", "a", "Transfer-Encoding", "chunked"];
    expect([ask(raw, "1.0"), ask(raw, "2.0")]).toEqual([
      "HTTP/1.0 message has Transfer-Encoding",
      "HTTP/2 message has Transfer-Encoding",
    ]);
  });

  test("does not ask a response for a Host", () => {
    expect(framingProblem({ rawHeaders: [], httpVersion: "1.1" })).toBeUndefined();
  });
});
