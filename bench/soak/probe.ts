/**
 * Loaded into the proxy of a soak before its own code, in every thread: tells what no gauge shows, and sets the clock.
 *
 * It listens on a Unix socket per thread. `measure` answers the live timers and the entries of all maps and sets, by a look
 * at the heap; `clock MS` steps the wall clock, which is what a machine's clock does when it is set: monotonic time goes on.
 */
import { Session } from "node:inspector";
import net from "node:net";
import { join } from "node:path";
import { threadId } from "node:worker_threads";

/** What a thread holds. */
export interface Measure {
  readonly timers: number;
  readonly entries: number;
}

const folder = process.env["SOAK_PROBE"];
let offsetMs = 0;

function shiftClock(): void {
  const RealDate = Date;
  class ShiftedDate extends RealDate {
    constructor(...args: [] | [number | string | Date]) {
      if (args.length === 0) super(RealDate.now() + offsetMs);
      else super(...(args as [number]));
    }

    static override now(): number {
      return RealDate.now() + offsetMs;
    }
  }
  globalThis.Date = ShiftedDate as DateConstructor;
}

const timerClass = Object.getPrototypeOf(setTimeout(() => undefined, 0)) as object;

/** Runs `body` on all objects that have this prototype, after a collection. */
function sumOverAll(session: Session, prototype: string, body: string): number {
  const post = (method: string, params: object): never => {
    let answer: unknown;
    session.post(method, params, (error: Error | null, result?: object) => {
      if (error !== null) throw new Error(`${method}: ${JSON.stringify(error)}`);
      answer = result;
    });
    return answer as never;
  };
  const objectGroup = "soak";
  const named: { result: { objectId: string } } = post("Runtime.evaluate", {
    expression: prototype,
    objectGroup,
  });
  const found: { objects: { objectId: string } } = post("Runtime.queryObjects", {
    prototypeObjectId: named.result.objectId,
    objectGroup,
  });
  const sum: { result: { value: number } } = post("Runtime.callFunctionOn", {
    objectId: found.objects.objectId,
    functionDeclaration: `function () { let sum = 0; for (const one of this) { try { ${body} } catch {} } return sum; }`,
    returnByValue: true,
  });
  post("Runtime.releaseObjectGroup", { objectGroup });
  return sum.result.value;
}

function measure(): Measure {
  const session = new Session();
  session.connect();
  Object.assign(globalThis, { soakTimer: timerClass });
  try {
    return {
      timers: sumOverAll(session, "soakTimer", "if (!one._destroyed) sum += 1;"),
      entries:
        sumOverAll(session, "Map.prototype", "sum += one.size;") +
        sumOverAll(session, "Set.prototype", "sum += one.size;"),
    };
  } finally {
    session.disconnect();
  }
}

if (folder !== undefined) {
  shiftClock();
  const server = net.createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", (words) => {
      const [word, value] = words.toString().trim().split(" ");
      if (word === "clock") offsetMs = Number(value);
      socket.end(JSON.stringify(word === "measure" ? measure() : {}));
    });
  });
  server.on("error", () => undefined);
  server.listen(join(folder, String(threadId)));
  server.unref();
}
