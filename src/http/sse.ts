export interface SseFrame {
  event?: string;
  data: string;
  raw: Buffer;
}
export class SseReader {
  constructor(_: { maxFrameBytes: number }) {}
  push(_c: Buffer): SseFrame[] {
    return [];
  }
  end(): SseFrame[] {
    return [];
  }
}
