// Is everything as wanted? Who leads, what is in the way, and the totals.

import { byId, chip, el, keyed, setClass, setText, setTitle } from './dom.js';
import { count, date, decimal, duration, units } from './format.js';
import { sparkline } from './trends.js';

const TONES = { ok: 'ok', progress: 'progress', trouble: 'trouble' };

export function renderHeadline(data, totals) {
  const { summary } = data;
  const isEmpty = data.applications.length === 0 && summary.concerns.length === 0;
  const tone = isEmpty ? 'past' : TONES[summary.level];
  setText(byId('sentence'), summary.sentence);
  setClass(byId('level'), 'dot');
  setClass(byId('headline'), `tone-${tone}`);
  document.title = `${summary.running}/${summary.applications} · Mobula`;
  const more = summary.concerns_total - summary.concerns.length;
  const concerns = summary.concerns.map((concern, index) => ({ ...concern, index }));
  if (more > 0) concerns.push({ kind: '', subject: '', status: '', message: `and ${more} more` });
  keyed(byId('concerns'), concerns, (c) => `${c.kind} ${c.subject} ${c.status}`, concernRow);
  keyed(byId('tiles'), tiles(data, totals), (tile) => tile.name, tileRow);
}

export function renderIdentity(data, nowS, ageS) {
  const { head } = data;
  const identity = byId('identity');
  const age = ageS < 5 ? 'live' : `${duration(ageS)} old`;
  const leads = duration(nowS - head.started_at_s);
  setText(
    identity,
    `head ${head.node_ip} · process ${head.pid} · release ${head.version} · leads for ${leads} · ${age}`,
  );
  setTitle(identity, `leads since ${date(head.started_at_s)}`);
}

function concernRow() {
  const status = chip();
  const subject = el('strong');
  const message = el('span', 'message');
  const node = el('li', '', status.node, subject, message);
  return {
    node,
    update(concern) {
      status.node.hidden = concern.status === '';
      status.set(concern.status);
      setClass(status.node, `chip tone-${TONES[concern.level] ?? 'past'}`);
      setText(subject, concern.subject && `${concern.kind} ${concern.subject}`);
      setText(message, concern.message);
    },
  };
}

function tiles(data, totals) {
  const { points, perS } = totals;
  const now = points.at(-1);
  const resources = new Map();
  for (const worker of data.workers) {
    for (const [name, total] of Object.entries(worker.total)) {
      const sum = resources.get(name) ?? { used: 0, total: 0 };
      sum.used += worker.used[name] ?? 0;
      sum.total += total;
      resources.set(name, sum);
    }
  }
  const shown = [
    { name: 'Requests/s', value: perS === null ? '–' : decimal(perS) },
    { name: 'In progress', value: count(now.ongoing), points, field: 'ongoing' },
    { name: 'Waiting', value: count(now.waiting), points, field: 'waiting' },
    {
      name: 'Replicas',
      value: count(now.replicas),
      of: `of ${count(now.target)}`,
      points,
      field: 'replicas',
    },
  ];
  for (const name of ['CPU', 'GPU']) {
    const found = resources.get(name);
    if (found) shown.push({ name, value: units(found.used), of: `of ${units(found.total)} in use` });
  }
  return shown;
}

function tileRow(first) {
  const name = el('dt');
  const value = el('b');
  const of = el('span', 'muted');
  const spark = first.points ? sparkline() : null;
  const node = el('div', 'tile', name, el('dd', '', value, ' ', of, ...(spark ? [spark.node] : [])));
  return {
    node,
    update(tile) {
      setText(name, tile.name);
      setText(value, tile.value);
      setText(of, tile.of ?? '');
      spark?.draw(tile.points, tile.field);
    },
  };
}
