/**
 * The origin of the kill bench, a process of its own: tunnels and streams of events that talk all the time.
 * Commands are lines of JSON on stdin: `{"clear":true}`, `{"late":true}` (talk on every connection at once), and
 * `{"after":MS}`, which asks what was heard.
 */
import { createServer, type Server, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { announce, portOf } from "./ready.ts";
import { Heard, stamp } from "./stamps.ts";

const eventEveryMs = 200;
const wordEveryMs = 1_000;
const heard = new Heard();
const open = new Set<Socket>();

const talk = (socket: Socket): void => {
  if (socket.writable) socket.write(stamp());
};

function taking(everyMs: number, head: string): Server {
  return createServer((socket) => {
    let rest = "";
    let timer: NodeJS.Timeout | undefined;
    socket.on("error", () => socket.destroy());
    socket.on("data", (chunk) => {
      // The first is the head of a request, or the client's first words.
      if (timer === undefined) {
        socket.write(head + stamp());
        timer = setInterval(talk, everyMs, socket);
      }
      rest = heard.take(rest, chunk);
    });
    open.add(socket);
    socket.once("close", () => {
      clearInterval(timer);
      open.delete(socket);
    });
  });
}

const tunnels = taking(wordEveryMs, "");
const events = taking(
  eventEveryMs,
  "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n",
);
await Promise.all(
  [tunnels, events].map(
    (server) =>
      new Promise<void>((resolve) => {
        server.listen({ port: 0, host: "127.0.0.1", backlog: 8_192 }, resolve);
      }),
  ),
);
announce({ tunnels: portOf(tunnels), events: portOf(events) });

createInterface({ input: process.stdin }).on("line", (line) => {
  const {
    clear,
    late,
    after = 0,
  } = JSON.parse(line) as {
    readonly clear?: boolean;
    readonly late?: boolean;
    readonly after?: number;
  };
  if (clear === true) heard.clear();
  const reached = open.size;
  if (late === true) for (const socket of open) talk(socket);
  const { lastByteAt } = heard;
  const reply = { open: reached, lastByteAt, late: heard.saidAfter(after) };
  process.stdout.write(`${JSON.stringify(reply)}\n`);
});
