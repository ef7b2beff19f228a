// Numbers and times for people.

const whole = new Intl.NumberFormat('en');
const clockFormat = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
const dateFormat = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });

export const count = (n) => whole.format(n);

export function decimal(n) {
  if (n >= 100) return whole.format(Math.round(n));
  if (n >= 10) return n.toFixed(1);
  return n === 0 ? '0' : n.toFixed(2);
}

export function units(n) {
  return whole.format(Math.round(n * 100) / 100);
}

export function bytes(n) {
  if (n >= 2 ** 40) return `${decimal(n / 2 ** 40)} TiB`;
  if (n >= 2 ** 30) return `${decimal(n / 2 ** 30)} GiB`;
  return `${decimal(n / 2 ** 20)} MiB`;
}

export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export function milliseconds(ms) {
  if (ms >= 10_000) return `${decimal(ms / 1000)} s`;
  return ms >= 100 ? `${Math.round(ms)} ms` : `${ms.toPrecision(2)} ms`;
}

export const clock = (unixS) => clockFormat.format(new Date(unixS * 1000));
export const date = (unixS) => dateFormat.format(new Date(unixS * 1000));

export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? '' : 's'}`;

export const shortId = (id) => (id.length > 12 ? id.slice(0, 8) : id);

// What a list does not show: rows that the filter finds, and those that the head left out.
export function moreText(hidden, leftOut) {
  const parts = [];
  if (hidden > 0) parts.push(`${count(hidden)} more; the filter finds them.`);
  if (leftOut > 0) parts.push(`${count(leftOut)} more are left out here.`);
  return parts.join(' ');
}
