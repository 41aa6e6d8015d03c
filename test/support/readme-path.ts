/** The five-minute path of README.md, walked word by word by somebody who has only the program and an agent. */
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Where it is walked. */
export interface Place {
  /** A folder in which `npx authbridge-proxy` is the program. */
  readonly directory: string;
  readonly env: NodeJS.ProcessEnv;
  /** Whether `--enforce` is possible here. */
  readonly canEnforce: boolean;
}

/** How one command went. */
export interface Step {
  readonly command: string;
  readonly code: number | null;
  /** What the agent was answered, one line for each path that it asked for. */
  readonly answers: string;
  readonly stderr: string;
  readonly policy: string;
}

const heading = "## Five minutes to least privilege";

/** Lines of the first fenced shell block below the heading. */
export function readmeCommands(): readonly string[] {
  const text = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
  const [, below = ""] = text.split(`\n${heading}\n`);
  const [, block = ""] = /^```sh\n(.*?)^```$/ms.exec(below) ?? [];
  return block.split("\n").filter((line) => line.trim() !== "");
}

/** Walks it; what went another way than README.md says, one line each. The agent asks for a name that nobody has (RFC 6761). */
export async function walkReadme(
  place: Place,
): Promise<{ readonly steps: readonly Step[]; readonly faults: readonly string[] }> {
  const commands = readmeCommands();
  const [learn = "", review = "", hold = "", enforce = ""] = commands;
  const steps: Step[] = [];
  const faults: string[] = [];
  const expects = (step: Step, isSo: boolean, what: string): void => {
    if (!isSo) faults.push(`${step.command}: ${what}: ${JSON.stringify(step)}`);
  };
  const walk = async (command: string, paths: readonly string[], typed = ""): Promise<Step> => {
    const step = await walkStep(place, command, { paths, typed });
    steps.push(step);
    expects(step, step.code === 0, `exit code ${step.code}`);
    return step;
  };
  if (commands.length !== 4)
    faults.push(`README.md has ${commands.length} commands below ${heading}`);
  const learned = await walk(learn, ["/items/1"]);
  expects(learned, learned.answers === "reached /items/1\n", "let everything through");
  expects(learned, learned.policy.includes("path: /items/*"), "write down what was seen");
  const reviewed = await walk(review, ["/items/1", "/notes", "/admin"], "drop\naccept\n");
  expects(reviewed, reviewed.stderr.includes("[a]ccept"), "ask about each new rule");
  expects(reviewed, reviewed.policy.includes("path: /notes"), "keep what was accepted");
  expects(reviewed, !reviewed.policy.includes("/admin"), "leave out what was dropped");
  for (const command of place.canEnforce ? [hold, enforce] : [hold]) {
    const held = await walk(command, ["/items/2", "/notes", "/admin"]);
    const answers = "reached /items/2\nreached /notes\nrefused /admin\n";
    expects(held, held.answers === answers, "that and nothing else");
    expects(held, held.stderr.includes("--allow "), "say what would allow it");
  }
  return { steps, faults };
}

function walkStep(
  { directory, env }: Place,
  command: string,
  { paths, typed }: { readonly paths: readonly string[]; readonly typed: string },
): Promise<Step> {
  writeFileSync(join(directory, "agent.js"), agentText(paths));
  // What npm would ask its registry is in the folder already.
  const offline = { npm_config_offline: "true", npm_config_update_notifier: "false" };
  const child = spawn("sh", ["-c", command], {
    cwd: directory,
    env: { ...env, ...offline },
    stdio: ["pipe", "pipe", "pipe"],
  });
  child.stdin.on("error", () => undefined).end(typed);
  let answers = "";
  let stderr = "";
  child.stdout.on("data", (chunk) => (answers += String(chunk)));
  child.stderr.on("data", (chunk) => (stderr += String(chunk)));
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => {
      const policy = readFileSync(join(directory, "policy.yaml"), { encoding: "utf8", flag: "a+" });
      resolve({ command, code, answers, stderr, policy });
    });
  });
}

function agentText(paths: readonly string[]): string {
  return `const ask = async (path) => {
  const response = await fetch("https://tools.invalid" + path);
  const { error } = await response.json();
  const outcome = { "upstream.unresolvable": "reached", "policy.forbidden": "refused" }[error] ?? error;
  console.log(outcome, path);
};
(async () => {
  for (const path of ${JSON.stringify(paths)}) await ask(path);
})();
`;
}
