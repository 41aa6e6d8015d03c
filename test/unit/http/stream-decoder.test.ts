import { once } from "node:events";
import { constants, createGzip } from "node:zlib";
import { expect, onTestFinished, test } from "vitest";
import { StreamDecoder } from "../../../src/http/stream-decoder.ts";

/** A stream of events as a server compresses it: each can be read when its piece is there. */
async function flushed(texts: readonly string[]): Promise<Buffer[]> {
  const gzip = createGzip({ flush: constants.Z_SYNC_FLUSH });
  const pieces: Buffer[] = [];
  for (const text of texts) {
    gzip.write(text);
    const [piece] = (await once(gzip, "data")) as [Buffer];
    pieces.push(piece);
  }
  return pieces;
}

const texts = Array.from({ length: 20 }, (_, at) => `data: ${at}\n\n`);

test("many pieces leave nothing behind that waits for the end", async () => {
  const warnings: string[] = [];
  const onWarning = ({ message }: Error): number => warnings.push(message);
  process.on("warning", onWarning);
  onTestFinished(() => void process.off("warning", onWarning));
  const decoder = StreamDecoder.for("gzip", 1_000);
  const clear: string[] = [];
  for (const piece of await flushed(texts))
    clear.push(Buffer.concat((await decoder?.push(piece)) ?? []).toString());
  expect(clear).toEqual(texts);
  expect(warnings).toEqual([]);
});

test("what comes behind a fault is a fault as well, and nothing is waited for", async () => {
  const decoder = StreamDecoder.for("gzip", 1_000);
  const fault = { code: "upstream.bad-response" };
  await expect(decoder?.push(Buffer.from("no gzip at all"))).rejects.toMatchObject(fault);
  await expect(decoder?.push(Buffer.from("more"))).rejects.toMatchObject(fault);
  await expect(decoder?.end()).rejects.toMatchObject(fault);
});
