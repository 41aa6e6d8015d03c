/** A plugin that answers in place of the origin: what the origin was about to send is given up. */
import { expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { get } from "../support/http-client.ts";
import { TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();

test("the connection to an origin whose answer is replaced does not stay open", async () => {
  const origin = await own(
    TcpOrigin.start(async (connection) => {
      await connection.reader.some(60_000);
      await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nthe beginning");
      // Ends when the other side does.
      await connection.reader.some(60_000);
      connection.socket.destroy();
    }),
  );
  const proxy = await own(ProxyProcess.start(settings(outbound({ name: "answer-replacer" }))));
  const answer = await get(proxy.forward, `http://${origin.authority}/`);
  expect([answer.status, answer.text]).toEqual([299, "replaced"]);
  const line = await proxy.log((log) => log["msg"] === "flow");
  expect(line["status"]).toBe(299);
  await eventually(() => origin.openCount === 0);
});
