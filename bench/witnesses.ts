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
  ask(): Promise<boolean>;
}

interface Question {
  readonly port: number;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** True when the answer is 200 and whole, in time. */
function isServed(question: Question): Promise<boolean> {
  return new Promise((resolve) => {
    const request = http.request(
      { ...question, host: "127.0.0.1", localAddress: agent, agent: false, timeout: patienceMs },
      (response) => {
        response.resume();
        response.once("end", () => resolve(response.statusCode === 200));
        response.once("error", () => resolve(false));
      },
    );
    request.once("timeout", () => request.destroy());
    request.once("error", () => resolve(false));
    request.end();
  });
}

/** A GET inside a tunnel that the bridge opens. */
function isBridged(port: number, authority: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ port, host: "127.0.0.1", localAddress: agent });
    const done = (isGood: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(isGood);
    };
    const timer = setTimeout(() => done(false), patienceMs);
    socket.once("error", () => done(false));
    socket.once("close", () => done(false));
    socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`);
    socket.once("data", () => {
      const secured = tls.connect({ socket, rejectUnauthorized: false });
      secured.once("error", () => done(false));
      secured.write(`GET / HTTP/1.1\r\nHost: ${authority}\r\nConnection: close\r\n\r\n`);
      secured.once("data", (chunk: Buffer) => done(chunk.toString().startsWith("HTTP/1.1 200 ")));
    });
  });
}

function actorsOf(places: Places): Actor[] {
  const { origin, secureOrigin, forward, reverse, health, stats, sessions } = places;
  const at =
    (port: number, path: string, headers: Readonly<Record<string, string>> = {}) =>
    () =>
      isServed({ port, path, headers });
  return [
    { name: "health: /healthz", ask: at(health, "/healthz") },
    { name: "health: /readyz", ask: at(health, "/readyz") },
    { name: "admin: /metrics", ask: at(stats, "/metrics") },
    { name: "admin: /v1/sessions", ask: at(sessions, "/v1/sessions") },
    { name: "reverse path", ask: at(reverse, "/small") },
    { name: "agent, plain", ask: at(forward, `http://${origin}/small`, { Host: origin }) },
    {
      name: "agent, bridged",
      ask: () => isBridged(forward, secureOrigin),
    },
  ];
}

async function askOn(actor: Actor, served: Served, isOver: () => boolean): Promise<void> {
  const times: number[] = [];
  while (!isOver()) {
    const startedAt = performance.now();
    const isGood = await actor.ask();
    // What was under way when the attack ended is no measurement.
    if (isOver()) break;
    served.asked += 1;
    if (!isGood) served.failed += 1;
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
