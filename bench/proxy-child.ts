/** The proxy by itself, of the sources as they are, for benches of one capability. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { Child } from "./child.ts";

/** Starts it with its file in the directory; resolves when it is ready at its health port. */
export async function startProxy(
  directory: string,
  name: string,
  config: object,
  health: number,
): Promise<Child> {
  const file = join(directory, `${name}.yaml`);
  // JSON is YAML.
  writeFileSync(file, JSON.stringify(config));
  const main = join(import.meta.dirname, "../src/main.ts");
  const child = new Child("proxy", join(directory, "proxy.log"), process.execPath, [
    main,
    "--config",
    file,
  ]);
  const isReady = (): Promise<boolean> =>
    fetch(`http://127.0.0.1:${health}/readyz`).then(
      ({ ok }) => ok,
      () => false,
    );
  while (!(await isReady())) await new Promise((resolve) => setTimeout(resolve, 100));
  return child;
}
