/** The table that a run prints: figures, and their ratio to the first contestant. */
import type { Case } from "./cases.ts";
import type { Row } from "./measure.ts";

function figure(value: number | undefined): string {
  if (value === undefined) {
    return "";
  }
  if (value >= 100) {
    return String(Math.round(value));
  }
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function ratio(first: number | undefined, other: number | undefined): string {
  return first === undefined || other === undefined || other === 0
    ? ""
    : `${(first / other).toFixed(2)}x`;
}

/** A column: its title, and its text for one row beside the first contestant's. */
interface Column {
  readonly title: string;
  cell(row: Row, ours: Row | undefined): string;
}

/** Of ours, in processor time: below 1 ours is the cheaper one. */
const CPU_RATIO: Column = {
  title: "ours/its CPU",
  cell: (row, ours) => ratio(ours?.cpu, row.cpu),
};
const RSS: Column = { title: "RSS MB", cell: (row) => figure(row.rssMb) };

function loadColumns(unit: string): readonly Column[] {
  const isBulk = unit === "MB/s";
  const latency: readonly Column[] = [
    { title: "p50 ms", cell: (row) => figure(row.p50Ms) },
    { title: "p99 ms", cell: (row) => figure(row.p99Ms) },
  ];
  return [
    {
      title: isBulk ? "CPU ms/GB" : "CPU µs/op",
      cell: (row) => `${row.isWarm === false ? "~" : ""}${figure(row.cpu)}`,
    },
    CPU_RATIO,
    { title: unit, cell: (row) => figure(row.rate) },
    { title: "ours/it", cell: (row, ours) => ratio(ours?.rate, row.rate) },
    ...(isBulk ? [] : latency),
    RSS,
  ];
}

const IDLE_COLUMNS: readonly Column[] = [
  { title: "KiB each", cell: (row) => figure(row.kibEach) },
  { title: "ours/its", cell: (row, ours) => ratio(ours?.kibEach, row.kibEach) },
  RSS,
];

const AFTER_COLUMNS: readonly Column[] = [
  RSS,
  { title: "before", cell: (row) => figure(row.idleRssMb) },
];

const START_COLUMNS: readonly Column[] = [
  { title: "CPU ms", cell: (row) => figure(row.cpu) },
  CPU_RATIO,
  { title: "start ms", cell: (row) => figure(row.startMs) },
  { title: "ours/its", cell: (row, ours) => ratio(ours?.startMs, row.startMs) },
  RSS,
];

function columnsOf(test: Case): readonly Column[] {
  if (test.kind === "load") {
    return loadColumns(test.unit);
  }
  return { idle: IDLE_COLUMNS, after: AFTER_COLUMNS, start: START_COLUMNS }[test.kind];
}

/** One case as a Markdown table; skipped and failed contestants are lines of their own below it. */
export function table(test: Case, rows: readonly Row[]): string {
  const good = rows.filter((row) => row.skipped === undefined && row.failed === undefined);
  const ours = good.find((row) => row.contestant === "authbridge");
  const columns = columnsOf(test);
  const titles = ["", ...columns.map((column) => column.title)];
  const body = good.map((row) => [row.contestant, ...columns.map((one) => one.cell(row, ours))]);
  const widths = titles.map((_title, at) =>
    Math.max(...[titles, ...body].map((line) => (line[at] ?? "").length), 3),
  );
  const draw = (line: readonly string[]): string =>
    `| ${line
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join(" | ")} |`;
  const rule = `| ${widths
    .map((width, column) => (column === 0 ? "-".repeat(width) : `${"-".repeat(width - 1)}:`))
    .join(" | ")} |`;
  const rest = rows
    .filter((row) => !good.includes(row))
    .map((row) =>
      row.failed === undefined
        ? `skipped ${row.contestant}: ${row.skipped}`
        : `FAILED ${row.contestant}: ${row.failed}`,
    );
  return [`### ${test.name}: ${test.title}`, "", draw(titles), rule, ...body.map(draw), "", ...rest]
    .join("\n")
    .trimEnd();
}
