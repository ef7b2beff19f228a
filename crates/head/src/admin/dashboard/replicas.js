// The replicas of one deployment, below its row.

import { chip, el, keyed, setHidden, setText, setTitle } from './dom.js';
import { count, date, duration, plural, shortId } from './format.js';

const HEADINGS = ['Replica', 'State', 'Worker', 'Up for', 'In progress'];

export function replicaTable() {
  const note = el('p', 'muted');
  const body = el('tbody');
  const head = el('thead', '', el('tr', '', ...HEADINGS.map((text) => el('th', '', text))));
  const table = el('table', 'rows replicas', head, body);
  const cell = el('td', '', table, note);
  cell.colSpan = 7;
  const node = el('tr', 'inside', cell);
  node.hidden = true;
  return {
    node,
    // `list`: undefined while it is not here yet.
    set(isOpen, list) {
      setHidden(node, !isOpen);
      const shown = isOpen && list ? list.replicas : [];
      keyed(body, shown, (replica) => replica.id, replicaRow);
      setHidden(table, shown.length === 0);
      setText(note, isOpen ? noteOf(list) : '');
    },
  };
}

function noteOf(list) {
  if (!list) return 'asking …';
  if (list.total === 0) return 'There are none.';
  const missing = list.total - list.replicas.length;
  return missing > 0 ? `and ${plural(missing, 'more replica')} that run` : '';
}

function replicaRow() {
  const id = el('code');
  const status = chip();
  const worker = el('span');
  const up = el('span');
  const ongoing = el('span');
  const message = el('p', 'message');
  const cells = [id, status.node, worker, up, ongoing].map((child, index) => {
    const cell = el('td', '', child);
    cell.dataset.label = HEADINGS[index];
    return cell;
  });
  cells[1].append(message);
  return {
    node: el('tr', '', ...cells),
    update(replica) {
      setText(id, replica.id);
      status.set(replica.out_of_reach ? 'out of reach' : replica.state);
      setText(worker, `${replica.node_ip} · ${shortId(replica.worker)}`);
      setTitle(worker, `worker ${replica.worker}, process ${replica.pid ?? 'unknown'}`);
      setText(up, duration(replica.upS));
      setTitle(up, `since ${date(replica.start_time_s)}`);
      setText(ongoing, replica.ongoing === null ? '–' : count(replica.ongoing));
      const old = replica.newest ? '' : 'older version';
      const said = [old, replica.message].filter(Boolean).join(': ');
      setText(message, said);
      setHidden(message, said === '');
    },
  };
}
