/** `init`: a commented file to begin with. */
import { readFile, writeFile } from "node:fs/promises";
import { messageOf } from "../errors.ts";
import { refuseCommand } from "./config-file.ts";
import { invocation } from "./invocation.ts";

type Starter = "local" | "sidecar" | "gateway";

interface InitCommand {
  readonly starter: Starter;
  /** Where it is written. */
  readonly file: string;
}

/** The file that the comment at the top of each starter names. */
const spokenOf = "authbridge.yaml";

/** Writes it, says what comes next, and resolves with the exit code. A file that is there stays as it is. */
export async function writeStarter({ starter, file }: InitCommand): Promise<number> {
  try {
    await writeFile(file, await starterText(starter, file), { flag: "wx", mode: 0o644 });
  } catch (error) {
    if (isThere(error))
      return refuseCommand(
        `${file} is there already: remove it, or name another file with --config`,
      );
    return refuseCommand(new Error(`${file} cannot be written: ${messageOf(error)}`));
  }
  process.stdout.write(`wrote ${file}\n\n${nextSteps(starter, file)}`);
  return 0;
}

/** Without the first line, which names the schema of the package's own tree. */
async function starterText(starter: Starter, file: string): Promise<string> {
  const url = new URL(`../../config/init/${starter}.yaml`, import.meta.url);
  const [, ...lines] = (await readFile(url, "utf8")).split("\n");
  return lines.join("\n").replaceAll(spokenOf, file);
}

function isThere(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "EEXIST";
}

function nextSteps(starter: Starter, file: string): string {
  const program = invocation();
  const steps: [command: string, what: string][] = [
    [`${program} check --config ${file}`, "what the file means, or what is wrong with it"],
    [`${program} doctor --config ${file}`, "whether what it names can be reached"],
    starter === "local"
      ? [`${program} run --config ${file} -- COMMAND`, "your agent behind it"]
      : [`${program} --config ${file}`, "the proxy"],
  ];
  const width = Math.max(...steps.map(([command]) => command.length));
  return steps.map(([command, what]) => `  ${command.padEnd(width)}  ${what}\n`).join("");
}
