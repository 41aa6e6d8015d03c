/**
 * Just enough of the types of the peers, so that the benchmark is type-checked where its own
 * packages (bench/package.json) are not installed.
 */
declare module "proxy-chain" {
  import type { Agent } from "node:http";

  export class Server {
    constructor(options: {
      port: number;
      host: string;
      verbose: boolean;
      prepareRequestFunction: () => { httpAgent: Agent };
    });
    readonly port: number;
    listen(): Promise<void>;
  }
}

declare module "mockttp" {
  export interface Mockttp {
    readonly port: number;
    start(): Promise<void>;
    forAnyRequest(): { thenPassThrough(): Promise<unknown> };
  }
  export function getLocal(options: {
    recordTraffic: boolean;
    passthrough: readonly string[];
  }): Mockttp;
}

declare module "http-mitm-proxy" {
  import type { Agent } from "node:http";

  export class Proxy {
    readonly httpPort: number;
    onError(handler: (context: unknown, error?: Error | null) => void): void;
    listen(
      options: {
        port: number;
        host: string;
        sslCaDir: string;
        keepAlive: boolean;
        httpAgent: Agent;
      },
      done: () => void,
    ): void;
  }
}
