// The last minutes, kept in the page: what each deployment had at each poll.

import { svg } from './dom.js';

// Five minutes at a poll every two seconds.
const POINTS_MAX = 150;
const SPAN_S = 300;
// A line that has just begun is drawn as wide as this.
const SPAN_S_MIN = 60;
// Longer than this without a poll (a hidden tab, a head that was away), and the line breaks.
const GAP_S = 12;
// Rates are looked at over this time.
const RATE_S = 10;

const WIDTH = 64;
const HEIGHT = 18;

export class Trends {
  #points = new Map();

  // `routers` names those whose counts are summed up: with others, differences mean nothing.
  push(timeS, routers, samples) {
    for (const key of this.#points.keys()) if (!samples.has(key)) this.#points.delete(key);
    for (const [key, sample] of samples) {
      const points = this.#points.get(key) ?? [];
      if (points.length > 0 && points.at(-1).timeS >= timeS) points.length = 0;
      points.push({ ...sample, timeS, routers });
      if (points.length > POINTS_MAX) points.shift();
      this.#points.set(key, points);
    }
  }

  of(key) {
    return this.#points.get(key) ?? [];
  }

  // {perS, meanMs}; null where it is not known.
  rate(key) {
    const points = this.of(key);
    const now = points.at(-1);
    if (!now?.passed) return { perS: null, meanMs: null };
    const isBase = (p) =>
      p !== now &&
      now.timeS - p.timeS <= RATE_S &&
      p.routers === now.routers &&
      p.passed &&
      p.passed.arrivals <= now.passed.arrivals &&
      p.passed.served <= now.passed.served;
    const base = points.find(isBase);
    if (!base) return { perS: null, meanMs: null };
    const served = now.passed.served - base.passed.served;
    const serviceUs = now.passed.service_us - base.passed.service_us;
    return {
      perS: (now.passed.arrivals - base.passed.arrivals) / (now.timeS - base.timeS),
      meanMs: served > 0 ? serviceUs / served / 1000 : null,
    };
  }
}

// A line of one field over the last minutes, drawn from zero.
export function sparkline() {
  const line = svg('path', { class: 'spark-line' });
  const area = svg('path', { class: 'spark-area' });
  const node = svg('svg', {
    class: 'spark',
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    width: WIDTH,
    height: HEIGHT,
    'aria-hidden': 'true',
  });
  node.append(area, line);
  return {
    node,
    draw(points, field) {
      const runs = unbroken(points);
      const highest = Math.max(1, ...points.map((point) => point[field]));
      const end = points.at(-1)?.timeS ?? 0;
      const known = end - (points[0]?.timeS ?? end);
      const span = Math.min(SPAN_S, Math.max(SPAN_S_MIN, known));
      const x = (point) => (WIDTH * (1 - (end - point.timeS) / span)).toFixed(1);
      const y = (point) => (HEIGHT - 1 - (HEIGHT - 3) * (point[field] / highest)).toFixed(1);
      const path = (run) => run.map((p, i) => `${i ? 'L' : 'M'}${x(p)} ${y(p)}`).join('');
      const closed = (run) => `${path(run)}L${x(run.at(-1))} ${HEIGHT}L${x(run[0])} ${HEIGHT}Z`;
      line.setAttribute('d', runs.map(path).join(''));
      area.setAttribute('d', runs.map(closed).join(''));
    },
  };
}

function unbroken(points) {
  const runs = [];
  for (const point of points) {
    const run = runs.at(-1);
    if (run && point.timeS - run.at(-1).timeS <= GAP_S) run.push(point);
    else runs.push([point]);
  }
  return runs.filter((run) => run.length > 1);
}
