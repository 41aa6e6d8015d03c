/** Binding: addresses, ports that several threads listen on, and how many connections one may have. */
import net, { type AddressInfo, type Server, type Socket } from "node:net";
import { asError, ProxyError } from "../errors.ts";
import { acceptance, type HttpLimits } from "../proxy/exchange/http-server.ts";

/** An address as the file spells it: `:8081`, `127.0.0.1:0`, `[::1]:8081`. */
export interface BindAddress {
  /** `0.0.0.0` for every IPv4 address. */
  readonly host: string;
  readonly port: number;
  /** The key of the file that names it. */
  readonly key?: string;
  /** Other threads listen there as well: this is the first of them, or one that knows the port from the first. */
  readonly shared?: "first" | "next" | undefined;
}

/** Why an address could not be bound, with the key to change. */
export function unavailable({ host, port, key }: BindAddress, error: Error): ProxyError {
  const where = `${host.includes(":") ? `[${host}]` : host}:${port}`;
  const message = `${key === undefined ? "" : `${key}: `}${where} cannot be listened on: ${error.message}`;
  return new ProxyError("listener.unavailable", message, { cause: error });
}

/** Binds; rejects with `listener.unavailable` when the address is taken. */
export async function listen(server: Server, address: BindAddress): Promise<BindAddress> {
  try {
    const { shared, host } = address;
    const port = shared === "first" ? await claim(address) : address.port;
    const bound = await listening(server, { host, port, reusePort: shared !== undefined });
    return { host: bound.address, port: bound.port };
  } catch (error) {
    throw unavailable(address, asError(error));
  }
}

/** Any process of this user could join a port that is shared from the start: that nobody has it is seen by having it alone. */
async function claim({ host, port }: BindAddress): Promise<number> {
  const probe = net.createServer((socket) => socket.destroy());
  const bound = await listening(probe, { host, port });
  await new Promise((resolve) => probe.close(resolve));
  return bound.port;
}

function listening(server: Server, options: net.ListenOptions): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ ...options, backlog: 1_024 }, () => {
      server.removeListener("error", reject);
      resolve(server.address() as AddressInfo);
    });
  });
}

/** Accepts connections for what has no count of its own: `maxConnections` at most, alone or with other threads. */
export function acceptWithin(
  { maxConnections, shared }: Pick<HttpLimits, "maxConnections" | "shared">,
  serve: (socket: Socket) => void,
  onRefused: () => void,
): Server {
  if (shared === undefined) {
    const server = net.createServer(acceptance, serve);
    server.maxConnections = maxConnections;
    return server.on("drop", onRefused);
  }
  return net.createServer(acceptance, (socket) => {
    if (shared.take(maxConnections)) {
      socket.once("close", () => shared.leave());
      serve(socket);
    } else {
      onRefused();
      socket.destroy();
    }
  });
}
