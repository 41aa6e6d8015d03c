/** The certificate of the forward listener: read from files at the start and again whenever they change. */
import { readFileSync } from "node:fs";
import type { ListenerConfig } from "../config/presets.ts";
import { messageOf, ProxyError } from "../errors.ts";
import type { Listener } from "../listener/listener.ts";
import type { TlsMaterial } from "../listener/tls-front.ts";
import type { Logger } from "../telemetry/log.ts";
import { FileWatch } from "./file-watch.ts";

type Files = NonNullable<ListenerConfig["forward_proxy_tls"]>;

/** Quiet time after a change: the files of a pair are rarely written in one step. */
const debounceMs = 250;

/** Reads all of them; throws ProxyError `listener.unavailable` that names the key. */
export function readTlsMaterial(files: Files): TlsMaterial {
  const read = (key: keyof Files, path: string): string => {
    try {
      return readFileSync(path, "utf8");
    } catch (error) {
      const message = `listener.forward_proxy_tls.${key}: ${messageOf(error)}`;
      throw new ProxyError("listener.unavailable", message, { cause: error });
    }
  };
  const { client_ca_file: clientCa } = files;
  return {
    cert: read("cert_file", files.cert_file),
    key: read("key_file", files.key_file),
    ...(clientCa === undefined ? {} : { clientCa: read("client_ca_file", clientCa) }),
  };
}

/** Gives changed files to the listener; what is no good is logged and the last good material stays. */
export class TlsRenewal {
  readonly #watches: readonly FileWatch[];

  constructor(files: Files, listener: Listener, log: Logger) {
    const renew = (): void => {
      try {
        listener.renewTls(readTlsMaterial(files));
        log.info({ cert_file: files.cert_file }, "the forward proxy uses the changed certificate");
      } catch (error) {
        const problem = messageOf(error);
        log.error({ problem }, "changed certificate not used, the last good one stays");
      }
    };
    const failed = (error: Error): void => {
      log.error({ problem: error.message }, "listener.forward_proxy_tls is no longer watched");
    };
    const paths = [files.cert_file, files.key_file, files.client_ca_file];
    this.#watches = paths
      .filter((path) => path !== undefined)
      .map((path) => new FileWatch(path, debounceMs, renew, failed));
  }

  close(): void {
    for (const watch of this.#watches) watch.close();
  }
}
