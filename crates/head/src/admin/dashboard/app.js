// The page: asks the head every two seconds while somebody looks, and shows what it says.

import { Refused, overview, replicas } from './api.js';
import { keyOf, renderApplications } from './applications.js';
import { listenDecisions, renderDecisions } from './decisions.js';
import { byId, setClass, setHidden, setText } from './dom.js';
import { clock, duration } from './format.js';
import { renderHeadline, renderIdentity } from './headline.js';
import { renderMembers } from './members.js';
import { renderRevisions } from './revisions.js';
import * as tokens from './token.js';
import { Trends } from './trends.js';

const POLL_MS = 2000;
// A head that is away is asked less often, down to this.
const RETRY_MS_MAX = 10_000;
// Deployments whose replicas are shown at once; each is a request of its own.
const OPEN_MAX = 6;
const TOTALS = '';

const trends = new Trends();
// Key of a deployment -> its replicas; undefined until they are here.
const open = new Map();
const opened = new Map();

let data = null;
// Moment of this machine's clock at which the data came.
let receivedMs = 0;
let lastHeardS = null;
let failures = 0;
let nextMs = 0;
let timer = null;
let isAsking = false;

const nowS = () => data.time_s + (performance.now() - receivedMs) / 1000;

async function poll() {
  clearTimeout(timer);
  if (isAsking || document.hidden) return;
  isAsking = true;
  const asked = tokens.token();
  let answer = null;
  let error = null;
  try {
    answer = await overview(asked);
    await fetchOpen(asked);
  } catch (thrown) {
    error = thrown;
  }
  isAsking = false;
  // There is another token meanwhile: what was said to the one before does not count.
  if (asked !== tokens.token()) return poll();
  if (error) failed(error);
  else arrived(answer);
}

function schedule(ms) {
  nextMs = performance.now() + ms;
  timer = setTimeout(poll, ms);
}

async function fetchOpen(token) {
  for (const [key, [application, deployment]] of opened) {
    const answer = await replicas(token, application, deployment);
    if (answer === null) close(key);
    else if (opened.has(key)) open.set(key, answer);
  }
}

function arrived(answer) {
  schedule(POLL_MS);
  data = answer;
  receivedMs = performance.now();
  lastHeardS = Date.now() / 1000;
  failures = 0;
  tokens.accepted();
  showAway(null);
  remember();
  setHidden(byId('main'), false);
  render();
}

function failed(error) {
  if (error instanceof Refused) {
    forget();
    showAway(null);
    tokens.ask(error.wasShown);
    return;
  }
  failures += 1;
  schedule(Math.min(RETRY_MS_MAX, POLL_MS * 2 ** (failures - 1)));
  showAway(error);
}

function showAway(error) {
  setHidden(byId('away'), error === null);
  setHidden(byId('away-next'), error === null);
  setClass(document.body, error && data ? 'stale' : '');
  if (error === null) return;
  const since = lastHeardS === null ? '' : ` since ${clock(lastHeardS)}`;
  setText(byId('away-what'), `No head answers${since}.`);
  const shown = data ? 'Below is what it said last. ' : '';
  const why = error.message ? `It says: ${error.message}. ` : '';
  setText(byId('away-why'), `${why}${shown}Routers and workers of a cluster go on without it.`);
}

// The tab shows nothing that needs the token any more.
function forget() {
  data = null;
  lastHeardS = null;
  open.clear();
  opened.clear();
  setHidden(byId('main'), true);
  setText(byId('identity'), '');
}

function remember() {
  const total = { ongoing: 0, waiting: 0, replicas: 0, target: 0, passed: null };
  const samples = new Map([[TOTALS, total]]);
  let passed = { arrivals: 0, served: 0, service_us: 0 };
  for (const application of data.applications) {
    for (const deployment of application.deployments) {
      const sample = {
        ongoing: deployment.ongoing,
        waiting: deployment.waiting,
        replicas: deployment.running,
        passed: deployment.passed,
      };
      samples.set(keyOf(application, deployment), sample);
      total.ongoing += sample.ongoing;
      total.waiting += sample.waiting;
      total.replicas += sample.replicas;
      total.target += deployment.target;
      if (passed && sample.passed) for (const name in passed) passed[name] += sample.passed[name];
      else passed = null;
    }
  }
  total.passed = passed;
  trends.push(data.time_s, data.routers.map((router) => router.id).join(), samples);
}

function render() {
  if (!data) return;
  const words = byId('filter').value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const view = {
    matches: (...texts) => {
      const text = texts.join('\n').toLowerCase();
      return words.every((word) => text.includes(word));
    },
    onlyUnsettled: byId('only-unsettled').checked,
    trends,
    open,
    toggle,
    nowS: nowS(),
  };
  for (const list of open.values()) {
    for (const replica of list?.replicas ?? []) replica.upS = view.nowS - replica.start_time_s;
  }
  renderIdentity(data, view.nowS, view.nowS - data.time_s);
  renderHeadline(data, { points: trends.of(TOTALS), perS: trends.rate(TOTALS).perS });
  renderApplications(data, view);
  renderMembers(data, view);
  renderDecisions(data, view);
  renderRevisions(data, view.nowS);
}

function toggle(key, application, deployment) {
  if (opened.has(key)) {
    close(key);
  } else {
    if (opened.size === OPEN_MAX) close(opened.keys().next().value);
    opened.set(key, [application, deployment]);
    open.set(key, undefined);
    poll();
  }
  render();
}

function close(key) {
  opened.delete(key);
  open.delete(key);
}

// How old things are goes on while nothing comes.
function tick() {
  if (document.hidden) return;
  if (data) renderIdentity(data, nowS(), nowS() - data.time_s);
  if (!byId('away').hidden) {
    const leftS = Math.ceil(Math.max(0, nextMs - performance.now()) / 1000);
    const away = lastHeardS === null ? '' : `Away for ${duration(Date.now() / 1000 - lastHeardS)}. `;
    setText(byId('away-next'), `${away}${leftS > 0 ? `Next try in ${leftS} s.` : 'Trying …'}`);
  }
}

document.addEventListener('visibilitychange', poll);
document.addEventListener('keydown', (event) => {
  const isTyping = event.target instanceof HTMLInputElement;
  if (event.key === '/' && !isTyping && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    byId('filter').focus();
  }
});
byId('filter').addEventListener('input', render);
byId('only-unsettled').addEventListener('change', render);
listenDecisions(render);
tokens.listen(() => {
  if (tokens.token() === null) forget();
  poll();
});
setInterval(tick, 1000);
poll();
