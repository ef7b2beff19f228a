// Workers and routers.

import { byId, chip, el, keyed, setHidden, setText, setTitle } from './dom.js';
import { bytes, count, duration, moreText, shortId, units } from './format.js';

const ROWS_MAX = 200;

// A member is late when it has not been heard of for so long; they report every second.
const LATE_S = 3;

export function renderMembers(data, view) {
  const workers = data.workers.filter((w) =>
    view.matches(w.node_ip, w.id, w.state, ...Object.values(w.labels)),
  );
  const routers = data.routers.filter((r) => view.matches(r.node_ip, r.id, r.http_addr, r.status));
  list('workers', workers, data.workers.length, data.left_out.workers, workerRow);
  list('routers', routers, data.routers.length, data.left_out.routers, routerRow);
}

function list(name, found, known, leftOut, make) {
  setText(byId(`${name}-count`), count(known + leftOut));
  const none = known === 0 ? 'None has joined.' : 'None matches the filter.';
  const missing = Math.max(0, found.length - ROWS_MAX);
  const text = found.length === 0 ? none : moreText(missing, leftOut);
  const more = byId(`${name}-more`);
  setHidden(more, text === '');
  setText(more, text);
  setHidden(byId(name), found.length === 0);
  const body = byId(name).tBodies[0];
  keyed(body, found.slice(0, ROWS_MAX), (member) => member.id, make);
}

function row(labels, children) {
  const cells = children.map((child, index) => {
    const cell = el('td', labels[index].isNumber ? 'number' : '', child);
    cell.dataset.label = labels[index].text ?? labels[index];
    return cell;
  });
  return el('tr', '', ...cells);
}

const number = (text) => ({ text, isNumber: true });

function identity() {
  const address = el('b');
  const rest = el('span', 'muted note');
  const labels = el('p', 'labels');
  return { address, rest, labels, node: el('div', '', address, rest, labels) };
}

function workerRow() {
  const who = identity();
  const status = chip();
  const replicas = el('span');
  const resources = el('div', 'resources');
  const heard = el('span');
  const labels = ['Worker', 'State', number('Replicas'), 'Resources in use', number('Heard')];
  return {
    node: row(labels, [who.node, status.node, replicas, resources, heard]),
    update(worker) {
      setText(who.address, worker.node_ip);
      setText(who.rest, ` process ${worker.pid} · ${shortId(worker.id)} · ${worker.version}`);
      setTitle(who.node, `worker ${worker.id} on node ${worker.node_id}`);
      setText(who.labels, labelText(worker.labels));
      setHidden(who.labels, Object.keys(worker.labels).length === 0);
      status.set(worker.state);
      setText(replicas, count(worker.replicas));
      const amounts = Object.entries(worker.total).map(([name, total]) => ({
        name,
        total,
        used: worker.used[name] ?? 0,
      }));
      keyed(resources, amounts, (amount) => amount.name, resourceRow);
      heardOf(heard, worker.heard_s);
    },
  };
}

const labelText = (labels) =>
  Object.entries(labels)
    .map(([name, value]) => `${name}=${value}`)
    .join('  ');

function resourceRow() {
  const name = el('span', 'muted');
  const fill = el('i');
  const bar = el('span', 'bar', fill);
  const text = el('span');
  return {
    node: el('div', 'resource', name, bar, text),
    update(amount) {
      const show = amount.name === 'memory' ? bytes : units;
      setText(name, amount.name);
      setText(text, `${show(amount.used)} / ${show(amount.total)}`);
      fill.style.width = `${amount.total > 0 ? (100 * amount.used) / amount.total : 0}%`;
    },
  };
}

function routerRow() {
  const who = identity();
  const status = chip();
  const table = chip();
  const ongoing = el('span');
  const waiting = el('span');
  const heard = el('span');
  const error = el('p', 'message');
  const labels = ['Router', 'State', 'Table', number('In progress'), number('Waiting'), number('Heard')];
  const state = el('div', '', status.node, error);
  return {
    node: row(labels, [who.node, state, table.node, ongoing, waiting, heard]),
    update(router) {
      setText(who.address, router.http_addr ? `http ${router.http_addr}` : router.node_ip);
      const grpc = router.grpc_addr ? ` · grpc ${router.grpc_addr}` : '';
      setText(who.rest, `${grpc} · process ${router.pid} · ${shortId(router.id)} · ${router.version}`);
      setHidden(who.labels, true);
      setTitle(who.node, `router ${router.id} on ${router.node_ip}`);
      status.set(router.status);
      setText(error, router.error);
      setHidden(error, router.error === '');
      table.set(router.behind_s === null ? 'up to date' : 'behind');
      setTitle(table.node, `table ${router.table_version}${behind(router.behind_s)}`);
      setText(ongoing, count(router.ongoing));
      setText(waiting, count(router.waiting));
      heardOf(heard, router.heard_s);
    },
  };
}

const behind = (s) => (s === null ? '' : `, older than the newest one for ${duration(s)}`);

function heardOf(node, seconds) {
  setText(node, seconds < LATE_S ? 'now' : `${duration(seconds)} ago`);
}
