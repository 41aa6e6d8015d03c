import type { TLSSocket } from "node:tls";
import { expect, test } from "vitest";
import { ProxyError } from "../../../src/errors.ts";
import { isProtocolRefusal, OriginProtocols } from "../../../src/upstream/origin-protocols.ts";
import { MemorySocket } from "../../support/memory-socket.ts";

function secured(alpnProtocol: string | false): TLSSocket {
  return Object.assign(new MemorySocket(), { alpnProtocol }) as unknown as TLSSocket;
}

const given = new ProxyError("pipeline.cancelled", "the client went away");

test("a question that was given up with its client is asked again for the next one", async () => {
  const protocols = new OriginProtocols();
  const asked: string[] = [];
  const dial = (protocol: string): Promise<TLSSocket> => {
    asked.push(protocol);
    if (protocol === "http/1.1") return Promise.resolve(secured(false));
    return asked.length > 2 ? Promise.resolve(secured("h2")) : Promise.reject(given);
  };
  await protocols.http1("a.test:443", dial);
  const refused = await protocols.http1("a.test:443", dial).catch((error: unknown) => error);
  expect(isProtocolRefusal(refused)).toBe(true);
  expect(protocols.isHttp2Only("a.test:443")).toBe(true);
});

test("another failure is believed, so that not every connection waits for one", async () => {
  const protocols = new OriginProtocols();
  const asked: string[] = [];
  const dial = (protocol: string): Promise<TLSSocket> => {
    asked.push(protocol);
    if (protocol === "http/1.1") return Promise.resolve(secured(false));
    return Promise.reject(new ProxyError("upstream.timeout", "no handshake"));
  };
  await protocols.http1("a.test:443", dial);
  await protocols.http1("a.test:443", dial);
  expect(asked).toEqual(["http/1.1", "h2", "http/1.1"]);
});
