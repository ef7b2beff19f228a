// What the three load tests share: one arrival rate, the thresholds, the summary.
//
//   BASE_URL   where the application is             http://127.0.0.1:8000
//   RATE       requests per second                  each script's default
//   DURATION   how long                             30s
//   VUS        the most requests at once            50
//   SUMMARY    file for the JSON summary            none
//
// A constant arrival rate (an open model): a slow server does not slow the clients down, so
// waiting shows up in the latency instead of disappearing from it.

export const base = (__ENV.BASE_URL || 'http://127.0.0.1:8000').replace(/\/$/, '');

export function options(defaultRate) {
  const vus = Number(__ENV.VUS || 50);
  return {
    scenarios: {
      steady: {
        executor: 'constant-arrival-rate',
        rate: Number(__ENV.RATE || defaultRate),
        timeUnit: '1s',
        duration: __ENV.DURATION || '30s',
        preAllocatedVUs: Math.min(10, vus),
        maxVUs: vus,
      },
    },
    thresholds: {
      http_req_failed: ['rate<0.01'],
      http_req_duration: ['p(95)<800'],
      checks: ['rate>0.99'],
    },
    summaryTrendStats: ['avg', 'med', 'p(90)', 'p(95)', 'p(99)', 'max'],
  };
}

export const json = { headers: { 'content-type': 'application/json' } };

// Sentences of unlike length, as real traffic has them.
const sentences = [
  'I love this!',
  'This is awful.',
  'The plot was thin, but the actors carried it with charm and good humour to the very end.',
  'Delivery took three weeks, the box was torn, and nobody answered any of my four letters about it.',
  'Fine.',
  'An unhurried, generous film about two brothers who run a bakery by the harbour: it takes its time, ' +
    'trusts its audience, and earns each of its few big moments honestly.',
  'I would not recommend this to anyone.',
  'Best purchase of the year, by far; the battery still lasts two days after months of daily use.',
];

export const sentence = (number) => sentences[number % sentences.length];

export function handleSummary(data) {
  const m = data.metrics;
  const ms = (name) => m.http_req_duration.values[name].toFixed(1);
  const crossed = Object.entries(m)
    .filter(([, metric]) => Object.values(metric.thresholds || {}).some((t) => !t.ok))
    .map(([name]) => name);
  const line =
    `${m.http_reqs.values.count} requests, ${m.http_reqs.values.rate.toFixed(1)}/s, ` +
    `p95 ${ms('p(95)')} ms, failed ${(100 * m.http_req_failed.values.rate).toFixed(2)} %, ` +
    `thresholds ${crossed.length ? 'CROSSED: ' + crossed.join(', ') : 'held'}\n`;
  const out = { stdout: line };
  if (__ENV.SUMMARY) out[__ENV.SUMMARY] = JSON.stringify(data, null, 1);
  return out;
}
