import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { expect, test } from "vitest";
import type { Listener } from "../../../src/listener/listener.ts";
import type { FindBackend } from "../../../src/listener/reverse.ts";
import {
  TransparentInboundListener,
  type TransparentInboundOptions,
} from "../../../src/listener/transparent-inbound.ts";
import type { SurfaceServices } from "../../../src/proxy/exchange/arrival.ts";
import type { BridgeServer } from "../../../src/proxy/tunnel/bridge-server.ts";
import type { Runtime } from "../../../src/proxy/flow/runtime.ts";
import { owner } from "../../support/owner.ts";

const own = owner();

test("connections from one port of a client go where each of them was going", async () => {
  const taken: Socket[] = [];
  const both = Promise.withResolvers<void>();
  let find: FindBackend | undefined;
  const http = {
    take: (socket: Socket) => {
      if (taken.push(socket) === 2) both.resolve();
    },
    close: () => Promise.resolve(),
  } as unknown as Listener;
  const options = {
    originals: {
      of: ({ localAddress = "" }: Socket) => ({ address: localAddress, port: 8_080 }),
    },
    limits: { maxConnections: 10 },
    passthroughPorts: new Set(),
    isLocal: () => true,
    isOwn: () => false,
    ownDials: { has: () => false },
    makeHttp: (behind: FindBackend) => {
      find = behind;
      return { listener: http, readsTls: true };
    },
  } as unknown as TransparentInboundOptions;
  const services = { recorder: { metrics: {} } } as unknown as SurfaceServices;
  const listener = new TransparentInboundListener(services, {} as BridgeServer, options);
  const { port } = await listener.bind({ host: "0.0.0.0", port: 0 });
  await own({ close: () => listener.close(0) });

  const first = connect({ host: "127.0.0.1", port, localAddress: "127.0.0.1" });
  await own({ close: () => void first.destroy() });
  await once(first, "connect");
  const { localPort } = first;
  const second = connect({ host: "127.0.0.2", port, localAddress: "127.0.0.1", localPort });
  await own({ close: () => void second.destroy() });
  await both.promise;

  const found = taken.map((socket) => find?.(socket, {} as Runtime).captured);
  expect(found).toEqual(["127.0.0.1:8080", "127.0.0.2:8080"]);
});
