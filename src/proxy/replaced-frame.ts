/** A frame of an answer after a plugin gave it other data. */
import { ProxyError } from "../errors.ts";
import type { StreamFrame } from "../http/frames.ts";
import { writeSseFrame } from "../http/sse.ts";

/** The frame with other data; its comments, id and retry stay. */
export function withData(frame: StreamFrame, data: Buffer | undefined): Buffer {
  if (!("comments" in frame)) {
    if (data === undefined) return Buffer.alloc(0);
    throw new ProxyError("internal.fault", "a binary event cannot be given other data");
  }
  const { comments, event, id, retry } = frame;
  const text = writeSseFrame({
    comments,
    ...(id === undefined ? {} : { id }),
    ...(retry === undefined ? {} : { retry }),
    ...(data === undefined ? {} : { data: data.toString("utf8") }),
    ...(data === undefined || event === undefined ? {} : { event }),
  });
  return Buffer.from(text);
}
