/** What a request to an operator surface names: this machine, and a path. */
import { isIP } from "node:net";

/** Whether a Host field names it, or an address. */
export function namesLoopback(host: string | undefined): boolean {
  const name = (host ?? "")
    .replace(/:\d*$/, "")
    .replace(/^\[(.*)\]$/, "$1")
    .toLowerCase();
  return name === "localhost" || name.endsWith(".localhost") || isIP(name) !== 0;
}

/** The target of a request in origin-form. */
export function parseTarget(target: string): URL | undefined {
  return target.startsWith("/") ? (URL.parse(`http://admin${target}`) ?? undefined) : undefined;
}
