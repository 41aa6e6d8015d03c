/** What is heard of a WebSocket costs no more memory than is counted. */
import { expect, test } from "vitest";
import { BodyBudget } from "../../../../src/http/body.ts";
import { clientFrame, opcodes, serverFrame } from "../../../../src/http/web-socket-frame.ts";
import { HeardMessages } from "../../../../src/proxy/exchange/heard-messages.ts";
import { heldBy } from "../../../support/held-memory.ts";

const maxMessageBytes = 65_536;

test("nothing is kept of a side that cannot be read", () => {
  const held = heldBy(() => {
    const budget = new BodyBudget(maxMessageBytes);
    const heard = new HeardMessages({ maxMessageBytes, budget }, () => undefined);
    // A reserved bit.
    heard.up(Buffer.of(0xf1, 0x80, 0, 0, 0, 0));
    for (let count = 0; count < 256; count += 1) heard.up(Buffer.alloc(65_536));
    return heard;
  });
  expect(held).toBeLessThan(8_388_608);
});

test("a message in fragments is counted through the control frames between them", () => {
  const budget = new BodyBudget(maxMessageBytes);
  const said: string[] = [];
  const heard = new HeardMessages({ maxMessageBytes, budget }, ({ data }) => {
    said.push(data.toString());
  });
  const first = clientFrame(opcodes.text, Buffer.from("he"));
  first[0] = opcodes.text;
  heard.up(first);
  const counted = budget.usedBytes;
  heard.up(clientFrame(opcodes.ping, Buffer.alloc(0)));
  expect(budget.usedBytes).toBe(counted);
  const last = clientFrame(opcodes.continuation, Buffer.from("llo"));
  heard.up(last);
  heard.down(serverFrame(opcodes.text, Buffer.from("hi")));
  expect(said).toEqual(["hello", "hi"]);
  expect(budget.usedBytes).toBe(0);
});
