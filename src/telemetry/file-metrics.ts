/** Counters of the files that the process writes: events (`session.persist`) and decisions (`audit`). */
import type { MakeTally, Tally } from "./instruments.ts";

/** The files. */
export type WrittenFile = "events" | "audit";

/** Made by Metrics. */
export class FileMetrics {
  readonly #lines: Tally;
  readonly #outages: Tally;

  constructor(tally: MakeTally) {
    this.#lines = tally(
      "file_lines_total",
      "Lines of the files of events and decisions, by whether they were written or lost.",
      "file",
      "result",
    );
    this.#outages = tally(
      "file_outages_total",
      "Times at which a file of events or decisions could no longer be written.",
      "file",
    );
  }

  lines(file: WrittenFile, result: "written" | "lost", count: number): void {
    this.#lines.of(file, result).value += count;
  }

  outage(file: WrittenFile): void {
    this.#outages.of(file).value += 1;
  }
}
