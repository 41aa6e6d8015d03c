/** The well-behaved clients of `attacks.ts`: a thread of their own, so that what the attackers cost is not in their times. */
import http from "node:http";
import net from "node:net";
import tls from "node:tls";
import { parentPort, workerData } from "node:worker_threads";

/** Where they ask. */
export interface Places {
  readonly forward: number;
  readonly reverse: number;
  readonly health: number;
  readonly stats: number;
  readonly sessions: number;
  readonly origin: string;
  readonly secureOrigin: string;
}

/** What one of them got. */
export interface Served {
  readonly name: string;
  asked: number;
  failed: number;
  /** What the first of them got instead. */
  firstFailure?: string;
  medianMs: number;
  slowestMs: number;
}

const agent = "127.0.0.2";
/** The longest that a good request may take. */
const patienceMs = 60_000;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** What a well-behaved client asks over and over. */
interface Actor {
  readonly name: string;
  /** What went wrong; undefined for an answer that is 200 and whole, in time. */
  ask(): Promise<string | undefined>;
}

interface Question {
  readonly port: number;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
}

function wrongWith(question: Question): Promise<string | undefined> {
  return new Promise((resolve) => {
    const request = http.request(
      { ...question, host: "127.0.0.1", localAddress: agent, agent: false, timeout: patienceMs },
      (response) => {
        response.resume();
        const { statusCode } = response;
        response.once("end", () => resolve(statusCode === 200 ? undefined : `${statusCode}`));
        response.once("error", (error) => resolve(String(error)));
      },
    );
    request.once("timeout", () => request.destroy(new Error("no answer in time")));
    request.once("error", (error) => resolve(String(error)));
    request.end();
  });
}

/** A GET inside a tunnel that the bridge opens. */
function wrongInBridge(port: number, authority: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = net.connect({ port, host: "127.0.0.1", localAddress: agent });
    const done = (wrong: string | undefined): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(wrong);
    };
    const timer = setTimeout(() => done("no answer in time"), patienceMs);
    socket.once("error", (error) => done(String(error)));
    socket.once("close", () => done("closed"));
    socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`);
    socket.once("data", (granted: Buffer) => {
      if (!isOk(granted)) return done(firstLine(granted));
      const secured = tls.connect({ socket, rejectUnauthorized: false });
      secured.once("error", (error) => done(`in TLS: ${String(error)}`));
      secured.write(`GET / HTTP/1.1\r\nHost: ${authority}\r\nConnection: close\r\n\r\n`);
      secured.once("data", (chunk: Buffer) => done(isOk(chunk) ? undefined : firstLine(chunk)));
    });
  });
}

function firstLine(chunk: Buffer): string {
  return chunk.toString().split("\r\n", 1).join();
}

function isOk(chunk: Buffer): boolean {
  return firstLine(chunk).startsWith("HTTP/1.1 200 ");
}

function actorsOf(places: Places): Actor[] {
  const { origin, secureOrigin, forward, reverse, health, stats, sessions } = places;
  const at =
    (port: number, path: string, headers: Readonly<Record<string, string>> = {}) =>
    () =>
      wrongWith({ port, path, headers });
  return [
    { name: "health: /healthz", ask: at(health, "/healthz") },
    { name: "health: /readyz", ask: at(health, "/readyz") },
    { name: "admin: /metrics", ask: at(stats, "/metrics") },
    { name: "admin: /v1/sessions", ask: at(sessions, "/v1/sessions") },
    { name: "reverse path", ask: at(reverse, "/small") },
    { name: "agent, plain", ask: at(forward, `http://${origin}/small`, { Host: origin }) },
    {
      name: "agent, bridged",
      ask: () => wrongInBridge(forward, secureOrigin),
    },
  ];
}

async function askOn(actor: Actor, served: Served, isOver: () => boolean): Promise<void> {
  const times: number[] = [];
  while (!isOver()) {
    const startedAt = performance.now();
    const wrong = await actor.ask();
    // What was under way when the attack ended is no measurement.
    if (isOver()) break;
    served.asked += 1;
    if (wrong !== undefined) {
      served.failed += 1;
      served.firstFailure ??= wrong;
    }
    times.push(performance.now() - startedAt);
    await pause(100);
  }
  served.medianMs = middleOf(times);
  served.slowestMs = Math.max(0, ...times);
}

function middleOf(times: readonly number[]): number {
  return times.toSorted((one, other) => one - other)[Math.floor(times.length / 2)] ?? 0;
}

let isOver = false;
const served: Served[] = [];
parentPort?.once("message", () => {
  isOver = true;
});
await Promise.all(
  actorsOf(workerData as Places).map((actor) => {
    const counts: Served = { name: actor.name, asked: 0, failed: 0, medianMs: 0, slowestMs: 0 };
    served.push(counts);
    return askOn(actor, counts, () => isOver);
  }),
);
parentPort?.postMessage(served, []);
