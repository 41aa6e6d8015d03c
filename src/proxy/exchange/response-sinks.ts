/** What a response goes through on its way to the client: its bytes are counted, its echoes taken out, then it is judged. */
import type { ByteMeter } from "../../pipeline/byte-meter.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { ResponseNeeds } from "../../pipeline/message-needs.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import { EchoFreeSink } from "./echo-free-sink.ts";
import type { ExchangeRequest, ExchangeServices } from "./exchange-request.ts";
import { JudgedSink } from "./judged-sink.ts";
import {
  DirectSink,
  type FlowControl,
  type ReplacedResponse,
  type ResponseSink,
} from "./response-sink.ts";

/** Options of {@link ResponseSinks}. */
export interface ResponseSinkOptions {
  readonly services: Pick<ExchangeServices, "budget">;
  readonly request: Pick<ExchangeRequest, "downstream" | "runtime">;
  readonly context: RequestContext;
  readonly pipeline: Pipeline;
  /** Undefined where the file exempts the destination from the pipeline. */
  readonly needs: ResponseNeeds | undefined;
  readonly meter: ByteMeter | undefined;
  /** The meter has refused what came. */
  onRefused(this: void, denial: Denial): void;
  onReplaced(this: void, replaced: ReplacedResponse): void;
  onFault(this: void, error: unknown): void;
}

/** The sinks of one exchange. */
export class ResponseSinks {
  readonly #options: ResponseSinkOptions;
  #judged: JudgedSink | undefined;
  #echoFree: EchoFreeSink | undefined;

  constructor(options: ResponseSinkOptions) {
    this.#options = options;
  }

  make(control: FlowControl): ResponseSink {
    const { meter, onRefused } = this.#options;
    const sink = this.#echoFreeSink(control);
    return meter === undefined ? sink : meteredSink(sink, meter, onRefused);
  }

  close(): void {
    this.#judged?.close();
    this.#echoFree?.close();
  }

  /** Nobody sees the response before its echoes are gone: no client, no plugin, no record. */
  #echoFreeSink(control: FlowControl): ResponseSink {
    const { context, request, onFault } = this.#options;
    const { echo, method } = context;
    if (echo === undefined) return this.#judgedSink(control);
    this.#echoFree = new EchoFreeSink({
      echo,
      method,
      control,
      maxBodyBytes: request.runtime.limits.maxBodyBytes,
      makeInner: (inner) => this.#judgedSink(inner),
      onFault,
    });
    return this.#echoFree;
  }

  #judgedSink(control: FlowControl): ResponseSink {
    const { request, needs, pipeline, context, services, onReplaced, onFault } = this.#options;
    const { downstream, runtime } = request;
    const isJudged = needs?.response === true || needs?.responseBody === true || needs?.frames;
    if (needs === undefined || isJudged !== true) return new DirectSink(downstream, control);
    this.#judged = new JudgedSink({
      pipeline,
      needs,
      context,
      downstream,
      control,
      maxBodyBytes: runtime.limits.maxBodyBytes,
      budget: services.budget,
      onReplaced,
      onFault,
    });
    return this.#judged;
  }
}

/** Counts a response on its way; one that is refused ends at the next chunk, or as soon as that is known. */
function meteredSink(
  sink: ResponseSink,
  meter: ByteMeter,
  onRefused: (denial: Denial) => void,
): ResponseSink {
  const refuse = (): void => {
    if (meter.denial !== undefined) onRefused(meter.denial);
  };
  return {
    start: (status, headers, reason) => sink.start(status, headers, reason),
    data: (chunk) => {
      const said = meter.pass("server", chunk.length);
      if (said === false) refuse();
      else sink.data(chunk);
      if (said instanceof Promise) void said.then((isPassed) => isPassed || refuse());
    },
    get isDrained() {
      return sink.isDrained === true;
    },
    end: (trailers) => sink.end(trailers),
  };
}
