/** What a server sends is read without masks, and by the same bounds. */
import { expect, test } from "vitest";
import { clientFrame, closeFrame, opcodes } from "../../../src/http/web-socket-frame.ts";
import { WebSocketReader } from "../../../src/http/web-socket-reader.ts";

const budget = { acquire: () => true, release: () => undefined };

function reader(maxMessageBytes = 64): WebSocketReader {
  return new WebSocketReader({ maxMessageBytes, budget }, "server");
}

test("fragments that come byte by byte are one message, and a Close frame is one", () => {
  const server = reader();
  const bytes = Buffer.concat([
    Buffer.of(0x01, 2),
    Buffer.from("he"),
    Buffer.of(0x80, 3),
    Buffer.from("llo"),
    closeFrame("server", 1000, "bye"),
  ]);
  const seen: string[] = [];
  for (const byte of bytes) {
    server.push(Buffer.of(byte));
    const item = server.next();
    if (item !== undefined)
      seen.push("data" in item ? `${item.kind} ${item.data.toString()}` : item.kind);
  }
  expect(seen).toEqual(["text hello", "close \u0003\uFFFDbye"]);
});

test("a frame that is masked, or longer than the limit, is a fault", () => {
  const masked = reader();
  masked.push(clientFrame(opcodes.text, Buffer.from("x")));
  expect(masked.next()).toMatchObject({ kind: "fault", closeCode: 1002 });
  const long = reader(200);
  long.push(Buffer.of(0x81, 126, 1, 0));
  expect(long.next()).toMatchObject({ kind: "fault", closeCode: 1009 });
});
