/**
 * The main job of the proxy on one machine, without any outside service: `npm run demo`, and `npm run demo -- --keep`
 * to try things afterwards. Exits with 1 when a step differs from what the table promises.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { chapters, type Promised, type Step, type Tokens } from "./steps.ts";
import { startWorld, type World } from "./world.ts";

const isTerminal = process.stdout.isTTY;
const paint = (code: number, text: string): string =>
  isTerminal ? `\u001b[${code}m${text}\u001b[0m` : text;
const print = (line = ""): void => void process.stdout.write(`${line}\n`);

const intro = `
  caller ──▶ reverse proxy ──▶ agent ──▶ forward proxy ──▶ tickets, public, billing
             jwt-validation              token-exchange ◀──▶ authorization server

Every party is real and runs on 127.0.0.1: oidc-provider issues and exchanges the tokens, the agent is a process that
knows only HTTP_PROXY, and the proxy runs config/demo.yaml. "in" is what the reverse proxy's plugins decided, "out" the
forward proxy's; "IdP" counts the exchanges that the authorization server was asked for.
`;

const widths = [4, 43, 41, 37, 4];

function row(cells: readonly string[]): string {
  return cells.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join("");
}

/** What the plugins said since event number `from`, as `in authorized`, each record once. */
async function decisionsSince(
  world: World,
  from: number,
): Promise<{ words: string[]; events: number }> {
  const response = await fetch(`http://127.0.0.1:${world.ports.sessions}/v1/sessions/default`);
  if (response.status === 404) return { words: [], events: 0 };
  const { events } = (await response.json()) as { events: SessionEvent[] };
  const words = events
    .slice(from)
    .filter(({ phase }) => phase !== "response")
    .flatMap(({ invocations }) => [
      ...(invocations?.inbound ?? []).map(({ reason }) => `in ${reason}`),
      ...(invocations?.outbound ?? []).map(({ reason }) => `out ${reason}`),
    ]);
  return { words: [...new Set(words)], events: events.length };
}

interface SessionEvent {
  readonly phase: string;
  readonly invocations?: Partial<Record<"inbound" | "outbound", { readonly reason: string }[]>>;
}

/** The record is written when the answer is out, so it may be a moment late. */
async function decided(world: World, from: number, promised: readonly string[]): Promise<string[]> {
  let words: string[] = [];
  for (let attempt = 0; attempt < 100; attempt++) {
    ({ words } = await decisionsSince(world, from));
    if (words.join() === promised.join()) break;
    await sleep(10);
  }
  return words;
}

async function runStep(world: World, tokens: Tokens, step: Step): Promise<boolean> {
  const { events } = await decisionsSince(world, 0);
  const exchanges = world.idp.exchanges();
  const { status, code } = await step.run(world, tokens);
  const words = await decided(world, events, step.promised.decided);
  const target = world.tickets.takeSeen() ?? world.open.takeSeen();
  const happened: Promised = {
    status,
    decided: words,
    exchanges: world.idp.exchanges() - exchanges,
    ...(code === undefined ? {} : { code }),
    ...(target === undefined ? {} : { target }),
  };
  const isKept = line(happened) === line(step.promised);
  const mark = isKept ? paint(32, "✓") : paint(31, "✗");
  print(`  ${mark} ${row(["", step.what, ...cells(happened)]).slice(widths[0])}`);
  if (!isKept)
    print(paint(31, `    ${row(["", "  promised:", ...cells(step.promised)]).slice(4)}`));
  return isKept;
}

function cells({ decided, target, exchanges = 0, status, code }: Promised): string[] {
  const answer = code === undefined ? String(status) : `${status} ${code}`;
  return [decided.join(", ") || "–", target ?? "–", String(exchanges), answer];
}

function line(promised: Promised): string {
  return cells(promised).join("|");
}

async function runChapters(world: World, tokens: Tokens): Promise<number> {
  let broken = 0;
  print(paint(1, row(["", "caller", "plugins decided", "service saw", "IdP", "answer"])));
  for (const { title, steps } of chapters) {
    print(paint(36, `  ${title}`));
    for (const step of steps) if (!(await runStep(world, tokens, step))) broken += 1;
  }
  return broken;
}

async function login({ idp }: World): Promise<Tokens> {
  return {
    alice: await idp.login("alice", "agent"),
    bob: await idp.login("bob", "agent"),
    elsewhere: await idp.login("alice", "tickets-api"),
    expired: await idp.expiredToken("alice", "agent"),
    forged: await idp.forgedToken("alice", "agent"),
  };
}

/** The log has a line for every flow and a token in none. */
function checkLog(world: World, tokens: Tokens): boolean {
  const { log } = world.proxy;
  const flows = log.filter((text) => text.includes('"msg":"flow"')).length;
  const secrets = [
    ...Object.values(tokens).map((token) => token.slice(-40)),
    world.idp.clientSecret,
  ];
  const leaks = log.filter((text) => secrets.some((secret) => text.includes(secret)));
  const isClean = leaks.length === 0 && flows > 0;
  const verdict = isClean ? paint(32, "✓") : paint(31, "✗");
  print(
    `  ${verdict} the proxy's log: ${flows} flows, ${leaks.length} lines with a token or secret`,
  );
  return isClean;
}

function printInvitation(world: World, token: string): void {
  const { ports, tickets } = world;
  print(`
Still running. Alice's token is good for an hour:

TOKEN=${token}

curl -i http://127.0.0.1:${ports.reverse}/ask/tickets
curl -i http://127.0.0.1:${ports.reverse}/ask/tickets -H "Authorization: Bearer $TOKEN"
curl -i http://127.0.0.1:${ports.reverse}/ask/public -H "Authorization: Bearer $TOKEN"
curl -i -x http://127.0.0.1:${ports.forward} http://tickets.demo:${tickets.port}/ -H "Authorization: Bearer $TOKEN"
curl -i -x http://127.0.0.1:${ports.forward} http://169.254.169.254/latest/meta-data/
curl -s http://127.0.0.1:${ports.sessions}/v1/sessions/default
curl -s http://127.0.0.1:${ports.stats}/metrics
curl -s http://127.0.0.1:${ports.stats}/config
curl -i http://127.0.0.1:${ports.health}/readyz

Ctrl+C ends it.`);
}

/** The first signal ends `--keep` in order; before that, and the second time, the demo ends at once. */
function interrupted(): Promise<void> {
  return new Promise((resolve) => {
    for (const name of ["SIGINT", "SIGTERM"]) {
      process.removeAllListeners(name);
      process.once(name, () => {
        process.once(name, endAtOnce);
        resolve();
      });
    }
  });
}

function endAtOnce(): void {
  process.exit(130);
}

async function demo(keep: boolean): Promise<number> {
  const startedAt = performance.now();
  print(intro);
  const world = await startWorld();
  let broken = 0;
  try {
    const tokens = await login(world);
    broken += await runChapters(world, tokens);
    if (keep) {
      printInvitation(world, tokens.alice);
      await interrupted();
      print();
    }
    // The log is written behind the traffic: what the last step left is there after the stop.
    const code = await world.stop();
    print(paint(36, "  Afterwards"));
    if (!checkLog(world, tokens)) broken += 1;
    print(
      `  ${code === 0 ? paint(32, "✓") : paint(31, "✗")} SIGTERM: the proxy drained and exited with ${code}`,
    );
    if (code !== 0) broken += 1;
  } finally {
    await world.stop();
  }
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  print();
  if (broken > 0) print(paint(31, `${broken} steps differ from what the table promises.`));
  else if (keep) print("Every step went as promised.");
  else print(`Every step went as promised, in ${seconds} s. To try more: npm run demo -- --keep`);
  return broken === 0 ? 0 : 1;
}

const [option, ...rest] = process.argv.slice(2);
if (rest.length > 0 || (option !== undefined && option !== "--keep")) {
  process.stderr.write("usage: npm run demo [-- --keep]\n");
  process.exitCode = 2;
} else {
  process.once("SIGINT", endAtOnce);
  process.once("SIGTERM", endAtOnce);
  try {
    process.exitCode = await demo(option === "--keep");
  } catch (error) {
    process.stderr.write(
      `The demo could not run: ${error instanceof Error ? error.message : String(error)}\n`,
    );
    process.exitCode = 1;
  }
}
