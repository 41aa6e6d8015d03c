/** A tunnel that a client of the forward proxy asks for, in whichever protocol it speaks to the proxy. */
import type { Socket } from "node:net";
import type { HeaderList } from "../../http/headers.ts";
import type { Destination } from "../../net/destination.ts";
import { makeFlow } from "../../pipeline/flow.ts";
import type { SurfaceServices } from "../exchange/arrival.ts";
import { type Admitted, admit } from "../flow/admission.ts";
import type { CallerCredentials } from "../flow/caller-authentication.ts";
import type { Runtime } from "../flow/runtime.ts";
import type { BridgeServer } from "./bridge-server.ts";
import type { TunnelRequest } from "./request.ts";
import { tunnel } from "./tunnel.ts";

/** Its parts, as the protocol of its client has them. */
export interface AskedTunnel extends Pick<TunnelRequest, "client" | "head" | "replies"> {
  /** What a plugin may see of the request besides its target. */
  readonly headers: HeaderList;
  readonly destination: Destination;
  readonly credentials: CallerCredentials;
  /** The connection of the client, where the tunnel is a stream of one. */
  readonly carrier?: Socket;
}

/** Opens tunnels of one process. */
export class AskedTunnels {
  readonly #services: SurfaceServices;
  readonly #bridge: BridgeServer;

  constructor(services: SurfaceServices, bridge: BridgeServer) {
    this.#services = services;
    this.#bridge = bridge;
  }

  /** Runs the tunnel that `read` returns; `refuse` gets what it threw, or why its caller is not let in. */
  open(read: () => AskedTunnel, refuse: (error: unknown) => void): void {
    const services = this.#services;
    const admitted = (runtime: Runtime): Admitted => {
      const { destination, credentials, carrier, ...asked } = read();
      return {
        client: services.callers.clientOf(carrier ?? asked.client, runtime, { credentials }),
        run: (client, done) => {
          const flow = makeFlow({
            direction: "outbound",
            transport: "connect",
            client,
            destination,
          });
          tunnel(services, this.#bridge, { ...asked, runtime, flow }, done);
        },
      };
    };
    admit(services.runtimes.acquire(), admitted, refuse);
  }
}
