/** A client that offers other protocols beside a WebSocket gets one that plugins see. */
import { once } from "node:events";
import { connect } from "node:net";
import { expect, test } from "vitest";
import { createProxy } from "../../../../src/embed/proxy.ts";
import { opcodes, serverFrame } from "../../../../src/http/web-socket-frame.ts";
import { allow, definePlugin } from "../../../../src/pipeline/plugin.ts";
import { HttpOrigin } from "../../../support/origin.ts";

test.each(["other/1, WebSocket", "websocket\r\nUpgrade: other/1"])("%j", async (offer) => {
  const { promise: heard, resolve } = Promise.withResolvers<string>();
  const hearing = definePlugin({
    name: "hearing",
    description: "Hears what is said",
    create: () => ({
      onRequest: () => allow("all"),
      hearsMessages: () => true,
      onHeard: (_context, { data }) => resolve(data.toString()),
    }),
  });
  const origin = await HttpOrigin.launch();
  origin.answerHead = (head, connection) => {
    const asked = /^upgrade: (.*)$/im.exec(head.text)?.[1] ?? "";
    const switching = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${asked}\r\n\r\n`;
    void connection.send(
      Buffer.concat([Buffer.from(switching), serverFrame(opcodes.text, Buffer.from("hello"))]),
    );
    return true;
  };
  const proxy = createProxy({
    egress: { allow_ips: ["127.0.0.0/8"] },
    pipeline: { outbound: { plugins: [hearing] } },
  });
  const { forward } = await proxy.listen();
  const client = connect(forward?.port ?? 0, forward?.host ?? "");
  client.on("error", () => undefined);
  const fields = [
    `GET ${origin.url}/ HTTP/1.1`,
    `Host: ${origin.authority}`,
    "Connection: Upgrade",
    `Upgrade: ${offer}`,
    "Sec-WebSocket-Version: 13",
  ];
  client.write(`${fields.join("\r\n")}\r\n\r\n`);
  const [head] = (await once(client, "data")) as [Buffer];
  expect(head.toString()).toMatch(/^upgrade: websocket\r$/im);
  expect(await heard).toBe("hello");
  client.destroy();
  await proxy.close({ timeout: 0 });
  await origin.close();
});
