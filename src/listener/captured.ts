/** Facts of one captured connection: its original destination, and the check of the requested name against it. */
import { parseAddress } from "../net/address.ts";
import type { SocketEnd } from "../net/kernel/socket-table.ts";
import type { ConfirmCaptured } from "../proxy/flow/captured.ts";

/** How a name must agree with the address that the client dialled. */
export type Pin = "strict" | "off";

/** One captured connection. */
export interface Captured {
  readonly original: SocketEnd;
  /** The same as "host:port". */
  readonly authority: string;
  readonly confirm: ConfirmCaptured;
}

/** `original` is the destination that the kernel reports. */
export function capturedAt(original: SocketEnd, pin: Pin): Captured {
  const { address, port } = original;
  const authority = address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
  return { original, authority, confirm: pin === "strict" ? strictly(address) : () => undefined };
}

/** One look-up per connection: all its requests go to one place. */
function strictly(text: string): ConfirmCaptured {
  const address = parseAddress(text);
  let confirmed: Promise<void> | "yes" | undefined;
  return (permit, upstream, signal) => {
    if (address === undefined || confirmed === "yes") return undefined;
    confirmed ??= upstream.confirm(permit, address, signal).then(
      () => {
        confirmed = "yes";
      },
      (error: unknown) => {
        confirmed = undefined;
        throw error;
      },
    );
    return confirmed;
  };
}
