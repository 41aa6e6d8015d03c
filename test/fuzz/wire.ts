/** What must hold for any bytes that a peer of HTTP/1.1 sends. */
import { requestDifference, responseDifference } from "../support/wire-differences.ts";
import { requestCorpus } from "../support/wire-corpus.ts";
import { responseCorpus } from "../support/response-corpus.ts";
import { inPieces } from "../support/mutation.ts";
import type { Target } from "./target.ts";
import { readLlhttp, readOurs } from "../support/wire-readers.ts";
import { readLlhttpResponse, readOurResponse } from "../support/wire-responses.ts";

const words: readonly string[] = [
  "\r\n",
  "\n",
  "\r",
  "\r\n\r\n",
  " ",
  "\t",
  ":",
  ";",
  ",",
  "\0",
  "\x7f",
  "\xff",
  '"',
  "\\",
  "0",
  "5",
  "f",
  "00000000",
  "ffffffffffffffff",
  "-1",
  "0x",
  "9".repeat(20),
  "Content-Length: 5\r\n",
  "Content-Length: 0\r\n",
  "Transfer-Encoding: chunked\r\n",
  "Host: a\r\n",
  "Connection: close\r\n",
  "Connection: keep-alive\r\n",
  "Connection: upgrade\r\nUpgrade: x\r\n",
  "Expect: 100-continue\r\n",
  "TE: trailers\r\n",
  "0\r\n\r\n",
  "5\r\nhello\r\n",
  "1;a=b\r\nx\r\n",
  "X: y\r\n",
  " folded\r\n",
  "HTTP/1.1",
  "HTTP/1.0",
  "HTTP/1.1 100 Continue\r\n\r\n",
  "HTTP/1.1 200 OK\r\n",
  "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
  "CONNECT a:1 HTTP/1.1\r\n",
  "204",
  "304",
];
const knownFaults: ReadonlySet<string | undefined> = new Set([
  undefined,
  "MalformedMessage",
  "ClientFault",
]);

const requestTarget: Target = {
  name: "requests",
  covers: ["/src/wire/"],
  seeds: requestCorpus.map((text) => Buffer.from(text, "latin1")),
  words,
  async check(bytes, dice) {
    const ours = await readOurs([bytes]);
    const last = ours.requests.at(-1)?.isWhole;
    const outcome = [ours.refused, Math.min(3, ours.requests.length), last].join();
    const different = requestDifference(bytes.toString("latin1"), ours, readLlhttp([bytes]));
    if (different !== undefined) return { outcome, problem: different };
    const parts = await readOurs(inPieces(bytes, dice));
    // Where in the bytes a head stops to make sense may change the words.
    const told = (reading: typeof ours): string =>
      JSON.stringify([reading.requests, reading.refused !== undefined]);
    return told(parts) === told(ours) ? { outcome } : { outcome, problem: "another split" };
  },
};

const responseTarget: Target = {
  name: "responses",
  covers: ["/src/wire/"],
  seeds: responseCorpus.map((text) => Buffer.from(text, "latin1")),
  words,
  async check(bytes, dice) {
    const method = dice.oneOf(["GET", "GET", "HEAD"]);
    const ours = await readOurResponse(method, [bytes]);
    const { status, isWhole, refused, fault } = ours;
    const outcome = [
      refused,
      Math.floor(status / 100),
      isWhole,
      Math.min(2, ours.interim.length),
    ].join();
    if (!knownFaults.has(fault)) return { outcome, problem: `threw ${fault}: ${refused}` };
    const different = responseDifference(ours, readLlhttpResponse(method, [bytes]));
    if (different !== undefined) return { outcome, problem: `${method}: ${different}` };
    const parts = await readOurResponse(method, inPieces(bytes, dice));
    const told = (reading: typeof ours): string =>
      reading.isWhole ? JSON.stringify({ ...reading, refused: "" }) : "";
    return told(parts) === told(ours)
      ? { outcome }
      : { outcome, problem: `${method}: another split` };
  },
};

export const targets: readonly Target[] = [requestTarget, responseTarget];
