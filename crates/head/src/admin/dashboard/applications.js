// Applications and their deployments: one table, whose rows open to the replicas.

import { byId, chip, el, keyed, setClass, setHidden, setText, setTitle } from './dom.js';
import { count, date, decimal, duration, milliseconds, moreText, plural } from './format.js';
import { replicaTable } from './replicas.js';
import { sparkline } from './trends.js';

// Rows at once; thousands would make the page slow, and nobody reads them.
const ROWS_MAX = 300;

// `view`: {matches, onlyUnsettled, trends, open, toggle, nowS}
export function renderApplications(data, view) {
  const rows = [];
  let hidden = 0;
  for (const application of data.applications) {
    const deployments = shownOf(application, view);
    if (deployments === null) continue;
    if (rows.length >= ROWS_MAX) {
      hidden += 1;
      continue;
    }
    rows.push({ key: `a ${application.name}`, application, view });
    for (const deployment of deployments) {
      rows.push({ key: keyOf(application, deployment), application, deployment, view });
    }
  }
  const isEmpty = data.summary.applications === 0;
  setText(byId('applications-count'), isEmpty ? '' : count(data.summary.applications));
  setHidden(byId('empty'), !isEmpty);
  setHidden(byId('applications'), isEmpty);
  const more = moreText(hidden, data.left_out.applications);
  setHidden(byId('applications-more'), more === '');
  setText(byId('applications-more'), more);
  const make = (row) => (row.deployment ? deploymentRow(row) : applicationRow());
  keyed(byId('applications'), rows, (row) => row.key, make);
}

export const keyOf = (application, deployment) => `${application.name}#${deployment.name}`;

// The deployments to show; null: not even the application.
function shownOf(application, view) {
  const all = application.deployments;
  const unsettled = all.filter((deployment) => deployment.status !== 'HEALTHY');
  if (view.onlyUnsettled && application.status === 'RUNNING' && unsettled.length === 0) return null;
  const wanted = view.onlyUnsettled && unsettled.length > 0 ? unsettled : all;
  if (view.matches(application.name, application.route_prefix ?? '', application.status)) {
    return wanted;
  }
  const found = wanted.filter((deployment) => view.matches(deployment.name, deployment.status));
  return found.length > 0 ? found : null;
}

function applicationRow() {
  const name = el('strong');
  const prefix = el('code');
  const status = chip();
  const when = el('span', 'muted when');
  const message = el('p', 'message');
  const cell = el('th', '', el('div', 'line', name, prefix, status.node, when), message);
  cell.colSpan = 7;
  cell.scope = 'rowgroup';
  const node = el('tbody', 'application', el('tr', '', cell));
  return {
    node,
    update({ application, view }) {
      setText(name, application.name);
      setText(prefix, application.route_prefix ?? 'no route');
      status.set(application.status);
      const since = view.nowS - application.last_deployed_time_s;
      setText(when, `deployed ${duration(since)} ago`);
      setTitle(when, date(application.last_deployed_time_s));
      setText(message, application.message);
      setHidden(message, application.message === '');
    },
  };
}

function deploymentRow({ key, application, deployment, view }) {
  const name = el('span');
  const button = el('button', 'disclose', name);
  button.type = 'button';
  const status = chip();
  const cells = {
    replicas: figure('Replicas'),
    ongoing: figure('In progress'),
    waiting: figure('Waiting'),
    rate: figure('Requests/s', false),
    time: figure('Mean time', false),
  };
  const main = el('tr', '', el('th', 'name', button), el('td', '', status.node));
  main.append(...Object.values(cells).map((cell) => cell.node));
  const said = message();
  const replicas = replicaTable();
  const node = el('tbody', 'deployment', main, said.node, replicas.node);
  button.addEventListener('click', () => view.toggle(key, application.name, deployment.name));
  return {
    node,
    update({ deployment, view: { trends, open } }) {
      const points = trends.of(key);
      setText(name, deployment.name);
      status.set(deployment.status);
      setTitle(status.node, deployment.status_trigger);
      cells.replicas.set(replicaText(deployment), autoscalingText(deployment), points, 'replicas');
      cells.ongoing.set(count(deployment.ongoing), '', points, 'ongoing');
      cells.waiting.set(count(deployment.waiting), '', points, 'waiting');
      const { perS, meanMs } = trends.rate(key);
      cells.rate.set(perS === null ? '–' : decimal(perS), '');
      cells.time.set(meanMs === null ? '–' : milliseconds(meanMs), '');
      said.set(deployment);
      const list = open.get(key);
      button.setAttribute('aria-expanded', String(open.has(key)));
      replicas.set(open.has(key), list);
    },
  };
}

const replicaText = (d) => `${count(d.running)} / ${count(d.target)}`;

function autoscalingText({ autoscaling }) {
  if (!autoscaling) return '';
  return `${count(autoscaling.min_replicas)}–${count(autoscaling.max_replicas)}`;
}

// What belongs to a number, how it went, and what it is now.
function figure(label, hasTrend = true) {
  const value = el('b');
  const note = el('span', 'muted note');
  const spark = hasTrend ? sparkline() : null;
  const node = el('td', 'number', note, ...(spark ? [spark.node] : []), value);
  node.dataset.label = label;
  return {
    node,
    set(text, noteText, points, field) {
      setText(value, text);
      setText(note, noteText);
      if (!spark) return;
      spark.draw(points, field);
      const most = Math.max(0, ...points.map((point) => point[field]));
      setTitle(node, `highest seen in the last 5 minutes: ${count(most)}`);
    },
  };
}

// What the head says of a deployment, and how far a new version has come.
function message() {
  const text = el('p', 'message');
  const bar = el('span', 'bar', el('i'));
  const progress = el('p', 'rollout', bar, el('span'));
  const cell = el('td', '', progress, text);
  cell.colSpan = 7;
  const node = el('tr', 'said', cell);
  return {
    node,
    set(deployment) {
      const rollout = rolloutOf(deployment);
      setText(text, deployment.message);
      setHidden(text, deployment.message === '');
      setHidden(progress, rollout === null);
      if (rollout) {
        setText(progress.lastChild, rollout.text);
        bar.firstChild.style.width = `${rollout.percent}%`;
      }
      setHidden(node, deployment.message === '' && rollout === null);
    },
  };
}

function rolloutOf(deployment) {
  const { canary, newest, older, target, out_of_reach: away } = deployment;
  if (canary?.stage === 'step') {
    return { percent: canary.percent, text: `${canary.percent} % of the requests go to the canary` };
  }
  if (older > 0 && newest > 0) {
    const text = `new version: ${count(newest)} of ${count(target)} replicas, ${count(older)} of the old one`;
    return { percent: Math.min(100, (100 * newest) / Math.max(1, target)), text };
  }
  if (away > 0) return { percent: 0, text: `${plural(away, 'replica')} out of reach` };
  return null;
}
