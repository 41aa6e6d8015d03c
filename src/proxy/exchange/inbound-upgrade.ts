/** An inbound Upgrade: the same request phase as every exchange, then the caller carries the connection. */
import type { Socket } from "node:net";
import type { HeaderList } from "../../http/headers.ts";
import { Cancellation } from "../../pipeline/cancellation.ts";
import { RequestContext } from "../../pipeline/context.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { Flow } from "../../pipeline/flow.ts";
import type { Permit } from "../../pipeline/pipeline.ts";
import type { Ending, FlowRecorder } from "../flow/finish.ts";
import { answerLast } from "./last-answer.ts";
import { denialOf, rawReply, statusOf } from "../flow/reply.ts";
import type { Runtime } from "../flow/runtime.ts";

/** One upgrade request as the listener hands it over. */
export interface InboundUpgrade {
  readonly runtime: Runtime;
  readonly flow: Flow;
  readonly client: Socket;
  readonly method: string;
  readonly path: string;
  readonly host: string;
  readonly headers: HeaderList;
  /** Connects client and backend; resolves when the connection is over, rejects when the backend failed. */
  carry(permit: Permit, headers: HeaderList, signal: AbortSignal): Promise<void>;
}

/** Judges and carries one upgrade to its end. Never rejects. */
export async function inboundUpgrade(
  recorder: FlowRecorder,
  request: InboundUpgrade,
): Promise<void> {
  const { runtime, flow, client } = request;
  const leaving = new Cancellation();
  client.once("close", () => leaving.abort());
  const context = new RequestContext({
    flow,
    stage: "request",
    method: request.method,
    path: request.path,
    host: request.host,
    headers: request.headers,
    hasBody: false,
    cancellation: leaving,
    upgrade: request.headers.get("upgrade") ?? "unknown",
  });
  const readBefore = client.bytesRead;
  const writtenBefore = client.bytesWritten;
  let refusal: { readonly denial: Denial; readonly refused: boolean } | undefined;
  let status = 101;
  try {
    recorder.arrived(context);
    const startedAt = performance.now();
    const verdict = await runtime.inbound.runRequest(context);
    recorder.phase(context, "pipeline", startedAt);
    if ("permit" in verdict) {
      recorder.permitted(context);
      context.trace?.sent();
      await request.carry(verdict.permit, context.headers, leaving.signal);
    } else if ("reply" in verdict) {
      status = verdict.reply.status;
      client.end(rawReply(verdict.reply), () => client.destroySoon());
    } else {
      refusal = { denial: verdict.denial, refused: true };
    }
  } catch (error) {
    refusal = { denial: denialOf(error), refused: false };
  }
  if (refusal !== undefined) {
    status = statusOf(refusal.denial);
    if (!client.destroyed) answerLast(client, refusal.denial);
  }
  const ending: Ending = {
    status,
    bytesReceived: client.bytesRead - readBefore,
    bytesSent: client.bytesWritten - writtenBefore,
    refused: refusal?.refused ?? false,
    cancelled: false,
    ...(refusal === undefined ? {} : { denial: refusal.denial }),
  };
  await recorder.finished(context, runtime.inbound, ending);
}
