/** What the process outside and the relay inside the namespace tell each other over their channel. */
import type { CommandEnding } from "../child-process.ts";

/** From outside: the proxy is there, the command may begin. */
export interface Begin {
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Loopback inside, where the command finds the proxy. */
  readonly proxyPort: number;
  /** Connections to these ports of any address are handed over as they are. */
  readonly capturedPorts: readonly number[];
  readonly signals: readonly NodeJS.Signals[];
  /** Files that are empty inside. */
  readonly hidden: readonly string[];
}

/** From inside; an accepted connection comes along with the first two. */
export type FromRelay =
  | { readonly kind: "forward" | "captured" }
  | { readonly kind: "ready"; readonly captures: boolean }
  | { readonly kind: "ended"; readonly ending: CommandEnding }
  | { readonly kind: "failed"; readonly reason: string };
