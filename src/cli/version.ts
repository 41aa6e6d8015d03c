/** The version of this package, from its package.json. */
import { readFileSync } from "node:fs";

/** For `--version`, logs and the build metric. */
export function packageVersion(): string {
  const manifest: unknown = JSON.parse(
    readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
  );
  const version =
    typeof manifest === "object" && manifest !== null && "version" in manifest
      ? manifest.version
      : "";
  return typeof version === "string" ? version : "unknown";
}

/** Prints it. */
export function printVersion(): number {
  process.stdout.write(`authbridge-proxy ${packageVersion()}\n`);
  return 0;
}

const oldest = [22, 19] as const;

/** What to say when `version` (such as "20.20.2") is too old. */
export function nodeProblem(version: string): string | undefined {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const isEnough = major > oldest[0] || (major === oldest[0] && minor >= oldest[1]);
  return isEnough
    ? undefined
    : `Node.js ${oldest.join(".")} or later is needed, this is ${version}`;
}

/** The same arguments under a Node.js that fits, as a line for a shell: `npx` fetches one and changes nothing else. */
export function nodeRemedy(args: readonly string[]): string {
  const words = args.map((arg) =>
    /^[\w./:=@%+,-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", String.raw`'\''`)}'`,
  );
  return ["npx -p node@24 -p authbridge-proxy authbridge-proxy", ...words].join(" ");
}
