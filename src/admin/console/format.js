/** Numbers and times as people read them. */

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hour12: false,
});

/** @param {number} at */
export function timeOf(at) {
  return Number.isNaN(at) ? "" : clock.format(at);
}

/** @param {number | undefined} bytes */
export function bytesOf(bytes) {
  if (bytes === undefined) return "";
  if (bytes < 1_024) return `${bytes} B`;
  const units = ["KiB", "MiB", "GiB"];
  let value = bytes / 1_024;
  let unit = 0;
  while (value >= 1_024 && unit < units.length - 1) {
    value /= 1_024;
    unit += 1;
  }
  return `${value.toFixed(value < 10 ? 1 : 0)} ${units[unit]}`;
}

/** @param {number | undefined} ms */
export function durationOf(ms) {
  if (ms === undefined) return "";
  if (ms < 1_000) return `${ms < 10 ? Math.round(ms * 10) / 10 : Math.round(ms)} ms`;
  return ms < 60_000 ? `${(ms / 1_000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;
}

/** @param {string} path */
export function baseName(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}

const counts = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });

/** @param {number | undefined} count */
export function countOf(count = 0) {
  return count < 10_000 ? String(Math.round(count)) : counts.format(count);
}

/**
 * A part of a whole in percent; nothing of nothing.
 *
 * @param {number} part
 * @param {number} whole
 */
export function shareOf(part, whole) {
  if (whole === 0 || part === 0) return "";
  const share = (part / whole) * 100;
  return `${share < 1 ? share.toFixed(1) : Math.round(share)} %`;
}

/** @param {number} micros millionths of a dollar */
export function costOf(micros) {
  const dollars = micros / 1e6;
  return `$${dollars < 1 ? dollars.toFixed(4) : dollars.toFixed(2)}`;
}
