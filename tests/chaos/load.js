// The load of a chaos run: constant arrival rates of four kinds of request on each router.
//
//   ROUTERS   base URLs, separated by commas
//   RATE      requests per second and router
//   DURATION  the longest it may go on; the run ends it before
//   SUMMARY   file for the counts
//
// What was not answered as it should goes to the console as one line of JSON; judging it is the
// business of causes.py. k6 tries nothing again by itself (Go's client does, for a GET on a
// connection that turned out to be closed before a byte came back, as HTTP asks clients to).

import http from 'k6/http';
import exec from 'k6/execution';
import { Counter } from 'k6/metrics';

const REQUEST_SECONDS_MAX = 20;
// Requests under way at once, per scenario: as many as come while a router holds them all for as
// long as a request may take.
const VUS_MAX = 1000;

const routers = __ENV.ROUTERS.split(',');
const rate = Number(__ENV.RATE);
// Of ten requests: five that cost nothing, three that take a while, two that may not be repeated,
// one of which takes a while, so that it is under way when a worker dies.
const shares = { noop: 0.5, sleep: 0.3, post: 0.1, echo: 0.1 };

const scenarios = {};
const sent = {};
const answered = {};
routers.forEach((_, router) => {
  Object.entries(shares).forEach(([kind, share]) => {
    const name = `${kind}_${router}`;
    sent[name] = new Counter(`sent_${name}`);
    answered[name] = new Counter(`answered_${name}`);
    scenarios[name] = {
      executor: 'constant-arrival-rate',
      exec: kind,
      env: { ROUTER: String(router) },
      rate: Math.max(1, Math.round(rate * share)),
      timeUnit: '1s',
      duration: __ENV.DURATION,
      gracefulStop: '0s',
      // k6 adds clients slowly: enough for a stall of some seconds are there from the start.
      preAllocatedVUs: Math.ceil(rate * share * 4),
      maxVUs: VUS_MAX,
    };
  });
});

export const options = {
  scenarios,
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
};

const settings = { timeout: `${REQUEST_SECONDS_MAX}s` };

function ask(share, app, method, body) {
  const router = Number(__ENV.ROUTER);
  const name = `${share}_${router}`;
  const start = Date.now();
  sent[name].add(1);
  const answer = http.request(method, `${routers[router]}/${app}`, body, settings);
  const good = answer.status === 200 && (app !== 'echo' || String(answer.body).includes(body));
  if (good) {
    answered[name].add(1);
    return;
  }
  console.log(
    JSON.stringify({
      start_ms: start,
      end_ms: Date.now(),
      router,
      app,
      method,
      status: answer.status,
      code: answer.error_code,
      error: answer.status ? String(answer.body).slice(0, 300) : answer.error,
    }),
  );
}

export const noop = () => ask('noop', 'noop', 'GET', null);
export const sleep = () => ask('sleep', 'sleep', 'GET', null);
export const post = () => ask('post', 'sleep', 'POST', 'once');
export const echo = () => {
  const body = `call ${exec.scenario.iterationInTest} to router ${__ENV.ROUTER}`;
  ask('echo', 'echo', 'POST', body);
};

export function handleSummary(data) {
  return { [__ENV.SUMMARY]: JSON.stringify(data.metrics) };
}
