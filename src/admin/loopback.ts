/** Names of this machine. */
import { isIP } from "node:net";

/** Whether a Host field names it, or an address. */
export function namesLoopback(host: string | undefined): boolean {
  const name = (host ?? "")
    .replace(/:\d*$/, "")
    .replace(/^\[(.*)\]$/, "$1")
    .toLowerCase();
  return name === "localhost" || name.endsWith(".localhost") || isIP(name) !== 0;
}
