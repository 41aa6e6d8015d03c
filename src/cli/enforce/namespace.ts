/** A user, network and mount namespace of its own for one command, whose only way out is the proxy of this process (Linux). */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { Socket } from "node:net";
import { type CommandEnding, holdSignals } from "../child-process.ts";
import type { Begin, FromRelay } from "./relay-messages.ts";

const relayFile = new URL(
  import.meta.url.endsWith(".ts") ? "./relay.ts" : "./relay.js",
  import.meta.url,
).pathname;

/** What it is made with; all of it is in util-linux and iproute2. */
const tools = ["unshare", "setpriv", "mount", "ip"] as const;

/** As oneself, with the privileges of the new namespace until they are given up. */
const enter = ["--user", "--map-current-user", "--keep-caps", "--net", "--mount"] as const;

const startTimeoutMs = 10_000;

/** Why commands cannot be enclosed here; undefined where they can be. */
export function enclosureProblem(): string | undefined {
  const missing = tools.filter((tool) => spawnSync(tool, ["--version"]).error !== undefined);
  // The small tools of other makers do not know --version, and are there.
  if (missing.length > 0) return `${missing.join(", ")} not found: install util-linux and iproute2`;
  const tried = spawnSync("unshare", [...enter, "--", "ip", "link", "set", "lo", "up"], {
    encoding: "utf8",
  });
  if (tried.status === 0) return undefined;
  const why = tried.stderr.trim().split("\n")[0] ?? "";
  return `this system does not allow user namespaces (${why}); sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns, or the seccomp profile of the container may be the reason`;
}

/** Takes a connection that the command made. */
export type TakeSocket = (surface: "forward" | "captured", socket: Socket) => void;

/** One namespace, from before the command begins to its end. */
export class Namespace {
  readonly #relay: ChildProcess;
  /** Whether connections to other addresses than the proxy's are handed over too. */
  readonly captures: boolean;

  private constructor(relay: ChildProcess, captures: boolean) {
    this.#relay = relay;
    this.captures = captures;
  }

  /** Rejects where it cannot be made. */
  static make(): Promise<Namespace> {
    const { NODE_OPTIONS: _, ...env } = process.env;
    const relay = spawn("unshare", [...enter, "--", process.execPath, relayFile], {
      stdio: ["inherit", "inherit", "inherit", "ipc"],
      env,
    });
    return new Promise((resolve, reject) => {
      const done = (): void => {
        clearTimeout(limit);
        relay.off("error", onError).off("exit", onExit).off("message", onMessage);
      };
      const fail = (why: string): void => {
        done();
        relay.kill("SIGKILL");
        reject(new Error(`the namespace cannot be made: ${why}`));
      };
      const onError = (error: Error): void => fail(error.message);
      const onExit = (): void => fail("its first process ended");
      const onMessage = (message: FromRelay): void => {
        if (message.kind === "ready") {
          done();
          resolve(new Namespace(relay, message.captures));
        } else fail(message.kind === "failed" ? message.reason : "it says what it should not");
      };
      const limit = setTimeout(() => fail("it was not ready in time"), startTimeoutMs);
      relay.on("error", onError).on("exit", onExit).on("message", onMessage);
    });
  }

  /** The first process inside, whose namespaces are those of the command. */
  get pid(): number {
    return this.#relay.pid ?? 0;
  }

  /** Runs the command; each of its connections is given to `take`. Never rejects. */
  run(begin: Begin, take: TakeSocket): Promise<CommandEnding> {
    const relay = this.#relay;
    return new Promise((resolve) => {
      const release = holdSignals(begin.signals, (signal) => void relay.kill(signal));
      const settle = (ending: CommandEnding): void => {
        release();
        resolve(ending);
      };
      relay.on("message", (message: FromRelay, handle: unknown) => {
        if (message.kind === "ended") settle(message.ending);
        else if (message.kind === "failed") settle({ kind: "not-started", code: message.reason });
        else if (message.kind !== "ready" && handle instanceof Socket) {
          handle.allowHalfOpen = true;
          handle.setNoDelay(true);
          handle.on("error", () => undefined);
          take(message.kind, handle);
        }
      });
      relay.once("error", (error) => settle({ kind: "not-started", code: error.message }));
      relay.once("exit", (code, signal) =>
        settle(signal === null ? { kind: "exited", code: code ?? 1 } : { kind: "killed", signal }),
      );
      relay.send(begin);
    });
  }

  /** What is left inside ends. */
  close(): void {
    this.#relay.removeAllListeners("message");
    this.#relay.kill("SIGKILL");
    if (this.#relay.connected) this.#relay.disconnect();
  }
}
