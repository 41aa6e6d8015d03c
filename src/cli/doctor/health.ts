/** `health`: whether a running proxy answers, for health checks of containers. */
import { get } from "node:http";
import { messageOf } from "../../errors.ts";
import { commandFile, refuseCommand } from "../config-file.ts";
import { addressOfFile } from "../proxy-address.ts";

const limitMs = 3_000;

interface HealthCommand {
  readonly file: string;
  readonly lenient: boolean;
  /** Also whether it is ready to serve. */
  readonly isReady: boolean;
}

/** Asks the health listener that the file names; 0 it answers 200, 1 it does not, 2 there is nothing to ask. */
export async function health(command: HealthCommand): Promise<number> {
  const loaded = await commandFile(command, { allowUnset: true });
  if (loaded === undefined) return 2;
  const address = addressOfFile(loaded.config, "health", {
    closed: "the file opens no health listener (listener.health_addr)",
    otherwise: "nobody can say where it listens",
  });
  if (typeof address === "string") return refuseCommand(address);
  const { host, port } = address;
  const path = command.isReady ? "/readyz" : "/livez";
  try {
    const { status, text } = await fetchText(host, port, path);
    if (status === 200) return 0;
    process.stderr.write(`authbridge-proxy: ${path} says ${status}: ${text.trim()}\n`);
  } catch (error) {
    process.stderr.write(
      `authbridge-proxy: nothing answers at ${host} port ${port}: ${messageOf(error)}\n`,
    );
  }
  return 1;
}

const maxCharacters = 1_000;

function fetchText(
  host: string,
  port: number,
  path: string,
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(limitMs);
    const request = get({ host, port, path, agent: false, signal }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        text += chunk.slice(0, maxCharacters - text.length);
      });
      response.once("error", reject);
      response.once("end", () => resolve({ status: response.statusCode ?? 0, text }));
    });
    request.once("error", reject);
  });
}
